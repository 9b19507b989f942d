//! A task as its agent orders it, and as a worker is given it.

use dovetail_commitment::{ModelId, SamplingParams, StopSequences, TaskId};
use dovetail_ledger::NewTask;

/// What an agent orders. Nothing in it has been checked. No `Debug`: it holds a prompt.
pub(crate) struct Order {
    /// The agent's own id for the task, so that it can ask again; without one the pool chooses it.
    pub(crate) id: Option<TaskId>,
    /// The model to run.
    pub(crate) model: ModelId,
    /// What to complete.
    pub(crate) prompt: Vec<u8>,
    /// Where to stop.
    pub(crate) stop: Vec<Vec<u8>>,
    /// The salt of the prompt's commitment.
    pub(crate) salt: [u8; 32],
    /// How to sample.
    pub(crate) sampling: SamplingParams,
    /// The seed of the sampling; without one the pool draws it.
    pub(crate) seed: Option<[u8; 32]>,
}

/// Everything a worker needs to run a task. Its `Debug` shows the id alone: it holds a prompt.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) id: TaskId,
    pub(crate) model: ModelId,
    pub(crate) prompt: Vec<u8>,
    pub(crate) stop: StopSequences,
    pub(crate) salt: [u8; 32],
    pub(crate) sampling: SamplingParams,
    pub(crate) seed: [u8; 32],
    /// When its result is worthless, in Unix seconds.
    pub(crate) expires_at_unix: u64,
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Assignment({})", self.id)
    }
}

impl From<NewTask> for Assignment {
    fn from(task: NewTask) -> Self {
        Self {
            id: task.id,
            model: task.model_id,
            prompt: task.prompt,
            stop: task.stop,
            salt: task.salt,
            sampling: task.sampling,
            seed: task.seed,
            expires_at_unix: task.expires_at_unix,
        }
    }
}
