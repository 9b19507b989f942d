//! Waiting for a receipt, at a pool that this test plays over real gRPC on loopback.

#![allow(clippy::unwrap_used)]

mod bad_line;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use dovetail_agent::{AgentClient, AgentError, Task, TaskId, TaskState};
use dovetail_api::codes::Code;
use dovetail_api::v1::inference_server::{Inference, InferenceServer};
use dovetail_api::v1::{self, stream_task_response::Event};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

const TASK: TaskId = TaskId::from_bytes([5; 32]);
const LONG: Duration = Duration::from_secs(20);
const RECEIPT: &str = r#"{"of":"a stand-in"}"#;

/// What a stream brings after the state that it begins with.
#[derive(Clone, Copy)]
enum Then {
    /// It breaks.
    Breaks,
    /// It ends there: the pool knows no streams that go on.
    Ends,
    /// After so long the task stands like this.
    Becomes(TaskState, Duration),
    /// This state is told for ever.
    Repeats(TaskState),
}

/// A pool whose task is finished.
struct Pool {
    /// `GetReceipt` answers with `receipt-pending` this often.
    pending: AtomicU32,
    receipts: AtomicU32,
    /// The streams, one after the other, the last one for all that come later.
    streams: Vec<Then>,
    streamed: AtomicU32,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::StreamTaskResponse, Status>> + Send>>;

fn state(state: TaskState) -> Result<v1::StreamTaskResponse, Status> {
    let task = Task {
        task_id: TASK.to_bytes().to_vec(),
        state: state.into(),
        ..Default::default()
    };
    Ok(v1::StreamTaskResponse {
        event: Some(Event::Task(task)),
    })
}

fn once_later(
    event: Result<v1::StreamTaskResponse, Status>,
    time: Duration,
) -> impl Stream<Item = Result<v1::StreamTaskResponse, Status>> {
    tokio_stream::once(event).then(move |event| async move {
        tokio::time::sleep(time).await;
        event
    })
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("nobody waits for a receipt by this"))
}

#[tonic::async_trait]
impl Inference for Pool {
    type StreamTaskStream = Events;

    async fn stream_task(
        &self,
        request: Request<v1::StreamTaskRequest>,
    ) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        assert!(request.until_settled);
        assert_eq!(request.from_position, u32::MAX, "no output is wanted");
        let number = self.streamed.fetch_add(1, SeqCst) as usize;
        let then = self.streams[number.min(self.streams.len() - 1)];
        let first = tokio_stream::once(state(TaskState::Finished));
        let reset = Err(Status::unavailable("connection reset"));
        Ok(Response::new(match then {
            Then::Ends => Box::pin(first),
            Then::Breaks => Box::pin(first.chain(tokio_stream::once(reset))),
            Then::Becomes(end, time) => Box::pin(first.chain(once_later(state(end), time))),
            Then::Repeats(same) => {
                let repeated = std::iter::repeat_with(move || state(same));
                Box::pin(tokio_stream::iter(repeated))
            }
        }))
    }

    async fn get_receipt(
        &self,
        _: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        self.receipts.fetch_add(1, SeqCst);
        let is_pending = self
            .pending
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok();
        match is_pending {
            true => Err(Code::ReceiptPending.status("not settled yet")),
            false => Ok(Response::new(v1::GetReceiptResponse {
                receipt_json: RECEIPT.into(),
            })),
        }
    }

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        unused()
    }

    async fn quote_task(
        &self,
        _: Request<v1::QuoteTaskRequest>,
    ) -> Result<Response<v1::QuoteTaskResponse>, Status> {
        unused()
    }

    async fn create_task(
        &self,
        _: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        unused()
    }

    async fn get_task(
        &self,
        _: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        unused()
    }

    async fn cancel_task(
        &self,
        _: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        unused()
    }
}

/// Serves a pool, and where to.
async fn serve(pending: u32, streams: &[Then]) -> (Arc<Pool>, String) {
    let pool = Arc::new(Pool {
        pending: pending.into(),
        receipts: 0.into(),
        streams: streams.to_vec(),
        streamed: 0.into(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = InferenceServer::from_arc(Arc::clone(&pool));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (pool, url)
}

async fn wait(url: &str, time: Duration) -> Result<String, AgentError> {
    let client = AgentClient::connect(url).await.unwrap();
    client.wait_for_receipt(TASK, time).await
}

#[tokio::test]
async fn settlement_is_told_by_a_stream_and_nobody_asks_meanwhile() {
    let settled = Then::Becomes(TaskState::Settled, Duration::from_secs(1));
    let (pool, url) = serve(1, &[settled]).await;
    assert_eq!(wait(&url, Duration::MAX).await.unwrap(), RECEIPT);
    assert_eq!(pool.receipts.load(SeqCst), 2);
    assert_eq!(pool.streamed.load(SeqCst), 1);
}

#[tokio::test]
async fn streams_that_break_or_end_too_early_are_opened_again() {
    let settled = Then::Becomes(TaskState::Settled, Duration::ZERO);
    let (pool, url) = serve(3, &[Then::Breaks, Then::Ends, settled]).await;
    assert_eq!(wait(&url, LONG).await.unwrap(), RECEIPT);
    assert_eq!(pool.streamed.load(SeqCst), 3);
}

#[tokio::test]
async fn a_wait_has_an_end_and_the_pool_is_not_asked_in_a_hurry() {
    let settled = Then::Becomes(TaskState::Settled, Duration::ZERO);
    // One knows no such streams, one says that it is settled and has no receipt.
    for then in [Then::Ends, settled] {
        let (pool, url) = serve(1_000, &[then]).await;
        let begun = Instant::now();
        let error = wait(&url, Duration::from_secs(1)).await.unwrap_err();
        assert!(
            matches!(error, AgentError::ReceiptPending { waited_s: 1, .. }),
            "{error}"
        );
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let calls = pool.receipts.load(SeqCst);
        assert!(calls < 8, "{calls} calls in a second");
    }
    // One stream that tells nothing more.
    let silent = Then::Becomes(TaskState::Settled, Duration::from_secs(600));
    let (_pool, url) = serve(1_000, &[silent]).await;
    let error = wait(&url, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, AgentError::ReceiptPending { .. }));
    // Nothing is waited for where there is no time.
    let error = wait(&url, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, AgentError::ReceiptPending { .. }));
}

#[tokio::test]
async fn events_without_end_that_bring_nothing_end_the_wait() {
    let (_pool, url) = serve(1_000, &[Then::Repeats(TaskState::Finished)]).await;
    let error = wait(&url, LONG).await.unwrap_err();
    assert!(matches!(error, AgentError::Protocol(_)), "{error}");
}

/// What comes of it is a status of the transport's own, and none that a pool has sent.
#[tokio::test]
async fn connections_that_are_cut_meanwhile_are_made_again() {
    let settled = Then::Becomes(TaskState::Settled, Duration::from_millis(700));
    let (pool, url) = serve(3, &[settled]).await;
    let url = bad_line::to(&url, 2, Duration::from_millis(400)).await;
    assert_eq!(wait(&url, LONG).await.unwrap(), RECEIPT);
    assert_eq!(pool.streamed.load(SeqCst), 3);
}
