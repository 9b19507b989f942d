//! The agents' door: `dovetail.inference.v1` over the dispatcher and the ledger.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dovetail_api::v1::{
    self, inference_server::Inference, stream_task_response::Event as StreamEvent,
};
use dovetail_api::{ID_BYTES, codes};
use dovetail_commitment::{ModelId, OUTPUT_TOKENS_MAX, SamplingParams, TaskId};
use dovetail_engine::Model;
use dovetail_ledger::{LedgerError, Msat, NewTask, TaskRecord, TaskState};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::dispatch::{Live, TaskOrder};
use crate::shared::Shared;

/// How many events of one stream may wait for its agent; then the sender waits, and tokens gather
/// in the task, which is bounded by `max_tokens`.
const STREAM_EVENTS_MAX: usize = 16;
/// How long a quote holds. Prices only change with the configuration.
const QUOTE_VALIDITY: Duration = Duration::from_secs(60);

/// The service.
#[derive(Clone)]
pub(crate) struct InferenceService {
    shared: Arc<Shared>,
}

impl InferenceService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn model(&self, id: &[u8]) -> Result<Arc<Model>, Status> {
        let id = ModelId::from_bytes(id32(id, "model_id")?);
        self.shared
            .models
            .get(&id)
            .ok_or_else(|| codes::status(codes::MODEL_UNKNOWN, "this pool does not know the model"))
    }

    fn sampling(
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

    async fn record(&self, task_id: &[u8]) -> Result<TaskRecord, Status> {
        let id = TaskId::from_bytes(id32(task_id, "task_id")?);
        self.shared
            .settler
            .ledger
            .task(id)
            .await
            .map_err(|error| unavailable(&error))?
            .ok_or_else(|| codes::status(codes::TASK_UNKNOWN, "no task has this id"))
    }

    fn view(&self, record: &TaskRecord) -> v1::Task {
        let live = self
            .shared
            .dispatcher
            .watch(&record.id)
            .map(|live| live.borrow().tokens.len());
        task_view(record, live)
    }

    async fn create(&self, request: v1::CreateTaskRequest) -> Result<TaskRecord, Status> {
        let model = self.model(&request.model_id)?;
        let sampling = self.sampling(request.sampling, request.prompt.len())?;
        let encoded = model.encode(&request.prompt);
        let encoded =
            encoded.map_err(|error| codes::status(codes::ARGUMENT_INVALID, error.to_string()))?;
        if encoded.len() >= model.context_tokens() {
            let message = "the prompt fills the model's context";
            return Err(codes::status(codes::PROMPT_TOO_LONG, message));
        }
        let id = TaskId::from_bytes(id_or_random(&request.task_id, "task_id")?);
        let new = NewTask {
            id,
            model_id: model.id(),
            salt: id32(&request.salt, "salt")?,
            sampling,
            seed: id_or_random(&request.seed, "seed")?,
            prompt: request.prompt,
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
            salt: new.salt,
            sampling: new.sampling,
            seed: new.seed,
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

#[tonic::async_trait]
impl Inference for InferenceService {
    async fn list_models(
        &self,
        _request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let limit = self.shared.config.inference.prompt_bytes_max;
        let models = self
            .shared
            .models
            .iter()
            .map(|model| v1::Model {
                model_id: model.id().to_bytes().to_vec(),
                name: model.name().to_owned(),
                engine_version: u32::from(dovetail_engine::ENGINE_VERSION),
                context_tokens: u32::try_from(model.context_tokens()).unwrap_or(u32::MAX),
                output_tokens_max: u32::try_from(model.context_tokens())
                    .unwrap_or(u32::MAX)
                    .min(OUTPUT_TOKENS_MAX),
                prompt_bytes_max: u32::try_from(limit).unwrap_or(u32::MAX),
                price_msat_per_token: 0,
                workers: u32::try_from(self.shared.dispatcher.workers_for(&model.id()))
                    .unwrap_or(u32::MAX),
            })
            .collect();
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn quote_task(
        &self,
        request: Request<v1::QuoteTaskRequest>,
    ) -> Result<Response<v1::QuoteTaskResponse>, Status> {
        let request = request.into_inner();
        self.model(&request.model_id)?;
        self.sampling(request.sampling, request.prompt_bytes as usize)?;
        let expires = unix_now().saturating_add(QUOTE_VALIDITY);
        Ok(Response::new(v1::QuoteTaskResponse {
            quote_id: rand::random::<[u8; 32]>().to_vec(),
            price_msat_max: 0,
            price_msat_per_token: 0,
            expires_at_unix_ms: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
        }))
    }

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        // Runs to its end even if the agent hangs up: the task is in the ledger by then.
        let service = self.clone();
        let request = request.into_inner();
        let record = self
            .shared
            .tracker
            .spawn(async move { service.create(request).await })
            .await
            .map_err(|_| codes::status(codes::INTERNAL, "the request did not finish"))??;
        Ok(Response::new(v1::CreateTaskResponse {
            task: Some(self.view(&record)),
        }))
    }

    type StreamTaskStream = ReceiverStream<Result<v1::StreamTaskResponse, Status>>;

    async fn stream_task(
        &self,
        request: Request<v1::StreamTaskRequest>,
    ) -> Result<Response<Self::StreamTaskStream>, Status> {
        let request = request.into_inner();
        let record = self.record(&request.task_id).await?;
        let (sender, receiver) = mpsc::channel(STREAM_EVENTS_MAX);
        let follower = Follower {
            service: self.clone(),
            sender,
            position: request.from_position as usize,
        };
        let live = self.shared.dispatcher.watch(&record.id);
        self.shared.tracker.spawn(follower.run(record, live));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        let record = self.record(&request.into_inner().task_id).await?;
        Ok(Response::new(v1::GetTaskResponse {
            task: Some(self.view(&record)),
        }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let record = self.record(&request.into_inner().task_id).await?;
        if matches!(record.state, TaskState::Queued | TaskState::Assigned) {
            let cancelled = self
                .shared
                .settler
                .ledger
                .cancel_task(record.id)
                .await
                .map_err(|error| unavailable(&error))?;
            if cancelled {
                self.shared.dispatcher.cancel(&record.id);
                self.shared.spawn_pairing();
            }
        }
        let record = self.record(record.id.as_bytes()).await?;
        Ok(Response::new(v1::CancelTaskResponse {
            task: Some(self.view(&record)),
        }))
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        let record = self.record(&request.into_inner().task_id).await?;
        let receipt = self
            .shared
            .settler
            .ledger
            .receipt(record.id)
            .await
            .map_err(|error| unavailable(&error))?;
        match (receipt, record.state) {
            (Some(receipt_json), _) => Ok(Response::new(v1::GetReceiptResponse { receipt_json })),
            (None, TaskState::Queued | TaskState::Assigned | TaskState::Finished) => Err(
                codes::status(codes::RECEIPT_PENDING, "no share has settled the task yet"),
            ),
            (None, _) => Err(codes::status(
                codes::RECEIPT_NEVER,
                "the task ended without a receipt",
            )),
        }
    }
}

/// Follows one task for one agent.
struct Follower {
    service: InferenceService,
    sender: mpsc::Sender<Result<v1::StreamTaskResponse, Status>>,
    position: usize,
}

impl Follower {
    async fn run(mut self, record: TaskRecord, live: Option<watch::Receiver<Live>>) {
        // An error means that the agent hung up.
        let _ = match live {
            Some(live) => self.follow(record, live).await,
            None => self.replay(record).await,
        };
    }

    async fn follow(
        &mut self,
        record: TaskRecord,
        mut live: watch::Receiver<Live>,
    ) -> Result<(), ()> {
        let model = self.service.shared.models.get(&record.model_id);
        let mut phase = live.borrow_and_update().phase;
        self.send_task(&record).await?;
        loop {
            let (fresh, now) = {
                let live = live.borrow_and_update();
                let from = self.position.min(live.tokens.len());
                (live.tokens[from..].to_vec(), live.phase)
            };
            self.send_tokens(model.as_deref(), fresh).await?;
            if now != phase || !now.is_streaming() {
                phase = now;
                let record = self.reread(&record).await?;
                self.send_task(&record).await?;
            }
            if !now.is_streaming() {
                return Ok(());
            }
            tokio::select! {
                () = self.sender.closed() => return Err(()),
                changed = live.changed() => if changed.is_err() {
                    let record = self.reread(&record).await?;
                    return self.replay(record).await;
                },
            }
        }
    }

    /// A task that nobody works on any more: what the ledger has of it.
    async fn replay(&mut self, record: TaskRecord) -> Result<(), ()> {
        let model = self.service.shared.models.get(&record.model_id);
        let tokens = record.output_tokens.clone().unwrap_or_default();
        let from = self.position.min(tokens.len());
        self.send_tokens(model.as_deref(), tokens[from..].to_vec())
            .await?;
        self.send_task(&record).await
    }

    async fn reread(&self, record: &TaskRecord) -> Result<TaskRecord, ()> {
        match self.service.record(record.id.as_bytes()).await {
            Ok(record) => Ok(record),
            Err(status) => {
                let _ = self.sender.send(Err(status)).await;
                Err(())
            }
        }
    }

    async fn send_tokens(&mut self, model: Option<&Model>, tokens: Vec<u32>) -> Result<(), ()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let first_position = u32::try_from(self.position).unwrap_or(u32::MAX);
        self.position = self.position.saturating_add(tokens.len());
        let text = model.map(|model| model.decode(&tokens)).unwrap_or_default();
        self.send(StreamEvent::Tokens(v1::TokenChunk {
            first_position,
            tokens,
            text,
        }))
        .await
    }

    async fn send_task(&self, record: &TaskRecord) -> Result<(), ()> {
        self.send(StreamEvent::Task(self.service.view(record)))
            .await
    }

    async fn send(&self, event: StreamEvent) -> Result<(), ()> {
        let response = v1::StreamTaskResponse { event: Some(event) };
        self.sender.send(Ok(response)).await.map_err(|_| ())
    }
}

fn task_view(record: &TaskRecord, live_tokens: Option<usize>) -> v1::Task {
    use dovetail_commitment::FinishReason;
    let state = match record.state {
        TaskState::Queued => v1::TaskState::Queued,
        TaskState::Assigned => v1::TaskState::Running,
        TaskState::Finished => v1::TaskState::Finished,
        TaskState::Settled => v1::TaskState::Settled,
        TaskState::Failed => v1::TaskState::Failed,
        TaskState::Cancelled => v1::TaskState::Cancelled,
        TaskState::Expired => v1::TaskState::Expired,
    };
    let reason = record
        .transcript
        .as_ref()
        .map(|transcript| transcript.finish_reason);
    let finish_reason = match reason {
        Some(FinishReason::Stop) => v1::FinishReason::Stop,
        Some(FinishReason::Length) => v1::FinishReason::Length,
        Some(FinishReason::Cancelled) => v1::FinishReason::Cancelled,
        None => v1::FinishReason::Unspecified,
    };
    let output_tokens = record
        .transcript
        .as_ref()
        .map(|transcript| transcript.output_tokens as usize)
        .or(live_tokens)
        .unwrap_or(0);
    v1::Task {
        task_id: record.id.to_bytes().to_vec(),
        state: state.into(),
        model_id: record.model_id.to_bytes().to_vec(),
        sampling: Some(v1::Sampling {
            temperature_milli: record.sampling.temperature_milli,
            top_k: record.sampling.top_k,
            top_p_milli: record.sampling.top_p_milli,
            max_tokens: record.sampling.max_tokens,
        }),
        seed: record.seed.to_vec(),
        price_msat: record.price.get(),
        output_tokens: u32::try_from(output_tokens).unwrap_or(u32::MAX),
        finish_reason: finish_reason.into(),
        error_code: record.error_code.clone().unwrap_or_default(),
        created_at_unix_ms: millis(record.created_at_unix),
        expires_at_unix_ms: millis(record.expires_at_unix),
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn id32(bytes: &[u8], name: &str) -> Result<[u8; ID_BYTES], Status> {
    bytes.try_into().map_err(|_| {
        codes::status(
            codes::ARGUMENT_INVALID,
            format!("{name} must have {ID_BYTES} bytes"),
        )
    })
}

fn id_or_random(bytes: &[u8], name: &str) -> Result<[u8; ID_BYTES], Status> {
    if bytes.is_empty() {
        return Ok(rand::random());
    }
    id32(bytes, name)
}

fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The agent learns that it may try again; the log says why.
fn unavailable(error: &LedgerError) -> Status {
    tracing::error!(%error, "the ledger did not answer an agent's request");
    codes::status(
        codes::UNAVAILABLE,
        "the pool's ledger is away; try again later",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_32_bytes() {
        assert!(id32(&[0; 31], "task_id").is_err());
        assert!(id32(&[0; 32], "task_id").is_ok());
        assert!(id_or_random(&[], "seed").is_ok());
    }
}
