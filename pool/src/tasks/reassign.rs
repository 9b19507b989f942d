//! Tasks that a worker gives back: it has no room, cannot run them, is gone, or lets them lie. They go to another
//! worker, a bounded number of times; where nobody is left, they fail with a code that says why. What an agent has read
//! stays: another worker gives the same tokens again, bit for bit, and the agent reads on where it was.

use std::collections::HashMap;
use std::time::Instant;

use dovetail_api::codes::Code;
use dovetail_commitment::{TaskId, WorkerKey};

use super::Tasks;
use super::live_tasks::{LiveTask, LiveTasks, State, Worker};
use super::progress::Phase;
use super::refusal::{GivenBack, REFUSAL_PAUSE, Refusal};
use crate::mailboxes::WorkerCommand;

/// How often a task is given to a worker at most: enough to pass over some that are full, and few enough
/// that a task which no worker can run does not go around them all.
pub(super) const TRIES_MAX: u32 = 4;

/// What becomes of a task that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another worker may have it: the ledger releases it, then [`LiveTasks::requeue`].
    Another,
    /// It fails, with this code.
    Fail(Code),
    /// It is cancelled: its agent wants no more of it, and nobody has what was streamed.
    Cancel,
}

impl LiveTask {
    /// Whether this worker may be given the task, once it has room: unless it said that it cannot run it, or let
    /// it lie.
    pub(super) fn may_go_to(&self, key: &WorkerKey) -> bool {
        let has_failed = |of: &Refusal| {
            of.worker == *key && matches!(of.why, GivenBack::Unable | GivenBack::Stalled)
        };
        !self.refusals.iter().any(has_failed)
    }

    /// Why nobody will ever take the task, if it was given back before. One that is new waits for a worker
    /// to come.
    pub(super) fn hopeless(&self, workers: &HashMap<WorkerKey, Worker>) -> Option<Code> {
        let last = self.refusals.last()?;
        let model = self.progress.borrow().model;
        let somebody = workers.iter().any(|(key, worker)| {
            let serves = worker.tasks_max > 0 && worker.models.contains(&model);
            serves && self.may_go_to(key)
        });
        (self.tries >= TRIES_MAX || !somebody).then(|| last.why.code())
    }
}

impl LiveTasks {
    /// The worker does not run the task. `None`: it is not this worker's, or has ended.
    pub(super) fn give_back(&self, id: &TaskId, key: &WorkerKey, why: GivenBack) -> Option<Next> {
        let mut state = self.state();
        let State {
            workers,
            tasks,
            stalls,
            ..
        } = &mut *state;
        let task = tasks.get_mut(id)?;
        let is_open = task.progress.borrow().phase.is_streaming() && !task.is_handed_in;
        if task.worker != Some(*key) || !is_open {
            return None;
        }
        if why == GivenBack::Impossible && !task.is_stopping {
            return Some(Next::Fail(why.code()));
        }
        let now = Instant::now();
        if let Some(worker) = workers.get_mut(key) {
            worker.hand.remove(id);
            match why {
                GivenBack::Full | GivenBack::Unable => worker.refused_at = Some(now),
                GivenBack::Stalled => {
                    // A full mailbox means that the connection is about to be dropped anyway.
                    let _ = worker.commands.try_send(WorkerCommand::Cancel(*id));
                }
                GivenBack::Impossible | GivenBack::Lost => {}
            }
        }
        if why == GivenBack::Stalled {
            stalls.note(*key, now);
        }
        (task.worker, task.due) = (None, None);
        if task.is_stopping {
            return Some(Next::Cancel);
        }
        task.refusals.push(Refusal { worker: *key, why });
        if let Some(code) = task.hopeless(workers) {
            return Some(Next::Fail(code));
        }
        task.progress
            .send_modify(|progress| progress.phase = Phase::Queued);
        Some(Next::Another)
    }
}

impl Tasks {
    /// A worker does not run tasks that it was given: other workers may, or they fail. Either way the ledger
    /// knows it first.
    pub(super) async fn give_back(&self, tasks: &[TaskId], worker: WorkerKey, why: GivenBack) {
        for task in tasks {
            match self.live.give_back(task, &worker, why) {
                None => {}
                Some(Next::Fail(code)) => self.fail(*task, Some(worker), code).await,
                Some(Next::Another) => self.release(*task, worker, why).await,
                Some(Next::Cancel) => self.give_up(*task).await,
            }
        }
        self.pair();
    }

    /// Ends a task of which its agent wants no more, and whose worker has not handed in what it streamed.
    async fn give_up(&self, task: TaskId) {
        if let Err(error) = self.cancel_now(task).await {
            tracing::error!(%task, %error, "cannot cancel a task");
            self.live.finish(&task, Phase::Cancelled);
        }
    }

    async fn release(&self, task: TaskId, worker: WorkerKey, why: GivenBack) {
        let released = self.ledger.release_task(task, worker).await;
        if !self.goes_on(task, released) {
            return;
        }
        tracing::info!(%task, %worker, ?why, "a task goes to another worker");
        self.live.requeue(&task);
        // By then a worker that refused it may have room.
        let tasks = self.clone();
        self.tracker.spawn(async move {
            tokio::time::sleep(REFUSAL_PAUSE).await;
            tasks.pair();
        });
    }
}
