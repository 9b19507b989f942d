//! Generating a completion and replaying one: the same computation, which is the point.

use dovetail_commitment::{FinishReason, SamplingParams, tagged_hash};

use crate::forward::Sequence;
use crate::model::Model;
use crate::{EngineError, sample, tokenizer};

/// How many positions one digest of the trace covers.
pub const TRACE_POSITIONS: usize = 32;

/// What fixes a completion.
#[derive(Clone)]
pub struct Request {
    /// From [`Model::encode`]: `[len]`, not empty.
    pub prompt_tokens: Vec<u32>,
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// The seed of the choice.
    pub seed: [u8; 32],
}

/// A whole completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One digest per [`TRACE_POSITIONS`] sampled positions (the one that gave the end token is one
    /// of them); the last may cover fewer.
    pub trace: Vec<[u8; 32]>,
}

/// A completion under way.
pub struct Generation<'m> {
    sequence: Sequence<'m>,
    vocabulary: usize,
    context_tokens: usize,
    request: Request,
    /// The final hidden state behind the next token.
    hidden: Vec<i32>,
    tokens: Vec<u32>,
    finished: Option<FinishReason>,
    trace: Vec<[u8; 32]>,
    /// Bytes of the hidden states since the last digest.
    pending: Vec<u8>,
    pending_positions: usize,
}

impl<'m> Generation<'m> {
    /// Takes the prompt in.
    ///
    /// # Errors
    /// A prompt that is empty, out of the vocabulary, or leaves no room; sampling out of bounds.
    pub fn new(model: &'m Model, request: &Request) -> Result<Self, EngineError> {
        request.sampling.validate()?;
        let arch = &model.manifest().architecture;
        let prompt = &request.prompt_tokens;
        if prompt.len() >= arch.context_tokens {
            return Err(EngineError::PromptTooLong {
                prompt: prompt.len(),
                context: arch.context_tokens,
            });
        }
        if prompt.is_empty() || prompt.iter().any(|t| *t as usize >= arch.vocabulary) {
            return Err(EngineError::PromptInvalid);
        }
        let mut sequence = Sequence::new(model);
        let mut hidden = Vec::new();
        for token in prompt {
            hidden = sequence.advance(*token);
        }
        Ok(Self {
            sequence,
            vocabulary: arch.vocabulary,
            context_tokens: arch.context_tokens,
            request: request.clone(),
            hidden,
            tokens: Vec::new(),
            finished: None,
            trace: Vec::new(),
            pending: Vec::new(),
            pending_positions: 0,
        })
    }

    /// The next token, or `None` once the completion has ended.
    pub fn next_token(&mut self) -> Option<u32> {
        if self.finished.is_some() {
            return None;
        }
        let position = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        let logits = self.sequence.logits(&self.hidden);
        debug_assert_eq!(logits.len(), self.vocabulary);
        self.note_hidden();
        let token = sample::choose(
            self.sequence.exp(),
            &logits,
            &self.request.sampling,
            &self.request.seed,
            position,
        );
        if token == tokenizer::EOS {
            self.finished = Some(FinishReason::Stop);
            return None;
        }
        self.tokens.push(token);
        let full = self.sequence.position() >= self.context_tokens;
        if full || self.tokens.len() >= self.request.sampling.max_tokens as usize {
            self.finished = Some(FinishReason::Length);
        } else {
            self.hidden = self.sequence.advance(token);
        }
        Some(token)
    }

    /// The completion so far; one that had not ended counts as cancelled.
    pub fn finish(mut self) -> Output {
        self.close_digest();
        Output {
            tokens: self.tokens,
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            trace: self.trace,
        }
    }

    fn note_hidden(&mut self) {
        for value in &self.hidden {
            self.pending.extend_from_slice(&value.to_le_bytes());
        }
        self.pending_positions += 1;
        if self.pending_positions == TRACE_POSITIONS {
            self.close_digest();
        }
    }

    fn close_digest(&mut self) {
        if self.pending_positions > 0 {
            self.trace
                .push(tagged_hash("dovetail/trace", &[&self.pending]));
            self.pending.clear();
            self.pending_positions = 0;
        }
    }
}

/// Generates a whole completion. Takes as many steps as the sampling and the context allow.
///
/// # Errors
/// As [`Generation::new`].
pub fn run(model: &Model, request: &Request) -> Result<Output, EngineError> {
    let mut generation = Generation::new(model, request)?;
    while generation.next_token().is_some() {}
    Ok(generation.finish())
}

/// Computes a claimed completion again, and stops at the first token that differs. The result
/// equals the claim's own [`Output`] exactly if the claim is honest.
///
/// # Errors
/// As [`Generation::new`].
pub fn replay(model: &Model, request: &Request, claimed: &[u32]) -> Result<Output, EngineError> {
    let mut generation = Generation::new(model, request)?;
    let mut claimed = claimed.iter();
    while let Some(token) = generation.next_token() {
        if claimed.next() != Some(&token) {
            break;
        }
    }
    Ok(generation.finish())
}
