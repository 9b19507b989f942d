//! Tasks on their way to a worker, and its tokens and transcripts on their way back.

use dovetail_commitment::{TaskId, Transcript};
use dovetail_sv2::EndReason;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    AssignTask, AssignTaskError, DeliverTranscript, DeliverTranscriptError,
    DeliverTranscriptSuccess, StreamTokens,
};
use dovetail_units::time::unix_now;

use crate::assignment::Assignment;
use crate::mining::connection::Connection;
use crate::tasks::{DeliveryError, GivenBack};

impl Connection {
    pub(super) fn assign(&mut self, task: &Assignment) -> Result<(), EndReason> {
        // It may have waited, or been with another worker before.
        let left_ms = task
            .expires_at_unix
            .saturating_sub(unix_now())
            .saturating_mul(1_000);
        self.send(&AssignTask {
            task_id: task.id,
            model_id: task.model,
            prompt: task.prompt.clone(),
            stop: task.stop.clone(),
            constraint: task.constraint.clone(),
            salt: task.salt,
            sampling: task.sampling,
            seed: task.seed,
            deadline_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
        })
    }

    pub(in crate::mining) async fn on_assign_error(&mut self, message: &AssignTaskError) {
        let Some(connected) = &self.connected else {
            return;
        };
        let task = message.task_id;
        tracing::warn!(%task, code = message.code, "a worker refused a task");
        connected.refuse(task, given_back(&message.code)).await;
    }

    pub(in crate::mining) fn on_stream(&mut self, message: &StreamTokens) -> Result<(), EndReason> {
        let Some(connected) = &self.connected else {
            return Err(EndReason::Protocol("tokens before a registration"));
        };
        // Tokens of a task that has just been cancelled are still on their way: not worth a word.
        let taken = connected.stream(&message.task_id, message.first_position, &message.tokens);
        if let Err(refusal) = taken {
            tracing::debug!(task = %message.task_id, %refusal, "tokens were not taken");
        }
        Ok(())
    }

    /// A transcript takes the ledger a while. Tokens of other tasks do not wait behind it.
    pub(in crate::mining) fn on_transcript(
        &mut self,
        message: &DeliverTranscript,
    ) -> Result<(), EndReason> {
        let task_id = message.task_id;
        let Some(connected) = &self.connected else {
            return self.answer_delivery(task_id, Err(Code::NotRegistered));
        };
        let Ok(transcript) = Transcript::decode(&message.transcript.0) else {
            return self.answer_delivery(task_id, Err(Code::TranscriptMalformed));
        };
        let delivery = connected.deliver(task_id, transcript);
        self.deliveries.spawn(async move {
            let delivered = delivery.await;
            (task_id, delivered.map_err(|error| delivery_code(&error)))
        });
        Ok(())
    }

    /// Says whether the task's transcript was taken.
    pub(in crate::mining) fn answer_delivery(
        &self,
        task_id: TaskId,
        taken: Result<(), Code>,
    ) -> Result<(), EndReason> {
        match taken {
            Ok(()) => self.send(&DeliverTranscriptSuccess { task_id }),
            Err(code) => {
                tracing::warn!(task = %task_id, %code, "a transcript was refused");
                self.send(&DeliverTranscriptError {
                    task_id,
                    code: code.to_string(),
                })
            }
        }
    }
}

/// Why a worker that refused a task with this code does not run it.
fn given_back(code: &str) -> GivenBack {
    match Code::parse(code) {
        Some(Code::TooManyTasks) => GivenBack::Full,
        Some(Code::ModelUnknown | Code::GuideUnknown | Code::Internal) => GivenBack::Unable,
        _ => GivenBack::Impossible,
    }
}

fn delivery_code(error: &DeliveryError) -> Code {
    match error {
        DeliveryError::TaskUnknown => Code::TaskUnknown,
        DeliveryError::NotYours => Code::TaskNotYours,
        DeliveryError::Mismatch => Code::TranscriptNotMatchingTask,
        // The worker keeps it, and offers it again.
        DeliveryError::Ledger(_) | DeliveryError::Underway | DeliveryError::Unfinished => {
            Code::Internal
        }
    }
}
