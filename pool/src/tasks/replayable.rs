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
        let room = room(model, prompt_tokens);
        let extent = Extent {
            input: prompt_tokens as u64,
            output: u64::from(sampling.max_tokens).min(room as u64),
            constrained,
        };
        let checked = self.pace.check_task(&model.id(), extent);
        checked.map_err(|too_large| AdmissionError::TaskTooLarge {
            tokens_max: too_large.tokens_max,
            prompt_tokens: prompt_tokens as u64,
        })
    }

    /// How many tokens of output the context and the validators have room for, at most those of `sampling`; at least 1,
    /// which may be too many.
    pub(super) fn room_for_output(
        &self,
        model: &Model,
        prompt_tokens: usize,
        sampling: &SamplingParams,
        constrained: bool,
    ) -> u32 {
        let room = room(model, prompt_tokens) as u64;
        let room = match self.check_replay(model, prompt_tokens, sampling, constrained) {
            Err(AdmissionError::TaskTooLarge { tokens_max, .. }) => {
                room.min(tokens_max.saturating_sub(prompt_tokens as u64))
            }
            _ => room,
        };
        let most = room.clamp(1, u64::from(sampling.max_tokens.max(1)));
        u32::try_from(most).unwrap_or(sampling.max_tokens)
    }
}

/// How long an output can be: whatever is asked for, the context ends it.
fn room(model: &Model, prompt_tokens: usize) -> usize {
    (model.context_tokens() + 1).saturating_sub(prompt_tokens)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::test_support::{Database, live_tasks};
    use crate::validation::tests::tiny_model;

    #[tokio::test]
    async fn a_task_that_could_not_be_replayed_in_time_is_refused_with_what_is_taken() {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        let model = tiny_model(1);
        let tasks = live_tasks(&ledger, [Arc::clone(&model)].into_iter().collect());
        let sampling = |max_tokens| SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1_000,
            max_tokens,
        };
        let check = |max_tokens| tasks.check_replay(&model, 10, &sampling(max_tokens), false);
        // Nothing is known of the validators: nothing is refused.
        check(4_096).unwrap();
        // 200 tokens take all of the time that a replay has.
        let whole = Extent {
            input: 10,
            output: 190,
            constrained: false,
        };
        tasks
            .pace
            .assume(&model.id(), &[whole], Duration::from_secs(120));
        check(80).unwrap();
        let refused = check(4_096).unwrap_err();
        let AdmissionError::TaskTooLarge { tokens_max, .. } = refused else {
            panic!("{refused}");
        };
        assert!((90..200).contains(&tokens_max), "{tokens_max}");
        let most = u32::try_from(tokens_max).unwrap() - 10;
        check(most).unwrap();
        check(most + 1).unwrap_err();
        let fits = |max_tokens| tasks.room_for_output(&model, 10, &sampling(max_tokens), false);
        assert_eq!((fits(4_096), fits(most), fits(8)), (most, most, 8));
        // A model that reads no further ends the output by itself.
        let nearly_full = model.context_tokens() - 1;
        tasks.pace.assume(
            &model.id(),
            &[Extent {
                input: nearly_full as u64,
                output: 2,
                constrained: false,
            }],
            Duration::from_secs(59),
        );
        tasks
            .check_replay(&model, nearly_full, &sampling(4_096), false)
            .unwrap();
        database.drop().await;
    }
}
