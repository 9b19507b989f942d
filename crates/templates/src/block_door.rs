//! The way to a node that takes and judges whole blocks, as a handle holds it. Who answers behind it is the
//! source's affair.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::error::TemplateError;
use crate::request::Reply;

/// Blocks that wait for the node's thread, of up to 4 MB each.
const REQUESTS_MAX: usize = 32;
/// Checks under way at once. The node works on one block at a time; a few more hide the way there.
/// Submissions wait for none of them: each took a proof of work.
const CHECKS_MAX: usize = 8;
/// Time for an answer, queueing included. A full block is checked in about a second.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// What the node is asked.
pub(crate) enum Question {
    /// Would the block be valid on the tip but for its proof of work?
    Check,
    /// Take the block.
    Submit,
}

/// A question with its block, and where the answer goes.
pub(crate) struct BlockRequest {
    pub(crate) question: Question,
    pub(crate) block: Vec<u8>,
    pub(crate) reply: Reply<()>,
}

/// The way to a node for whole blocks. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct BlockDoor {
    requests: mpsc::Sender<BlockRequest>,
    checks: Arc<Semaphore>,
}

impl BlockDoor {
    /// A door, and the queue of what comes through it, for the thread that owns the node's connection.
    pub(crate) fn new() -> (Self, mpsc::Receiver<BlockRequest>) {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let checks = Arc::new(Semaphore::new(CHECKS_MAX));
        (Self { requests, checks }, queue)
    }

    /// Whether the block is valid on the node's tip but for its proof of work.
    pub(crate) async fn check(&self, block: Vec<u8>) -> Result<(), TemplateError> {
        // Nobody closes the semaphore.
        let turn = self.checks.acquire().await;
        let answer = self.ask(Question::Check, block).await;
        drop(turn);
        answer
    }

    /// Hands over a solved block. It goes on if the future is dropped.
    pub(crate) async fn submit(&self, block: Vec<u8>) -> Result<(), TemplateError> {
        self.ask(Question::Submit, block).await
    }

    async fn ask(&self, question: Question, block: Vec<u8>) -> Result<(), TemplateError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            let request = BlockRequest {
                question,
                block,
                reply,
            };
            self.requests
                .send(request)
                .await
                .map_err(|_| TemplateError::Stopped)?;
            answer.await.map_err(|_| TemplateError::Unavailable)?
        };
        timeout(ANSWER_TIME_MAX, exchange)
            .await
            .map_err(|_| TemplateError::TimeOut)?
    }
}
