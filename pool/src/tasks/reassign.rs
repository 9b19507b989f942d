//! Tasks that a worker gives back before it streamed a token: it has no room, cannot run them, or is
//! gone. They go to another worker, a bounded number of times; where nobody is left, they fail with a word
//! that says so. A task of which an agent has read tokens stays with its worker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dovetail_api::codes;
use dovetail_commitment::{TaskId, WorkerKey};

use super::{Dispatcher, Phase, Running, State, Worker};

/// How often a task is given to a worker at most: enough to pass over some that are full, and few enough
/// that a task which no worker can run does not go around them all.
pub(super) const TRIES_MAX: u32 = 4;
/// How long a worker is given nothing that gave a task back while it ran none: what keeps it busy, as a
/// task that was cancelled a moment ago, is over by then.
pub(crate) const REFUSAL_PAUSE: Duration = Duration::from_secs(2);

/// Why a worker does not run a task that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It has as many as it can take.
    Full,
    /// It cannot run this one.
    Unable,
    /// Its connection has ended.
    Lost,
}

impl GivenBack {
    /// What the task's agent is told if nobody else takes it.
    fn code(self) -> &'static str {
        match self {
            Self::Full => codes::WORKERS_FULL,
            Self::Unable => codes::WORKER_FAILED,
            Self::Lost => codes::WORKER_LOST,
        }
    }
}

/// What becomes of a task that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another worker may have it: the ledger releases it, then [`Dispatcher::requeue`].
    Another,
    /// It fails, with this word.
    Fail(&'static str),
}

/// A worker that gave a task back.
#[derive(Debug)]
pub(super) struct Refusal {
    worker: WorkerKey,
    why: GivenBack,
}

impl Running {
    /// Whether this worker may be given the task, once it has room: unless it said that it cannot run it.
    pub(super) fn may_go_to(&self, key: &WorkerKey) -> bool {
        let unable = |of: &Refusal| of.worker == *key && of.why == GivenBack::Unable;
        !self.refusals.iter().any(unable)
    }

    /// Why nobody will ever take the task, if it was given back before. One that is new waits for a worker
    /// to come.
    pub(super) fn hopeless(&self, workers: &HashMap<WorkerKey, Worker>) -> Option<&'static str> {
        let last = self.refusals.last()?;
        let model = self.live.borrow().model;
        let somebody = workers.iter().any(|(key, worker)| {
            let serves = worker.tasks_max > 0 && worker.models.contains(&model);
            serves && self.may_go_to(key)
        });
        (self.tries >= TRIES_MAX || !somebody).then(|| last.why.code())
    }
}

impl Dispatcher {
    /// The worker does not run the task. `None`: it is not this worker's, or has ended.
    pub(crate) fn give_back(&self, id: &TaskId, key: &WorkerKey, why: GivenBack) -> Option<Next> {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let task = tasks.get_mut(id)?;
        let is_open = task.live.borrow().phase.is_streaming();
        if task.worker != Some(*key) || !is_open {
            return None;
        }
        if let Some(worker) = workers.get_mut(key) {
            worker.running.retain(|running| running != id);
            if why != GivenBack::Lost {
                worker.refused_at = Some(Instant::now());
            }
        }
        task.worker = None;
        if task.order.is_none() {
            // Some of it was streamed.
            return Some(Next::Fail(match why {
                GivenBack::Lost => codes::WORKER_LOST,
                GivenBack::Full | GivenBack::Unable => codes::WORKER_FAILED,
            }));
        }
        task.refusals.push(Refusal { worker: *key, why });
        if let Some(code) = task.hopeless(workers) {
            return Some(Next::Fail(code));
        }
        task.live.send_modify(|live| live.phase = Phase::Queued);
        Some(Next::Another)
    }

    /// Puts a task that was given back before all that wait. Nothing if it has ended meanwhile.
    pub(crate) fn requeue(&self, id: &TaskId) {
        let mut state = self.state();
        let waits = state
            .tasks
            .get(id)
            .is_some_and(|task| task.worker.is_none() && task.order.is_some());
        if waits && !state.queue.contains(id) {
            state.queue.push_front(*id);
        }
    }
}
