//! The model file: safetensors, so that common tools open it. The manifest stands in its metadata;
//! names, types and shapes of the tensors follow from the manifest, and a file that differs in one
//! is refused. All integers are little-endian.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use dovetail_commitment::{ModelId, tagged_hash};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorView};

use crate::arith::VALUE_MAX;
use crate::head::{Head, MANIFEST_BYTES_MAX, MANIFEST_KEY, model_id};
use crate::matrix::Matrix;
use crate::model::{Architecture, Layer, Manifest, Model, Tensors, TokenizerKind};
use crate::scale::RowScale;
use crate::tokenizer::Tokenizer;
use crate::{ENGINE_VERSION, EngineError};

/// The largest `tokenizer.json` in use has some 20 MB.
pub(crate) const TOKENIZER_BYTES_MAX: usize = 64 << 20;
/// The name of the tokenizer's file among the tensors.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// What a model file is made of, before it is hashed and named.
#[derive(Debug, Clone)]
pub struct Parts {
    /// A name for people.
    pub name: String,
    /// The sizes.
    pub architecture: Architecture,
    /// A `tokenizer.json`; `None` for the byte tokenizer.
    pub tokenizer: Option<Vec<u8>>,
    /// Tokens that end an output.
    pub end_tokens: Vec<u32>,
    /// The chat template; empty where there is none.
    pub chat_template: String,
    /// The bytes of each tensor of [`tensor_names`].
    pub tensors: BTreeMap<String, Vec<u8>>,
}

/// One tensor that a file must have.
struct Spec {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Spec {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.dtype.bitsize() == 8 { 1 } else { 4 }
    }
}

/// The names of a model's tensors, in the order in which they are hashed, with their sizes in bytes.
pub fn tensor_names(arch: &Architecture) -> Vec<(String, usize)> {
    let specs = specs(arch).into_iter();
    specs
        .map(|spec| (spec.name.clone(), spec.bytes()))
        .collect()
}

/// The scale of a row of weights as it stands in a file: `mantissa / 2^(23 + exponent)`, where
/// 2^23 <= mantissa < 2^24 and exponent <= 40. `None` outside of those.
pub fn scale_bits(mantissa: u32, exponent: u32) -> Option<u32> {
    let in_range = mantissa >> 23 == 1 && exponent <= 40;
    in_range.then_some(exponent << 24 | (mantissa & 0xff_ffff))
}

fn specs(arch: &Architecture) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut matrix = |name: &str, rows: usize, columns: usize, bias: bool| {
        let mut spec = |part: &str, dtype, shape| {
            specs.push(Spec {
                name: format!("{name}.{part}"),
                dtype,
                shape,
            });
        };
        spec("weight", Dtype::I8, vec![rows, columns]);
        spec("scale", Dtype::U32, vec![rows]);
        if bias {
            spec("bias", Dtype::I32, vec![rows]);
        }
    };
    let (dim, bias) = (arch.dim, arch.attention_bias);
    matrix("model.embed_tokens", arch.vocabulary, dim, false);
    for layer in 0..arch.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}_proj");
        matrix(&name("self_attn.q"), arch.query_dim(), dim, bias);
        matrix(&name("self_attn.k"), arch.kv_dim(), dim, bias);
        matrix(&name("self_attn.v"), arch.kv_dim(), dim, bias);
        matrix(&name("self_attn.o"), dim, arch.query_dim(), false);
        matrix(&name("mlp.gate"), arch.hidden_dim, dim, false);
        matrix(&name("mlp.up"), arch.hidden_dim, dim, false);
        matrix(&name("mlp.down"), dim, arch.hidden_dim, false);
    }
    if !arch.tied_head {
        matrix("lm_head", arch.vocabulary, dim, false);
    }
    for name in ["rotary.cos", "rotary.sin"] {
        specs.push(Spec {
            name: name.to_owned(),
            dtype: Dtype::I32,
            shape: vec![arch.context_tokens, arch.head_dim / 2],
        });
    }
    specs
}

fn tensor_digest(name: &str, bytes: &[u8]) -> [u8; 32] {
    tagged_hash("dovetail/tensor", &[name.as_bytes(), &[0], bytes])
}

