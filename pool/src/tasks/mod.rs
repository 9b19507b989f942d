//! Tasks: the only owner of a task's life, from an agent's order to its end.
//!
//! Every step goes to the ledger first, then to the live tasks (who waits, who runs what, the tokens so
//! far), and then tasks and workers are paired again. Doors and connections call the functions of [`Tasks`]
//! and of [`Connected`]; none of them can do half of a step. Nothing here knows gRPC or Sv2.

mod admission;
mod allowances;
mod audience;
mod caller;
mod choice;
mod connected_worker;
mod delivery;
#[cfg(test)]
mod ending_tests;
mod endings;
#[cfg(test)]
mod fairness_tests;
mod first_tokens;
mod follower;
mod hand;
#[cfg(test)]
pub(crate) mod life_tests;
mod live_tasks;
#[cfg(test)]
mod metering_tests;
mod order;
mod pairing;
mod pricing;
mod progress;
mod prompt;
mod queue;
mod reassign;
mod refusal;
mod replayable;
mod stalls;
mod standing;
mod stopping;
#[cfg(test)]
mod stopping_tests;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_commitment::{ModelId, OUTPUT_TOKENS_MAX, TaskId};
use dovetail_ledger::{BatchRecord, Key, Ledger, LedgerError, TaskRecord, TaskState};
use dovetail_telemetry::Telemetry;
use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

pub(crate) use admission::{AdmissionError, Admitted};
pub(crate) use caller::Caller;
pub(crate) use connected_worker::Connected;
pub(crate) use delivery::DeliveryError;
pub(crate) use follower::{Follower, TaskEvent};
pub(crate) use order::{Order, Payment};
pub(crate) use pricing::{Prices, Quote};
pub(crate) use prompt::Prompt;
pub(crate) use refusal::GivenBack;
pub(crate) use stalls::Patience;

use allowances::Allowances;

use crate::config::InferenceConfig;
use crate::mailboxes::Mailboxes;
use crate::models::Models;
use crate::validation::ReplayPace;
use live_tasks::LiveTasks;
use progress::Phase;
use turns::Turns;

/// Bounds of what agents may order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskLimits {
    /// The longest prompt, in bytes.
    pub(crate) prompt_bytes_max: usize,
    /// How many tasks may wait for a worker.
    pub(crate) queue_max: usize,
    /// How long a task may take from its admission to its settlement, in seconds.
    pub(crate) lifetime_s: u64,
    /// How long its worker may take.
    pub(crate) patience: Patience,
    /// How long an agent may be away that has followed it.
    pub(crate) agent_absence: Duration,
    /// What tasks of one address may cost the operator on a day; `None`: whatever the budget gives.
    pub(crate) subsidy_per_address: Option<Msat>,
}

impl From<&InferenceConfig> for TaskLimits {
    fn from(config: &InferenceConfig) -> Self {
        Self {
            prompt_bytes_max: config.prompt_bytes_max,
            queue_max: config.queue_max,
            lifetime_s: config.task_lifetime_s,
            patience: Patience {
                first_token: Duration::from_secs(config.first_token_s),
                progress: Duration::from_secs(config.progress_s),
            },
            agent_absence: Duration::from_secs(config.agent_absence_s),
            subsidy_per_address: config.subsidy.per_address(),
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
    /// One look at a worker's standing at a time, so that the newest is what stays.
    standing_turn: Arc<Mutex<()>>,
    /// For those who have a constraint read.
    constraint_readers: Turns,
    /// For those who have a prompt encoded.
    prompt_encoders: Turns,
    /// What addresses have of the operator's budget.
    allowances: Allowances,
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
            live: LiveTasks::new(parts.limits.patience),
            models: parts.models,
            mailboxes: parts.mailboxes,
            limits: parts.limits,
            prices: parts.prices,
            pace: parts.pace,
            telemetry: parts.telemetry,
            tracker: parts.tracker,
            standing_turn: Arc::default(),
            constraint_readers: Turns::new(admission::CONSTRAINT_READERS),
            prompt_encoders: Turns::new(admission::PROMPT_ENCODERS),
            allowances: Allowances::new(parts.limits.subsidy_per_address),
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

    /// The same for its agent, which is heard of by that.
    pub(crate) async fn show(&self, id: TaskId) -> Result<TaskRecord, TaskError> {
        self.live.asked_for(&id);
        self.task(id).await
    }

    /// How many tokens of a live task have come.
    pub(crate) fn tokens_so_far(&self, id: &TaskId) -> Option<usize> {
        let progress = self.live.watch(id)?;
        let tokens = progress.borrow().tokens.len();
        Some(tokens)
    }

    /// The receipt of a settled task, as JSON.
    pub(crate) async fn receipt(&self, id: TaskId) -> Result<String, ReceiptError> {
        let task = self.show(id).await?;
        let receipt = self.ledger.receipt(id).await.map_err(TaskError::Ledger)?;
        receipt.ok_or(match task.state {
            TaskState::Queued | TaskState::Assigned | TaskState::Finished => ReceiptError::Pending,
            _ => ReceiptError::Never,
        })
    }

    /// The key with this secret, unless it was revoked.
    pub(crate) async fn key(&self, secret: &str) -> Result<Option<Key>, LedgerError> {
        self.ledger.find_key(secret).await
    }

    /// Whether tasks of agents that show no key are paid for, within the operator's budget.
    pub(crate) fn operator_pays(&self) -> bool {
        self.prices.operator_pays()
    }

    /// The same, once the task is settled or has ended otherwise; waits so long for that.
    pub(crate) async fn receipt_within(
        &self,
        id: TaskId,
        time_max: Duration,
        caller: Caller,
    ) -> Result<String, ReceiptError> {
        let receipt = self.receipt(id).await;
        if time_max.is_zero() || !matches!(receipt, Err(ReceiptError::Pending)) {
            return receipt;
        }
        // Of its states alone. A task may be from before the pool's last start.
        let follower = self.follow(id, OUTPUT_TOKENS_MAX as usize).await?;
        let mut follower = follower.until_settled(caller);
        let ended = async { while let Ok(Some(_)) = follower.next().await {} };
        // Whether or not it has ended: the ledger says how it stands.
        let _ = tokio::time::timeout(time_max, ended).await;
        self.receipt(id).await
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

    /// How long the last tasks of this model have waited for their first tokens: the median.
    pub(crate) fn first_token_after(&self, model: &ModelId) -> Option<Duration> {
        self.live.state().first_tokens.median(model)
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
        self.look_at_standing(batch.worker);
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
