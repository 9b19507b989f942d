//! The worker's key pair. It is what the pool credits, so it is made once and kept in a file that
//! only its owner can read.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bitcoin::secp256k1::rand::rngs::OsRng;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use dovetail_commitment::WorkerKey;
use dovetail_sv2::{AuthorityKeys, AuthoritySecretKey};

/// Why there is no key. Never repeats the content of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot use the key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds no secret key of 32 bytes in hex.
    #[error("the key file {path} holds no key")]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read it.
    #[error("the key file {path} can be read by others; make it mode 0600")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// A key pair and its public name.
#[derive(Clone)]
pub struct WorkerKeys {
    /// The pair that signs.
    pub pair: Keypair,
    /// The x-only key by which the pool knows the worker.
    pub name: WorkerKey,
}

impl std::fmt::Debug for WorkerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkerKeys({})", self.name)
    }
}

impl WorkerKeys {
    fn from_secret(secret: &SecretKey) -> Self {
        let pair = Keypair::from_secret_key(&Secp256k1::new(), secret);
        let name = WorkerKey::from_bytes(pair.x_only_public_key().0.serialize());
        Self { pair, name }
    }

    /// A fresh pair that is kept nowhere.
    pub fn generate() -> Self {
        Self::from_secret(&SecretKey::new(&mut OsRng))
    }

    /// The pair in the file, or a fresh one written to it with mode 0600 if there is no such file.
    ///
    /// # Errors
    /// A file that cannot be used, or that others can read.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let fresh = || Self::generate().pair.secret_key();
        let text = secret_file(path, || fresh().display_secret().to_string())?;
        let secret = text.parse().map_err(|_| content(path))?;
        Ok(Self::from_secret(&secret))
    }
}

/// The authority keys in the file, or fresh ones written to it with mode 0600 if there is no such
/// file. The file holds the secret half in the base58check form that other Sv2 software reads.
///
/// # Errors
/// A file that cannot be used, or that others can read.
pub fn authority_keys(path: &Path) -> Result<AuthorityKeys, KeyFileError> {
    let text = secret_file(path, || AuthoritySecretKey::generate().reveal())?;
    let secret: AuthoritySecretKey = text.parse().map_err(|_| content(path))?;
    Ok(AuthorityKeys::from_secret(secret))
}

fn content(path: &Path) -> KeyFileError {
    KeyFileError::Content {
        path: path.to_owned(),
    }
}

/// The text of a file that only its owner can read; made from `fresh` if it is absent.
fn secret_file(path: &Path, fresh: impl FnOnce() -> String) -> Result<String, KeyFileError> {
    let io = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let mode = std::fs::metadata(path).map_err(io)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(KeyFileError::Exposed {
                    path: path.to_owned(),
                });
            }
            Ok(text.trim().to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = fresh();
            create(path, &text).map_err(io)?;
            Ok(text)
        }
        Err(error) => Err(io(error)),
    }
}

fn create(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    // `create_new`: two workers that start at once must not each think theirs was kept.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/worker.key");
        let made = WorkerKeys::load_or_create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(WorkerKeys::load_or_create(&path).unwrap().name, made.name);
    }

    #[test]
    fn an_exposed_or_foreign_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.key");
        std::fs::write(&path, "not a key").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = WorkerKeys::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Content { .. }));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = WorkerKeys::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Exposed { .. }));
    }
}
