//! A task as those who follow it see it: its phase, and its tokens so far.

use dovetail_commitment::{ModelId, SamplingParams};

/// Where a task stands, as its agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Running,
    Finished,
    Settled,
    Failed,
    Cancelled,
}

impl Phase {
    /// Whether more tokens can follow.
    pub(crate) fn is_streaming(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// So many tokens of a task may still come that its agent has cancelled: those that were under way.
const CROSSING_TOKENS_MAX: usize = 256;

/// A task's phase and its tokens so far; every follower watches it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) model: ModelId,
    pub(crate) phase: Phase,
    pub(crate) tokens: Vec<u32>,
    tokens_max: usize,
}

/// Why tokens were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamRefusal {
    /// No such task, or it does not run on this worker.
    #[error("the task does not run on this worker")]
    NotYours,
    /// The tokens do not follow those already there.
    #[error("the tokens do not follow the ones before")]
    OutOfOrder,
    /// More tokens than the task permits.
    #[error("the task is longer than it may be")]
    TooLong,
}

impl Progress {
    /// A task that waits for a worker.
    pub(super) fn queued(model: ModelId, sampling: &SamplingParams) -> Self {
        Self {
            model,
            phase: Phase::Queued,
            tokens: Vec::new(),
            tokens_max: sampling.max_tokens as usize,
        }
    }

    /// No more is wanted than what is under way.
    pub(super) fn stops(&mut self) {
        let most = self.tokens.len().saturating_add(CROSSING_TOKENS_MAX);
        self.tokens_max = self.tokens_max.min(most);
    }

    pub(super) fn append(
        &mut self,
        first_position: u32,
        tokens: &[u32],
    ) -> Result<(), StreamRefusal> {
        if self.phase != Phase::Running || first_position as usize != self.tokens.len() {
            return Err(StreamRefusal::OutOfOrder);
        }
        if self.tokens.len().saturating_add(tokens.len()) > self.tokens_max {
            return Err(StreamRefusal::TooLong);
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }
}
