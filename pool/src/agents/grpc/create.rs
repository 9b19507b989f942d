//! A request of the API as an order of a task.

use dovetail_api::codes::Code;
use dovetail_api::v1;
use dovetail_commitment::{Form, ModelId, SamplingParams, TaskId};
use tonic::{Request, Status};

use super::status::{IntoStatus, unavailable};
use super::{InferenceService, id32, optional_id32};
use crate::agents::{bearer, caller};
use crate::tasks::{AdmissionError, Admitted, Caller, Order, Payment, Prompt};

/// Where a request shows a key.
const AUTHORIZATION: &str = "authorization";

impl InferenceService {
    pub(super) async fn create(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Admitted, Status> {
        let caller = caller(request.extensions().get());
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

fn order(caller: Caller, payer: Payment, request: v1::CreateTaskRequest) -> Result<Order, Status> {
    Ok(Order {
        caller,
        payer,
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

#[cfg(test)]
mod tests {
    use dovetail_api::codes::code_of;
    use dovetail_ledger::{Ledger, NewKey};
    use dovetail_units::Msat;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::test_support::{Database, live_tasks};
    use crate::validation::tests::tiny_model;

    /// What the keys of this name, and the operator, have set aside.
    async fn reserved(ledger: &Ledger) -> (i64, i64) {
        let keys = ledger.keys().await.unwrap();
        let subsidy = ledger.subsidy().await.unwrap();
        (keys[0].reserved.get(), subsidy.reserved.get())
    }

    #[tokio::test]
    async fn whoever_shows_a_key_has_it_pay_and_a_wrong_one_is_nobodys() {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let model = tiny_model(1);
        let tasks = live_tasks(&ledger, [model.clone()].into_iter().collect());
        let worker = tasks.connect(
            dovetail_commitment::WorkerKey::from_bytes([1; 32]),
            vec![model.id()],
            1,
        );
        let new = NewKey {
            name: "alice",
            secret: "sk-alice",
            budget: Msat::new(150),
            per_day: None,
        };
        ledger.add_key(&new).await.unwrap();
        let service = InferenceService {
            tasks,
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        // Eight tokens of 10 msat.
        let create = async |n: u8, shown: Option<&str>| {
            let mut request = Request::new(v1::CreateTaskRequest {
                task_id: vec![n; 32],
                model_id: model.id().to_bytes().to_vec(),
                prompt: b"?".to_vec(),
                sampling: Some(v1::Sampling {
                    max_tokens: 8,
                    ..v1::Sampling::default()
                }),
                salt: vec![0; 32],
                ..v1::CreateTaskRequest::default()
            });
            if let Some(shown) = shown {
                let shown = shown.parse().unwrap();
                request.metadata_mut().insert(AUTHORIZATION, shown);
            }
            let created = service.create(request).await;
            created.map(drop).map_err(|status| {
                assert!(!format!("{status:?}").contains("sk-"), "{status:?}");
                code_of(&status).map(str::to_owned)
            })
        };
        create(1, Some("Bearer sk-alice")).await.unwrap();
        assert_eq!(reserved(&ledger).await, (80, 0));
        let refused = |word: &str| Err(Some(word.to_owned()));
        let second = create(2, Some("bearer sk-alice")).await;
        assert_eq!(second, refused("balance-reserved"));
        for shown in ["Bearer sk-bob", "Bearer", "sk-alice", "Basic sk-alice"] {
            let unknown = create(2, Some(shown)).await;
            assert_eq!(unknown, refused("key-invalid"), "{shown}");
        }
        create(2, None).await.unwrap();
        assert_eq!(reserved(&ledger).await, (80, 80));
        ledger.revoke_key("alice").await.unwrap();
        let revoked = create(3, Some("Bearer sk-alice")).await;
        assert_eq!(revoked, refused("key-invalid"));
        drop(worker);
        service.tracker.close();
        drop(service);
        database.drop().await;
    }
}
