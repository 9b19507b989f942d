//! A model in memory: its manifest, which names it, and its tensors.

use std::path::Path;

use dovetail_commitment::{ModelId, tagged_hash};
use serde::{Deserialize, Serialize};

use crate::arith::Exp;
use crate::format;
use crate::matrix::Matrix;
use crate::{EngineError, tokenizer};

/// The sizes of a Llama-family model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Width of the hidden state.
    pub dim: usize,
    /// Width of the feed-forward layers.
    pub hidden_dim: usize,
    /// How many layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides the query heads.
    pub kv_heads: usize,
    /// Tokens that the model knows.
    pub vocabulary: usize,
    /// Positions that the model can take in: prompt and output together, but for the last token of
    /// an output, which is not taken in.
    pub context_tokens: usize,
    /// Whether the embedding serves as the head. Left out of the manifest where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tied_head: bool,
}

impl Architecture {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Width of all key (or value) heads together.
    pub(crate) fn kv_dim(&self) -> usize {
        self.head_dim() * self.kv_heads
    }

    /// How many weights the matrices hold.
    pub fn parameters(&self) -> usize {
        let attention = 2 * self.dim * self.dim + 2 * self.dim * self.kv_dim();
        let feed_forward = 3 * self.dim * self.hidden_dim;
        let tables = if self.tied_head { 1 } else { 2 };
        tables * self.vocabulary * self.dim + self.layers * (attention + feed_forward)
    }

    /// How many bytes the tensors take in a model file. Checked sizes stay below 2^41.
    pub(crate) fn tensor_bytes(&self) -> u64 {
        let matrix = |rows: usize, columns: usize| rows as u64 * (columns as u64 + 4);
        let (dim, kv_dim, hidden) = (self.dim, self.kv_dim(), self.hidden_dim);
        let gains = 4 * dim as u64;
        let attention = 2 * matrix(dim, dim) + 2 * matrix(kv_dim, dim);
        let feed_forward = 2 * matrix(hidden, dim) + matrix(dim, hidden);
        let tables = if self.tied_head { 1 } else { 2 };
        let rotations = 4 * self.context_tokens as u64 * self.head_dim() as u64;
        tables * matrix(self.vocabulary, dim)
            + self.layers as u64 * (attention + feed_forward + 2 * gains)
            + gains
            + rotations
    }

    /// The sizes for which docs/engine.md argues that nothing overflows.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let within = |value: usize, max: usize| (1..=max).contains(&value);
        if !within(self.dim, 16_384)
            || !within(self.hidden_dim, 32_768)
            || !within(self.layers, 128)
            || !within(self.heads, 256)
            || !within(self.vocabulary, 1 << 18)
            || !within(self.context_tokens, 1 << 17)
        {
            return Err(EngineError::Unsupported("a size is out of bounds"));
        }
        if !self.dim.is_multiple_of(self.heads)
            || !self.head_dim().is_multiple_of(2)
            || self.head_dim() > 256
            || self.kv_heads == 0
            || !self.heads.is_multiple_of(self.kv_heads)
        {
            return Err(EngineError::Unsupported(
                "the heads do not divide the width",
            ));
        }
        if self.vocabulary != tokenizer::VOCABULARY {
            return Err(EngineError::Unsupported(
                "only the byte tokenizer is built in",
            ));
        }
        Ok(())
    }
}

/// What a model is; its hash is the model's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// A name for people.
    pub name: String,
    /// The sizes.
    pub architecture: Architecture,
    /// The digest of all tensors: weights, scales, gains and rotation tables.
    #[serde(with = "hex::serde")]
    pub tensors_digest: [u8; 32],
    /// The tokenizer: `bytes`.
    pub tokenizer: String,
    /// The chat template; empty where there is none.
    pub chat_template: String,
    /// The version of the arithmetic.
    pub engine_version: u16,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<i32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) output: Matrix,
    pub(crate) feed_norm: Vec<i32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

#[derive(Debug, Clone)]
pub(crate) struct Tensors {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Vec<i32>,
    /// `None` where the embedding serves.
    pub(crate) head: Option<Matrix>,
    /// `[context, head_dim / 2]`, Q30.
    pub(crate) cos: Vec<i32>,
    /// `[context, head_dim / 2]`, Q30.
    pub(crate) sin: Vec<i32>,
}

/// A model that was checked and can run.
#[derive(Debug, Clone)]
pub struct Model {
    id: ModelId,
    manifest: Manifest,
    pub(crate) tensors: Tensors,
    pub(crate) exp: Exp,
}

impl Model {
    /// Reads a model file whole; a file of another length than its manifest says is refused before
    /// its tensors are read.
    ///
    /// # Errors
    /// [`EngineError`] if it cannot be read, or is not a model that this engine runs.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        Self::from_bytes(&format::read(std::fs::File::open(path)?)?)
    }

    /// Parses a model file; see docs/engine.md for its format.
    ///
    /// # Errors
    /// [`EngineError::Format`] or [`EngineError::Unsupported`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        let parsed = format::parse(bytes)?;
        Ok(Self {
            id: ModelId::from_bytes(tagged_hash("dovetail/model", &[parsed.manifest_bytes])),
            manifest: parsed.manifest,
            tensors: parsed.tensors,
            exp: Exp::new(),
        })
    }

    /// The hash of the manifest.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// What the model is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// See [`Architecture::context_tokens`].
    pub fn context_tokens(&self) -> usize {
        self.manifest.architecture.context_tokens
    }

    /// The tokens of a text, as a prompt begins.
    pub fn encode(&self, text: &[u8]) -> Vec<u32> {
        tokenizer::encode(text)
    }

    /// The bytes of tokens.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokenizer::decode(tokens)
    }
}
