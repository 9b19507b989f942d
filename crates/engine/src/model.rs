//! A model in memory: its manifest, which names it, and its tensors. It comes from a file (`reader.rs`).

use dovetail_commitment::{Constraint, ModelId};
use dovetail_guide::{Guide, GuideError, Vocabulary};

use crate::EngineError;
use crate::guides::Guides;
use crate::manifest::Manifest;
use crate::matrix::Matrix;
use crate::tied::TiedHead;
use crate::tokenizer::Tokenizer;

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
    pub(crate) head: LastMatrix,
    /// `[context, head_dim / 2]`, Q30.
    pub(crate) cos: Vec<i32>,
    /// `[context, head_dim / 2]`, Q30.
    pub(crate) sin: Vec<i32>,
}

/// What gives the logits.
#[derive(Debug, Clone)]
pub(crate) enum LastMatrix {
    /// A matrix of its own.
    Apart(Matrix),
    /// The embedding.
    Tied(TiedHead),
}

/// A model that was checked and can run.
#[derive(Debug)]
pub struct Model {
    pub(crate) id: ModelId,
    pub(crate) manifest: Manifest,
    pub(crate) tensors: Tensors,
    pub(crate) tokenizer: Tokenizer,
    /// What constraints are followed with; made for the first of them.
    pub(crate) guides: Guides,
}

impl Model {
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

    /// See [`Architecture::context_tokens`](crate::Architecture::context_tokens).
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
        let head = match &tensors.head {
            LastMatrix::Apart(matrix) => Some(matrix),
            LastMatrix::Tied(_) => None,
        };
        let matrices = matrices.chain([&tensors.embedding]).chain(head);
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

    /// The tokens of a conversation that the model's chat template has rendered. The template names every
    /// control token itself, so the tokenizer puts nothing around the text.
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub fn encode_rendered(&self, text: &[u8]) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode_rendered(text)
    }

    /// The names of the tokens that steer the model. Wherever such a name stands in a text, [`Model::encode`] and
    /// [`Model::encode_rendered`] make the token of it.
    pub fn control_names(&self) -> impl Iterator<Item = &str> {
        self.tokenizer.control_names()
    }

    /// As [`Model::encode`], of a text in pieces: a name of a control token that is cut stays text.
    ///
    /// # Errors
    /// As [`Model::encode`], and where the tokenizer would make a control token of something that is not its name.
    pub fn encode_pieces<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode_pieces(pieces.into_iter(), true)
    }

    /// As [`Model::encode_rendered`], of a text in pieces: a name of a control token that is cut stays text.
    ///
    /// # Errors
    /// As [`Model::encode_pieces`].
    pub fn encode_rendered_pieces<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode_rendered_pieces(pieces.into_iter())
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
        self.tokenizer.decode(tokens)
    }

    /// Whether outputs of this form can be asked for. Takes some milliseconds, and for the first constraint the time
    /// to look through all tokens, a fraction of a second.
    ///
    /// # Errors
    /// [`EngineError::Constraint`] with words for whoever wrote it.
    pub fn check_constraint(&self, constraint: &Constraint) -> Result<(), EngineError> {
        Ok(self.guides()?.check(constraint)?)
    }

    /// Begins to follow a constraint.
    pub(crate) fn guide(&self, constraint: &Constraint) -> Result<Guide, GuideError> {
        self.guides()?.start(constraint)
    }

    fn guides(&self) -> Result<&Vocabulary, GuideError> {
        self.guides.vocabulary(|| {
            let tokens = 0..u32::try_from(self.manifest.architecture.vocabulary).unwrap_or(0);
            let texts = tokens.map(|token| self.tokenizer.bytes_of(token));
            Vocabulary::new(texts, &self.manifest.end_tokens)
        })
    }

    /// Whether an output ends with this token.
    pub(crate) fn ends(&self, token: u32) -> bool {
        self.manifest.end_tokens.contains(&token)
    }
}
