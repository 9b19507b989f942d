//! What this node was asked to pay: one small file per payment hash, written whole and synced
//! before LDK hears of the payment. LDK's own memory of payments can forget; this does not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dovetail_lightning::{PaymentStatus, Preimage};

/// The folder of records.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The payment's status; `Unknown` if this hash was never recorded.
    pub(crate) fn get(&self, hash: &[u8; 32]) -> io::Result<PaymentStatus> {
        match std::fs::read(self.path(hash)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PaymentStatus::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Notes that the hash is about to be paid; `false` if it was noted before.
    pub(crate) fn begin(&self, hash: &[u8; 32]) -> io::Result<bool> {
        if self.get(hash)? != PaymentStatus::Unknown {
            return Ok(false);
        }
        self.put(hash, &PaymentStatus::Pending)?;
        Ok(true)
    }

    /// Notes how a payment ended. A success is never taken back.
    pub(crate) fn end(&self, hash: &[u8; 32], status: &PaymentStatus) -> io::Result<()> {
        if matches!(self.get(hash)?, PaymentStatus::Succeeded { .. }) {
            return Ok(());
        }
        self.put(hash, status)
    }

    fn put(&self, hash: &[u8; 32], status: &PaymentStatus) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(hash);
        let partial = path.with_extension("partial");
        // Preimages are proofs of payment: for our eyes only.
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&serde_json::to_vec(status)?)?;
        file.sync_all()?;
        std::fs::rename(&partial, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder.join(hex::encode(hash))
    }
}

/// A success as it is recorded.
pub(crate) fn succeeded(fee_msat: u64, preimage: [u8; 32]) -> PaymentStatus {
    PaymentStatus::Succeeded {
        fee_msat,
        preimage: Preimage(preimage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_begun_once_and_a_success_is_never_taken_back() -> io::Result<()> {
        let folder = std::env::temp_dir().join(format!("dovetail-records-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let records = Records::open(&folder)?;
        let hash = [7; 32];
        assert_eq!(records.get(&hash)?, PaymentStatus::Unknown);
        assert!(records.begin(&hash)?);
        let records = Records::open(&folder)?;
        assert!(!records.begin(&hash)?);
        assert_eq!(records.get(&hash)?, PaymentStatus::Pending);
        records.end(&hash, &succeeded(3, [1; 32]))?;
        records.end(&hash, &PaymentStatus::Failed)?;
        assert_eq!(records.get(&hash)?, succeeded(3, [1; 32]));
        std::fs::remove_dir_all(&folder)
    }
}
