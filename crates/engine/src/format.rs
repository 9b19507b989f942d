//! The model file: `DVTLMODL`, format version u32, manifest length u32, the manifest as JSON, the
//! tensors in a fixed order. All integers are little-endian; lengths follow from the manifest, and
//! a file that is longer or shorter is refused.

use dovetail_commitment::tagged_hash;

use crate::matrix::Matrix;
use crate::model::{Architecture, Layer, Manifest, Tensors};
use crate::{ENGINE_VERSION, EngineError};

const MAGIC: &[u8; 8] = b"DVTLMODL";
const FORMAT_VERSION: u32 = 1;
/// A manifest has a few hundred bytes; chat templates may add a few thousand.
const MANIFEST_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct Parsed<'a> {
    pub(crate) manifest_bytes: &'a [u8],
    pub(crate) manifest: Manifest,
    pub(crate) tensors: Tensors,
}

pub(crate) fn tensors_digest(tensors: &[u8]) -> [u8; 32] {
    tagged_hash("dovetail/tensors", &[tensors])
}

/// A model file of these parts. `manifest.tensors_digest` must be theirs.
pub(crate) fn write(manifest: &Manifest, tensors: &[u8]) -> Vec<u8> {
    let manifest = serde_json::to_vec(manifest).expect("a manifest has only plain fields");
    let length = u32::try_from(manifest.len()).expect("a manifest is short");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&manifest);
    bytes.extend_from_slice(tensors);
    bytes
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, EngineError> {
    let mut cursor = Cursor(bytes);
    if cursor.take(MAGIC.len())? != MAGIC {
        return Err(EngineError::Format("the magic is missing"));
    }
    if cursor.u32()? != FORMAT_VERSION {
        return Err(EngineError::Format("unknown format version"));
    }
    let length = cursor.u32()? as usize;
    if length > MANIFEST_BYTES_MAX {
        return Err(EngineError::Format("the manifest is too long"));
    }
    let manifest_bytes = cursor.take(length)?;
    let manifest: Manifest = serde_json::from_slice(manifest_bytes)
        .map_err(|_| EngineError::Format("the manifest does not parse"))?;
    check(&manifest)?;
    if tensors_digest(cursor.0) != manifest.tensors_digest {
        return Err(EngineError::Format(
            "the tensors are not those of the manifest",
        ));
    }
    let tensors = tensors(&mut cursor, &manifest.architecture)?;
    if !cursor.0.is_empty() {
        return Err(EngineError::Format(
            "bytes are left over behind the tensors",
        ));
    }
    Ok(Parsed {
        manifest_bytes,
        manifest,
        tensors,
    })
}

fn check(manifest: &Manifest) -> Result<(), EngineError> {
    if manifest.engine_version != ENGINE_VERSION {
        return Err(EngineError::Unsupported("made for another engine version"));
    }
    if manifest.tokenizer != "bytes" || !manifest.chat_template.is_empty() {
        return Err(EngineError::Unsupported(
            "only the byte tokenizer is built in",
        ));
    }
    if manifest.name.is_empty() || manifest.name.len() > 64 {
        return Err(EngineError::Format("a name has 1 to 64 bytes"));
    }
    manifest.architecture.check()
}

fn tensors(cursor: &mut Cursor<'_>, arch: &Architecture) -> Result<Tensors, EngineError> {
    let (dim, kv_dim, hidden) = (arch.dim, arch.kv_dim(), arch.hidden_dim);
    let angles = arch.context_tokens * arch.head_dim() / 2;
    Ok(Tensors {
        embedding: cursor.matrix(arch.vocabulary, dim)?,
        layers: (0..arch.layers)
            .map(|_| {
                Ok(Layer {
                    attention_norm: cursor.gains(dim)?,
                    query: cursor.matrix(dim, dim)?,
                    key: cursor.matrix(kv_dim, dim)?,
                    value: cursor.matrix(kv_dim, dim)?,
                    output: cursor.matrix(dim, dim)?,
                    feed_norm: cursor.gains(dim)?,
                    gate: cursor.matrix(hidden, dim)?,
                    up: cursor.matrix(hidden, dim)?,
                    down: cursor.matrix(dim, hidden)?,
                })
            })
            .collect::<Result<_, EngineError>>()?,
        final_norm: cursor.gains(dim)?,
        head: cursor.matrix(arch.vocabulary, dim)?,
        cos: cursor.bounded(angles, 1 << 30)?,
        sin: cursor.bounded(angles, 1 << 30)?,
    })
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EngineError> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(EngineError::Format("the file is cut off"))?;
        self.0 = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, EngineError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u32s(&mut self, count: usize) -> Result<impl Iterator<Item = u32> + use<'a>, EngineError> {
        let bytes = self.take(count.saturating_mul(4))?;
        Ok(bytes
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
    }

    /// `i32` values of at most `bound`.
    fn bounded(&mut self, count: usize, bound: u32) -> Result<Vec<i32>, EngineError> {
        let values: Vec<i32> = self.u32s(count)?.map(u32::cast_signed).collect();
        if values.iter().any(|value| value.unsigned_abs() > bound) {
            return Err(EngineError::Format("a table or gain is out of bounds"));
        }
        Ok(values)
    }

    fn gains(&mut self, count: usize) -> Result<Vec<i32>, EngineError> {
        self.bounded(count, 1 << 26)
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Result<Matrix, EngineError> {
        let count = rows
            .checked_mul(columns)
            .ok_or(EngineError::Format("a matrix is too large"))?;
        let weights: Vec<i8> = self.take(count)?.iter().map(|b| b.cast_signed()).collect();
        if weights.contains(&i8::MIN) {
            return Err(EngineError::Format("a weight is -128"));
        }
        Ok(Matrix::new(
            rows,
            columns,
            weights,
            self.u32s(rows)?.collect(),
        ))
    }
}
