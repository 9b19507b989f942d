//! A task: what is asked of a model, what comes of it, and which tasks are open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dovetail_commitment::{
    Constraint, EncodedPrompt, ModelId, SamplingParams, StopSequences, TaskId, Transcript,
};

/// The most tokens of one [`TaskEvent::Tokens`].
pub const CHUNK_TOKENS_MAX: usize = 64;

/// A task to be run.
#[derive(Clone, PartialEq)]
pub struct Task {
    /// By what its giver knows it.
    pub id: TaskId,
    /// The model that is asked.
    pub model_id: ModelId,
    /// The prompt: tokens, which are run as they are. Their giver has encoded the text.
    pub prompt: EncodedPrompt,
    /// What keeps the prompt from being guessed from its commitment.
    pub salt: [u8; 32],
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// What ends the output.
    pub stop: StopSequences,
    /// The form that the output must have.
    pub constraint: Option<Constraint>,
    /// What choices are drawn from.
    pub seed: [u8; 32],
    /// After this nobody wants the output any more.
    pub deadline: Duration,
}

impl std::fmt::Debug for Task {
    // Prompts stand in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.id)
    }
}

/// Why a task was not taken, or not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// As many tasks are open as are taken at once, or the task is here already.
    #[error("too many tasks")]
    TooManyTasks,
    /// The model is not served here.
    #[error("the model is not served here")]
    ModelUnknown,
    /// The prompt does not fit the model's context.
    #[error("the prompt is too long")]
    PromptTooLong,
    /// A token of the prompt is none of the model's.
    #[error("the prompt has a token that the model does not have")]
    PromptInvalid,
    /// A sampling parameter is out of its bounds.
    #[error("a sampling parameter is out of its bounds")]
    SamplingInvalid,
    /// The form that is asked for is none that is followed.
    #[error("the constraint is none that is followed")]
    ConstraintInvalid,
    /// The constraint is for the guide of another release.
    #[error("the constraint is for another guide")]
    GuideUnknown,
    /// Nothing is wrong with the task.
    #[error("the engine failed")]
    Internal,
}

/// What a running task gives.
#[derive(Debug)]
pub enum TaskEvent {
    /// Some tokens; the first stands at this position of the output.
    Tokens {
        /// The task.
        task_id: TaskId,
        /// Position of the first.
        first_position: u32,
        /// At most [`CHUNK_TOKENS_MAX`].
        tokens: Vec<u32>,
    },
    /// The task is done.
    Finished {
        /// Its result.
        transcript: Box<Transcript>,
        /// How many tokens its prompt has.
        input_tokens: usize,
        /// When nobody pays for it any more.
        expires: Instant,
        /// How many tokens of the prompt were known from earlier ones.
        reused_tokens: usize,
    },
    /// The task cannot be done.
    Failed {
        /// The task.
        task_id: TaskId,
        /// Why.
        error: TaskError,
    },
    /// The task was cancelled before its first token, its connection is gone, or its time was over before it was done.
    Dropped(TaskId),
}

/// A task that was taken.
pub(crate) struct TakenTask {
    pub(crate) task: Task,
    pub(crate) expires: Instant,
    pub(crate) wanted: Arc<Wanted>,
}

impl TakenTask {
    /// Whether nobody waits for more of it.
    pub(crate) fn is_over(&self) -> bool {
        self.wanted.how_much() != Wanted::ALL || Instant::now() >= self.expires
    }

    /// Whether what there is of it is worth something.
    pub(crate) fn wants_prefix(&self) -> bool {
        self.wanted.how_much() == Wanted::PREFIX && Instant::now() < self.expires
    }
}

/// How much of a task is wanted; less and less.
#[derive(Debug, Default)]
pub(crate) struct Wanted(AtomicU8);

impl Wanted {
    const ALL: u8 = 0;
    const PREFIX: u8 = 1;
    const NOTHING: u8 = 2;

    fn how_much(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// No more than there is.
    pub(crate) fn only_prefix(&self) {
        self.0.fetch_max(Self::PREFIX, Ordering::Relaxed);
    }

    /// Nothing at all.
    pub(crate) fn nothing(&self) {
        self.0.fetch_max(Self::NOTHING, Ordering::Relaxed);
    }
}

pub(crate) type OpenTasks = HashMap<TaskId, Arc<Wanted>>;

pub(crate) fn lock(open: &Mutex<OpenTasks>) -> std::sync::MutexGuard<'_, OpenTasks> {
    // The map is a plain set of flags: a panic elsewhere leaves it usable.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
