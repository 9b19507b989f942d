//! Tasks: the only owner of a task's life, from an agent's order to its end.
//!
//! Every step goes to the ledger first, then to the live tasks (who waits, who runs what, the tokens so
//! far), and then tasks and workers are paired again. Doors and connections call the functions of [`Tasks`]
//! and of [`Connected`]; none of them can do half of a step. Nothing here knows gRPC or Sv2.

mod admission;
mod connected_worker;
mod delivery;
mod follower;
#[cfg(test)]
mod life_tests;
mod live_tasks;
mod order;
mod pairing;
mod pricing;
mod progress;
mod queue;
mod reassign;
mod replayable;
mod refusal;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_commitment::{ModelId, TaskId};
use dovetail_ledger::{BatchRecord, Ledger, LedgerError, TaskRecord, TaskState};
use dovetail_telemetry::Telemetry;
use dovetail_units::time::unix_now;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use admission::{AdmissionError, Admitted};
pub(crate) use connected_worker::Connected;
pub(crate) use delivery::DeliveryError;
pub(crate) use follower::{Follower, TaskEvent};
pub(crate) use order::Order;
pub(crate) use pricing::{Prices, Quote};
pub(crate) use refusal::GivenBack;

use crate::config::InferenceConfig;
use crate::mailboxes::Mailboxes;
use crate::models::Models;
use crate::validation::ReplayPace;
use live_tasks::LiveTasks;
use progress::Phase;

/// So long a worker may take to deliver what it streamed of a task that was cancelled.
const PREFIX_TIME_S: u64 = 15;
/// So long a request to cancel a task waits for that.
const PREFIX_WAIT_MAX: Duration = Duration::from_secs(2);

/// Bounds of what agents may order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskLimits {
    /// The longest prompt, in bytes.
    pub(crate) prompt_bytes_max: usize,
    /// How many tasks may wait for a worker.
    pub(crate) queue_max: usize,
    /// How long a task may take from its admission to its settlement, in seconds.
    pub(crate) lifetime_s: u64,
}

impl From<&InferenceConfig> for TaskLimits {
    fn from(config: &InferenceConfig) -> Self {
        Self {
            prompt_bytes_max: config.prompt_bytes_max,
            queue_max: config.queue_max,
            lifetime_s: config.task_lifetime_s,
        }
    }
}

/// What tasks need of the rest of the pool.
pub(crate) struct TaskParts {
    pub(crate) ledger: Ledger,
    pub(crate) models: Models,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) limits: TaskLimits,
    pub(crate) prices: Prices,
    pub(crate) pace: ReplayPace,
    pub(crate) telemetry: Telemetry,
    /// Steps that were begun run to their end on it.
    pub(crate) tracker: TaskTracker,
}

/// All tasks of the pool; clones share them.
#[derive(Clone)]
pub(crate) struct Tasks {
    ledger: Ledger,
    live: LiveTasks,
    models: Models,
    mailboxes: Mailboxes,
    limits: TaskLimits,
    prices: Prices,
    pace: ReplayPace,
    telemetry: Telemetry,
    tracker: TaskTracker,
    /// For those who have a constraint read.
    constraint_readers: Arc<Semaphore>,
    /// For those who have a prompt encoded.
    prompt_encoders: Arc<Semaphore>,
}

/// Why a task cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("no task has this id")]
    Unknown,
    #[error("the ledger does not answer: {0}")]
    Ledger(LedgerError),
}

/// Why a task has no receipt to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiptError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("no share has settled the task yet")]
    Pending,
    #[error("the task ended without a receipt")]
    Never,
}

impl Tasks {
    /// Tasks of which none is live yet.
    pub(crate) fn new(parts: TaskParts) -> Self {
        Self {
            ledger: parts.ledger,
            live: LiveTasks::default(),
            models: parts.models,
            mailboxes: parts.mailboxes,
            limits: parts.limits,
            prices: parts.prices,
            pace: parts.pace,
            telemetry: parts.telemetry,
            tracker: parts.tracker,
            constraint_readers: Arc::new(Semaphore::new(admission::CONSTRAINT_READERS)),
            prompt_encoders: Arc::new(Semaphore::new(admission::PROMPT_ENCODERS)),
        }
    }

