//! The model file: `DVTLMODL`, format version u32, manifest length u32, the manifest as JSON, the
//! tensors in a fixed order. All integers are little-endian; lengths follow from the manifest, and
//! a file that is longer or shorter is refused.

use std::io::Read;

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

/// The bytes of a model file, of which no more are read than its checked manifest says there are.
pub(crate) fn read(mut file: impl Read) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::new();
    let header_max = (MAGIC.len() + 8 + MANIFEST_BYTES_MAX) as u64;
    file.by_ref().take(header_max).read_to_end(&mut bytes)?;
    let mut cursor = Cursor(&bytes);
    let (_, manifest) = header(&mut cursor)?;
    let head = (bytes.len() - cursor.0.len()) as u64;
    let wanted = head + manifest.architecture.tensor_bytes();
    // One byte more, so that a file that is too long is seen to be.
    let left = (wanted + 1).saturating_sub(bytes.len() as u64);
    file.take(left).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, EngineError> {
    let mut cursor = Cursor(bytes);
    let (manifest_bytes, manifest) = header(&mut cursor)?;
    if cursor.0.len() as u64 != manifest.architecture.tensor_bytes() {
        return Err(EngineError::Format(
            "the file is not as long as its manifest says",
        ));
    }
    if tensors_digest(cursor.0) != manifest.tensors_digest {
        return Err(EngineError::Format(
            "the tensors are not those of the manifest",
        ));
    }
    let tensors = tensors(&mut cursor, &manifest.architecture)?;
    Ok(Parsed {
        manifest_bytes,
        manifest,
        tensors,
    })
}

