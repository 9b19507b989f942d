//! Reading a model file tensor by tensor. What its tensors must be, `layout.rs` knows.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use dovetail_commitment::{ModelId, tagged_hash};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::EngineError;
use crate::arith::{RESIDUAL_MAX, VALUE_MAX};
use crate::guides::Guides;
use crate::head::{Head, WRONG_LENGTH};
use crate::layout::{Spec, TOKENIZER, TOKENIZER_BYTES_MAX, specs, tensor_digest};
use crate::manifest::{Manifest, TokenizerKind};
use crate::matrix::Matrix;
use crate::model::{LastMatrix, Layer, Model, Tensors};
use crate::parts::Parts;
use crate::scale::RowScale;
use crate::tied::{GAIN_MAX, TiedHead};
use crate::tokenizer::Tokenizer;
use crate::turn::Turn;

impl Model {
    /// Reads a model file tensor by tensor; one that is not as long as its header says is refused
    /// before its tensors are read. Takes about as much memory as the file.
    ///
    /// # Errors
    /// [`EngineError`] if it cannot be read, or is not a model that this engine runs.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        read(std::io::BufReader::new(std::fs::File::open(path)?))
    }

    /// Parses a model file; see docs/engine.md for its format.
    ///
    /// # Errors
    /// [`EngineError::Format`] or [`EngineError::Unsupported`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        read(std::io::Cursor::new(bytes))
    }

    /// The model that a file of these parts would hold, without making the file. Copies the tensors.
    ///
    /// # Errors
    /// As [`Parts::manifest`] and [`Model::from_bytes`].
    pub fn from_parts(parts: &Parts) -> Result<Self, EngineError> {
        let manifest = parts.manifest()?;
        let (tensors, json) = Reader::new(parts).tensors(&manifest)?;
        Ok(Self {
            id: Parts::id_of(&manifest)?,
            tokenizer: parsed(&manifest, json)?,
            manifest,
            tensors,
            guides: Guides::default(),
        })
    }
}

fn read(file: impl Read + Seek) -> Result<Model, EngineError> {
    let (head, mut file) = checked_head(file)?;
    let mut reader = Reader::new(FileTensors::new(&head, &mut file));
    let (tensors, json) = reader.tensors(&head.manifest)?;
    reader.source.check(&head)?;
    let tokenizer = parsed(&head.manifest, json)?;
    Ok(Model {
        id: head.id(),
        manifest: head.manifest,
        tensors,
        tokenizer,
        guides: Guides::default(),
    })
}

/// The model's id and its tokenizer. All tensors are read, since the id stands for all of them together, but none is
/// kept.
pub(crate) fn read_tokenizer(file: impl Read + Seek) -> Result<(ModelId, Tokenizer), EngineError> {
    let (head, mut file) = checked_head(file)?;
    let mut reader = Reader::new(FileTensors::new(&head, &mut file));
    for spec in specs(&head.manifest.architecture) {
        reader.source.bytes(&spec)?;
    }
    let json = reader.tokenizer(&head.manifest)?;
    reader.source.check(&head)?;
    let tokenizer = parsed(&head.manifest, json)?;
    Ok((head.id(), tokenizer))
}

/// The tokenizer of a file whose digest was compared: until then its bytes are anybody's, whatever id the manifest has.
fn parsed(manifest: &Manifest, json: Option<Vec<u8>>) -> Result<Tokenizer, EngineError> {
    let vocabulary = manifest.architecture.vocabulary;
    match json {
        None => Ok(Tokenizer::by_bytes()),
        Some(json) => Tokenizer::from_json(&json, vocabulary, &manifest.end_tokens),
    }
}

/// The head of a file that is as long as it says.
fn checked_head<F: Read + Seek>(mut file: F) -> Result<(Head, F), EngineError> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let head = Head::read(&mut file)?;
    if head.file_bytes() != length {
        return Err(WRONG_LENGTH);
    }
    Ok((head, file))
}

/// Where tensors come from.
trait Source {
    /// The bytes of a tensor that is as long as it must be.
    fn bytes(&mut self, spec: &Spec) -> Result<Vec<u8>, EngineError>;
    /// The shape of the tokenizer's file.
    fn tokenizer_shape(&self) -> Result<Vec<usize>, EngineError>;
}

/// The tensors of a file, hashed as they are read.
struct FileTensors<'a, F> {
    file: F,
    header: &'a Metadata,
    data_from: u64,
    digests: Vec<u8>,
    read: usize,
}

impl<'a, F> FileTensors<'a, F> {
    fn new(head: &'a Head, file: F) -> Self {
        Self {
            file,
            header: &head.header,
            data_from: head.data_from,
            digests: Vec::new(),
            read: 0,
        }
    }

