//! How long agents have waited for first tokens lately: from a task's admission to its first token, queue and all. Agents and
//! routers choose between pools by it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use dovetail_commitment::ModelId;

/// So many tasks of a model count.
const TASKS: usize = 128;

/// The last tasks of each model; those of models that the pool serves alone, so there are few.
#[derive(Default)]
pub(super) struct FirstTokens {
    waited: HashMap<ModelId, VecDeque<Duration>>,
}

impl FirstTokens {
    /// A task of this model has its first token after so long.
    pub(super) fn record(&mut self, model: ModelId, waited: Duration) {
        let of_model = self.waited.entry(model).or_default();
        if of_model.len() == TASKS {
            of_model.pop_front();
        }
        of_model.push_back(waited);
    }

    /// The median; none where no task has had a token yet.
    pub(super) fn median(&self, model: &ModelId) -> Option<Duration> {
        let mut waited: Vec<Duration> = self.waited.get(model)?.iter().copied().collect();
        waited.sort_unstable();
        waited.get(waited.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_last_tasks_of_a_model() {
        let (one, other) = (ModelId::from_bytes([1; 32]), ModelId::from_bytes([2; 32]));
        let mut first = FirstTokens::default();
        assert_eq!(first.median(&one), None);
        for ms in [30, 10, 20] {
            first.record(one, Duration::from_millis(ms));
        }
        assert_eq!(first.median(&one), Some(Duration::from_millis(20)));
        assert_eq!(first.median(&other), None);
        for _ in 0..TASKS {
            first.record(one, Duration::from_millis(7));
        }
        assert_eq!(first.median(&one), Some(Duration::from_millis(7)));
        assert_eq!(first.waited[&one].len(), TASKS);
    }
}
