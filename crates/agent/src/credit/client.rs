//! Fetching what a pool has published of a block. A pool is a stranger: what it sends is bounded in number, size and time,
//! has its form, and goes on with every answer. Whether it holds, the check says.

use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_api::connection::PoolAddress;
use dovetail_api::rewards_v1::{self as v1, rewards_client::RewardsClient};
use dovetail_api::{BLOCKS_PER_ANSWER_MAX, LEAVES_PER_ANSWER_MAX, SLICES_PER_ANSWER_MAX};
use dovetail_rewards::{LeafProof, SliceHeader, StatedPart};
use dovetail_units::Msat;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::file::{
    BlockHash, BlockState, CreditFile, HexBytes, KeptBlock, KeptLeaf, KeptRule, KeptStatement,
    KeptWindow, WINDOW_SLICES_MAX,
};
use crate::AgentError;
use crate::client::{CALL_TIME_MAX, open, within};

/// The largest answer: 1,024 slices of 201 bytes, with room to spare.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The largest answer with points: the shares of one leaf of the largest size, and one point more.
const POINTS_BYTES_MAX: usize = 10 * 1024 * 1024;
/// How often a call is made again that the pool has no room for, and after which pause.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// A connection to one pool, for miners.
#[derive(Clone, Debug)]
pub struct CreditClient {
    url: String,
    inner: RewardsClient<Channel>,
}

