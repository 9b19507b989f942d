//! Following one task for one agent: its tokens as they come, its states as they change.

use dovetail_api::v1::{self, stream_task_response::Event as StreamEvent};
use dovetail_engine::Model;
use dovetail_ledger::TaskRecord;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::InferenceService;
use crate::tasks::Live;

/// How many events of one stream may wait for its agent; then the sender waits, and tokens gather
/// in the task, which is bounded by `max_tokens`.
const STREAM_EVENTS_MAX: usize = 16;

/// The task's events for one agent, from that position of the output on.
pub(super) fn follow(
    service: InferenceService,
    record: TaskRecord,
    from_position: usize,
) -> ReceiverStream<Result<v1::StreamTaskResponse, Status>> {
    let (sender, receiver) = mpsc::channel(STREAM_EVENTS_MAX);
    let live = service.shared.dispatcher.watch(&record.id);
    let tracker = service.shared.tracker.clone();
    let follower = Follower {
        service,
        sender,
        position: from_position,
    };
    tracker.spawn(follower.run(record, live));
    ReceiverStream::new(receiver)
}

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
