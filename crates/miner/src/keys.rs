//! The worker's key pair. It is what the pool credits, so it is made once and kept in a file that
//! only its owner can read.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bitcoin::secp256k1::rand::rngs::OsRng;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use dovetail_commitment::WorkerKey;
use dovetail_daemon::{Exposure, exposure};
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
    #[error("{0}")]
    Exposed(Exposure),
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
        match Self::load(path)? {
            Some(keys) => Ok(keys),
            None => {
                let keys = Self::generate();
                let text = keys.pair.secret_key().display_secret().to_string();
                create(path, &text)?;
                Ok(keys)
            }
        }
    }

    /// The pair in the file, if there is one.
    ///
    /// # Errors
    /// As [`WorkerKeys::load_or_create`].
    pub fn load(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let Some(text) = secret_text(path)? else {
            return Ok(None);
        };
        let secret = text.parse().map_err(|_| content(path))?;
        Ok(Some(Self::from_secret(&secret)))
    }
}

/// The authority keys in the file, or fresh ones written to it with mode 0600 if there is no such
/// file. The file holds the secret half in the base58check form that other Sv2 software reads.
///
/// # Errors
/// A file that cannot be used, or that others can read.
pub fn authority_keys(path: &Path) -> Result<AuthorityKeys, KeyFileError> {
    match load_authority_keys(path)? {
        Some(keys) => Ok(keys),
        None => {
            let secret = AuthoritySecretKey::generate();
            create(path, &secret.reveal())?;
            Ok(AuthorityKeys::from_secret(secret))
        }
    }
}

/// The authority keys in the file, if there is one.
///
/// # Errors
/// As [`authority_keys`].
pub fn load_authority_keys(path: &Path) -> Result<Option<AuthorityKeys>, KeyFileError> {
    let Some(text) = secret_text(path)? else {
        return Ok(None);
    };
    let secret: AuthoritySecretKey = text.parse().map_err(|_| content(path))?;
    Ok(Some(AuthorityKeys::from_secret(secret)))
}

fn content(path: &Path) -> KeyFileError {
    KeyFileError::Content {
        path: path.to_owned(),
    }
}

/// The text of a file that only its owner can read, if there is one.
fn secret_text(path: &Path) -> Result<Option<String>, KeyFileError> {
    if let Some(exposure) = exposure(path) {
        return Err(KeyFileError::Exposed(exposure));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyFileError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn create(path: &Path, text: &str) -> Result<(), KeyFileError> {
    try_create(path, text).map_err(|source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    })
}

fn try_create(path: &Path, text: &str) -> std::io::Result<()> {
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
    use std::os::unix::fs::PermissionsExt;

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
