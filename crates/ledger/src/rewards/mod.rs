//! Blocks become rewards: shares fill slices in the order of the log ([`book`]), a block is divided when its share is
//! written ([`division`]), follows the chain, and moves money once, when it has matured ([`blocks`]). What its coinbase has
//! paid accounts itself ([`advances`]), as a payout list said ([`payout_lists`]), is taken off then. `docs/rewards.md` has
//! the rules; `dovetail-rewards` has them as functions.

pub(crate) mod advances;
mod blocks;
mod book;
mod division;
mod earned;
mod kept;
mod kept_shares;
mod payout_lists;
mod pieces;
mod published;
mod samples;
mod statements;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{PoolFee, Weight, WindowLength};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::LedgerError;

pub use advances::PaidOutput;
pub use blocks::{BesidePool, MaturedReward, OpenReward, RewardState};
pub(crate) use book::SliceBook;
pub use earned::{BlockCredit, EarnedRewards};
pub(crate) use kept::drop_old;
pub use payout_lists::{HeavyAccount, ListedOutput, NewPayoutList, PayoutListRecord};
pub use published::{
    AccountSlices, PublishedBlock, PublishedSlice, PublishedWindow, SLICES_PER_ANSWER_MAX,
};
pub use samples::{LEAF_SHARES_MAX, SampleWindow, ShownPoint};
pub use statements::BlockSignature;
pub(crate) use statements::wrong_signatures;

/// Who gets what of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// The accounts of the newest slices that hold so much.
    Pplns(WindowLength),
    /// Whoever found it.
    Solo,
}

/// How blocks are divided, and who answers for it.
#[derive(Clone)]
pub struct RewardsConfig {
    /// Who gets what.
    pub scheme: Scheme,
    /// What the pool keeps.
    pub fee: PoolFee,
    /// The first block of the network.
    pub first_block: HeaderHash,
    /// The pool's x-only key.
    pub signer: [u8; 32],
    /// Signs with it.
    pub sign: RewardSigner,
    /// How long what accounts did in a slice is kept, once no block needs it ..
    pub keep_slices: Duration,
    /// .. and what shows the slice's shares; `None` if that is not kept at all.
    pub keep_shares: Option<Duration>,
}

/// Signs the root of a closed slice, or what is said of a block.
pub type RewardSigner = Arc<dyn Fn(&[u8; 32]) -> [u8; 64] + Send + Sync>;

impl fmt::Debug for RewardsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewardsConfig")
            .field("scheme", &self.scheme)
            .field("fee", &self.fee)
            .field("signer", &hex::encode(self.signer))
            .finish_non_exhaustive()
    }
}

/// A weight, which a query has given as text: Postgres' numbers of this size have no other form here.
fn weight(row: &PgRow, column: &str) -> Result<Weight, LedgerError> {
    let text: String = row.try_get(column)?;
    let number = text.parse().map_err(|_| LedgerError::Corrupt("weight"))?;
    Weight::new(number).map_err(|_| LedgerError::Corrupt("weight"))
}

/// A slice's number, as the database has it.
fn slice_number(number: u64) -> Result<i64, LedgerError> {
    i64::try_from(number).map_err(|_| LedgerError::Refused("there are too many slices"))
}

/// The same, as it was read.
fn read_number(number: i64) -> Result<u64, LedgerError> {
    u64::try_from(number).map_err(|_| LedgerError::Corrupt("slice"))
}

/// What is kept of rewards contradicts itself. Going on would pay wrong amounts.
fn broken(what: &str) -> LedgerError {
    LedgerError::Log(format!(
        "{what}: nothing is written until a person has looked at the tables of rewards"
    ))
}
