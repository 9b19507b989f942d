//! The queue of tasks that wait for a worker. It is bounded: a task that finds it full is not admitted.

use std::sync::Arc;

use dovetail_commitment::TaskId;
use tokio::sync::watch;

use super::live_tasks::{LiveTask, LiveTasks};
use super::progress::Progress;
use crate::assignment::Assignment;

impl LiveTasks {
    /// Whether one more task may wait.
    pub(super) fn has_room(&self, queue_max: usize) -> bool {
        self.state().queue.len() < queue_max
    }

    /// Takes a new task into the queue; `false` if that is full.
    pub(super) fn enqueue(&self, assignment: Assignment, queue_max: usize) -> bool {
        let mut state = self.state();
        if state.queue.len() >= queue_max {
            return false;
        }
        let id = assignment.id;
        let progress = Progress::queued(assignment.model, &assignment.sampling);
        state.queue.push_back(id);
        state.tasks.insert(
            id,
            LiveTask {
                progress: watch::Sender::new(progress),
                worker: None,
                sent_on: None,
                assignment: Some(Arc::new(assignment)),
                tries: 0,
                refusals: Vec::new(),
            },
        );
        true
    }

    /// Puts a task that was given back before all that wait. Nothing if it has ended meanwhile.
    pub(super) fn requeue(&self, id: &TaskId) {
        let mut state = self.state();
        let waits = state
            .tasks
            .get(id)
            .is_some_and(|task| task.worker.is_none() && task.assignment.is_some());
        if waits && !state.queue.contains(id) {
            state.queue.push_front(*id);
        }
    }
}
