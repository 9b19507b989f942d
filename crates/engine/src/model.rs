//! A model in memory: its manifest, which names it, and its tensors.

use std::path::Path;

use dovetail_commitment::ModelId;
use serde::{Deserialize, Serialize};

use crate::arith::MIX_BLOCK;
use crate::format;
use crate::matrix::Matrix;
use crate::tokenizer::{self, Tokenizer};
use crate::{ENGINE_VERSION, EngineError};

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
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens that the model knows.
    pub vocabulary: usize,
    /// Positions that the model can take in: prompt and output together, but for the last token of
    /// an output, which is not taken in.
    pub context_tokens: usize,
    /// What RMSNorm adds to the mean square, in Q32.
    pub norm_epsilon_q32: u32,
    /// Whether the embedding serves as the head. Left out of the manifest where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tied_head: bool,
    /// Whether queries, keys and values have a bias (Qwen2). Left out where they have none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attention_bias: bool,
    /// Whether the input of each layer's last matrix goes through a Hadamard transform of blocks of
    /// 64, which spreads outliers; the matrix is turned likewise. Left out where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mixed_down: bool,
}

impl Architecture {
    /// Width of all query heads together.
    pub fn query_dim(&self) -> usize {
        self.head_dim * self.heads
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.head_dim * self.kv_heads
    }

    /// How many weights the matrices hold.
    pub fn parameters(&self) -> usize {
        let attention = 2 * self.dim * (self.query_dim() + self.kv_dim());
        let feed_forward = 3 * self.dim * self.hidden_dim;
        let tables = if self.tied_head { 1 } else { 2 };
        tables * self.vocabulary * self.dim + self.layers * (attention + feed_forward)
    }

    /// The sizes for which docs/engine.md argues that nothing overflows.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let within = |value: usize, max: usize| (1..=max).contains(&value);
        if !within(self.dim, 16_384)
            || !within(self.hidden_dim, 32_768)
            || !within(self.layers, 128)
            || !within(self.heads, 256)
            || !within(self.kv_heads, 256)
            || !within(self.vocabulary, 1 << 18)
            || !within(self.context_tokens, 1 << 17)
        {
            return Err(EngineError::Unsupported("a size is out of bounds"));
        }
        if !within(self.head_dim, 256) || !self.head_dim.is_multiple_of(2) {
            return Err(EngineError::Unsupported(
                "the head width is odd or above 256",
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || self.query_dim() > 32_768 {
            return Err(EngineError::Unsupported("the heads do not fit each other"));
        }
        if self.mixed_down && !self.hidden_dim.is_multiple_of(MIX_BLOCK) {
            return Err(EngineError::Unsupported(
                "a mixed feed-forward width must be a multiple of 64",
            ));
        }
        Ok(())
    }
}

/// What a model is; its hash is the model's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// A name for people, 1 to 64 bytes.
    pub name: String,
    /// The sizes.
    pub architecture: Architecture,
    /// The digest of all tensors: weights, scales, rotation tables, and the tokenizer's file.
    #[serde(with = "hex::serde")]
    pub tensors_digest: [u8; 32],
    /// How text becomes tokens.
    pub tokenizer: TokenizerKind,
    /// Tokens that end an output.
    pub end_tokens: Vec<u32>,
    /// The chat template (Jinja); empty where there is none.
    pub chat_template: String,
    /// The version of the arithmetic.
    pub engine_version: u16,
}

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// A token is a byte; 256 begins every prompt, 257 ends an output.
    Bytes,
    /// A `tokenizer.json` of Hugging Face's library, which is one of the tensors.
    HuggingFace,
}

/// A manifest has at most this many end tokens; Llama 3 has three.
const END_TOKENS_MAX: usize = 16;

impl Manifest {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.engine_version != ENGINE_VERSION {
            return Err(EngineError::Unsupported("made for another engine version"));
        }
        if self.name.is_empty() || self.name.len() > 64 {
            return Err(EngineError::Format("a name has 1 to 64 bytes"));
        }
        let vocabulary = self.architecture.vocabulary;
        let known = |token: &u32| (*token as usize) < vocabulary;
        if self.end_tokens.is_empty()
            || self.end_tokens.len() > END_TOKENS_MAX
            || !self.end_tokens.iter().all(known)
        {
            return Err(EngineError::Format(
                "a model has 1 to 16 end tokens of its vocabulary",
            ));
        }
        if self.tokenizer == TokenizerKind::Bytes && vocabulary != tokenizer::BYTES_VOCABULARY {
            return Err(EngineError::Unsupported(
                "the byte tokenizer has 258 tokens",
            ));
        }
        self.architecture.check()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) output: Matrix,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

#[derive(Debug, Clone)]
pub(crate) struct Tensors {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    /// `None` where the embedding serves.
    pub(crate) head: Option<Matrix>,
    /// `[context, head_dim / 2]`, Q30.
    pub(crate) cos: Vec<i32>,
    /// `[context, head_dim / 2]`, Q30.
    pub(crate) sin: Vec<i32>,
}

/// A model that was checked and can run.
#[derive(Debug)]
pub struct Model {
    pub(crate) id: ModelId,
    pub(crate) manifest: Manifest,
    pub(crate) tensors: Tensors,
    pub(crate) tokenizer: Tokenizer,
}

impl Model {
    /// Reads a model file tensor by tensor; one that is not as long as its header says is refused
    /// before its tensors are read. Takes about as much memory as the file.
    ///
    /// # Errors
    /// [`EngineError`] if it cannot be read, or is not a model that this engine runs.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        format::read(std::io::BufReader::new(std::fs::File::open(path)?))
    }

    /// Parses a model file; see docs/engine.md for its format.
    ///
    /// # Errors
    /// [`EngineError::Format`] or [`EngineError::Unsupported`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        format::read(std::io::Cursor::new(bytes))
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

    /// Bytes that the tensors take in memory.
    pub fn memory_bytes(&self) -> usize {
        let tensors = &self.tensors;
        let matrices = tensors.layers.iter().flat_map(|layer| {
            let attention = [&layer.query, &layer.key, &layer.value, &layer.output];
            attention
                .into_iter()
                .chain([&layer.gate, &layer.up, &layer.down])
        });
        let outer = [Some(&tensors.embedding), tensors.head.as_ref()];
        let matrices = matrices.chain(outer.into_iter().flatten());
        let angles = size_of_val(&tensors.cos[..]) + size_of_val(&tensors.sin[..]);
        matrices.map(Matrix::memory_bytes).sum::<usize>() + angles
    }

    /// The tokens of a prompt, with what the tokenizer puts around it. Text that is no UTF-8 is
    /// taken as its lossy reading, but by the byte tokenizer as it is.
    ///
    /// # Errors
    /// [`EngineError::PromptInvalid`] if the tokenizer refuses it.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode(text, true)
    }

    /// The tokens of a text that goes on where another ended: nothing is put around it.
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub fn encode_more(&self, text: &[u8]) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode(text, false)
    }

    /// The bytes of tokens; special ones give none.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens
            .iter()
            .flat_map(|token| self.tokenizer.bytes_of(*token))
            .copied()
            .collect()
    }

    /// Whether an output ends with this token.
    pub(crate) fn ends(&self, token: u32) -> bool {
        self.manifest.end_tokens.contains(&token)
    }
}
