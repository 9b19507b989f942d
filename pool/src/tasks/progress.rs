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
    /// How many of them its present worker has given. One that took over gives all of them once more, and they are
    /// compared: whoever runs a task gives the same tokens.
    from_worker: usize,
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
    /// The tokens are not those that the worker before has given: one of the two has made them up.
    #[error("the tokens differ from those of the task's worker before")]
    Differs,
}

impl Progress {
    /// A task that waits for a worker.
    pub(super) fn queued(model: ModelId, sampling: &SamplingParams) -> Self {
        Self {
            model,
            phase: Phase::Queued,
            tokens: Vec::new(),
            tokens_max: sampling.max_tokens as usize,
            from_worker: 0,
        }
    }

    /// No more is wanted than what is under way.
    pub(super) fn stops(&mut self) {
        let most = self.tokens.len().saturating_add(CROSSING_TOKENS_MAX);
        self.tokens_max = self.tokens_max.min(most);
    }

    /// A worker begins with it.
    pub(super) fn begin(&mut self) {
        self.phase = Phase::Running;
        self.from_worker = 0;
    }

    /// Whether its present worker has given a token.
    pub(super) fn is_begun(&self) -> bool {
        self.from_worker > 0
    }

    /// Whether its present worker has given all of the tokens.
    pub(super) fn is_caught_up(&self) -> bool {
        self.from_worker == self.tokens.len()
    }

    /// The tokens that its present worker has given.
    pub(super) fn given(&self) -> &[u32] {
        self.tokens.get(..self.from_worker).unwrap_or(&self.tokens)
    }

    /// The task ends with what its present worker has given.
    pub(super) fn keep_given(&mut self) {
        self.tokens.truncate(self.from_worker);
    }

    /// Takes tokens of its present worker; whether there are new ones among them.
    pub(super) fn append(
        &mut self,
        first_position: u32,
        tokens: &[u32],
    ) -> Result<bool, StreamRefusal> {
        if self.phase != Phase::Running || first_position as usize != self.from_worker {
            return Err(StreamRefusal::OutOfOrder);
        }
        let given = self.from_worker.saturating_add(tokens.len());
        if given > self.tokens_max {
            return Err(StreamRefusal::TooLong);
        }
        let known = self.tokens.get(self.from_worker..).unwrap_or_default();
        let (again, new) = tokens.split_at(known.len().min(tokens.len()));
        if !known.starts_with(again) {
            return Err(StreamRefusal::Differs);
        }
        self.from_worker = given;
        self.tokens.extend_from_slice(new);
        Ok(!new.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a worker goes on with what nobody wants, and is paid for it.
    #[test]
    fn of_a_task_that_stops_only_what_is_under_way_still_comes() {
        let sampling = SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1_000,
            max_tokens: 4_096,
        };
        let mut progress = Progress::queued(ModelId::from_bytes([1; 32]), &sampling);
        progress.begin();
        progress.append(0, &[7; 10]).unwrap();
        progress.stops();
        let too_many = progress.append(10, &[7; CROSSING_TOKENS_MAX + 1]);
        assert_eq!(too_many, Err(StreamRefusal::TooLong));
        assert_eq!(progress.append(10, &[7; CROSSING_TOKENS_MAX]), Ok(true));
        // It stays so, however often it is cancelled.
        progress.stops();
        assert_eq!(progress.append(266, &[7]), Err(StreamRefusal::TooLong));
    }
}
