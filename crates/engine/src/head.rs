//! The head of a model file: enough to know which model it is and how long the file must be, before a
//! tensor is read or fetched.

use std::io::{ErrorKind, Read};
use std::path::Path;

use dovetail_commitment::{ModelId, tagged_hash};
use safetensors::tensor::Metadata;

use crate::EngineError;
use crate::layout::{TOKENIZER, TOKENIZER_BYTES_MAX, tensor_names};
use crate::manifest::{Manifest, TokenizerKind};

/// Where the manifest stands in the metadata.
pub(crate) const MANIFEST_KEY: &str = "dovetail";
/// A manifest has a few hundred bytes; chat templates may add some thousand.
pub(crate) const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// A header names up to 2,000 tensors in some 120 bytes each, and holds the manifest.
const HEADER_BYTES_MAX: u64 = 4 << 20;
/// The length of the header stands before it.
const LENGTH_BYTES: u64 = 8;
/// A file that was cut off, or that something follows.
pub(crate) const WRONG_LENGTH: EngineError =
    EngineError::Format("the file is not as long as its header says");

/// What stands before the tensors, checked against itself. That the tensors are those of the manifest only
/// [`crate::Model::load`] knows.
#[derive(Debug)]
pub struct Head {
    id: ModelId,
    pub(crate) manifest: Manifest,
    pub(crate) header: Metadata,
    /// Where the tensors begin.
    pub(crate) data_from: u64,
}

impl Head {
    /// The most bytes that a head has.
    pub const BYTES_MAX: u64 = LENGTH_BYTES + HEADER_BYTES_MAX;

    /// Reads the head from the front of a file, and no more of it; at most [`Head::BYTES_MAX`].
    ///
    /// # Errors
    /// [`EngineError::Format`] for anything else and for a file that ends too early;
    /// [`EngineError::Unsupported`] for a model that this engine does not run.
    pub fn read(file: &mut impl Read) -> Result<Self, EngineError> {
        let mut length = [0; LENGTH_BYTES as usize];
        fill(file, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES_MAX {
            return Err(NO_HEADER);
        }
        let mut header = vec![0; usize::try_from(length).unwrap_or(0)];
        fill(file, &mut header)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|_| EngineError::Format("the safetensors header does not parse"))?;
        let text = header.metadata().as_ref();
        let text = text.and_then(|entries| entries.get(MANIFEST_KEY));
        let text = text.ok_or(EngineError::Format("it has no manifest"))?;
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(EngineError::Format("the manifest is too long"));
        }
        let manifest: Manifest = serde_json::from_str(text)
            .map_err(|_| EngineError::Format("the manifest does not parse"))?;
        manifest.check()?;
        check_sizes(&manifest, &header)?;
        Ok(Self {
            id: model_id(text),
            manifest,
            header,
            data_from: LENGTH_BYTES + length,
        })
    }

    /// Reads the head of this file, which must be as long as its head says.
    ///
    /// # Errors
    /// As [`Head::read`], and [`EngineError::Read`].
    pub fn of_file(path: &Path) -> Result<Self, EngineError> {
        let mut file = std::fs::File::open(path)?;
        let head = Self::read(&mut file)?;
        match head.file_bytes() == file.metadata()?.len() {
            true => Ok(head),
            false => Err(WRONG_LENGTH),
        }
    }

    /// The id of the model that the file says it holds.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// What the model is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How long the whole file is.
    pub fn file_bytes(&self) -> u64 {
        self.data_from + self.header.data_len() as u64
    }
}

const NO_HEADER: EngineError = EngineError::Format("no safetensors header");

fn fill(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), EngineError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => NO_HEADER,
        _ => EngineError::Read(error),
    })
}

/// The file has the manifest's tensors and nothing else, so the manifest bounds its length.
fn check_sizes(manifest: &Manifest, header: &Metadata) -> Result<(), EngineError> {
    let wrong = EngineError::Format("the tensors are not as many and as long as the manifest says");
    let names = tensor_names(&manifest.architecture);
    let mut count = names.len();
    let mut bytes: usize = names.iter().map(|(_, bytes)| bytes).sum();
    if manifest.tokenizer == TokenizerKind::HuggingFace {
        let length = header.info(TOKENIZER).map(|info| info.data_offsets);
        let length = length.map_or(0, |(from, to)| to.saturating_sub(from));
        if length > TOKENIZER_BYTES_MAX {
            return Err(EngineError::Format("the tokenizer is too long"));
        }
        count += 1;
        bytes = bytes.saturating_add(length);
    }
    if header.tensors().len() != count || header.data_len() != bytes {
        return Err(wrong);
    }
    Ok(())
}

/// A model's id: of the manifest as it stands.
pub(crate) fn model_id(manifest: &str) -> ModelId {
    ModelId::from_bytes(tagged_hash("dovetail/model", &[manifest.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, tiny};

    #[test]
    fn a_head_tells_the_model_and_the_length_of_its_file() {
        let file = tiny::generate(1);
        let mut rest = file.as_slice();
        let head = Head::read(&mut rest).unwrap();
        assert_eq!(head.id(), Model::from_bytes(&file).unwrap().id());
        assert_eq!(head.file_bytes(), file.len() as u64);
        assert_eq!((file.len() - rest.len()) as u64, head.data_from);
    }

    #[test]
    fn a_head_that_is_cut_or_names_other_sizes_is_refused() {
        let file = tiny::generate(1);
        let head = Head::read(&mut file.as_slice()).unwrap();
        let end = usize::try_from(head.data_from).unwrap();
        for length in [0, 7, 8, end - 1] {
            let cut = Head::read(&mut &file[..length]);
            assert!(matches!(cut, Err(EngineError::Format(_))), "{length}");
        }
        let header = std::str::from_utf8(&file[8..end]).unwrap();
        let (real, other) = ("context_tokens\\\":1024", "context_tokens\\\":1023");
        assert!(header.contains(real));
        let forged = header.replace(real, other);
        let forged = [&file[..8], forged.as_bytes()].concat();
        assert!(Head::read(&mut forged.as_slice()).is_err());
    }
}
