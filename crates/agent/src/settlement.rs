//! Waiting for a task to be settled. The pool tells it on a stream, so nobody has to ask again and again. A stream that
//! breaks, or that the pool ends early, is opened again after a pause.

use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_api::v1::{self, stream_task_response::Event};
use dovetail_commitment::TaskId;
use tokio::time::{Instant, sleep, timeout};

use crate::client::expect_task;
use crate::{AgentClient, AgentError, TaskState};

/// Before the receipt is asked for again, where a stream has brought no news.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// A pool that knows no waiting ends every stream at once.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A stream is believed in for so long: a proxy may keep one open whose pool has gone.
const STREAM_TIME_MAX: Duration = Duration::from_secs(60);
/// A task changes its state a few times.
const EVENTS_MAX: u32 = 1_024;
/// Past the end of every output: the states are all that is wanted.
const NO_OUTPUT: u32 = u32::MAX;

/// How long the next pause is.
struct Pauses {
    next: Duration,
    /// The first stream that tells of an end needs none. A pool may say so and have no receipt.
    has_ended: bool,
}

impl AgentClient {
    /// Waits until the task is settled and returns its receipt, not checked yet.
    ///
    /// # Errors
    /// [`AgentError::ReceiptPending`] if `wait_max` passes; anything else as soon as it is certain that no receipt
    /// will come. A connection lost meanwhile is made again within `wait_max`.
    pub async fn wait_for_receipt(
        &self,
        task_id: TaskId,
        wait_max: Duration,
    ) -> Result<String, AgentError> {
        let begun = Instant::now();
        let mut pauses = Pauses {
            next: PAUSE_FIRST,
            has_ended: false,
        };
        loop {
            let missing = match self.receipt(task_id).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) if error.is_worth_a_retry() => error,
                Err(error) => return Err(error),
            };
            // Not by the time of the end, which a long wait puts beyond what the clock can say.
            let left = wait_max.saturating_sub(begun.elapsed());
            match timeout(left, self.wait_for_news(task_id, &mut pauses)).await {
                Ok(news) => news?,
                Err(_) if missing.is_refusal(Code::ReceiptPending) => {
                    return Err(AgentError::ReceiptPending {
                        task_id,
                        waited_s: wait_max.as_secs(),
                    });
                }
                Err(_) => return Err(missing),
            }
        }
    }

    /// Returns once there is a reason to ask for the receipt again.
    async fn wait_for_news(&self, task_id: TaskId, pauses: &mut Pauses) -> Result<(), AgentError> {
        let ended = timeout(STREAM_TIME_MAX, self.hear_of_end(task_id)).await;
        if matches!(ended, Ok(Ok(true))) && !pauses.has_ended {
            pauses.has_ended = true;
            return Ok(());
        }
        sleep(pauses.next).await;
        pauses.next = (pauses.next * 2).min(PAUSE_MAX);
        ended.unwrap_or(Ok(false)).map(drop)
    }

    /// Follows the task to a state that it stays in. `false` if the stream ends or breaks before: whether that is for good
    /// says the answer to the next call.
    async fn hear_of_end(&self, task_id: TaskId) -> Result<bool, AgentError> {
        let Ok(mut stream) = self.stream(task_id, NO_OUTPUT, true).await else {
            return Ok(false);
        };
        for _ in 0..EVENTS_MAX {
            match stream.message().await {
                Ok(Some(v1::StreamTaskResponse {
                    event: Some(Event::Task(task)),
                })) => {
                    let task = expect_task(Some(task), task_id)?;
                    if is_final(task.state()) {
                        return Ok(true);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(false),
            }
        }
        let why = format!("{EVENTS_MAX} events came, and none of them was the end");
        Err(AgentError::Protocol(why))
    }
}

fn is_final(state: TaskState) -> bool {
    use TaskState::{Cancelled, Expired, Failed, Finished, Queued, Running, Settled, Unspecified};
    match state {
        Settled | Failed | Cancelled | Expired => true,
        Unspecified | Queued | Running | Finished => false,
    }
}