impl Parts {
    /// The model's manifest, checked.
    ///
    /// # Errors
    /// [`EngineError`] where a tensor is missing, too many or not as long as it must be, or the sizes
    /// are none that the engine runs.
    pub fn manifest(&self) -> Result<Manifest, EngineError> {
        self.architecture.check()?;
        let specs = specs(&self.architecture);
        if specs.len() != self.tensors.len() {
            return Err(EngineError::Format("there are tensors too many"));
        }
        let mut digests = Vec::new();
        for spec in &specs {
            let bytes = self.tensors.get(&spec.name);
            let Some(bytes) = bytes.filter(|bytes| bytes.len() == spec.bytes()) else {
                return Err(EngineError::Format(
                    "a tensor is missing or has another size",
                ));
            };
            digests.extend(tensor_digest(&spec.name, bytes));
        }
        if let Some(json) = &self.tokenizer {
            digests.extend(tensor_digest(TOKENIZER, json));
        }
        let manifest = Manifest {
            name: self.name.clone(),
            architecture: self.architecture,
            tensors_digest: tagged_hash("dovetail/tensors", &[&digests]),
            tokenizer: match self.tokenizer {
                None => TokenizerKind::Bytes,
                Some(_) => TokenizerKind::HuggingFace,
            },
            end_tokens: self.end_tokens.clone(),
            chat_template: self.chat_template.clone(),
            engine_version: ENGINE_VERSION,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The id that the model will have. Hashes all tensors.
    ///
    /// # Errors
    /// As [`Parts::manifest`].
    pub fn id(&self) -> Result<ModelId, EngineError> {
        Ok(model_id(&self.manifest_text()?))
    }

    fn manifest_text(&self) -> Result<String, EngineError> {
        let text = serde_json::to_string(&self.manifest()?)
            .map_err(|_| EngineError::Format("the manifest does not serialise"))?;
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(EngineError::Format("the manifest is too long"));
        }
        Ok(text)
    }

    /// The bytes of the model file.
    ///
    /// # Errors
    /// As [`Parts::manifest`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EngineError> {
        let (metadata, views) = self.safetensors()?;
        safetensors::serialize(views, Some(metadata))
            .map_err(|_| EngineError::Format("the tensors do not make a safetensors file"))
    }

    /// Writes the model file without holding it in memory twice.
    ///
    /// # Errors
    /// As [`Parts::manifest`]; [`EngineError::Read`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), EngineError> {
        let (metadata, views) = self.safetensors()?;
        safetensors::serialize_to_file(views, Some(metadata), path)
            .map_err(|error| EngineError::Read(std::io::Error::other(error.to_string())))
    }

    #[allow(clippy::type_complexity)]
    fn safetensors(
        &self,
    ) -> Result<(HashMap<String, String>, Vec<(String, TensorView<'_>)>), EngineError> {
        let manifest = self.manifest_text()?;
        let mut specs = specs(&self.architecture);
        specs.extend(self.tokenizer.iter().map(|json| Spec {
            name: TOKENIZER.to_owned(),
            dtype: Dtype::U8,
            shape: vec![json.len()],
        }));
        let view = |spec: Spec| {
            let bytes = self.tensors.get(&spec.name).or(self.tokenizer.as_ref());
            let bytes = bytes.map_or(&[][..], Vec::as_slice);
            TensorView::new(spec.dtype, spec.shape, bytes)
                .map(|view| (spec.name, view))
                .map_err(|_| EngineError::Format("a tensor has another size"))
        };
        let views = specs.into_iter().map(view).collect::<Result<_, _>>()?;
        Ok((HashMap::from([(MANIFEST_KEY.to_owned(), manifest)]), views))
    }
}

/// Reads a model tensor by tensor.
pub(crate) fn read(mut file: impl Read + Seek) -> Result<Model, EngineError> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let head = Head::read(&mut file)?;
    if head.file_bytes() != length {
        return Err(EngineError::Format(
            "the file is not as long as its header says",
        ));
    }
    let id = head.id();
    let Head {
        manifest,
        header,
        data_from,
        ..
    } = head;
    let mut reader = Reader {
        file,
        header: &header,
        data_from,
        digests: Vec::new(),
        read: 0,
    };
    let (tensors, tokenizer) = reader.tensors(&manifest)?;
    if reader.read != header.tensors().len() {
        return Err(EngineError::Format("there are tensors too many"));
    }
    if tagged_hash("dovetail/tensors", &[&reader.digests]) != manifest.tensors_digest {
        return Err(EngineError::Format(
            "the tensors are not those of the manifest",
        ));
    }
    Ok(Model {
        id,
        manifest,
        tensors,
        tokenizer,
    })
}

/// The tensors of a file, taken in the order in which they are hashed.
struct Reader<'a, F> {
    file: F,
    header: &'a Metadata,
    data_from: u64,
    digests: Vec<u8>,
    read: usize,
}

