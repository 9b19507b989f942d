//! Tasks of which their agent wants no more: it has cancelled them, or left. One that its worker has begun stays with this worker, without a deadline and
//! for nobody else, and ends with what was streamed: that is paid. Any other is cancelled at once.

use std::time::Duration;

use dovetail_commitment::TaskId;
use dovetail_ledger::{TaskRecord, TaskState};
use dovetail_units::time::unix_now;

use super::live_tasks::{LiveTasks, State};
use super::progress::{Phase, Progress};
use super::{TaskError, Tasks};
use crate::mailboxes::WorkerCommand;

/// So long a worker may take to deliver what it streamed of a task that was cancelled.
pub(super) const PREFIX_TIME_S: u64 = 15;
/// So long a request to cancel a task waits for that.
const PREFIX_WAIT_MAX: Duration = Duration::from_secs(2);

impl Tasks {
    /// Stops a task that waits or runs, and waits a little for its end. One that has ended stays as it is.
    pub(crate) async fn cancel(&self, id: TaskId) -> Result<TaskRecord, TaskError> {
        let task = self.task(id).await?;
        if !matches!(task.state, TaskState::Queued | TaskState::Assigned) {
            return Ok(task);
        }
        let progress = self.live.watch(&id);
        let has_prefix = self.stop(id).await?;
        if let Some(mut progress) = progress.filter(|_| has_prefix) {
            let ended = progress.wait_for(|progress| !progress.phase.is_streaming());
            // Whether or not it has ended: the ledger says how it stands.
            let _ = tokio::time::timeout(PREFIX_WAIT_MAX, ended).await;
        }
        self.task(id).await
    }

    /// Stops a task. Whether its worker is to hand in what it has streamed.
    pub(super) async fn stop(&self, id: TaskId) -> Result<bool, TaskError> {
        if !self.live.stop(&id) {
            self.cancel_now(id).await?;
            return Ok(false);
        }
        let until = unix_now().saturating_add(PREFIX_TIME_S);
        let stopped = self.ledger.stop_task(id, until).await;
        let stopped = stopped.map_err(TaskError::Ledger)?;
        if stopped {
            // After the ledger: from now on a prefix may come.
            self.live.tell_to_stop(&id);
        }
        Ok(stopped)
    }

    /// Ends a task of which nothing will be handed in.
    pub(super) async fn cancel_now(&self, id: TaskId) -> Result<(), TaskError> {
        let cancelled = self.ledger.cancel_task(id).await;
        if cancelled.map_err(TaskError::Ledger)? {
            self.live.cancel(&id);
            self.pair();
        }
        Ok(())
    }
}

impl LiveTasks {
    /// Nobody waits for more of the task: if its worker has given a token, it is this worker's alone from now on, without
    /// a deadline but that of the ledger. Whether that is so.
    pub(super) fn stop(&self, id: &TaskId) -> bool {
        let mut state = self.state();
        let Some(task) = state.tasks.get_mut(id) else {
            return false;
        };
        let is_begun = {
            let progress = task.progress.borrow();
            progress.phase == Phase::Running && progress.is_begun()
        };
        if is_begun {
            (task.is_stopping, task.due) = (true, None);
        }
        is_begun
    }

    /// Asks the worker to stop. What it streamed before is still taken.
    pub(super) fn tell_to_stop(&self, id: &TaskId) {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let Some(task) = tasks.get_mut(id) else {
            return;
        };
        task.audience.forget();
        task.progress.send_modify(Progress::stops);
        let worker = task.worker.and_then(|key| workers.get(&key));
        if let Some(worker) = worker {
            // A full mailbox means that the connection is about to be dropped anyway.
            let _ = worker.commands.try_send(WorkerCommand::Cancel(*id));
        }
    }

    /// Asks the worker to stop, and forgets the task.
    pub(super) fn cancel(&self, id: &TaskId) {
        self.tell_to_stop(id);
        self.finish(id, Phase::Cancelled);
    }
}