    /// Everything was read, and is what the manifest stands for.
    fn check(&self, head: &Head) -> Result<(), EngineError> {
        if self.read != head.header.tensors().len() {
            return Err(EngineError::Format("there are tensors too many"));
        }
        if tagged_hash("dovetail/tensors", &[&self.digests]) != head.manifest.tensors_digest {
            return Err(EngineError::Format(
                "the tensors are not those of the manifest",
            ));
        }
        Ok(())
    }
}

impl<F: Read + Seek> Source for FileTensors<'_, F> {
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

    fn tokenizer_shape(&self) -> Result<Vec<usize>, EngineError> {
        Ok(self.header.info(TOKENIZER).ok_or(MISSING)?.shape.clone())
    }
}

/// Parts whose manifest was made, so all are there and of the right length.
impl Source for &Parts {
    fn bytes(&mut self, spec: &Spec) -> Result<Vec<u8>, EngineError> {
        match spec.name.as_str() {
            TOKENIZER => self.tokenizer.clone(),
            name => self.tensors.get(name).cloned(),
        }
        .ok_or(MISSING)
    }

    fn tokenizer_shape(&self) -> Result<Vec<usize>, EngineError> {
        Ok(vec![self.tokenizer.as_ref().ok_or(MISSING)?.len()])
    }
}

/// Tensors, taken in the order in which they are hashed.
struct Reader<S> {
    source: S,
}

impl<S: Source> Reader<S> {
    fn new(source: S) -> Self {
        Self { source }
    }

    /// The tensors, and the tokenizer's file if there is one.
    fn tensors(&mut self, manifest: &Manifest) -> Result<(Tensors, Option<Vec<u8>>), EngineError> {
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
                output: self.writer(&mut specs)?,
                gate: self.matrix(&mut specs, false)?,
                up: self.matrix(&mut specs, false)?,
                down: self.writer(&mut specs)?,
            });
        }
        let head = if arch.tied_head {
            LastMatrix::Tied(TiedHead {
                gains: self.integers(&mut specs, GAIN_MAX)?,
                turn: Turn::of_order(arch.turn).ok_or(MISSING)?,
            })
        } else {
            LastMatrix::Apart(self.matrix(&mut specs, false)?)
        };
        let cos = self.integers(&mut specs, 1 << 30)?;
        let sin = self.integers(&mut specs, 1 << 30)?;
        let tokenizer = self.tokenizer(manifest)?;
        let tensors = Tensors {
            embedding,
            layers,
            head,
            cos,
            sin,
        };
        Ok((tensors, tokenizer))
    }

    /// A matrix whose results stay within the range of values.
    fn matrix(
        &mut self,
        specs: &mut impl Iterator<Item = Spec>,
        bias: bool,
    ) -> Result<Matrix, EngineError> {
        self.bounded(specs, bias, VALUE_MAX)
    }

    /// A matrix that writes to the residual stream.
    fn writer(&mut self, specs: &mut impl Iterator<Item = Spec>) -> Result<Matrix, EngineError> {
        self.bounded(specs, false, RESIDUAL_MAX)
    }

    fn bounded(
        &mut self,
        specs: &mut impl Iterator<Item = Spec>,
        bias: bool,
        max: i32,
    ) -> Result<Matrix, EngineError> {
        let spec = specs.next().ok_or(MISSING)?;
        let columns = spec.shape.last().copied().unwrap_or(1);
        // The same memory: bytes become signed in place.
        let weights: Vec<i8> = self
            .source
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
        Ok(Matrix::new(columns, weights, scales, bias, max))
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
            return Err(EngineError::Format(
                "a bias, a gain or an angle is out of bounds",
            ));
        }
        Ok(values)
    }

    fn words(&mut self, specs: &mut impl Iterator<Item = Spec>) -> Result<Vec<u32>, EngineError> {
        let bytes = self.source.bytes(&specs.next().ok_or(MISSING)?)?;
        let words = bytes.as_chunks::<4>().0.iter();
        Ok(words.map(|word| u32::from_le_bytes(*word)).collect())
    }

    fn tokenizer(&mut self, manifest: &Manifest) -> Result<Option<Vec<u8>>, EngineError> {
        match manifest.tokenizer {
            TokenizerKind::Bytes => Ok(None),
            TokenizerKind::HuggingFace => self.tokenizer_json().map(Some),
        }
    }

    fn tokenizer_json(&mut self) -> Result<Vec<u8>, EngineError> {
        let length = self.source.tokenizer_shape()?;
        match length[..] {
            [0..=TOKENIZER_BYTES_MAX] => (),
            [_] => return Err(EngineError::Format("the tokenizer is too long")),
            _ => return Err(EngineError::Format("the tokenizer is no row of bytes")),
        }
        self.source.bytes(&Spec {
            name: TOKENIZER.to_owned(),
            dtype: Dtype::U8,
            shape: length,
        })
    }
}

const MISSING: EngineError = EngineError::Format("a tensor is missing");