/// The manifest, checked; the cursor stands at the tensors after it.
fn header<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], Manifest), EngineError> {
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
    Ok((manifest_bytes, manifest))
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
        head: if arch.tied_head {
            None
        } else {
            Some(cursor.matrix(arch.vocabulary, dim)?)
        },
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Model, Request, run, tiny};
    use dovetail_commitment::SamplingParams;
    use proptest::prelude::*;

    const SMALL: Architecture = Architecture {
        dim: 8,
        hidden_dim: 12,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        vocabulary: crate::tokenizer::VOCABULARY,
        context_tokens: 16,
        tied_head: false,
    };

    fn manifest(architecture: Architecture, tensors: &[u8]) -> Manifest {
        Manifest {
            name: "hostile".to_owned(),
            architecture,
            tensors_digest: tensors_digest(tensors),
            tokenizer: "bytes".to_owned(),
            chat_template: String::new(),
            engine_version: ENGINE_VERSION,
        }
    }

    fn tensors_of(architecture: Architecture) -> Vec<u8> {
        let bytes = tiny::generate_shape(architecture, "small", 1);
        let len = usize::try_from(architecture.tensor_bytes()).unwrap();
        bytes[bytes.len() - len..].to_vec()
    }

    fn refusal(bytes: &[u8]) -> String {
        Model::from_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_file_round_trips_with_a_head_of_its_own_and_with_a_tied_one() {
        for tied_head in [false, true] {
            let arch = Architecture { tied_head, ..SMALL };
            let bytes = tiny::generate_shape(arch, "small", 1);
            assert_eq!(
                Model::from_bytes(&bytes).unwrap().manifest().architecture,
                arch
            );
            assert_eq!(read(bytes.as_slice()).unwrap(), bytes);
        }
        let tied = Architecture {
            tied_head: true,
            ..SMALL
        };
        let weights = SMALL.vocabulary * SMALL.dim;
        assert_eq!(SMALL.parameters() - tied.parameters(), weights);
    }

    #[test]
    fn no_more_is_read_than_the_manifest_says() {
        let whole = tiny::generate_shape(SMALL, "small", 1);
        let endless = whole.as_slice().chain(std::io::repeat(0));
        assert!(read(endless).unwrap().len() <= whole.len().max(1 << 17));
        assert!(read(std::io::repeat(0)).is_err());
        let large = tiny::generate(1);
        let endless = large.as_slice().chain(std::io::repeat(0));
        let bytes = read(endless).unwrap();
        assert_eq!(bytes.len(), large.len() + 1);
        assert!(refusal(&bytes).contains("as long as its manifest says"));
        let cut = read(&large[..large.len() - 1]).unwrap();
        assert!(refusal(&cut).contains("as long as its manifest says"));
    }

    #[test]
    fn tensors_outside_the_proven_ranges_are_refused_though_their_digest_holds() {
        let good = tensors_of(SMALL);
        let with = |at: usize, bytes: &[u8]| {
            let mut tensors = good.clone();
            tensors[at..at + bytes.len()].copy_from_slice(bytes);
            refusal(&write(&manifest(SMALL, &tensors), &tensors))
        };
        assert!(with(0, &[0x80]).contains("a weight is -128"));
        let gains_at = SMALL.vocabulary * (SMALL.dim + 4);
        let gain = ((1_i32 << 26) + 1).to_le_bytes();
        assert!(with(gains_at, &gain).contains("out of bounds"));
        assert!(with(good.len() - 4, &i32::MIN.to_le_bytes()).contains("out of bounds"));
    }

    #[test]
    fn sizes_without_an_overflow_argument_are_refused() {
        let with = |change: fn(&mut Architecture)| {
            let mut arch = SMALL;
            change(&mut arch);
            refusal(&write(&manifest(arch, &[]), &[]))
        };
        let changes: [fn(&mut Architecture); 12] = [
            |a| a.dim = 16_386,
            |a| a.dim = usize::MAX,
            |a| a.hidden_dim = 32_769,
            |a| a.layers = 129,
            |a| a.layers = 0,
            |a| a.heads = 0,
            |a| a.heads = 3,
            |a| a.heads = 8,
            |a| a.kv_heads = 0,
            |a| a.kv_heads = 4,
            |a| a.vocabulary = 1 << 19,
            |a| a.context_tokens = (1 << 17) + 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert!(with(change).contains("unsupported model"), "change {index}");
        }
    }

    /// Tensors of the largest magnitudes that the format lets through.
    fn extreme(arch: Architecture, bits: &[u8]) -> Vec<u8> {
        let mut bit = bits
            .iter()
            .cycle()
            .flat_map(|byte| (0..8).map(move |n| byte >> n & 1 == 1));
        let mut bit = || bit.next().unwrap_or_default();
        let mut tensors = Vec::new();
        let signed = |bound: i32, positive: bool| if positive { bound } else { -bound };
        let (dim, kv_dim, hidden) = (arch.dim, arch.kv_dim(), arch.hidden_dim);
        let mut matrix = |tensors: &mut Vec<u8>, rows: usize, columns: usize| {
            tensors.extend((0..rows * columns).map(|_| if bit() { 127 } else { 129 }));
            for _ in 0..rows {
                let scale = if bit() { u32::MAX } else { 1 << 24 };
                tensors.extend(scale.to_le_bytes());
            }
        };
        let gains = |tensors: &mut Vec<u8>| {
            for index in 0..dim {
                tensors.extend(signed(1 << 26, index % 3 > 0).to_le_bytes());
            }
        };
        matrix(&mut tensors, arch.vocabulary, dim);
        for _ in 0..arch.layers {
            gains(&mut tensors);
            for (rows, columns) in [(dim, dim), (kv_dim, dim), (kv_dim, dim), (dim, dim)] {
                matrix(&mut tensors, rows, columns);
            }
            gains(&mut tensors);
            for (rows, columns) in [(hidden, dim), (hidden, dim), (dim, hidden)] {
                matrix(&mut tensors, rows, columns);
            }
        }
        gains(&mut tensors);
        matrix(&mut tensors, arch.vocabulary, dim);
        for angle in 0..arch.context_tokens * arch.head_dim() {
            tensors.extend(signed(1 << 30, angle % 5 > 1).to_le_bytes());
        }
        tensors
    }

    fn try_out(model: &Model, temperature_milli: u32) {
        let request = Request {
            prompt_tokens: model.encode(b"any"),
            sampling: SamplingParams {
                temperature_milli,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 64,
            },
            seed: [1; 32],
        };
        assert!(run(model, &request).unwrap().tokens.len() <= 64);
    }

    proptest! {
        #[test]
        fn a_model_of_extreme_tensors_runs_without_overflow(bits in proptest::collection::vec(any::<u8>(), 1..200), temperature in 0_u32..=2000) {
            // The head width is the largest, where scores are.
            let arch = Architecture { dim: 512, hidden_dim: 8, layers: 1, ..SMALL };
            for arch in [SMALL, arch] {
                let tensors = extreme(arch, &bits);
                let model = Model::from_bytes(&write(&manifest(arch, &tensors), &tensors)).unwrap();
                try_out(&model, temperature);
            }
        }

        #[test]
        fn tensors_of_any_bytes_are_refused_or_run(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..100)) {
            let mut tensors = tensors_of(SMALL);
            let len = tensors.len();
            for (at, byte) in changes {
                tensors[at % len] = byte;
            }
            if let Ok(model) = Model::from_bytes(&write(&manifest(SMALL, &tensors), &tensors)) {
                try_out(&model, 1000);
            }
        }

        #[test]
        fn a_damaged_manifest_never_panics(at: usize, byte: u8) {
            let mut bytes = tiny::generate_shape(SMALL, "small", 1);
            let tensors = usize::try_from(SMALL.tensor_bytes()).unwrap();
            let head = bytes.len() - tensors;
            bytes[at % head] = byte;
            let _ = Model::from_bytes(&bytes);
            let _ = read(bytes.as_slice());
        }
    }
}
