//! Following one task for one agent: each event is sent as soon as the agent takes it.

use dovetail_api::codes::Code;
use dovetail_api::v1::{self, stream_task_response::Event as StreamEvent};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::InferenceService;
use super::status::IntoStatus;
use crate::tasks::{Follower, TaskEvent};

/// How many events of one stream may wait for its agent; then the sender waits, and tokens gather
/// in the task, which is bounded by `max_tokens`.
const STREAM_EVENTS_MAX: usize = 16;

type Response = Result<v1::StreamTaskResponse, Status>;

impl InferenceService {
    /// The follower's events for one agent.
    pub(super) fn send_events(&self, mut follower: Follower) -> ReceiverStream<Response> {
        let (sender, receiver) = mpsc::channel(STREAM_EVENTS_MAX);
        let service = self.clone();
        self.tracker.spawn(async move {
            loop {
                // An output under way may still come to its end. Nobody knows when a share will be found.
                let may_stop = follower.is_past_output();
                let next = tokio::select! {
                    // The agent hung up.
                    () = sender.closed() => return follower.hang_up(),
                    () = service.shutdown.cancelled(), if may_stop => Err(stopping()),
                    next = follower.next() => next.map_err(IntoStatus::into_status),
                };
                let (response, is_last) = match next {
                    Ok(Some(event)) => (Ok(service.response(event)), false),
                    Ok(None) => return,
                    Err(status) => (Err(status), true),
                };
                if sender.send(response).await.is_err() {
                    return follower.hang_up();
                }
                if is_last {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    fn response(&self, event: TaskEvent) -> v1::StreamTaskResponse {
        let event = match event {
            TaskEvent::Tokens {
                first_position,
                tokens,
                text,
            } => StreamEvent::Tokens(v1::TokenChunk {
                first_position: u32::try_from(first_position).unwrap_or(u32::MAX),
                tokens,
                text,
            }),
            TaskEvent::State(record) => StreamEvent::Task(self.view(&record)),
        };
        v1::StreamTaskResponse { event: Some(event) }
    }
}

fn stopping() -> Status {
    Code::Unavailable.status("the pool is stopping; ask again for the rest in a moment")
}
