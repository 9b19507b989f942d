//! What a completion has come to so far: tokens, the trace of its hidden states, whether it ended.

use dovetail_commitment::{FinishReason, tagged_hash};

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
    /// The end of the output's text: as much as a stop sequence needs.
    text: Vec<u8>,
    trace: Vec<[u8; 32]>,
    /// Bytes of the hidden states since the last digest.
    pending: Vec<u8>,
    pending_positions: usize,
}

impl Record {
    pub(crate) fn new(model: &Model, request: Request) -> Self {
        Self {
            request,
            context_tokens: model.context_tokens(),
            tokens: Vec::new(),
            finished: None,
            text: Vec::new(),
            trace: Vec::new(),
            pending: Vec::new(),
            pending_positions: 0,
        }
    }

    /// The token that follows from these logits, `[vocabulary]`, after `ahead` more tokens than there are.
    pub(crate) fn choose(&self, logits: &[i32], ahead: usize) -> u32 {
        let position = u32::try_from(self.tokens.len() + ahead).unwrap_or(u32::MAX);
        sample::choose(logits, &self.request.sampling, &self.request.seed, position)
    }

    /// Notes the next hidden state, `[dim]`, and the token that was chosen from it. Returns it, or `None` if it
    /// ends the output.
    pub(crate) fn take(&mut self, model: &Model, hidden: &[i32], token: u32) -> Option<u32> {
        debug_assert!(self.finished.is_none());
        self.note(hidden);
        if model.ends(token) {
            self.finished = Some(FinishReason::Stop);
            return None;
        }
        self.tokens.push(token);
        // The prompt and all tokens but the last are taken in.
        let taken_in = self.request.prompt_tokens.len() + self.tokens.len() - 1;
        if self.stops_with(model.tokenizer.bytes_of(token)) {
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