impl CreditClient {
    /// Connects to the address of a pool, as [`crate::AgentClient::connect`] does.
    ///
    /// # Errors
    /// [`AgentError::Address`], [`AgentError::Unreachable`] and [`AgentError::Tls`].
    pub async fn connect(pool: impl Into<PoolAddress>) -> Result<Self, AgentError> {
        let (url, channel) = open(&pool.into()).await?;
        let inner = RewardsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { url, inner })
    }

    /// What shows the account's part of a block: of the one with this hash, or of the newest that the chain has or may
    /// still take. Not checked yet.
    ///
    /// # Errors
    /// [`AgentError::BlockUnknown`], [`AgentError::WindowTooLong`], [`AgentError::CreditLate`] if it takes longer than
    /// `time_max`, and what calls fail with.
    pub async fn fetch(
        &self,
        account: &str,
        block: Option<BlockHash>,
        time_max: Duration,
    ) -> Result<CreditFile, AgentError> {
        let fetched = timeout(time_max, async {
            let found = self.block(block).await?;
            let kept = kept_block(&found)?;
            let window = match &found.window {
                Some(window) => Some(self.window(account, window).await?),
                None => None,
            };
            let mut file = CreditFile::new(account, kept, window);
            if let Some(signed) = &found.statement {
                let part = self.part(account, &found.block_hash).await?;
                file.statement = Some(kept_statement(signed, part)?);
            }
            Ok(file)
        });
        fetched.await.unwrap_or(Err(AgentError::CreditLate {
            waited_s: time_max.as_secs(),
        }))
    }

    pub(super) async fn block(&self, wanted: Option<BlockHash>) -> Result<v1::Block, AgentError> {
        let request = v1::ListBlocksRequest {
            limit: wanted.map_or(BLOCKS_PER_ANSWER_MAX, |_| 1),
            height_max: 0,
            block_hash: wanted.map_or_else(Vec::new, |hash| hash.0.to_vec()),
        };
        let answer = self.call(|mut client| {
            let request = unary(request.clone());
            async move { client.list_blocks(request).await }
        });
        let blocks = answer.await?.blocks;
        if blocks.len() > BLOCKS_PER_ANSWER_MAX as usize {
            return Err(protocol("it lists more blocks than were asked for"));
        }
        let is_wanted = |block: &v1::Block| match wanted {
            Some(hash) => block.block_hash == hash.0,
            None => !matches!(
                block.state(),
                v1::BlockState::Orphaned | v1::BlockState::Refused
            ),
        };
        let found = blocks.into_iter().find(is_wanted);
        found.ok_or(AgentError::BlockUnknown { wanted })
    }

    /// The account's encoded part of a block; `None` if it gets nothing.
    async fn part(&self, account: &str, block: &[u8]) -> Result<Option<HexBytes>, AgentError> {
        let answer = self.call(|mut client| {
            let request = unary(v1::GetPartRequest {
                block_hash: block.to_vec(),
                account: account.to_owned(),
            });
            async move { client.get_part(request).await }
        });
        let part = answer.await?.part;
        match part.len() {
            0 => Ok(None),
            1..=StatedPart::ENCODED_LEN_MAX => Ok(Some(HexBytes(part))),
            _ => Err(protocol("a part is too long")),
        }
    }

    async fn window(&self, account: &str, window: &v1::Window) -> Result<KeptWindow, AgentError> {
        let mut kept = self.window_without_leaves(window).await?;
        let (first, last) = (kept.first_slice, kept.last_slice);
        match self.leaves(account, first, last).await {
            Ok(leaves) => kept.leaves = leaves,
            // The block is old. What the pool has signed of it is there for ever.
            Err(error) if error.is_refusal(Code::SlicesDropped) => kept.leaves_dropped = true,
            Err(error) => return Err(error),
        }
        Ok(kept)
    }

    /// A window without anybody's leaves.
    pub(super) async fn window_without_leaves(
        &self,
        window: &v1::Window,
    ) -> Result<KeptWindow, AgentError> {
        let (first, last) = (window.first_slice, window.last_slice);
        if first > last || last == u64::MAX {
            return Err(protocol("a window ends before it begins, or never"));
        }
        if last - first >= WINDOW_SLICES_MAX {
            return Err(AgentError::WindowTooLong);
        }
        let (headers, newest) = self.headers(first, last).await?;
        Ok(KeptWindow {
            first_slice: first,
            last_slice: last,
            length_difficulties: window.length_difficulties,
            headers,
            signer: fixed(&newest.signer, "signer")?,
            signature: fixed(&newest.signature, "signature")?,
            leaves: Vec::new(),
            leaves_dropped: false,
        })
    }

    /// The headers of these slices, and the newest slice.
    async fn headers(
        &self,
        first: u64,
        last: u64,
    ) -> Result<(Vec<HexBytes>, v1::Slice), AgentError> {
        let (mut headers, mut newest) = (Vec::new(), v1::Slice::default());
        let mut from = first;
        while from <= last {
            let limit = page(from, last, SLICES_PER_ANSWER_MAX);
            let answer = self.call(|mut client| {
                let request = unary(v1::ListSlicesRequest { from, limit });
                async move { client.list_slices(request).await }
            });
            let slices = answer.await?.slices;
            // The window's slices have closed: all of them are there.
            if slices.len() != limit as usize {
                return Err(protocol("it does not have the slices of its own block"));
            }
            for slice in slices {
                let number = SliceHeader::decode(&slice.header).map(|header| header.number);
                if number != Ok(from) {
                    return Err(protocol(&format!("slice {from} has no header that is one")));
                }
                headers.push(HexBytes(slice.header.clone()));
                newest = slice;
                from += 1;
            }
        }
        Ok((headers, newest))
    }

    async fn leaves(
        &self,
        account: &str,
        first: u64,
        last: u64,
    ) -> Result<Vec<KeptLeaf>, AgentError> {
        let mut leaves = Vec::new();
        let mut from = first;
        while from <= last {
            let limit = page(from, last, LEAVES_PER_ANSWER_MAX);
            let answer = self.call(|mut client| {
                let request = unary(v1::ListLeavesRequest {
                    account: account.to_owned(),
                    from,
                    limit,
                });
                async move { client.list_leaves(request).await }
            });
            let answer = answer.await?;
            if answer.next <= from || answer.leaves.len() > limit as usize {
                return Err(protocol("its list of leaves does not go on"));
            }
            for leaf in answer.leaves {
                let is_in_turn = (from..answer.next).contains(&leaf.slice);
                if !is_in_turn || leaf.proof.len() > LeafProof::ENCODED_LEN_MAX {
                    return Err(protocol("a leaf is too long, or out of turn"));
                }
                from = leaf.slice + 1;
                if leaf.slice <= last {
                    leaves.push(KeptLeaf {
                        slice: leaf.slice,
                        proof: HexBytes(leaf.proof),
                    });
                }
            }
            from = answer.next;
        }
        Ok(leaves)
    }

    /// A call's answer; made again for a while if the pool has no room for it, or is away.
    async fn call<T, F>(&self, call: impl Fn(RewardsClient<Channel>) -> F) -> Result<T, AgentError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_on(&self.inner, call).await
    }

    /// The same for answers that have all shares of a leaf.
    pub(super) async fn call_large<T, F>(
        &self,
        call: impl Fn(RewardsClient<Channel>) -> F,
    ) -> Result<T, AgentError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = self.inner.clone();
        let client = client.max_decoding_message_size(POINTS_BYTES_MAX);
        self.call_on(&client, call).await
    }

    async fn call_on<T, F>(
        &self,
        client: &RewardsClient<Channel>,
        call: impl Fn(RewardsClient<Channel>) -> F,
    ) -> Result<T, AgentError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let answered = within(&self.url, CALL_TIME_MAX, call(client.clone())).await;
            match answered {
                Err(error) if error.is_worth_a_retry() && tries < TRIES_MAX => sleep(PAUSE).await,
                answered => return answered,
            }
        }
    }
}

