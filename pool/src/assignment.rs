//! A task as a worker is given it.

use dovetail_commitment::{
    Constraint, EncodedPrompt, ModelId, SamplingParams, StopSequences, TaskId,
};
use dovetail_ledger::NewTask;

/// Everything a worker needs to run a task. Its `Debug` shows the id alone: it holds a prompt.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) id: TaskId,
    pub(crate) model: ModelId,
    pub(crate) prompt: EncodedPrompt,
    pub(crate) stop: StopSequences,
    pub(crate) constraint: Option<Constraint>,
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
            constraint: task.constraint,
            salt: task.salt,
            sampling: task.sampling,
            seed: task.seed,
            expires_at_unix: task.expires_at_unix,
        }
    }
}
