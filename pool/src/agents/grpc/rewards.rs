//! What miners check their part of a block with: `dovetail.rewards.v1`, as the ledger has published it.
//!
//! Anybody may ask, so few are answered at a time, and whoever waits too long is told to come again. A leaf costs its
//! slice's whole tree: an answer takes leaves for a few seconds at most, and what was begun for a caller who has gone ends
//! before another's begins.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_api::rewards_v1::{
    self as v1,
    rewards_server::{Rewards, RewardsServer},
};
use dovetail_api::{
    BLOCKS_PER_ANSWER_MAX, LEAVES_PER_ANSWER_MAX, POINTS_PER_ANSWER_MAX, SAMPLE_POINTS_MAX,
    SLICES_PER_ANSWER_MAX,
};
use dovetail_commitment::HeaderHash;
use dovetail_ledger::{Ledger, PublishedBlock, PublishedSlice, RewardState, ShownPoint};
use dovetail_rewards::{CountedShare, DivisionRule, ShareProof};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::status::unavailable;
use super::{check_account, id32, optional_id32, turn};

/// How many lists are read at a time: each takes one of the ledger's connections for milliseconds.
const LISTS_MAX: usize = 4;
/// How many callers' leaves are made at a time: each takes a core, and tens of megabytes for the largest slice.
const LEAVES_MAX: usize = 2;
/// How long a caller waits for its turn.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long leaves are made for one answer; one is always made.
const LEAVES_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest request: an account, and two numbers.
const REQUEST_BYTES_MAX: usize = 1024;

/// With so many bytes, no further point is put into an answer.
const POINTS_BYTES_FEW: usize = 1 << 20;

// What the interface promises, the ledger gives.
const _: () = assert!(dovetail_ledger::LEAF_SHARES_MAX <= dovetail_api::LEAF_SHARES_MAX);
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
        turn(&self.lists, self.turn_time_max, full).await
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
        check_account(&asked.account)?;
        let kept_from = self.ledger.slices_kept_from().await;
        if asked.from < kept_from.map_err(|error| unavailable(&error))? {
            return Err(dropped());
        }
        let made = self.in_turn(move |service, caller| async move {
            service.make_leaves(&asked, || caller.is_cancelled()).await
        });
        made.await.map(Response::new)
    }

    async fn get_part(
        &self,
        request: Request<v1::GetPartRequest>,
    ) -> Result<Response<v1::GetPartResponse>, Status> {
        let asked = request.into_inner();
        check_account(&asked.account)?;
        let block = HeaderHash::from_bytes(id32(&asked.block_hash, "block_hash")?);
        let part = self.in_turn(move |service, _| async move {
            let part = service.ledger.stated_part(block, &asked.account).await;
            part.map_err(|error| unavailable(&error))
        });
        let part = part.await?.map_or_else(Vec::new, |part| part.encode());
        Ok(Response::new(v1::GetPartResponse { part }))
    }

    async fn show_points(
        &self,
        request: Request<v1::ShowPointsRequest>,
    ) -> Result<Response<v1::ShowPointsResponse>, Status> {
        let asked = request.into_inner();
        let limit = bounded(asked.limit, POINTS_PER_ANSWER_MAX)?;
        if asked.from >= SAMPLE_POINTS_MAX {
            return Err(
                Code::ArgumentInvalid.status(format!("from must be below {SAMPLE_POINTS_MAX}"))
            );
        }
        let block = HeaderHash::from_bytes(id32(&asked.block_hash, "block_hash")?);
        let numbers = asked.from..(asked.from + limit).min(SAMPLE_POINTS_MAX);
        let made = self.in_turn(move |service, caller| async move {
            service.show(block, numbers, || caller.is_cancelled()).await
        });
        made.await.map(Response::new)
    }
}

impl RewardsService {
    /// Makes an answer that costs a tree, when its turn has come.
    async fn in_turn<T: Send + 'static, F>(
        &self,
        make: impl FnOnce(Self, CancellationToken) -> F + Send + 'static,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let turn = Arc::clone(&self.leaves).acquire_owned();
        let turn = timeout(self.turn_time_max, turn).await;
        let turn = turn.map_err(|_| full())?.map_err(|_| full())?;
        let (answer, answered) = oneshot::channel();
        let (service, has_gone) = (self.clone(), CancellationToken::new());
        let waiting = has_gone.clone().drop_guard();
        // On a task of its own: a caller who hangs up must not free the turn before its tree is done.
        self.tracker.spawn(async move {
            let made = make(service, has_gone).await;
            drop(turn);
            // Whoever asked may have gone.
            let _ = answer.send(made);
        });
        let made = answered.await;
        drop(waiting);
        made.map_err(|_| Code::Internal.status("making the answer did not finish"))?
    }

    async fn show(
        &self,
        block: HeaderHash,
        numbers: Range<u32>,
        has_gone: impl Fn() -> bool,
    ) -> Result<v1::ShowPointsResponse, Status> {
        let begun = Instant::now();
        let window = self.ledger.sample_window(block).await;
        let window = window
            .map_err(|error| unavailable(&error))?
            .ok_or_else(|| {
                Code::ArgumentInvalid.status("the pool has divided no such block over slices")
            })?;
        if !window.is_kept() {
            return Err(dropped());
        }
        let (mut answer, mut bytes) = (v1::ShowPointsResponse::default(), 0);
        for number in numbers {
            answer.next = number;
            let is_late = begun.elapsed() >= self.leaves_time_max || bytes >= POINTS_BYTES_FEW;
            if !answer.points.is_empty() && is_late || has_gone() {
                return Ok(answer);
            }
            let shown = self.ledger.shown_point(&window, number).await;
            let shown = shown.map_err(|error| unavailable(&error))?.ok_or_else(|| {
                tracing::error!(number, "a point falls on no leaf of its window");
                Code::Internal.status("the point falls on no leaf")
            })?;
            let point = point_view(number, &shown);
            bytes += point.shares.len() + point.share_proof.len();
            answer.points.push(point);
            answer.next = number + 1;
        }
        Ok(answer)
    }

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

fn point_view(number: u32, shown: &ShownPoint) -> v1::ShownPoint {
    let shares = shown.shares.iter().flat_map(CountedShare::encode);
    let proof = shown.proof.as_ref();
    v1::ShownPoint {
        number,
        slice: shown.slice,
        leaf: shown.leaf.encode(),
        shares: shares.collect(),
        share_proof: proof.map_or_else(Vec::new, ShareProof::encode),
    }
}

fn dropped() -> Status {
    Code::SlicesDropped.status("what is asked for of these slices is not kept any more")
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
        statement: block.signed.map(|signed| v1::Statement {
            rule: match block.rule {
                DivisionRule::Solo => v1::DivisionRule::Solo,
                DivisionRule::Pplns => v1::DivisionRule::Pplns,
            }
            .into(),
            accounts: signed.parts.accounts,
            parts_top: signed.parts.top.to_vec(),
            signer: signed.signer.to_vec(),
            signature: signed.signature.to_vec(),
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
