//! The gRPC interface: `dovetail.inference.v1`, `dovetail.models.v1` for workers that fetch models, and for miners
//! `dovetail.rewards.v1`, to check their part of a block, and `dovetail.payouts.v1`, to say where they are paid.
//! It translates requests into calls of [`Tasks`], and what comes back into messages.

mod create;
mod downloads;
mod follow;
mod payouts;
mod rewards;
mod server;
mod status;
mod view;

use std::time::Duration;

use dovetail_api::ID_BYTES;
use dovetail_api::codes::Code;
use dovetail_api::v1::{self, inference_server::Inference};
use dovetail_commitment::{ModelId, TaskId};
use dovetail_ledger::TaskRecord;
use dovetail_rewards::ACCOUNT_BYTES_MAX;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::agents::caller;
use crate::tasks::Tasks;

pub(crate) use downloads::Downloads;
pub(crate) use payouts::PayoutsService;
pub(crate) use rewards::RewardsService;
pub(crate) use server::{Services, serve};

use create::sampling;
use status::IntoStatus;
use view::{model_view, quote_view, task_view};

/// The service.
#[derive(Clone)]
struct InferenceService {
    tasks: Tasks,
    /// What streams run on.
    tracker: TaskTracker,
    /// Ends streams that would go on for minutes.
    shutdown: CancellationToken,
}

impl InferenceService {
    async fn task(&self, task_id: &[u8]) -> Result<TaskRecord, Status> {
        let found = self.tasks.show(task_id_of(task_id)?).await;
        found.map_err(IntoStatus::into_status)
    }

    fn view(&self, record: &TaskRecord) -> v1::Task {
        task_view(record, self.tasks.tokens_so_far(&record.id))
    }
}

#[tonic::async_trait]
impl Inference for InferenceService {
    async fn list_models(
        &self,
        _request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = self.tasks.models().iter();
        let models = models.map(|model| model_view(&self.tasks, model)).collect();
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn quote_task(
        &self,
        request: Request<v1::QuoteTaskRequest>,
    ) -> Result<Response<v1::QuoteTaskResponse>, Status> {
        let request = request.into_inner();
        let model = ModelId::from_bytes(id32(&request.model_id, "model_id")?);
        let sampling = sampling(request.sampling)?;
        let quote = self
            .tasks
            .quote(&model, &sampling, request.prompt_bytes as usize)
            .map_err(IntoStatus::into_status)?;
        Ok(Response::new(quote_view(&quote)))
    }

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let admitted = self.create(request).await?;
        Ok(Response::new(v1::CreateTaskResponse {
            task: Some(self.view(&admitted.task)),
            prompt_tokens: admitted.prompt.tokens().to_vec(),
        }))
    }

    type StreamTaskStream = ReceiverStream<Result<v1::StreamTaskResponse, Status>>;

    async fn stream_task(
        &self,
        request: Request<v1::StreamTaskRequest>,
    ) -> Result<Response<Self::StreamTaskStream>, Status> {
        let caller = caller(request.extensions().get());
        let request = request.into_inner();
        let id = task_id_of(&request.task_id)?;
        let follower = self.tasks.follow(id, request.from_position as usize).await;
        let mut follower = follower.map_err(IntoStatus::into_status)?;
        if request.until_settled {
            follower = follower.until_settled(caller);
        }
        Ok(Response::new(self.send_events(follower)))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        let record = self.task(&request.into_inner().task_id).await?;
        Ok(Response::new(v1::GetTaskResponse {
            task: Some(self.view(&record)),
        }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let id = task_id_of(&request.into_inner().task_id)?;
        let record = self.tasks.cancel(id).await;
        let record = record.map_err(IntoStatus::into_status)?;
        Ok(Response::new(v1::CancelTaskResponse {
            task: Some(self.view(&record)),
        }))
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        let id = task_id_of(&request.into_inner().task_id)?;
        let receipt = self.tasks.receipt(id).await;
        let receipt_json = receipt.map_err(IntoStatus::into_status)?;
        Ok(Response::new(v1::GetReceiptResponse { receipt_json }))
    }
}

fn task_id_of(bytes: &[u8]) -> Result<TaskId, Status> {
    id32(bytes, "task_id").map(TaskId::from_bytes)
}

fn id32(bytes: &[u8], name: &str) -> Result<[u8; ID_BYTES], Status> {
    bytes
        .try_into()
        .map_err(|_| Code::ArgumentInvalid.status(format!("{name} must have {ID_BYTES} bytes")))
}

/// No name has a zero byte, and Postgres takes none.
fn check_account(account: &str) -> Result<(), Status> {
    match (1..=ACCOUNT_BYTES_MAX).contains(&account.len()) && !account.contains('\0') {
        true => Ok(()),
        false => {
            Err(Code::ArgumentInvalid.status("account must have 1 to 255 bytes, none of them zero"))
        }
    }
}

/// A caller's turn, or `full` if it does not come in time: of what anybody may ask, few are answered at once.
async fn turn<'a>(
    turns: &'a Semaphore,
    time_max: Duration,
    full: impl Fn() -> Status,
) -> Result<SemaphorePermit<'a>, Status> {
    let turn = timeout(time_max, turns.acquire()).await;
    turn.map_err(|_| full())?.map_err(|_| full())
}

/// `None` if it was left out.
fn optional_id32(bytes: &[u8], name: &str) -> Result<Option<[u8; ID_BYTES]>, Status> {
    let given = (!bytes.is_empty()).then(|| id32(bytes, name));
    given.transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_32_bytes() {
        assert!(id32(&[0; 31], "task_id").is_err());
        assert!(id32(&[0; 32], "task_id").is_ok());
        assert!(optional_id32(&[], "seed").is_ok());
    }
}
