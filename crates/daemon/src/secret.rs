//! Secrets of a configuration: they come from files or the environment, and are never shown.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::secret_file::exposure;

/// A secret that came from the configuration: given in place (only sensible through the
/// environment) or as `{ file = "path" }`. Its `Debug` shows nothing.
#[derive(Clone, serde::Deserialize)]
#[serde(untagged)]
pub enum Secret {
    /// The secret itself.
    Value(String),
    /// The file that holds it; surrounding white space is dropped.
    File {
        /// Where the secret lies.
        file: PathBuf,
    },
}

impl Secret {
    /// The secret's text.
    ///
    /// # Errors
    /// [`ConfigError::Exposed`] where others may use its file, [`ConfigError::Secret`] where it cannot be read.
    pub fn read(&self) -> Result<String, ConfigError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File { file } => {
                if let Some(exposure) = exposure(file) {
                    return Err(ConfigError::Exposed(exposure));
                }
                std::fs::read_to_string(file)
                    .map(|text| text.trim().to_owned())
                    .map_err(|source| unreadable(file, source))
            }
        }
    }

    /// Whether the text itself is a secret. The URL of a database is one only with a password in it.
    pub(crate) fn is_worth_hiding(&self) -> bool {
        let Self::Value(value) = self else {
            return false;
        };
        let Some((_, rest)) = value.split_once("://") else {
            return true;
        };
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let user = host.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || rest.contains("password=")
    }

    /// The secret as a key of 32 bytes. A file that is not there is made first, with a random key
    /// and for its owner only; two daemons that share the file and start at once get the same key.
    ///
    /// # Errors
    /// [`ConfigError::Secret`] where its file cannot be read or made, [`ConfigError::NotAKey`].
    pub fn read_or_make_key(&self) -> Result<[u8; 32], ConfigError> {
        if let Self::File { file } = self
            && !file.exists()
        {
            make_key(file).map_err(|source| unreadable(file, source))?;
        }
        self.read_key()
    }

    /// The same of a file that is there, for whoever only looks: `None` where it is yet to be made.
    ///
    /// # Errors
    /// [`ConfigError::Secret`] where its file cannot be read, [`ConfigError::NotAKey`].
    pub fn look_at_key(&self) -> Result<Option<[u8; 32]>, ConfigError> {
        match self {
            Self::File { file } if !file.exists() => Ok(None),
            _ => self.read_key().map(Some),
        }
    }

    fn read_key(&self) -> Result<[u8; 32], ConfigError> {
        let mut key = [0; 32];
        hex::decode_to_slice(self.read()?.trim(), &mut key).map_err(|_| ConfigError::NotAKey {
            place: match self {
                Self::Value(_) => "the configuration".to_owned(),
                Self::File { file } => file.display().to_string(),
            },
        })?;
        Ok(key)
    }
}

fn unreadable(file: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Secret {
        path: file.to_owned(),
        source,
    }
}

/// Puts a new key there, whole or not at all, unless another process was faster.
fn make_key(file: &Path) -> std::io::Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(format!(".{:016x}", rand::random::<u64>()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut handle| {
            writeln!(handle, "{}", hex::encode(rand::random::<[u8; 32]>()))?;
            handle.sync_all()?;
            // Unlike a renaming, this fails if the name is taken by now.
            std::fs::hard_link(&partial, file)
        });
    let _ = std::fs::remove_file(&partial);
    match written {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_read_from_its_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hidden\n").unwrap();
        let secret = Secret::File {
            file: file.path().to_owned(),
        };
        assert_eq!(secret.read().unwrap(), "hidden");
        assert!(!format!("{:?}", Secret::Value("hidden".into())).contains("hidden"));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_and_its_text_is_not_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hidden\n").unwrap();
        let place = file.path().to_owned();
        let secret = Secret::File {
            file: place.clone(),
        };
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o644)).unwrap();
        for refused in [
            secret.read().unwrap_err(),
            secret.read_or_make_key().unwrap_err(),
            secret.look_at_key().unwrap_err(),
        ] {
            assert!(matches!(refused, ConfigError::Exposed(_)), "{refused}");
            let words = refused.to_string();
            assert!(
                words.contains("chmod 600") && !words.contains("hidden"),
                "{words}"
            );
        }
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secret.read().unwrap(), "hidden");
    }

    #[test]
    fn a_url_is_a_secret_only_with_a_password_in_it() {
        for (value, is_secret) in [
            ("0101", true),
            ("postgres://pool@localhost/pool?host=/run/postgresql", false),
            ("postgres://localhost/pool", false),
            ("postgres://pool:hidden@localhost/pool", true),
            ("postgres://localhost/pool?password=hidden", true),
        ] {
            let secret = Secret::Value(value.into());
            assert_eq!(secret.is_worth_hiding(), is_secret, "{value}");
        }
    }

    #[test]
    fn looking_at_a_key_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::File {
            file: dir.path().join("token.key"),
        };
        assert_eq!(secret.look_at_key().unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let made = secret.read_or_make_key().unwrap();
        assert_eq!(secret.look_at_key().unwrap(), Some(made));
    }

    #[test]
    fn a_key_file_that_is_not_there_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token.key");
        let secret = Secret::File { file: file.clone() };
        let keys: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| secret.read_or_make_key()))
                .collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap())
                .collect()
        });
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kept = secret.read_or_make_key().unwrap();
        for key in keys {
            assert_eq!(key.unwrap(), kept);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in ["", "hidden", &"ab".repeat(31), &"zz".repeat(32)] {
            let error = Secret::Value(text.into()).read_or_make_key().unwrap_err();
            assert!(!error.to_string().contains("hidden"));
        }
        let key = Secret::Value("ab".repeat(32)).read_or_make_key();
        assert_eq!(key.unwrap(), [0xab; 32]);
        let nowhere = Secret::File {
            file: "/nonexistent/folder/token.key".into(),
        };
        assert!(nowhere.read_or_make_key().is_err());
    }
}
