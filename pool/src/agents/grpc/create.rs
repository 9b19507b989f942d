//! A request of the API as an order of a task.

use dovetail_api::codes::Code;
use dovetail_api::v1;
use dovetail_commitment::{Form, ModelId, SamplingParams, TaskId};
use tonic::{Request, Status};

use super::status::IntoStatus;
use super::{InferenceService, id32, optional_id32};
use crate::agents::caller;
use crate::tasks::{Admitted, Caller, Order, Prompt};

impl InferenceService {
    pub(super) async fn create(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Admitted, Status> {
        let caller = caller(request.extensions().get());
        let order = order(caller, request.into_inner())?;
        let admitted = self.tasks.admit(order).await;
        admitted.map_err(IntoStatus::into_status)
    }
}

fn order(caller: Caller, request: v1::CreateTaskRequest) -> Result<Order, Status> {
    Ok(Order {
        caller,
        model: ModelId::from_bytes(id32(&request.model_id, "model_id")?),
        sampling: sampling(request.sampling)?,
        id: optional_id32(&request.task_id, "task_id")?.map(TaskId::from_bytes),
        salt: id32(&request.salt, "salt")?,
        seed: optional_id32(&request.seed, "seed")?,
        as_many_as_fit: false,
        prompt: Prompt::Text(request.prompt),
        stop: request.stop,
        form: request.constraint.map(form).transpose()?,
    })
}

fn form(constraint: v1::Constraint) -> Result<Form, Status> {
    use v1::constraint::Form as Asked;
    let asked = constraint.form.ok_or_else(|| {
        // One of a kind that this pool does not know looks the same.
        Code::ConstraintInvalid.status("the constraint names no form that this pool knows")
    })?;
    Ok(match asked {
        Asked::JsonSchema(text) => Form::JsonSchema(text),
        Asked::Regex(text) => Form::Regex(text),
        Asked::Choice(choice) => Form::Choice(choice.texts),
    })
}

pub(super) fn sampling(sampling: Option<v1::Sampling>) -> Result<SamplingParams, Status> {
    let sampling = sampling.ok_or_else(|| Code::SamplingInvalid.status("sampling is missing"))?;
    Ok(SamplingParams {
        temperature_milli: sampling.temperature_milli,
        top_k: sampling.top_k,
        top_p_milli: match sampling.top_p_milli {
            0 => 1000,
            given => given,
        },
        max_tokens: sampling.max_tokens,
    })
}
