//! A checkpoint's folder. Files come from strangers: every length is bounded before memory is taken.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::ImportError;

/// A folder with the files of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Result<Self, ImportError> {
        let found = std::fs::canonicalize(path);
        let path = found.map_err(|source| ImportError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(path))
    }

    /// Where a file of this name stands. The caller has checked the name if it is not its own.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.path(file).is_file()
    }

    pub(crate) fn error(&self, file: &str, source: std::io::Error) -> ImportError {
        ImportError::Read {
            path: self.path(file),
            source,
        }
    }

    /// A file's content; one above `max` bytes is refused, also if it grows meanwhile.
    pub(crate) fn read(&self, file: &str, max: u64) -> Result<Vec<u8>, ImportError> {
        let opened = std::fs::File::open(self.path(file));
        let opened = opened.map_err(|error| self.error(file, error))?;
        let mut bytes = Vec::new();
        let read = opened.take(max + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| self.error(file, error))? as u64;
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(ImportError::LfsPointer(file.to_owned()));
        }
        if read > max {
            return Err(ImportError::TooLong {
                file: file.to_owned(),
                bytes: read,
                max,
            });
        }
        Ok(bytes)
    }

    /// A JSON file that need not be there.
    pub(crate) fn json_if_there<T: DeserializeOwned>(
        &self,
        file: &str,
        max: u64,
    ) -> Result<Option<T>, ImportError> {
        if !self.has(file) {
            return Ok(None);
        }
        let bytes = self.read(file, max)?;
        let parsed = serde_json::from_slice(&bytes);
        parsed
            .map(Some)
            .map_err(|error| ImportError::corrupt(file, error))
    }
}
