//! The pools that a worker has left for good, and why, in a small file beside its key: a restart does not make it go back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::BrokenPromise;

/// The longest file that is read: each pool is a line.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Pools that are remembered. A worker knows a handful.
const POOLS_MAX: usize = 1_024;

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LeftPoolsError {
    /// It cannot be read or written.
    #[error("cannot use the file of pools that were left, {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "the file of pools that were left, {path}, is damaged; without it the worker goes back to pools that broke their \
         word. Move it away to begin anew"
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// The pools that were left, by the worker's name for them.
#[derive(Debug)]
pub struct LeftPools {
    path: PathBuf,
    reasons: BTreeMap<String, String>,
}

impl LeftPools {
    /// Reads the file; there is none before the first one is left.
    ///
    /// # Errors
    /// [`LeftPoolsError`] for a file that cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, LeftPoolsError> {
        let path = path.to_owned();
        let io = |source| LeftPoolsError::Io {
            path: path.clone(),
            source,
        };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reasons = BTreeMap::new();
                return Ok(Self { path, reasons });
            }
            Err(error) => return Err(io(error)),
            Ok(file) if file.len() > FILE_BYTES_MAX => {
                return Err(LeftPoolsError::Content { path });
            }
            Ok(_) => fs::read(&path).map_err(io)?,
        };
        match serde_json::from_slice(&bytes) {
            Ok(reasons) => Ok(Self { path, reasons }),
            Err(_) => Err(LeftPoolsError::Content { path }),
        }
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the pool was left, if it was.
    pub fn reason(&self, pool: &str) -> Option<&str> {
        self.reasons.get(pool).map(String::as_str)
    }

    /// Remembers that the pool broke its word, and how.
    pub fn leave(&mut self, pool: &str, promise: BrokenPromise) {
        if self.reasons.len() >= POOLS_MAX && !self.reasons.contains_key(pool) {
            tracing::error!(path = %self.path.display(), "too many pools were left to remember another one");
            return;
        }
        self.reasons.insert(pool.to_owned(), promise.to_string());
        // What is in memory holds until a restart.
        if let Err(error) = self.write() {
            tracing::error!(path = %self.path.display(), %error, "cannot write the file of pools that were left");
        }
    }

    fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut file = File::create(&name)?;
        file.write_all(&serde_json::to_vec_pretty(&self.reasons)?)?;
        // Whole or not at all, whatever happens to the machine.
        file.sync_all()?;
        fs::rename(&name, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_broke_its_word_is_left_and_stays_left_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/worker.left");
        let mut left = LeftPools::load(&path).unwrap();
        assert_eq!(left.reason("pool"), None);
        left.leave("pool", BrokenPromise::Unexplained(3));
        let left = LeftPools::load(&path).unwrap();
        assert!(left.reason("pool").unwrap().contains("3 claims in a row"));
        assert_eq!(left.reason("another"), None);
    }

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("left");
        for content in ["", "[]", r#"{"pool":7}"#] {
            fs::write(&path, content).unwrap();
            let refused = LeftPools::load(&path);
            assert!(matches!(refused, Err(LeftPoolsError::Content { .. })));
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
