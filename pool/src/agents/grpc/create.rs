//! Taking a task on: what is checked, stored and queued.

use dovetail_api::{codes, v1};
use dovetail_commitment::{SamplingParams, StopSequences, TaskId};
use dovetail_ledger::{LedgerError, Msat, NewTask, TaskRecord};
use tonic::Status;

use super::{InferenceService, id_or_random, id32, unavailable, unix_now};
use crate::tasks::TaskOrder;

impl InferenceService {
    /// Checks what both a quote and a task need.
    pub(super) fn sampling(
        &self,
        sampling: Option<v1::Sampling>,
        prompt_bytes: usize,
    ) -> Result<SamplingParams, Status> {
        let limit = self.shared.config.inference.prompt_bytes_max;
        if prompt_bytes > limit {
            return Err(codes::status(
                codes::PROMPT_TOO_LONG,
                format!("a prompt may have {limit} bytes here"),
            ));
        }
        let sampling = sampling
            .ok_or_else(|| codes::status(codes::SAMPLING_INVALID, "sampling is missing"))?;
        let params = SamplingParams {
            temperature_milli: sampling.temperature_milli,
            top_k: sampling.top_k,
            top_p_milli: match sampling.top_p_milli {
                0 => 1000,
                given => given,
            },
            max_tokens: sampling.max_tokens,
        };
        params
            .validate()
            .map_err(|error| codes::status(codes::SAMPLING_INVALID, error.to_string()))?;
        Ok(params)
    }

    /// Stores the task and puts it into the queue; the same request again finds it as it stands.
    pub(super) async fn create(
        &self,
        request: v1::CreateTaskRequest,
    ) -> Result<TaskRecord, Status> {
        let model = self.model(&request.model_id)?;
        let sampling = self.sampling(request.sampling, request.prompt.len())?;
        let encoded = model.encode(&request.prompt);
        let encoded =
            encoded.map_err(|error| codes::status(codes::ARGUMENT_INVALID, error.to_string()))?;
        if encoded.len() >= model.context_tokens() {
            let message = "the prompt fills the model's context";
            return Err(codes::status(codes::PROMPT_TOO_LONG, message));
        }
        let stop = StopSequences::new(request.stop)
            .map_err(|error| codes::status(codes::ARGUMENT_INVALID, error.to_string()))?;
        let id = TaskId::from_bytes(id_or_random(&request.task_id, "task_id")?);
        let new = NewTask {
            id,
            model_id: model.id(),
            salt: id32(&request.salt, "salt")?,
            sampling,
            seed: id_or_random(&request.seed, "seed")?,
            prompt: request.prompt,
            stop,
            price: Msat::new(0),
            expires_at_unix: unix_now()
                .as_secs()
                .saturating_add(self.shared.config.inference.task_lifetime_s),
        };
        if self.shared.dispatcher.workers_for(&new.model_id) == 0 {
            return Err(codes::status(
                codes::NO_WORKER,
                "no worker that serves this model is connected",
            ));
        }
        // Before the task is stored, so that its agent may try again with the same id.
        let queue_max = self.shared.config.inference.queue_max;
        if !self.shared.dispatcher.has_room(queue_max) {
            return Err(queue_full());
        }
        let ledger = &self.shared.settler.ledger;
        let created = ledger
            .create_task(&new)
            .await
            .map_err(|error| match error {
                LedgerError::Conflict(_) => {
                    codes::status(codes::TASK_ID_TAKEN, "this id names another task")
                }
                error => unavailable(&error),
            })?;
        if created {
            self.enqueue(new).await?;
        }
        self.record(id.as_bytes()).await
    }

    async fn enqueue(&self, new: NewTask) -> Result<(), Status> {
        let id = new.id;
        let order = TaskOrder {
            id,
            model: new.model_id,
            prompt: new.prompt,
            stop: new.stop,
            salt: new.salt,
            sampling: new.sampling,
            seed: new.seed,
            expires_at_unix: new.expires_at_unix,
        };
        let queue_max = self.shared.config.inference.queue_max;
        if self.shared.dispatcher.enqueue(order, queue_max) {
            self.shared.spawn_pairing();
            return Ok(());
        }
        self.shared
            .settler
            .ledger
            .fail_task(id, None, codes::QUEUE_FULL)
            .await
            .map_err(|error| unavailable(&error))?;
        Err(queue_full())
    }
}

fn queue_full() -> Status {
    codes::status(codes::QUEUE_FULL, "too many tasks wait already")
}
