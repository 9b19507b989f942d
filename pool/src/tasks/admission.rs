//! Admitting a task: what is checked, stored and queued. The same order again finds the task as it stands.

use std::sync::Arc;

use dovetail_api::codes::Code;
use dovetail_commitment::{
    Constraint, EncodedPrompt, ModelId, SamplingParams, StopSequences, TaskId,
};
use dovetail_engine::Model;
use dovetail_ledger::{Lack, LedgerError, NewTask, TaskRecord};
use dovetail_units::Msat;
use dovetail_units::time::{since_epoch, unix_now};

use super::allowances::{Cost, Hold};
use super::caller::Caller;
use super::live_tasks::Arrival;
use super::order::{Order, Payment};
use super::pricing::{QUOTE_VALIDITY, Quote};
use super::prompt::Prompt;
use super::queue::NoRoom;
use super::{TaskError, Tasks};

/// So many constraints are read at once: reading one may take a core for a while, and strangers send them.
pub(super) const CONSTRAINT_READERS: usize = 2;
/// So many prompts are encoded at once: the longest takes a core for some tenths of a second.
pub(super) const PROMPT_ENCODERS: usize = 2;

/// Why a task is not admitted, or no price is named for it. No message holds anything of a prompt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error("this pool does not know the model")]
    ModelUnknown,
    #[error("a prompt may have {bytes_max} bytes here")]
    PromptTooLong { bytes_max: usize },
    #[error(
        "the prompt has {tokens} tokens and leaves no room for an answer in a context of {context_tokens}"
    )]
    ContextFull {
        tokens: usize,
        context_tokens: usize,
    },
    #[error(
        "this pool's validators replay about {tokens_max} tokens of this model in the time that they have, prompt and \
         max_tokens together: ask for fewer"
    )]
    TaskTooLarge {
        tokens_max: u64,
        /// Those of the prompt.
        prompt_tokens: u64,
    },
    #[error("{0}")]
    SamplingInvalid(String),
    /// A form that is too long, or none that the guide follows. The words are for the agent, and may quote it.
    #[error("{0}")]
    ConstraintInvalid(String),
    #[error("too many constraints wait to be read already")]
    ConstraintsFull,
    #[error("too many prompts wait to be encoded already")]
    PromptsFull,
    /// A prompt that the model cannot encode, or stop sequences that are out of bounds.
    #[error("{0}")]
    Invalid(String),
    #[error("no worker that serves this model is connected")]
    NoWorker,
    #[error("too many tasks wait already")]
    QueueFull,
    #[error("the key is unknown, or was revoked")]
    KeyInvalid,
    #[error("the operator pays for no more tasks of agents that show no key")]
    Unpaid,
    /// However much is left: a smaller task may be paid.
    #[error(
        "the task may cost {required}, and {most} is the most that may be spent here at once: ask for fewer tokens"
    )]
    TooDear { most: Msat, required: Msat },
    /// The balance would do once other tasks have ended.
    #[error(
        "the task may cost {required}; {available} are left beside the {reserved} that are reserved for other tasks: try \
         again when they have ended"
    )]
    BalanceReserved {
        available: Msat,
        reserved: Msat,
        required: Msat,
    },
    /// The money is gone.
    #[error(
        "insufficient balance: the task may cost {required}, and {available} are left ({reserved} are reserved for other tasks)"
    )]
    InsufficientBalance {
        available: Msat,
        reserved: Msat,
        required: Msat,
    },
    /// The day's part of the money is spent. Agents look for these words: they wait, and do not give the key up.
    #[error("daily spending limit of {per_day} reached, resets at 00:00 UTC")]
    DailyLimit {
        per_day: Msat,
        /// When that is, in Unix seconds.
        resets_at_unix: u64,
    },
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

/// A task that was admitted, now or before.
pub(crate) struct Admitted {
    /// As the ledger has it.
    pub(crate) task: TaskRecord,
    /// Its prompt as workers are given it. An agent that has the tokenizer can check it, and keeps it for its receipt.
    pub(crate) prompt: EncodedPrompt,
}

