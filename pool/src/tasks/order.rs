//! A task as its agent orders it.

use dovetail_commitment::{Form, ModelId, SamplingParams, TaskId};

use super::caller::Caller;
use super::prompt::Prompt;

/// What an agent orders. Nothing in it has been checked. No `Debug`: it holds a prompt.
pub(crate) struct Order {
    /// Who orders it.
    pub(crate) caller: Caller,
    /// The agent's own id for the task, so that it can ask again; without one the pool chooses it.
    pub(crate) id: Option<TaskId>,
    /// The model to run.
    pub(crate) model: ModelId,
    /// What to complete: the pool makes the tokens.
    pub(crate) prompt: Prompt,
    /// Where to stop.
    pub(crate) stop: Vec<Vec<u8>>,
    /// The form that the answer must have.
    pub(crate) form: Option<Form>,
    /// The salt of the prompt's commitment.
    pub(crate) salt: [u8; 32],
    /// How to sample.
    pub(crate) sampling: SamplingParams,
    /// Whether fewer tokens than `sampling.max_tokens` will do: as many as the context and the validators have room for.
    pub(crate) as_many_as_fit: bool,
    /// The seed of the sampling; without one the pool draws it.
    pub(crate) seed: Option<[u8; 32]>,
}
