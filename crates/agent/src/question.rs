//! What an agent asks, and how a request says it.

use std::time::Duration;

use dovetail_api::v1;
use dovetail_commitment::{Constraint, Form, ModelId, SamplingParams, StopSequences, TaskId};

/// For an answer from the first call to its end. Pools give up a task after ten minutes unless they are told otherwise.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(900);

/// One completion to ask for. Holds the agent's secrets of it: the salt, and the task id, which is as good as a key
/// to the task.
#[derive(Clone)]
pub struct Question {
    /// Chosen at random by the agent, so that asking can be repeated safely.
    pub task_id: TaskId,
    /// Which model.
    pub model_id: ModelId,
    /// As the tokenizer is to see it.
    pub prompt: Vec<u8>,
    /// Where the answer ends, besides where the model ends it.
    pub stop: StopSequences,
    /// The form that the answer must have. The guide that it names is the pool's once the pool has taken it.
    pub constraint: Option<Constraint>,
    /// How tokens are chosen, and how many at most.
    pub sampling: SamplingParams,
    /// Seed of the sampling.
    pub seed: [u8; 32],
    /// Hides the prompt in the commitment.
    pub salt: [u8; 32],
    /// Price agreed on before, from [`AgentClient::quote`](crate::AgentClient::quote).
    pub quote_id: Option<[u8; 32]>,
    /// How long the answer may take, from asking to its end; then it is
    /// [`AgentError::AnswerLate`](crate::AgentError::AnswerLate). 15 minutes unless it is changed. The pool does not hear of
    /// it.
    pub time_max: Duration,
}

impl Question {
    /// A question with a fresh task id, seed and salt.
    pub fn new(model_id: ModelId, prompt: Vec<u8>, sampling: SamplingParams) -> Self {
        Self {
            task_id: TaskId::from_bytes(rand::random()),
            model_id,
            prompt,
            stop: StopSequences::default(),
            constraint: None,
            sampling,
            seed: rand::random(),
            salt: rand::random(),
            quote_id: None,
            time_max: ANSWER_TIME_MAX,
        }
    }

    pub(crate) fn to_request(&self) -> v1::CreateTaskRequest {
        v1::CreateTaskRequest {
            task_id: self.task_id.to_bytes().to_vec(),
            model_id: self.model_id.to_bytes().to_vec(),
            prompt: self.prompt.clone(),
            stop: self.stop.iter().map(<[u8]>::to_vec).collect(),
            constraint: self.constraint.as_ref().map(constraint_to_wire),
            sampling: Some(sampling_to_wire(&self.sampling)),
            seed: self.seed.to_vec(),
            salt: self.salt.to_vec(),
            quote_id: self.quote_id.map(Vec::from).unwrap_or_default(),
        }
    }
}

pub(crate) fn sampling_to_wire(sampling: &SamplingParams) -> v1::Sampling {
    v1::Sampling {
        temperature_milli: sampling.temperature_milli,
        top_k: sampling.top_k,
        top_p_milli: sampling.top_p_milli,
        max_tokens: sampling.max_tokens,
    }
}

fn constraint_to_wire(constraint: &Constraint) -> v1::Constraint {
    use v1::constraint::Form as Wire;
    let form = match constraint.form() {
        Form::JsonSchema(text) => Wire::JsonSchema(text.clone()),
        Form::Regex(text) => Wire::Regex(text.clone()),
        Form::Choice(texts) => Wire::Choice(v1::Choice {
            texts: texts.clone(),
        }),
    };
    v1::Constraint { form: Some(form) }
}
