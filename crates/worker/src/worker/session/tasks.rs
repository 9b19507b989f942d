//! A session's tasks: between the pool's messages and the engine's tasks, which know nothing of each other.

use std::time::Duration;

use dovetail_commitment::{TaskId, Transcript};
use dovetail_miner::stats::count;
use dovetail_serving::task::{CHUNK_TOKENS_MAX, Task, TaskError, TaskEvent};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    AssignTask, AssignTaskError, Bytes, DeliverTranscript, SEQUENCE_ITEMS_MAX, StreamTokens,
};
use dovetail_sv2::{Outbox, OutboxError};

use super::Session;
use crate::worker::Worker;

// What the engine gives at once fits one message.
const _: () = assert!(CHUNK_TOKENS_MAX <= SEQUENCE_ITEMS_MAX);

impl Worker {
    /// Takes a task of the pool, or refuses it.
    pub(super) fn on_assigned(
        &mut self,
        session: &Session,
        message: AssignTask,
    ) -> Result<(), OutboxError> {
        let task_id = message.task_id;
        tracing::info!(task = %task_id, model = %message.model_id, "took a task");
        match self.runner.take(task(message)) {
            Ok(()) => {
                self.owners.insert(task_id, session.index);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(task = %task_id, %error, "refused the task");
                refuse(session.pool.outbox(), task_id, error)
            }
        }
    }

    /// Hands what the engine gave to the pool.
    pub(super) fn on_task(
        &mut self,
        session: &Session,
        event: TaskEvent,
    ) -> Result<(), OutboxError> {
        let outbox = session.pool.outbox();
        let stats = &self.stats;
        match event {
            TaskEvent::Tokens {
                task_id,
                first_position,
                tokens,
            } => {
                stats.generated(tokens.len());
                if self.owners.get(&task_id) == Some(&session.index) {
                    outbox.send(&StreamTokens {
                        task_id,
                        first_position,
                        tokens,
                    })?;
                }
            }
            TaskEvent::Finished {
                transcript,
                expires,
                reused_tokens,
            } => {
                tracing::info!(task = %transcript.task_id, tokens = transcript.output_tokens, reused_tokens, "finished a task");
                count(&stats.tasks_finished);
                // A task of another pool was cancelled with its session; it may have been too late.
                let Some(owner) = self.owners.remove(&transcript.task_id) else {
                    return Ok(());
                };
                if owner == session.index {
                    deliver(outbox, &transcript)?;
                }
                let transcripts = &mut self.upstreams[owner].transcripts;
                if transcripts.push(*transcript, expires).is_some() {
                    tracing::warn!("too many transcripts wait for a share; dropped the oldest");
                }
            }
            TaskEvent::Failed { task_id, error } => {
                tracing::warn!(task = %task_id, %error, "the task failed");
                count(&stats.tasks_failed);
                if self.owners.remove(&task_id) == Some(session.index) {
                    refuse(outbox, task_id, error)?;
                }
            }
            TaskEvent::Dropped(task_id) => {
                tracing::info!(task = %task_id, "dropped the task");
                count(&stats.tasks_failed);
                self.owners.remove(&task_id);
            }
        }
        Ok(())
    }
}

/// The pool's message as a task.
fn task(message: AssignTask) -> Task {
    Task {
        id: message.task_id,
        model_id: message.model_id,
        prompt: message.prompt.0,
        salt: message.salt,
        sampling: message.sampling,
        stop: message.stop,
        seed: message.seed,
        deadline: Duration::from_millis(u64::from(message.deadline_ms)),
    }
}

/// What the pool is told of a task that cannot be done.
fn code(error: TaskError) -> Code {
    match error {
        TaskError::TooManyTasks => Code::TooManyTasks,
        TaskError::ModelUnknown => Code::ModelUnknown,
        TaskError::PromptTooLong => Code::PromptTooLong,
        TaskError::PromptInvalid => Code::PromptInvalid,
        TaskError::SamplingInvalid => Code::SamplingInvalid,
        TaskError::Internal => Code::Internal,
    }
}

pub(super) fn deliver(outbox: &Outbox, transcript: &Transcript) -> Result<(), OutboxError> {
    outbox.send(&DeliverTranscript {
        task_id: transcript.task_id,
        transcript: Bytes(transcript.encode()),
    })
}

fn refuse(outbox: &Outbox, task_id: TaskId, error: TaskError) -> Result<(), OutboxError> {
    outbox.send(&AssignTaskError {
        task_id,
        code: code(error).to_string(),
    })
}
