//! One answer: generated token by token, printed as it comes, kept for the next turn to build on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::FinishReason;
use dovetail_console::OutputError;
use dovetail_engine::{EngineError, Generation, Model, Output, Prefixes, Request, Runtime, step};
use serde_json::json;

use super::interrupt::Interrupt;

/// What answers are computed with.
pub(crate) struct Answerer {
    pub(crate) model: Arc<Model>,
    pub(crate) runtime: Runtime,
    pub(crate) interrupt: Interrupt,
    prefixes: Prefixes,
}

/// An answer and what it took.
pub(crate) struct Answer {
    pub(crate) output: Output,
    pub(crate) text: Vec<u8>,
    pub(crate) prompt_tokens: usize,
    /// How many of them were known from earlier turns.
    reused_tokens: usize,
    until_first: Duration,
    after_first: Duration,
    context_tokens: usize,
    is_at_limit: bool,
}

impl Answerer {
    pub(crate) fn new(model: Arc<Model>, runtime: Runtime, interrupt: Interrupt) -> Self {
        // Room for one conversation that fills the context.
        let arch = &model.manifest().architecture;
        let bytes = arch.context_tokens * (arch.cache_bytes_per_position() + 4);
        Self {
            model,
            runtime,
            interrupt,
            prefixes: Prefixes::new(bytes),
        }
    }

    /// Generates until the end, or until Ctrl-C. `print` gets the bytes of each token.
    ///
    /// # Errors
    /// As [`Generation::new`], before anything is printed; and what `print` says.
    pub(crate) fn answer(
        &mut self,
        request: Request,
        mut print: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Answer, AnswerError> {
        let prompt_tokens = request.prompt_tokens.len();
        let max_tokens = request.sampling.max_tokens as usize;
        let mut generation = Generation::new(&self.model, request)?;
        let reused_tokens = generation.reuse(&mut self.prefixes);
        let begun = Instant::now();
        let (mut first_at, mut text) = (None, Vec::new());
        let mut printed = Ok(());
        self.interrupt.begin();
        while printed.is_ok() && !generation.is_finished() && !self.interrupt.is_pressed() {
            let given = step(&self.runtime, &mut [&mut generation]);
            if let Some(token) = given[0] {
                first_at.get_or_insert_with(Instant::now);
                let bytes = self.model.decode(&[token]);
                text.extend_from_slice(&bytes);
                printed = print(&bytes);
            }
        }
        self.interrupt.end();
        printed.map_err(OutputError::from)?;
        generation.keep_all(&mut self.prefixes);
        let (ended, output) = (Instant::now(), generation.finish());
        let first_at = first_at.unwrap_or(ended);
        Ok(Answer {
            is_at_limit: output.tokens.len() >= max_tokens,
            output,
            text,
            prompt_tokens,
            reused_tokens,
            until_first: first_at - begun,
            after_first: ended - first_at,
            context_tokens: self.model.context_tokens(),
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot print the answer")]
    Print(#[from] OutputError),
}

impl Answer {
    pub(crate) fn is_stopped(&self) -> bool {
        self.output.finish_reason == FinishReason::Cancelled
    }

    /// Tokens in a second, the first left out: it came with the prompt. None for answers of one token.
    fn tokens_per_s(&self) -> Option<f64> {
        let after_first = self.output.tokens.len().checked_sub(1)?;
        let tokens = after_first as f64;
        (after_first > 0).then(|| tokens / self.after_first.as_secs_f64().max(1e-9))
    }

    fn ending(&self) -> &'static str {
        match self.output.finish_reason {
            FinishReason::Stop => "the model ended it",
            FinishReason::Length if self.is_at_limit => "it reached --max-tokens",
            FinishReason::Length => "the context is full: /reset begins a new conversation",
            FinishReason::Cancelled => "stopped",
            FinishReason::ConstraintUnmet => {
                "the model could not go on in the form that was asked for"
            }
        }
    }

    /// A line for people.
    pub(crate) fn describe(&self) -> String {
        let rate = self.tokens_per_s();
        let rate = rate.map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s"));
        format!(
            "[{} tokens{rate}; prompt {} tokens, {} of them reused, {:.2} s; context {} of {}; {}]",
            self.output.tokens.len(),
            self.prompt_tokens,
            self.reused_tokens,
            self.until_first.as_secs_f64(),
            self.prompt_tokens + self.output.tokens.len(),
            self.context_tokens,
            self.ending(),
        )
    }

    /// The same for programs.
    pub(crate) fn to_json(&self, seed: &[u8; 32]) -> serde_json::Value {
        json!({
            "text": String::from_utf8_lossy(&self.text),
            "output_tokens": self.output.tokens,
            "finish_reason": match self.output.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::Cancelled => "cancelled",
                FinishReason::ConstraintUnmet => "constraint-unmet",
            },
            "seed": hex::encode(seed),
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "prompt_s": self.until_first.as_secs_f64(),
            "decode_tokens_per_s": self.tokens_per_s(),
        })
    }
}