impl From<NoRoom> for AdmissionError {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::All => Self::QueueFull,
            NoRoom::Caller => Self::CallerFull,
        }
    }
}

impl From<Lack> for AdmissionError {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::KeyInvalid => Self::KeyInvalid,
            Lack::Unpaid => Self::Unpaid,
            Lack::TooDear { most, required } => Self::TooDear { most, required },
            Lack::BalanceReserved {
                available,
                reserved,
                required,
            } => Self::BalanceReserved {
                available,
                reserved,
                required,
            },
            Lack::InsufficientBalance {
                available,
                reserved,
                required,
            } => Self::InsufficientBalance {
                available,
                reserved,
                required,
            },
            Lack::DailyLimit {
                per_day,
                resets_at_unix,
            } => Self::DailyLimit {
                per_day,
                resets_at_unix,
            },
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
        let known = self.model(model)?;
        self.check_bounds(sampling, prompt_bytes)?;
        let (now, prices) = (since_epoch(), self.prices.of(model));
        // The prompt itself is not known yet; it does not fill the context.
        let input_tokens_max = u32::try_from(known.context_tokens()).unwrap_or(u32::MAX);
        Ok(Quote {
            id: rand::random(),
            price_max: prices.of(input_tokens_max, sampling.max_tokens),
            prices,
            expires_at: now.saturating_add(QUOTE_VALIDITY),
        })
    }

    /// Stores the task and puts it into the queue. It runs to its end even if the caller is dropped: the
    /// task is in the ledger by then.
    pub(crate) async fn admit(&self, order: Order) -> Result<Admitted, AdmissionError> {
        let tasks = self.clone();
        self.tracker
            .spawn(async move { tasks.store_and_queue(order).await })
            .await
            .map_err(|_| AdmissionError::Unfinished)?
    }

    async fn store_and_queue(&self, order: Order) -> Result<Admitted, AdmissionError> {
        let (caller, payment) = (order.caller, order.payer);
        // Before its prompt is encoded: whoever has no room must not keep others from having theirs encoded.
        self.live.room(&caller, self.limits.queue_max)?;
        let task = self.check(order).await?;
        let (id, prompt) = (task.id, task.prompt.clone());
        // Before the task is stored, so that its agent may try again with the same id.
        if let Err(refusal) = self.place(&task.model_id, &caller) {
            // What was ordered before is there, and takes no place.
            return match self.ledger.was_created(&task).await.map_err(refused)? {
                true => self.admitted(id, prompt).await,
                false => Err(refusal),
            };
        }
        if let Some(constraint) = &task.constraint {
            self.read_constraint(task.model_id, constraint.clone(), &caller)
                .await?;
        }
        match self.allowance(&task, &caller, payment) {
            Ok(hold) => {
                let record = task.record();
                if self.create(task, caller, hold).await? {
                    return Ok(Admitted {
                        task: record,
                        prompt,
                    });
                }
            }
            // What was ordered before is there, and takes nothing more.
            Err(lack) => {
                let was_created = self.ledger.was_created(&task).await;
                if !was_created.map_err(refused)? {
                    return Err(lack.into());
                }
            }
        }
        self.admitted(id, prompt).await
    }

    /// Whether a task of this caller's has a worker and room to wait for it.
    fn place(&self, model: &ModelId, caller: &Caller) -> Result<(), AdmissionError> {
        match self.live.workers_for(model) {
            0 => Err(AdmissionError::NoWorker),
            _ => Ok(self.live.room(caller, self.limits.queue_max)?),
        }
    }

    async fn admitted(
        &self,
        id: TaskId,
        prompt: EncodedPrompt,
    ) -> Result<Admitted, AdmissionError> {
        let task = self.task(id).await?;
        // Asked for again after an update, the prompt may have other tokens now: those that a worker was given count.
        let prompt = task.prompt.clone().unwrap_or(prompt);
        Ok(Admitted { task, prompt })
    }

    /// What the task takes of its caller's part of the operator's budget, if that pays.
    fn allowance(
        &self,
        task: &NewTask,
        caller: &Caller,
        payment: Payment,
    ) -> Result<Option<Hold>, Lack> {
        let cost = Cost {
            most: task.price_max(),
            prices: task.prices,
            input_tokens: task.input_tokens(),
        };
        match payment {
            Payment::Subsidy => self.allowances.take(caller.host, cost),
            Payment::Key(_) => Ok(None),
        }
    }

    /// Stores the task and puts it into the queue; `false` if the same order has done that before.
    async fn create(
        &self,
        task: NewTask,
        caller: Caller,
        hold: Option<Hold>,
    ) -> Result<bool, AdmissionError> {
        let is_new = self.ledger.create_task(&task).await.map_err(refused)?;
        if is_new {
            self.queue(task, caller, hold).await?;
        }
        Ok(is_new)
    }

    async fn queue(
        &self,
        task: NewTask,
        caller: Caller,
        hold: Option<Hold>,
    ) -> Result<(), AdmissionError> {
        let id = task.id;
        let arrival = Arrival { task, caller, hold };
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
    async fn check(&self, order: Order) -> Result<NewTask, AdmissionError> {
        let model = self.model(&order.model)?;
        self.check_bounds(&order.sampling, order.prompt.bytes())?;
        let stop = StopSequences::new(order.stop)
            .map_err(|error| AdmissionError::Invalid(error.to_string()))?;
        let constraint = order.form.map(Constraint::new).transpose();
        let constraint =
            constraint.map_err(|error| AdmissionError::ConstraintInvalid(error.to_string()))?;
        let encoded = self.encode(Arc::clone(&model), order.prompt, &order.caller);
        let prompt = encoded.await?;
        let (tokens, constrained) = (prompt.tokens().len(), constraint.is_some());
        let mut sampling = order.sampling;
        if order.as_many_as_fit {
            sampling.max_tokens = self.room_for_output(&model, tokens, &sampling, constrained);
        }
        self.check_replay(&model, tokens, &sampling, constrained)?;
        let now = unix_now();
        Ok(NewTask {
            id: order
                .id
                .unwrap_or_else(|| TaskId::from_bytes(rand::random())),
            model_id: order.model,
            prompt,
            stop,
            constraint,
            salt: order.salt,
            sampling,
            seed: order.seed.unwrap_or_else(rand::random),
            prices: self.prices.of(&order.model),
            payer: self.prices.payer(order.payer),
            created_at_unix: now,
            expires_at_unix: now.saturating_add(self.limits.lifetime_s),
        })
    }

    /// Makes tokens of a text: here, once, for the worker and for every replay. Away from the tasks of the runtime.
    async fn encode(
        &self,
        model: Arc<Model>,
        prompt: Prompt,
        caller: &Caller,
    ) -> Result<EncodedPrompt, AdmissionError> {
        let turn = self.prompt_encoders.take(caller).await;
        let turn = turn.ok_or(AdmissionError::PromptsFull)?;
        let bytes_max = self.limits.prompt_bytes_max;
        let encoding = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            prompt.encode(&model, bytes_max)
        });
        encoding.await.map_err(|_| AdmissionError::Unfinished)?
    }

    /// Finds out whether outputs of this model can have the form, away from the tasks of the runtime.
    async fn read_constraint(
        &self,
        model: ModelId,
        constraint: Constraint,
        caller: &Caller,
    ) -> Result<(), AdmissionError> {
        let model = self.model(&model)?;
        let turn = self.constraint_readers.take(caller).await;
        let turn = turn.ok_or(AdmissionError::ConstraintsFull)?;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            model.check_constraint(&constraint)
        });
        let read = reading.await.map_err(|_| AdmissionError::Unfinished)?;
        read.map_err(|error| match error {
            // Nothing is known of the constraint.
            error if error.is_of_the_machine() => AdmissionError::ConstraintsFull,
            error => AdmissionError::ConstraintInvalid(error.to_string()),
        })
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

/// Why the ledger does not take a task.
fn refused(error: LedgerError) -> AdmissionError {
    match error {
        LedgerError::Conflict(_) => AdmissionError::IdTaken,
        LedgerError::Unpaid(lack) => lack.into(),
        error => AdmissionError::Ledger(error),
    }
}
