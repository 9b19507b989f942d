//! Which worker gets a task: one with room, nothing against it, and few tasks in hand. New keys cost nothing, so all new
//! workers together get a part of the tasks only, as long as others have room.

use std::time::Instant;

use dovetail_commitment::WorkerKey;

use super::live_tasks::{LiveTask, State};

/// One task in so many goes to workers of which no batch was settled yet, while others have room: they can show what they
/// do, and a thousand new keys take no more than one does.
const NEW_WORKERS_PART: usize = 4;

impl State {
    /// The worker that is to have this task, if one can have it now.
    pub(super) fn choose(&self, task: &LiveTask, now: Instant) -> Option<WorkerKey> {
        let model = task.progress.borrow().model;
        let new_first = self.is_turn_of_new_workers();
        let free = self.workers.iter().filter(|(key, worker)| {
            worker.models.contains(&model)
                && worker.has_room(now)
                && task.may_go_to(key)
                && !self.stalls.rests(key, now)
        });
        let chosen = free.min_by_key(|(_, worker)| {
            let has_to_wait = worker.is_new() && !new_first;
            (has_to_wait, worker.hand.len(), worker.last_given)
        });
        chosen.map(|(key, _)| *key)
    }

    /// Whether new workers have less than their part of the tasks that are with workers.
    fn is_turn_of_new_workers(&self) -> bool {
        let count = |of_new: bool| -> usize {
            let workers = self.workers.values();
            let counted = workers.filter(|worker| !of_new || worker.is_new());
            counted.map(|worker| worker.hand.len()).sum()
        };
        count(true).saturating_mul(NEW_WORKERS_PART) <= count(false)
    }
}
