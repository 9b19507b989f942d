//! Admitting a task: what is checked, stored and queued. The same order again finds the task as it stands.

use std::sync::Arc;
use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_commitment::{Constraint, ModelId, SamplingParams, StopSequences, TaskId};
use dovetail_engine::Model;
use dovetail_ledger::{LedgerError, NewTask, TaskRecord};
use dovetail_units::time::{since_epoch, unix_now};

use super::caller::Caller;
use super::live_tasks::Arrival;
use super::order::Order;
use super::pricing::{Paid, QUOTE_VALIDITY, Quote};
use super::queue::NoRoom;
use super::{TaskError, Tasks};
use crate::assignment::Assignment;
use crate::credit;

/// So many constraints are read at once: reading one may take a core for a while, and strangers send them.
pub(super) const CONSTRAINT_READERS: usize = 2;
/// Whoever has waited this long for a turn is told to come back later.
const READER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why a task is not admitted, or no price is named for it. No message holds anything of a prompt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error("this pool does not know the model")]
    ModelUnknown,
    #[error("a prompt may have {bytes_max} bytes here")]
    PromptTooLong { bytes_max: usize },
    #[error("the prompt fills the model's context")]
    ContextFull,
    #[error("{0}")]
    SamplingInvalid(String),
    /// A form that is too long, or none that the guide follows. The words are for the agent, and may quote it.
    #[error("{0}")]
    ConstraintInvalid(String),
    #[error("too many constraints wait to be read already")]
    ConstraintsFull,
    /// A prompt that the model cannot encode, or stop sequences that are out of bounds.
    #[error("{0}")]
    Invalid(String),
    #[error("no worker that serves this model is connected")]
    NoWorker,
    #[error("too many tasks wait already")]
    QueueFull,
    #[error("too many of your tasks, or of your network's, wait already")]
    CallerFull,
    #[error("this id names another task")]
    IdTaken,
    #[error("the ledger does not answer: {0}")]
    Ledger(LedgerError),
    #[error("the task cannot be looked up: {0}")]
    Lookup(#[from] TaskError),
    #[error("the request did not finish")]
    Unfinished,
}

impl From<NoRoom> for AdmissionError {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::All => Self::QueueFull,
            NoRoom::Caller => Self::CallerFull,
        }
    }
}

impl Tasks {
    /// Names the price of a task with this model, sampling and length of prompt.
    pub(crate) fn quote(
        &self,
        model: &ModelId,
        sampling: &SamplingParams,
        prompt_bytes: usize,
    ) -> Result<Quote, AdmissionError> {
        self.model(model)?;
        self.check_bounds(sampling, prompt_bytes)?;
        let now = since_epoch();
        Ok(Quote {
            id: rand::random(),
            price_max: self.prices.of_tokens(sampling.max_tokens),
            price_per_token: self.prices.per_token(),
            expires_at: now.saturating_add(QUOTE_VALIDITY),
        })
    }

    /// Stores the task and puts it into the queue. It runs to its end even if the caller is dropped: the
    /// task is in the ledger by then.
    pub(crate) async fn admit(
        &self,
        order: Order,
        paid: Paid,
    ) -> Result<TaskRecord, AdmissionError> {
        let tasks = self.clone();
        self.tracker
            .spawn(async move { tasks.store_and_queue(order, &paid).await })
            .await
            .map_err(|_| AdmissionError::Unfinished)?
    }

    async fn store_and_queue(
        &self,
        order: Order,
        paid: &Paid,
    ) -> Result<TaskRecord, AdmissionError> {
        let caller = order.caller;
        let task = self.check(order, paid)?;
        let id = task.id;
        if self.live.workers_for(&task.model_id) == 0 {
            return Err(AdmissionError::NoWorker);
        }
        // Before the task is stored, so that its agent may try again with the same id.
        self.live.room(&caller, self.limits.queue_max)?;
        if let Some(constraint) = &task.constraint {
            self.read_constraint(task.model_id, constraint.clone())
                .await?;
        }
        let created = self.ledger.create_task(&task).await;
        let created = created.map_err(|error| match error {
            LedgerError::Conflict(_) => AdmissionError::IdTaken,
            error => AdmissionError::Ledger(error),
        })?;
        if created {
            self.queue(task, caller).await?;
        }
        Ok(self.task(id).await?)
    }

    async fn queue(&self, task: NewTask, caller: Caller) -> Result<(), AdmissionError> {
        let id = task.id;
        let tokens = u64::from(task.sampling.max_tokens);
        let arrival = Arrival {
            worth: credit::for_tokens(&self.rates, tokens),
            assignment: Assignment::from(task),
            caller,
        };
        let Err(no_room) = self.live.enqueue(arrival, self.limits.queue_max) else {
            self.pair();
            return Ok(());
        };
        let failed = self
            .ledger
            .fail_task(id, None, Code::QueueFull.as_str())
            .await;
        failed.map_err(AdmissionError::Ledger)?;
        Err(no_room.into())
    }

    /// The task that the order asks for, once all of it has been checked.
    fn check(&self, order: Order, paid: &Paid) -> Result<NewTask, AdmissionError> {
        let model = self.model(&order.model)?;
        self.check_bounds(&order.sampling, order.prompt.len())?;
        let encoded = model
            .encode(&order.prompt)
            .map_err(|error| AdmissionError::Invalid(error.to_string()))?;
        if encoded.len() >= model.context_tokens() {
            return Err(AdmissionError::ContextFull);
        }
        let stop = StopSequences::new(order.stop)
            .map_err(|error| AdmissionError::Invalid(error.to_string()))?;
        let constraint = order.form.map(Constraint::new).transpose();
        let constraint =
            constraint.map_err(|error| AdmissionError::ConstraintInvalid(error.to_string()))?;
        Ok(NewTask {
            id: order
                .id
                .unwrap_or_else(|| TaskId::from_bytes(rand::random())),
            model_id: order.model,
            prompt: order.prompt,
            stop,
            constraint,
            salt: order.salt,
            sampling: order.sampling,
            seed: order.seed.unwrap_or_else(rand::random),
            price: paid.price(),
            expires_at_unix: unix_now().saturating_add(self.limits.lifetime_s),
        })
    }

    /// Finds out whether outputs of this model can have the form, away from the tasks of the runtime.
    async fn read_constraint(
        &self,
        model: ModelId,
        constraint: Constraint,
    ) -> Result<(), AdmissionError> {
        let model = self.model(&model)?;
        let turn = Arc::clone(&self.constraint_readers).acquire_owned();
        let turn = tokio::time::timeout(READER_WAIT_MAX, turn).await;
        let Ok(Ok(turn)) = turn else {
            return Err(AdmissionError::ConstraintsFull);
        };
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            model.check_constraint(&constraint)
        });
        let read = reading.await.map_err(|_| AdmissionError::Unfinished)?;
        read.map_err(|error| AdmissionError::ConstraintInvalid(error.to_string()))
    }

    fn model(&self, id: &ModelId) -> Result<Arc<Model>, AdmissionError> {
        self.models.get(id).ok_or(AdmissionError::ModelUnknown)
    }

    /// Checks what both a quote and a task need.
    fn check_bounds(
        &self,
        sampling: &SamplingParams,
        prompt_bytes: usize,
    ) -> Result<(), AdmissionError> {
        let bytes_max = self.limits.prompt_bytes_max;
        if prompt_bytes > bytes_max {
            return Err(AdmissionError::PromptTooLong { bytes_max });
        }
        sampling
            .validate()
            .map_err(|error| AdmissionError::SamplingInvalid(error.to_string()))
    }
}
