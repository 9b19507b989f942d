//! What miners check their part of a block with: `dovetail.rewards.v1`, as the ledger has published it.
//!
//! Anybody may ask, so few are answered at a time, and whoever waits too long is told to come again. A leaf costs its
//! slice's whole tree: an answer takes leaves for a few seconds at most, and what was begun for a caller who has gone ends
//! before another's begins.

use std::sync::Arc;
use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_api::rewards_v1::{
    self as v1,
    rewards_server::{Rewards, RewardsServer},
};
use dovetail_api::{BLOCKS_PER_ANSWER_MAX, LEAVES_PER_ANSWER_MAX, SLICES_PER_ANSWER_MAX};
use dovetail_commitment::HeaderHash;
use dovetail_ledger::{Ledger, PublishedBlock, PublishedSlice, RewardState};
use dovetail_rewards::ACCOUNT_BYTES_MAX;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::optional_id32;
use super::status::unavailable;

/// How many lists are read at a time: each takes one of the ledger's connections for milliseconds.
const LISTS_MAX: usize = 4;
/// How many callers' leaves are made at a time: each takes a core, and some 30 MB for the largest slice.
const LEAVES_MAX: usize = 2;
/// How long a caller waits for its turn.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long leaves are made for one answer; one is always made.
const LEAVES_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest request: an account, and two numbers.
const REQUEST_BYTES_MAX: usize = 1024;

// What the interface promises, the ledger gives.
const _: () = assert!(SLICES_PER_ANSWER_MAX <= dovetail_ledger::SLICES_PER_ANSWER_MAX);

/// The service.
#[derive(Clone)]
pub(crate) struct RewardsService {
    ledger: Ledger,
    lists: Arc<Semaphore>,
    leaves: Arc<Semaphore>,
    turn_time_max: Duration,
    leaves_time_max: Duration,
    /// What leaves are made on.
    tracker: TaskTracker,
}

impl RewardsService {
    pub(crate) fn new(ledger: Ledger, tracker: TaskTracker) -> Self {
        Self {
            ledger,
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
            leaves: Arc::new(Semaphore::new(LEAVES_MAX)),
            turn_time_max: TURN_TIME_MAX,
            leaves_time_max: LEAVES_TIME_MAX,
            tracker,
        }
    }

    /// The gRPC service.
    pub(crate) fn into_service(self) -> RewardsServer<Self> {
        RewardsServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    async fn list_turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let turn = timeout(self.turn_time_max, self.lists.acquire()).await;
        turn.map_err(|_| full())?.map_err(|_| full())
    }
}

#[tonic::async_trait]
impl Rewards for RewardsService {
    async fn list_blocks(
        &self,
        request: Request<v1::ListBlocksRequest>,
    ) -> Result<Response<v1::ListBlocksResponse>, Status> {
        let asked = request.into_inner();
        let limit = bounded(asked.limit, BLOCKS_PER_ANSWER_MAX)?;
        let hash = optional_id32(&asked.block_hash, "block_hash")?;
        let height_max = match asked.height_max {
            0 => u32::MAX,
            height => height,
        };
        let _turn = self.list_turn().await?;
        let blocks = match hash {
            Some(hash) => {
                let found = self.ledger.published_block(HeaderHash::from_bytes(hash));
                let is_low = |block: &PublishedBlock| block.height <= height_max;
                found
                    .await
                    .map(|found| Vec::from_iter(found.filter(is_low)))
            }
            None => self.ledger.published_blocks(height_max, limit).await,
        };
        let blocks = blocks.map_err(|error| unavailable(&error))?;
        Ok(Response::new(v1::ListBlocksResponse {
            blocks: blocks.iter().map(block_view).collect(),
        }))
    }

    async fn list_slices(
        &self,
        request: Request<v1::ListSlicesRequest>,
    ) -> Result<Response<v1::ListSlicesResponse>, Status> {
        let asked = request.into_inner();
        let limit = bounded(asked.limit, SLICES_PER_ANSWER_MAX)?;
        let _turn = self.list_turn().await?;
        let slices = self.ledger.published_slices(asked.from, limit).await;
        let slices = slices.map_err(|error| unavailable(&error))?;
        Ok(Response::new(v1::ListSlicesResponse {
            slices: slices.iter().map(slice_view).collect(),
        }))
    }

