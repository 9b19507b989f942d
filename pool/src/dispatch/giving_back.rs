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
/// How long a worker is given nothing that gave a task back while it ran none.
pub(super) const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

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
    /// How many of its tasks had ended by then.
    ended: u64,
}

impl Running {
    /// Whether this worker may be given the task: unless it gave it back and has no more room since.
    pub(super) fn may_go_to(&self, key: &WorkerKey, worker: &Worker) -> bool {
        let of_worker = self.refusals.iter().rev().find(|of| of.worker == *key);
        of_worker.is_none_or(|refusal| match refusal.why {
            GivenBack::Full => worker.ended > refusal.ended,
            GivenBack::Unable => false,
            // It is back.
            GivenBack::Lost => true,
        })
    }

    /// Why nobody will ever take the task, if it was given back before. One that is new waits for a worker
    /// to come.
    pub(super) fn hopeless(&self, workers: &HashMap<WorkerKey, Worker>) -> Option<&'static str> {
        let last = self.refusals.last()?;
        let model = self.live.borrow().model;
        let somebody = workers.iter().any(|(key, worker)| {
            let serves = worker.tasks_max > 0 && worker.models.contains(&model);
            let gave_back = |of: &Refusal| of.worker == *key && of.why == GivenBack::Unable;
            // One that is full will have room once it has finished something.
            let may_yet = !worker.running.is_empty() && !self.refusals.iter().any(gave_back);
            serves && (self.may_go_to(key, worker) || may_yet)
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
        let mut ended = 0;
        if let Some(worker) = workers.get_mut(key) {
            worker.running.retain(|running| running != id);
            ended = worker.ended;
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
        task.refusals.push(Refusal {
            worker: *key,
            why,
            ended,
        });
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
