//! A request of the API as an order of a task.

use std::net::Ipv4Addr;

use dovetail_api::codes::Code;
use dovetail_api::v1;
use dovetail_commitment::{Form, ModelId, SamplingParams, TaskId};
use tonic::{Request, Status};

use super::status::{IntoStatus, unavailable};
use super::{InferenceService, id32, optional_id32};
use crate::grpc_listener::Origin;
use crate::tasks::{AdmissionError, Admitted, Caller, Order, Payment};

/// Where a request shows a key.
const AUTHORIZATION: &str = "authorization";

impl InferenceService {
    pub(super) async fn create(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Admitted, Status> {
        let caller = caller(&request);
        let payer = self.payer(&request).await?;
        let order = order(caller, payer, request.into_inner())?;
        let admitted = self.tasks.admit(order).await;
        admitted.map_err(IntoStatus::into_status)
    }
}

impl InferenceService {
    /// Who is to pay: the key that the request shows, or else the operator.
    async fn payer<T>(&self, request: &Request<T>) -> Result<Payment, Status> {
        let Some(shown) = request.metadata().get(AUTHORIZATION) else {
            return Ok(Payment::Subsidy);
        };
        let secret = shown.to_str().ok().and_then(bearer);
        let found = match secret {
            Some(secret) => self.tasks.key(secret).await,
            None => Ok(None),
        };
        let key = found.map_err(|error| unavailable(&error))?;
        let key = key.ok_or(AdmissionError::KeyInvalid);
        key.map(|key| Payment::Key(key.id))
            .map_err(IntoStatus::into_status)
    }
}

/// What is shown by `Bearer <secret>`, the scheme in any case (RFC 9110, 11.1).
fn bearer(shown: &str) -> Option<&str> {
    let (scheme, secret) = shown.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| secret.trim())
        .filter(|secret| !secret.is_empty())
}

/// Who calls. Connections whose address is gone share one.
fn caller<T>(request: &Request<T>) -> Caller {
    let origin = request.extensions().get::<Origin>();
    let connection = origin.map_or(0, |origin| origin.connection);
    let address = origin.and_then(|origin| origin.address);
    Caller::new(connection, address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}

fn order(caller: Caller, payer: Payment, request: v1::CreateTaskRequest) -> Result<Order, Status> {
    Ok(Order {
        caller,
        payer,
        model: ModelId::from_bytes(id32(&request.model_id, "model_id")?),
        sampling: sampling(request.sampling)?,
        id: optional_id32(&request.task_id, "task_id")?.map(TaskId::from_bytes),
        salt: id32(&request.salt, "salt")?,
        seed: optional_id32(&request.seed, "seed")?,
        prompt: request.prompt,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_a_bearers_and_in_no_other_way() {
        for shown in ["Bearer sk-1", "bearer  sk-1 ", "BEARER sk-1"] {
            assert_eq!(bearer(shown), Some("sk-1"), "{shown}");
        }
        for shown in ["", "sk-1", "Bearer", "Bearer ", "Basic sk-1"] {
            assert_eq!(bearer(shown), None, "{shown}");
        }
    }
}