/// How many of the slices up to `last` to ask for.
fn page(from: u64, last: u64, max: u32) -> u32 {
    u32::try_from(last - from + 1).map_or(max, |left| left.min(max))
}

pub(super) fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME_MAX);
    request
}

pub(super) fn kept_block(block: &v1::Block) -> Result<KeptBlock, AgentError> {
    let state = match block.state() {
        v1::BlockState::Submitted => BlockState::Submitted,
        v1::BlockState::Active => BlockState::Active,
        v1::BlockState::Orphaned => BlockState::Orphaned,
        v1::BlockState::Matured => BlockState::Matured,
        v1::BlockState::Refused => BlockState::Refused,
        v1::BlockState::Unspecified => return Err(protocol("a block has no state")),
    };
    Ok(KeptBlock {
        hash: BlockHash(fixed(&block.block_hash, "block_hash")?),
        height: block.height,
        state,
        reward_msat: Msat::new(block.reward_msat),
        fee_msat: Msat::new(block.fee_msat),
        fee_millionths: block.fee_millionths,
    })
}

pub(super) fn kept_statement(
    signed: &v1::Statement,
    part: Option<HexBytes>,
) -> Result<KeptStatement, AgentError> {
    let rule = match signed.rule() {
        v1::DivisionRule::Solo => KeptRule::Solo,
        v1::DivisionRule::Pplns => KeptRule::Pplns,
        v1::DivisionRule::Unspecified => return Err(protocol("a block has no rule")),
    };
    Ok(KeptStatement {
        rule,
        accounts: signed.accounts,
        parts_top: fixed(&signed.parts_top, "parts_top")?,
        signer: fixed(&signed.signer, "signer of a block")?,
        signature: fixed(&signed.signature, "signature of a block")?,
        part,
    })
}

fn fixed<const N: usize>(bytes: &[u8], name: &str) -> Result<[u8; N], AgentError> {
    let fixed = bytes.try_into();
    fixed.map_err(|_| protocol(&format!("{name} has {} bytes instead of {N}", bytes.len())))
}

pub(super) fn protocol(what: &str) -> AgentError {
    AgentError::Protocol(what.to_owned())
}