    async fn list_leaves(
        &self,
        request: Request<v1::ListLeavesRequest>,
    ) -> Result<Response<v1::ListLeavesResponse>, Status> {
        let asked = request.into_inner();
        bounded(asked.limit, LEAVES_PER_ANSWER_MAX)?;
        // No name has a zero byte, and Postgres takes none.
        if !(1..=ACCOUNT_BYTES_MAX).contains(&asked.account.len()) || asked.account.contains('\0') {
            return Err(
                Code::ArgumentInvalid.status("account must have 1 to 255 bytes, none of them zero")
            );
        }
        let turn = Arc::clone(&self.leaves).acquire_owned();
        let turn = timeout(self.turn_time_max, turn).await;
        let turn = turn.map_err(|_| full())?.map_err(|_| full())?;
        let (answer, answered) = oneshot::channel();
        let service = self.clone();
        // On a task of its own: a caller who hangs up must not free the turn before its tree is done.
        self.tracker.spawn(async move {
            let made = service.make_leaves(&asked, || answer.is_closed()).await;
            drop(turn);
            // Whoever asked may have gone.
            let _ = answer.send(made);
        });
        let made = answered.await;
        made.map_err(|_| Code::Internal.status("making the leaves did not finish"))?
            .map(Response::new)
    }
}

impl RewardsService {
    async fn make_leaves(
        &self,
        asked: &v1::ListLeavesRequest,
        has_gone: impl Fn() -> bool,
    ) -> Result<v1::ListLeavesResponse, Status> {
        let begun = Instant::now();
        let found = self
            .ledger
            .account_slices(&asked.account, asked.from, asked.limit);
        let found = found.await.map_err(|error| unavailable(&error))?;
        let mut answer = v1::ListLeavesResponse {
            leaves: Vec::with_capacity(found.numbers.len()),
            next: found.next,
        };
        for slice in found.numbers {
            let is_late = begun.elapsed() >= self.leaves_time_max && !answer.leaves.is_empty();
            if is_late || has_gone() {
                answer.next = slice;
                break;
            }
            let leaf = self.ledger.slice_leaf(slice, &asked.account).await;
            let proof = leaf.map_err(|error| unavailable(&error))?.ok_or_else(|| {
                tracing::error!(slice, "an account's leaf is not in the tree of its slice");
                Code::Internal.status("the account's leaf is not in the slice")
            })?;
            answer.leaves.push(v1::Leaf {
                slice,
                proof: proof.encode(),
            });
        }
        Ok(answer)
    }
}

fn full() -> Status {
    Code::RewardsFull.status("too many are asking about rewards; try again later")
}

fn bounded(limit: u32, max: u32) -> Result<u32, Status> {
    match (1..=max).contains(&limit) {
        true => Ok(limit),
        false => Err(Code::ArgumentInvalid.status(format!("limit must be 1 to {max}"))),
    }
}

fn block_view(block: &PublishedBlock) -> v1::Block {
    v1::Block {
        block_hash: block.block.to_bytes().to_vec(),
        height: block.height,
        state: state_view(block.state).into(),
        reward_msat: block.reward.get(),
        fee_msat: block.fee.get(),
        fee_millionths: block.fee_part.millionths(),
        window: block.window.map(|window| v1::Window {
            first_slice: window.first,
            last_slice: window.last,
            length_difficulties: window.length.get().into(),
        }),
    }
}

fn state_view(state: RewardState) -> v1::BlockState {
    match state {
        RewardState::Submitted => v1::BlockState::Submitted,
        RewardState::Active => v1::BlockState::Active,
        RewardState::Orphaned => v1::BlockState::Orphaned,
        RewardState::Matured => v1::BlockState::Matured,
        RewardState::Refused => v1::BlockState::Refused,
    }
}

fn slice_view(slice: &PublishedSlice) -> v1::Slice {
    v1::Slice {
        header: slice.header.encode(),
        signer: slice.signer.to_vec(),
        signature: slice.signature.to_vec(),
    }
}

#[cfg(test)]
mod tests;
