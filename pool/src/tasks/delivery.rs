//! A task's end on its worker: the transcript is checked against the task as it was assigned and the tokens as
//! they were streamed, and made durable. What it says about the computation is the audit's matter.

use std::time::Instant;

use dovetail_commitment::{
    FinishReason, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
};
use dovetail_ledger::{LedgerError, TaskRecord, TaskState};
use dovetail_telemetry::Event;

use super::Tasks;
use super::live_tasks::LiveTasks;
use super::progress::{Phase, Progress};
use super::refusal::GivenBack;

/// Why a transcript was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// No such task, or it has ended.
    #[error("no such task is running")]
    TaskUnknown,
    #[error("the task is another worker's")]
    NotYours,
    #[error("the transcript is not of the task as it was assigned")]
    Mismatch,
    /// Delivered on another connection a moment ago, and not durable yet.
    #[error("the task is being taken already")]
    Underway,
    #[error("the ledger does not answer: {0}")]
    Ledger(LedgerError),
    /// A fault of ours; the log says more.
    #[error("the transcript was not taken to its end")]
    Unfinished,
}

impl Tasks {
    pub(super) async fn deliver(
        &self,
        worker: WorkerKey,
        id: TaskId,
        transcript: &Transcript,
    ) -> Result<(), DeliveryError> {
        let delivered = self.hand_in(worker, id, transcript).await;
        if matches!(delivered, Err(DeliveryError::Ledger(_))) {
            self.live.excuse(&id, &worker);
        }
        delivered
    }

    async fn hand_in(
        &self,
        worker: WorkerKey,
        id: TaskId,
        transcript: &Transcript,
    ) -> Result<(), DeliveryError> {
        let task = self.ledger.task(id).await.map_err(DeliveryError::Ledger)?;
        let task = task.ok_or(DeliveryError::TaskUnknown)?;
        if task.worker != Some(worker) {
            return Err(DeliveryError::NotYours);
        }
        if task.state == TaskState::Finished && task.transcript.as_ref() == Some(transcript) {
            // Delivered again: our answer was lost with the connection before this one.
            return Ok(());
        }
        if task.state != TaskState::Assigned {
            return Err(DeliveryError::TaskUnknown);
        }
        let is_prefix = transcript.finish_reason == FinishReason::Cancelled;
        let tokens = self.live.hand_in(&id, &worker, is_prefix)?;
        let taken = self.take(&task, worker, transcript, &tokens).await;
        if taken.is_err() {
            self.live.not_taken(&id);
            if !self.live.is_connected(&worker) {
                self.give_back(&[id], worker, GivenBack::Lost).await;
            }
        }
        taken
    }

    async fn take(
        &self,
        task: &TaskRecord,
        worker: WorkerKey,
        transcript: &Transcript,
        tokens: &[u32],
    ) -> Result<(), DeliveryError> {
        if !is_of(transcript, task, worker, tokens)? {
            return Err(DeliveryError::Mismatch);
        }
        self.ledger
            .finish_task(task.id, worker, transcript, tokens)
            .await
            .map_err(|error| match error {
                // Its time ran out, or it was cancelled, a moment ago.
                LedgerError::Refused(_) => DeliveryError::TaskUnknown,
                error => DeliveryError::Ledger(error),
            })?;
        self.telemetry.emit(&Event::TaskFinished {
            task: &task.id.to_string(),
            output_tokens: transcript.output_tokens,
        });
        self.live.complete(&task.id, &worker);
        self.pair();
        Ok(())
    }
}

impl LiveTasks {
    /// The worker hands the task in: it gives no more tokens, and has no deadline while the ledger takes it. Returns
    /// the tokens, all of which it has given. A prefix of a task that is stopping may be shorter: a worker that took over
    /// need not have come to where the one before it was.
    pub(super) fn hand_in(
        &self,
        id: &TaskId,
        worker: &WorkerKey,
        is_prefix: bool,
    ) -> Result<Vec<u32>, DeliveryError> {
        let mut state = self.state();
        let task = state.tasks.get_mut(id);
        let task = task.ok_or(DeliveryError::TaskUnknown)?;
        if task.worker.as_ref() != Some(worker) {
            return Err(DeliveryError::NotYours);
        }
        if task.is_handed_in {
            return Err(DeliveryError::Underway);
        }
        let progress = task.progress.borrow();
        let is_whole = progress.is_caught_up() || (is_prefix && task.is_stopping);
        if !is_whole {
            return Err(DeliveryError::Mismatch);
        }
        let tokens = progress.given().to_vec();
        drop(progress);
        (task.is_handed_in, task.due) = (true, None);
        Ok(tokens)
    }

    /// What was handed in was not taken: the worker still has the task.
    pub(super) fn not_taken(&self, id: &TaskId) {
        if let Some(task) = self.state().tasks.get_mut(id) {
            task.is_handed_in = false;
            task.due = (!task.is_stopping).then(|| Instant::now() + self.patience.progress);
        }
    }

    /// The worker has done its part, and the pool cannot do its own: no deadline but the task's end.
    fn excuse(&self, id: &TaskId, worker: &WorkerKey) {
        let mut state = self.state();
        let task = state.tasks.get_mut(id);
        if let Some(task) = task.filter(|task| task.worker.as_ref() == Some(worker)) {
            task.due = None;
        }
    }

    /// The ledger has the task's transcript.
    pub(super) fn complete(&self, id: &TaskId, worker: &WorkerKey) {
        let mut state = self.state();
        state.stalls.worked(worker);
        if let Some(task) = state.tasks.get(id) {
            task.progress.send_modify(Progress::keep_given);
        }
        drop(state);
        self.finish(id, Phase::Finished);
    }
}

/// Whether the transcript is of this task, run by this worker, with these tokens.
fn is_of(
    transcript: &Transcript,
    task: &TaskRecord,
    worker: WorkerKey,
    tokens: &[u32],
) -> Result<bool, DeliveryError> {
    let prompt = task.prompt.as_ref().ok_or(DeliveryError::TaskUnknown)?;
    let stop = task.stop.as_ref().ok_or(DeliveryError::TaskUnknown)?;
    let salt = task.salt.as_ref().ok_or(DeliveryError::TaskUnknown)?;
    let commitment = prompt_commitment(salt, stop, task.constraint.as_ref(), prompt);
    Ok(transcript.task_id == task.id
        && transcript.worker_key == worker
        && transcript.model_id == task.model_id
        && transcript.engine_version == dovetail_engine::ENGINE_VERSION
        && transcript.prompt_commitment == commitment
        && transcript.sampling == task.sampling
        && transcript.seed == task.seed
        // The audit takes a prefix for what it is. Only a task that its agent has cancelled may end in one.
        && (transcript.finish_reason != FinishReason::Cancelled || task.stops_at_unix.is_some())
        && transcript.output_tokens as usize == tokens.len()
        && transcript.output_digest == output_digest(tokens))
}
