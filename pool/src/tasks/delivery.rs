//! A task's end on its worker: the transcript is checked against the task as it was assigned and the tokens as
//! they were streamed, and made durable. What it says about the computation is the audit's matter.

use dovetail_commitment::{
    FinishReason, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
};
use dovetail_ledger::{LedgerError, TaskRecord, TaskState};
use dovetail_telemetry::Event;

use super::Tasks;

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
    #[error("the ledger does not answer: {0}")]
    Ledger(LedgerError),
}

impl Tasks {
    pub(super) async fn deliver(
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
        let progress = self.live.watch(&id).ok_or(DeliveryError::TaskUnknown)?;
        let tokens = progress.borrow().tokens.clone();
        if !is_of(transcript, &task, worker, &tokens)? {
            return Err(DeliveryError::Mismatch);
        }
        self.ledger
            .finish_task(id, worker, transcript, &tokens)
            .await
            .map_err(|error| match error {
                // Its time ran out, or it was cancelled, a moment ago.
                LedgerError::Refused(_) => DeliveryError::TaskUnknown,
                error => DeliveryError::Ledger(error),
            })?;
        self.telemetry.emit(&Event::TaskFinished {
            task: &id.to_string(),
            output_tokens: transcript.output_tokens,
        });
        self.live.complete(&id, &tokens);
        self.pair();
        Ok(())
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
    let commitment = prompt_commitment(&task.salt, stop, task.constraint.as_ref(), prompt);
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
