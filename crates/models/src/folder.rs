//! A checkpoint's folder, or a GGUF file that stands for one. Files come from strangers: every length is
//! bounded before memory is taken.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::error::ImportError;
use crate::gguf::Gguf;

/// How files of a clone without Git LFS begin.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A folder with the files of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The file, where all the others are made from one.
    gguf: Option<Arc<Gguf>>,
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Result<Self, ImportError> {
        if path.is_file() {
            // By the name that was given: links in caches lead to files that are named by digests.
            return Ok(Self {
                path: path.to_owned(),
                gguf: Some(Arc::new(Gguf::open(path)?)),
            });
        }
        let found = std::fs::canonicalize(path);
        let path = found.map_err(|source| ImportError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { path, gguf: None })
    }

    /// The name of a GGUF file in the folder.
    pub(crate) fn gguf_beside(&self) -> Option<String> {
        let files = std::fs::read_dir(&self.path).ok()?;
        let names = files.flatten().map(|file| file.file_name());
        let mut names = names.filter_map(|name| name.into_string().ok());
        names.find(|name| name.ends_with(".gguf"))
    }

    /// The GGUF file that stands for a folder.
    pub(crate) fn gguf(&self) -> Option<&Gguf> {
        self.gguf.as_deref()
    }

    /// Where a file of this name stands. The caller has checked the name if it is not its own.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        match self.gguf {
            Some(_) => self.path.clone(),
            None => self.path.join(file),
        }
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        match &self.gguf {
            Some(gguf) => gguf.file(file).is_some(),
            None => self.path(file).is_file(),
        }
    }

    pub(crate) fn error(&self, file: &str, source: std::io::Error) -> ImportError {
        ImportError::Read {
            path: self.path(file),
            source,
        }
    }

    /// A file's content; one above `max` bytes is refused, also if it grows meanwhile.
    pub(crate) fn read(&self, file: &str, max: u64) -> Result<Vec<u8>, ImportError> {
        if let Some(gguf) = &self.gguf {
            return made(gguf, file, max);
        }
        let opened = std::fs::File::open(self.path(file));
        let opened = opened.map_err(|error| self.error(file, error))?;
        let mut bytes = Vec::new();
        let read = opened.take(max + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| self.error(file, error))? as u64;
        if bytes.starts_with(LFS_POINTER) {
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

/// A file that was made from a GGUF file's metadata.
fn made(gguf: &Gguf, file: &str, max: u64) -> Result<Vec<u8>, ImportError> {
    let Some(bytes) = gguf.file(file) else {
        return Err(ImportError::corrupt(
            gguf.name(),
            format!("it has nothing for {file}"),
        ));
    };
    if bytes.len() as u64 > max {
        return Err(ImportError::TooLong {
            file: format!("{file} of {}", gguf.name()),
            bytes: bytes.len() as u64,
            max,
        });
    }
    Ok(bytes.to_vec())
}
