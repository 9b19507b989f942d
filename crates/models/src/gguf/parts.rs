//! A GGUF file's parts as they stand in it, by llama.cpp's names: for those who write such a file anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::head::PAIRS_FROM;
use super::{Metadata, Tensor, open, place};
use crate::error::ImportError;

/// A file's metadata, and its tensors one by one.
#[derive(Debug)]
pub struct GgufParts {
    path: PathBuf,
    file: File,
    pairs: usize,
    metadata: Vec<u8>,
    tensors: BTreeMap<String, Tensor>,
}

impl GgufParts {
    /// Opens a file and holds its head against its length.
    ///
    /// # Errors
    /// [`ImportError`] where the file cannot be read, is no whole GGUF file, or has tensors of types that are not read.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let (name, mut file, head, length) = open(path)?;
        let corrupt = |reason: String| ImportError::corrupt(&name, reason);
        let (pairs, bytes) = (head.pairs.len(), head.pairs_to - PAIRS_FROM);
        let metadata = Metadata(head.pairs);
        let tensors = place(&metadata, &head.lines, head.bytes, length, &corrupt)?;
        // As long as the head, which was read with a bound.
        let mut raw = vec![0; usize::try_from(bytes).unwrap_or(0)];
        read_at(&mut file, PAIRS_FROM, &mut raw, path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            pairs,
            metadata: raw,
            tensors,
        })
    }

    /// How many pairs of metadata there are, and their bytes.
    pub fn metadata(&self) -> (usize, &[u8]) {
        (self.pairs, &self.metadata)
    }

    /// Names and shapes, the length of a row last.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let tensors = self.tensors.iter();
        tensors.map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
    }

    /// A tensor's numbers: `[rows, columns]`. Empty where there is none of that name.
    ///
    /// # Errors
    /// [`ImportError::Read`].
    pub fn numbers(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Ok(Vec::new());
        };
        let count = tensor.shape.iter().product();
        // That it fits was checked when the file was opened.
        let mut bytes = vec![0; tensor.encoding.bytes(count).unwrap_or(0)];
        read_at(&mut self.file, tensor.offset, &mut bytes, &self.path)?;
        let mut numbers = Vec::with_capacity(count);
        tensor.encoding.decode(&bytes, &mut numbers);
        Ok(numbers)
    }
}

fn read_at(file: &mut File, from: u64, bytes: &mut [u8], path: &Path) -> Result<(), ImportError> {
    file.seek(SeekFrom::Start(from))
        .and_then(|_| file.read_exact(bytes))
        .map_err(|source| ImportError::Read {
            path: path.to_owned(),
            source,
        })
}
