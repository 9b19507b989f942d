//! A session's tasks: between the pool's messages and the engine's tasks, which know nothing of each other.

use std::time::{Duration, Instant};

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
use crate::worker::session_failure::SessionFailure;

// What the engine gives at once fits one message.
const _: () = assert!(CHUNK_TOKENS_MAX <= SEQUENCE_ITEMS_MAX);

impl Worker {
    /// Takes a task of the pool, or refuses it.
    pub(super) fn on_assigned(
        &mut self,
        session: &mut Session,
        message: AssignTask,
    ) -> Result<(), SessionFailure> {
        let (task_id, model_id) = (message.task_id, message.model_id);
        let may_log = session.chatter.may_log();
        match self.take_task(session, message) {
            Ok(()) => {
                if may_log {
                    tracing::info!(task = %task_id, model = %model_id, "took a task");
                }
                self.owners.insert(task_id, session.index);
                Ok(())
            }
            Err(error) => {
                if may_log {
                    tracing::warn!(task = %task_id, %error, "refused the task");
                }
                session.chatter.useless()?;
                Ok(refuse(session.pool.outbox(), task_id, error)?)
            }
        }
    }

    /// Gives the task to the engine, unless its pool owes too much, or a task of this id is not over for us.
    fn take_task(&mut self, session: &Session, message: AssignTask) -> Result<(), TaskError> {
        let limit = self.credit_limit();
        let upstream = &mut self.upstreams[session.index];
        let id = &message.task_id;
        let in_flight = session.in_flight.as_ref();
        let is_known = self.owners.contains_key(id)
            || upstream.transcripts.contains(id)
            || in_flight.is_some_and(|batch| batch.task_ids.contains(id));
        if is_known || upstream.uncredited.exceeds(limit, Instant::now()) {
            return Err(TaskError::TooManyTasks);
        }
        self.runner.take(task(message))
    }

    /// Nobody waits for the task any more.
    pub(super) fn on_cancelled(
        &self,
        session: &mut Session,
        task_id: &TaskId,
    ) -> Result<(), SessionFailure> {
        // Whoever gives tasks only to cancel them says as little as who cancels what is not there.
        session.chatter.useless()?;
        if session.chatter.may_log() {
            tracing::info!(task = %task_id, "the task was cancelled");
        }
        self.runner.cancel(task_id);
        Ok(())
    }

    /// The transcript may go into a batch.
    pub(super) fn on_transcript_accepted(
        &mut self,
        session: &mut Session,
        task_id: &TaskId,
    ) -> Result<(), SessionFailure> {
        let upstream = &mut self.upstreams[session.index];
        match upstream.transcripts.accept(task_id) {
            true => {
                upstream.waiting_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            false => session.chatter.useless(),
        }
    }

    /// The transcript is worth nothing, or not yet.
    pub(super) fn on_transcript_refused(
        &mut self,
        session: &mut Session,
        task_id: &TaskId,
        code: &str,
    ) -> Result<(), SessionFailure> {
        let transcripts = &mut self.upstreams[session.index].transcripts;
        // It stays undelivered and is offered again on the next session.
        let may_be_offered_again = Code::parse(code) == Some(Code::Internal);
        if may_be_offered_again || !transcripts.remove(task_id) {
            session.chatter.useless()?;
        }
        if session.chatter.may_log() {
            tracing::warn!(task = %task_id, code, "the pool refused the transcript");
        }
        Ok(())
    }

    /// Hands what the engine gave to the pool.
    pub(super) fn on_task(
        &mut self,
        session: &mut Session,
        event: TaskEvent,
    ) -> Result<(), SessionFailure> {
        match event {
            TaskEvent::Tokens {
                task_id,
                first_position,
                tokens,
            } => self.on_tokens(session, task_id, first_position, tokens)?,
            TaskEvent::Finished {
                transcript,
                input_tokens,
                expires,
                reused_tokens,
            } => {
                if session.chatter.may_log() {
                    tracing::info!(task = %transcript.task_id, tokens = transcript.output_tokens, reused_tokens, "finished a task");
                }
                self.on_finished(session, *transcript, input_tokens, expires)?;
            }
            TaskEvent::Failed { task_id, error } => {
                if session.chatter.may_log() {
                    tracing::warn!(task = %task_id, %error, "the task failed");
                }
                count(&self.stats.tasks_failed);
                if self.owners.remove(&task_id) == Some(session.index) {
                    session.chatter.useless()?;
                    refuse(session.pool.outbox(), task_id, error)?;
                }
            }
            TaskEvent::Dropped(task_id) => {
                if session.chatter.may_log() {
                    tracing::info!(task = %task_id, "dropped the task");
                }
                count(&self.stats.tasks_failed);
                self.owners.remove(&task_id);
            }
        }
        Ok(())
    }

    fn on_tokens(
        &mut self,
        session: &Session,
        task_id: TaskId,
        first_position: u32,
        tokens: Vec<u32>,
    ) -> Result<(), OutboxError> {
        self.stats.generated(tokens.len());
        // One that was cancelled with its session may give a little more.
        if self.owners.get(&task_id) != Some(&session.index) {
            return Ok(());
        }
        let upstream = &mut self.upstreams[session.index];
        let count = tokens.len() as u64;
        upstream.uncredited.given(count, Instant::now());
        self.stats.pool(&upstream.options.address, |pool| {
            pool.tokens_generated = pool.tokens_generated.saturating_add(count);
        });
        session.pool.send(&StreamTokens {
            task_id,
            first_position,
            tokens,
        })
    }

    fn on_finished(
        &mut self,
        session: &Session,
        transcript: Transcript,
        input_tokens: usize,
        expires: Instant,
    ) -> Result<(), OutboxError> {
        count(&self.stats.tasks_finished);
        let task_id = transcript.task_id;
        let Some(owner) = self.owners.remove(&task_id) else {
            tracing::warn!(task = %task_id, "the finished task is nobody's; its transcript is dropped");
            return Ok(());
        };
        let message = deliver_message(&transcript);
        // Kept first: it is delivered again if this session ends now.
        let transcripts = &mut self.upstreams[owner].transcripts;
        if let Some(dropped) = transcripts.push(transcript, input_tokens, expires) {
            tracing::warn!(task = %dropped.transcript.task_id, "too many transcripts wait for a share, or it waits already; dropped it");
        }
        // A task of another pool was cancelled with its session; it may have been too late.
        match owner == session.index {
            true => session.pool.send(&message),
            false => Ok(()),
        }
    }
}

/// The pool's message as a task.
fn task(message: AssignTask) -> Task {
    Task {
        id: message.task_id,
        model_id: message.model_id,
        prompt: message.prompt,
        salt: message.salt,
        sampling: message.sampling,
        stop: message.stop,
        constraint: message.constraint,
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
        TaskError::ConstraintInvalid => Code::ConstraintInvalid,
        TaskError::GuideUnknown => Code::GuideUnknown,
        TaskError::Internal => Code::Internal,
    }
}

pub(super) fn deliver(outbox: &Outbox, transcript: &Transcript) -> Result<(), OutboxError> {
    outbox.send(&deliver_message(transcript))
}

fn deliver_message(transcript: &Transcript) -> DeliverTranscript {
    DeliverTranscript {
        task_id: transcript.task_id,
        transcript: Bytes(transcript.encode()),
    }
}

fn refuse(outbox: &Outbox, task_id: TaskId, error: TaskError) -> Result<(), OutboxError> {
    outbox.send(&AssignTaskError {
        task_id,
        code: code(error).to_string(),
    })
}
