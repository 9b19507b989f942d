//! The way to a node that takes and judges whole blocks and knows which it has, as a handle holds it. Who answers
//! behind it is the source's affair.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Transaction};
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

/// What the node is asked, and where the answer goes.
pub(crate) enum BlockRequest {
    /// Would the block be valid on the tip but for its proof of work?
    Check(Vec<u8>, Reply<()>),
    /// Take the block.
    Submit(Vec<u8>, Reply<()>),
    /// Is this block the tip or under it?
    IsInChain(BlockHash, Reply<bool>),
    /// Which block has this height, and what is its coinbase?
    Coinbase(u32, Reply<Option<ChainCoinbase>>),
}

/// The coinbase of a block of the node's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainCoinbase {
    /// The block.
    pub block: BlockHash,
    /// Its coinbase.
    pub coinbase: Transaction,
}

impl BlockRequest {
    /// Answers that the node is away.
    pub(crate) fn refuse(self) {
        // Whoever asked may have given up.
        match self {
            Self::Check(_, reply) | Self::Submit(_, reply) => {
                drop(reply.send(Err(TemplateError::Unavailable)));
            }
            Self::IsInChain(_, reply) => drop(reply.send(Err(TemplateError::Unavailable))),
            Self::Coinbase(_, reply) => drop(reply.send(Err(TemplateError::Unavailable))),
        }
    }
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
        let answer = self.ask(|reply| BlockRequest::Check(block, reply)).await;
        drop(turn);
        answer
    }

    /// Hands over a solved block. It goes on if the future is dropped.
    pub(crate) async fn submit(&self, block: Vec<u8>) -> Result<(), TemplateError> {
        self.ask(|reply| BlockRequest::Submit(block, reply)).await
    }

    /// Whether the node's tip is this block or stands on it.
    pub(crate) async fn is_in_chain(&self, block: BlockHash) -> Result<bool, TemplateError> {
        self.ask(|reply| BlockRequest::IsInChain(block, reply))
            .await
    }

    /// The coinbase of the block at this height; `None` if the chain is not so high.
    pub(crate) async fn coinbase(
        &self,
        height: u32,
    ) -> Result<Option<ChainCoinbase>, TemplateError> {
        self.ask(|reply| BlockRequest::Coinbase(height, reply))
            .await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> BlockRequest,
    ) -> Result<T, TemplateError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.requests
                .send(request(reply))
                .await
                .map_err(|_| TemplateError::Stopped)?;
            answer.await.map_err(|_| TemplateError::Unavailable)?
        };
        timeout(ANSWER_TIME_MAX, exchange)
            .await
            .map_err(|_| TemplateError::TimeOut)?
    }
}
