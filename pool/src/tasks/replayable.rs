//! Whether a task is one that the audit can replay in time. No other is given to a worker, whose work would be lost.

use dovetail_commitment::SamplingParams;
use dovetail_engine::Model;

use super::{AdmissionError, Tasks};
use crate::validation::Extent;

impl Tasks {
    /// Holds a task with so many tokens of prompt against the speed of the validators.
    pub(super) fn check_replay(
        &self,
        model: &Model,
        prompt_tokens: usize,
        sampling: &SamplingParams,
        constrained: bool,
    ) -> Result<(), AdmissionError> {
        // Whatever is asked for, the context ends the output.
        let room = (model.context_tokens() + 1).saturating_sub(prompt_tokens);
        let extent = Extent {
            input: prompt_tokens as u64,
            output: u64::from(sampling.max_tokens).min(room as u64),
            constrained,
        };
        let checked = self.pace.check_task(&model.id(), extent);
        checked.map_err(|too_large| AdmissionError::TaskTooLarge {
            tokens_max: too_large.tokens_max,
        })
    }
}