impl<F: Read + Seek> Reader<'_, F> {
    fn tensors(&mut self, manifest: &Manifest) -> Result<(Tensors, Tokenizer), EngineError> {
        let arch = &manifest.architecture;
        let mut specs = specs(arch).into_iter();
        let embedding = self.matrix(&mut specs, false)?;
        let mut layers = Vec::with_capacity(arch.layers);
        for _ in 0..arch.layers {
            let bias = arch.attention_bias;
            layers.push(Layer {
                query: self.matrix(&mut specs, bias)?,
                key: self.matrix(&mut specs, bias)?,
                value: self.matrix(&mut specs, bias)?,
                output: self.matrix(&mut specs, false)?,
                gate: self.matrix(&mut specs, false)?,
                up: self.matrix(&mut specs, false)?,
                down: self.matrix(&mut specs, false)?,
            });
        }
        let head = if arch.tied_head {
            None
        } else {
            Some(self.matrix(&mut specs, false)?)
        };
        let cos = self.integers(&mut specs, 1 << 30)?;
        let sin = self.integers(&mut specs, 1 << 30)?;
        let tokenizer = match manifest.tokenizer {
            TokenizerKind::Bytes => Tokenizer::by_bytes(),
            TokenizerKind::HuggingFace => {
                let json = self.tokenizer_json()?;
                Tokenizer::from_json(&json, arch.vocabulary)?
            }
        };
        let tensors = Tensors {
            embedding,
            layers,
            head,
            cos,
            sin,
        };
        Ok((tensors, tokenizer))
    }

    fn matrix(
        &mut self,
        specs: &mut impl Iterator<Item = Spec>,
        bias: bool,
    ) -> Result<Matrix, EngineError> {
        let spec = specs.next().ok_or(MISSING)?;
        let columns = spec.shape.last().copied().unwrap_or(1);
        // The same memory: bytes become signed in place.
        let weights: Vec<i8> = self
            .bytes(&spec)?
            .into_iter()
            .map(u8::cast_signed)
            .collect();
        if weights.contains(&i8::MIN) {
            return Err(EngineError::Format("a weight is below -127"));
        }
        let scales = self.words(specs)?.into_iter();
        let scales = scales.map(RowScale::from_bits).collect::<Result<_, _>>()?;
        let bias = if bias {
            self.integers(specs, VALUE_MAX)?
        } else {
            Vec::new()
        };
        Ok(Matrix::new(columns, weights, scales, bias))
    }

    /// Integers of this magnitude at most.
    fn integers(
        &mut self,
        specs: &mut impl Iterator<Item = Spec>,
        max: i32,
    ) -> Result<Vec<i32>, EngineError> {
        let values: Vec<i32> = self
            .words(specs)?
            .into_iter()
            .map(u32::cast_signed)
            .collect();
        if values.iter().any(|value| !(-max..=max).contains(value)) {
            return Err(EngineError::Format("a bias or an angle is out of bounds"));
        }
        Ok(values)
    }

    fn words(&mut self, specs: &mut impl Iterator<Item = Spec>) -> Result<Vec<u32>, EngineError> {
        let bytes = self.bytes(&specs.next().ok_or(MISSING)?)?;
        let words = bytes.as_chunks::<4>().0.iter();
        Ok(words.map(|word| u32::from_le_bytes(*word)).collect())
    }

    fn tokenizer_json(&mut self) -> Result<Vec<u8>, EngineError> {
        let length = self.header.info(TOKENIZER).ok_or(MISSING)?.shape.clone();
        if length.iter().product::<usize>() > TOKENIZER_BYTES_MAX {
            return Err(EngineError::Format("the tokenizer is too long"));
        }
        self.bytes(&Spec {
            name: TOKENIZER.to_owned(),
            dtype: Dtype::U8,
            shape: length,
        })
    }

    fn bytes(&mut self, spec: &Spec) -> Result<Vec<u8>, EngineError> {
        let info = self.header.info(&spec.name).ok_or(MISSING)?;
        if info.dtype != spec.dtype || info.shape != spec.shape {
            return Err(EngineError::Format("a tensor has another type or shape"));
        }
        let (from, to) = info.data_offsets;
        // The header was checked against the file's length, so this is no more than there is.
        let mut bytes = vec![0; to.saturating_sub(from)];
        if bytes.len() != spec.bytes() {
            return Err(EngineError::Format("a tensor has another size"));
        }
        self.file
            .seek(SeekFrom::Start(self.data_from + from as u64))?;
        self.file.read_exact(&mut bytes)?;
        self.digests.extend(tensor_digest(&spec.name, &bytes));
        self.read += 1;
        Ok(bytes)
    }
}

const MISSING: EngineError = EngineError::Format("a tensor is missing");