    /// At start: tasks that waited or ran when the pool last stopped have lost their streams, and fail.
    pub(crate) async fn fail_interrupted(&self) -> Result<(), LedgerError> {
        let code = Code::PoolRestarted.as_str();
        self.ledger.fail_unfinished(code).await?;
        Ok(())
    }

    /// The task as the ledger has it.
    pub(crate) async fn task(&self, id: TaskId) -> Result<TaskRecord, TaskError> {
        let found = self.ledger.task(id).await.map_err(TaskError::Ledger)?;
        found.ok_or(TaskError::Unknown)
    }

    /// How many tokens of a live task have come.
    pub(crate) fn tokens_so_far(&self, id: &TaskId) -> Option<usize> {
        let progress = self.live.watch(id)?;
        let tokens = progress.borrow().tokens.len();
        Some(tokens)
    }

    /// The receipt of a settled task, as JSON.
    pub(crate) async fn receipt(&self, id: TaskId) -> Result<String, ReceiptError> {
        let task = self.task(id).await?;
        let receipt = self.ledger.receipt(id).await.map_err(TaskError::Ledger)?;
        receipt.ok_or(match task.state {
            TaskState::Queued | TaskState::Assigned | TaskState::Finished => ReceiptError::Pending,
            _ => ReceiptError::Never,
        })
    }

    /// What tasks cost.
    pub(crate) fn prices(&self) -> &Prices {
        &self.prices
    }

    /// The bounds of what agents may order.
    pub(crate) fn limits(&self) -> &TaskLimits {
        &self.limits
    }

    /// The models that agents may order.
    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// How many connected workers serve the model.
    pub(crate) fn workers_for(&self, model: &ModelId) -> usize {
        self.live.workers_for(model)
    }

    /// Stops a task that waits or runs. One that has ended stays as it is, and one of which tokens have come ends with
    /// what its worker says that it streamed: that is paid.
    pub(crate) async fn cancel(&self, id: TaskId) -> Result<TaskRecord, TaskError> {
        let task = self.task(id).await?;
        if !matches!(task.state, TaskState::Queued | TaskState::Assigned) {
            return Ok(task);
        }
        if self.tokens_so_far(&id).is_some_and(|tokens| tokens > 0) {
            return self.stop(id).await;
        }
        let cancelled = self.ledger.cancel_task(id).await;
        if cancelled.map_err(TaskError::Ledger)? {
            self.live.cancel(&id);
            self.pair();
        }
        self.task(id).await
    }

    /// Lets a task end with its prefix, and waits a little for that.
    async fn stop(&self, id: TaskId) -> Result<TaskRecord, TaskError> {
        let until = unix_now().saturating_add(PREFIX_TIME_S);
        let stopped = self.ledger.stop_task(id, until).await;
        if stopped.map_err(TaskError::Ledger)?
            && let Some(mut progress) = self.live.watch(&id)
        {
            self.live.stop(&id);
            let ended = progress.wait_for(|progress| !progress.phase.is_streaming());
            // Whether or not it has ended: the ledger says how it stands.
            let _ = tokio::time::timeout(PREFIX_WAIT_MAX, ended).await;
        }
        self.task(id).await
    }

    /// The ledger has settled this batch.
    pub(crate) fn settled(&self, batch: &BatchRecord) {
        self.end(batch, Phase::Settled);
    }

    /// The ledger has booked that this batch failed its audit.
    pub(crate) fn failed(&self, batch: &BatchRecord) {
        self.end(batch, Phase::Failed);
    }

    fn end(&self, batch: &BatchRecord, phase: Phase) {
        for task in &batch.tasks {
            self.live.finish(&task.id, phase);
        }
        self.pair();
    }

    /// Ends tasks whose time is over, wherever they stand.
    pub(crate) async fn expire(&self) {
        match self.ledger.expire_tasks(unix_now()).await {
            Ok(expired) => {
                for task in &expired {
                    self.live.finish(task, Phase::Failed);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot expire tasks"),
        }
        self.pair();
    }
}
