//! The agents' door: `dovetail.inference.v1` over the dispatcher and the ledger.

mod create;
mod downloads;
mod follow;
mod server;
mod view;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dovetail_api::v1::{self, inference_server::Inference};
use dovetail_api::{ID_BYTES, codes};
use dovetail_commitment::{ModelId, OUTPUT_TOKENS_MAX, TaskId};
use dovetail_engine::Model;
use dovetail_ledger::{LedgerError, TaskRecord, TaskState};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::shared::Shared;

pub(crate) use downloads::Downloads;
pub(crate) use server::serve;

use follow::follow;
use view::task_view;

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
        let from_position = request.from_position as usize;
        Ok(Response::new(follow(self.clone(), record, from_position)))
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
