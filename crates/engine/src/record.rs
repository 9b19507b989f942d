//! What a completion has come to so far: tokens, the trace of its hidden states, whether it ended.

use dovetail_commitment::{FinishReason, tagged_hash};
use dovetail_guide::{Guide, Mask, Unmet};

use crate::EngineError;
use crate::completion::{Output, Request};
use crate::model::Model;
use crate::sample;

/// How many positions one digest of the trace covers.
pub const TRACE_POSITIONS: usize = 32;

pub(crate) struct Record {
    request: Request,
    context_tokens: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) finished: Option<FinishReason>,
    /// What follows the form that the output must have.
    guide: Option<Guide>,
    /// The tokens that may come next; of a record with a guide, once [`Record::prepare`] was called.
    allowed: Option<Result<Mask, Unmet>>,
    /// The end of the output's text: as much as a stop sequence needs.
    text: Vec<u8>,
    trace: Vec<[u8; 32]>,
    /// Bytes of the hidden states since the last digest.
    pending: Vec<u8>,
    pending_positions: usize,
}

impl Record {
    /// # Errors
    /// [`EngineError::Constraint`].
    pub(crate) fn new(model: &Model, request: Request) -> Result<Self, EngineError> {
        let guide = request.constraint.as_ref().map(|form| model.guide(form));
        let guide = guide.transpose()?;
        Ok(Self {
            guide,
            ..Self::unguided(model, request)
        })
    }

    /// One whose tokens are given, not chosen.
    pub(crate) fn unguided(model: &Model, request: Request) -> Self {
        Self {
            request,
            context_tokens: model.context_tokens(),
            tokens: Vec::new(),
            finished: None,
            guide: None,
            allowed: None,
            text: Vec::new(),
            trace: Vec::new(),
            pending: Vec::new(),
            pending_positions: 0,
        }
    }

    /// Whether a form is followed, so that a token can be chosen only when those before it are taken.
    pub(crate) fn is_guided(&self) -> bool {
        self.guide.is_some()
    }

    /// Finds out which tokens may come next: to be called once before each token is chosen.
    pub(crate) fn prepare(&mut self) {
        self.allowed = self.guide.as_mut().map(Guide::mask);
    }

    /// The token that follows from these logits, `[vocabulary]`, after `ahead` more tokens than there are; of those
    /// that the form allows, where there is one. 0 where it allows none: [`Record::take`] knows.
    pub(crate) fn choose(&self, logits: &[i32], ahead: usize) -> u32 {
        let position = u32::try_from(self.tokens.len() + ahead).unwrap_or(u32::MAX);
        let (sampling, seed) = (&self.request.sampling, &self.request.seed);
        match &self.allowed {
            None => sample::choose(logits, None, sampling, seed, position),
            Some(Ok(mask)) => sample::choose(logits, Some(mask), sampling, seed, position),
            Some(Err(Unmet)) => 0,
        }
    }

    /// Notes the next hidden state, `[dim]`, and the token that was chosen from it. Returns it, or `None` if it
    /// ends the output, or if none could be chosen.
    pub(crate) fn take(&mut self, model: &Model, hidden: &[i32], token: u32) -> Option<u32> {
        debug_assert!(self.finished.is_none());
        self.note(hidden);
        if let Some(Err(Unmet)) = self.allowed.take() {
            self.finished = Some(FinishReason::ConstraintUnmet);
            return None;
        }
        if model.ends(token) {
            self.finished = Some(FinishReason::Stop);
            return None;
        }
        self.tokens.push(token);
        // The prompt and all tokens but the last are taken in.
        let taken_in = self.request.prompt_tokens.len() + self.tokens.len() - 1;
        // One that gives up here has no token for the next position.
        let is_complete = self.guide.as_mut().map(|guide| guide.take(token)) == Some(Ok(true));
        let stops = self.stops_with(model.tokenizer.bytes_of(token));
        if stops || is_complete {
            self.finished = Some(FinishReason::Stop);
        } else if taken_in >= self.context_tokens
            || self.tokens.len() >= self.request.sampling.max_tokens as usize
        {
            self.finished = Some(FinishReason::Length);
        }
        Some(token)
    }

    /// Whether the text contains a stop sequence with these bytes that it did not contain before.
    fn stops_with(&mut self, bytes: &[u8]) -> bool {
        let longest = self.request.stop.iter().map(<[u8]>::len).max();
        let Some(longest) = longest else {
            return false;
        };
        self.text.extend_from_slice(bytes);
        let found = self
            .request
            .stop
            .iter()
            .any(|stop| self.text.windows(stop.len()).any(|text| text == stop));
        let surplus = self.text.len().saturating_sub(longest - 1);
        self.text.drain(..surplus);
        found
    }

    /// Takes a hidden state into the trace. `hidden`: `[dim]`.
    pub(crate) fn note(&mut self, hidden: &[i32]) {
        for value in hidden {
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

    pub(crate) fn finish(mut self) -> Output {
        self.close_digest();
        Output {
            tokens: self.tokens,
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            trace: self.trace,
        }
    }
}
