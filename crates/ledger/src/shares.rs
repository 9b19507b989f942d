//! Shares: what was found good, and is to be made durable. One proof, one credit.

use dovetail_commitment::{BatchRoot, HeaderHash, TaskId};
use dovetail_rewards::{MERKLE_PATH_MAX, SHOWN_COINBASE_BYTES_MAX, ShareProof, Weight};
use dovetail_units::{Msat, ShareCredit, Work};

use crate::CommitRefusal;
use crate::samples::DrawnSample;

/// A batch that passed its audit, to be settled with its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceSettlement {
    /// The batch.
    pub root: BatchRoot,
    /// What its tokens earn, once it has matured.
    pub credit: Msat,
    /// Which leaves were replayed.
    pub sample: DrawnSample,
    /// One receipt per task, as JSON.
    pub receipts: Vec<(TaskId, String)>,
}

/// A share that was found good, to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The proof.
    pub header_hash: HeaderHash,
    /// The height of the block that the header builds on.
    pub height: u32,
    /// Whom it is credited to.
    pub account: String,
    /// What was proven.
    pub work: Work,
    /// Whether it solved a block.
    pub is_block: bool,
    /// What its hashes earn.
    pub credit: ShareCredit,
    /// What it weighs where blocks are divided, at most one difficulty.
    pub weight: Weight,
    /// What the block that it solves pays the pool, in satoshi. Zero if it solves none, or what it pays is not divided.
    pub reward_sat: u64,
    /// Whether its job was one in coinbase-only mode: what its hashes earn is held until the account's next block then.
    pub is_coinbase_only: bool,
    /// The batch that it settles, if it claims one.
    pub batch: Option<InferenceSettlement>,
    /// What shows it to whoever samples the pool's shares, if that is kept.
    pub proof: Option<Box<ShareProof>>,
}

/// The longest account name, an offer: with its prefix it fits the ledger's.
pub(crate) const ACCOUNT_BYTES_MAX: usize = 255;

impl Share {
    /// Whether the ledger will take it. What is logged is acknowledged, so nothing is found out later.
    pub(crate) fn check(&self) -> Result<(), CommitRefusal> {
        let settled = self.batch.as_ref().map_or(Msat::ZERO, |batch| batch.credit);
        let fits = settled >= Msat::ZERO
            && self.credit <= ShareCredit::MAX
            && self.weight <= Weight::PER_DIFFICULTY
            && i64::try_from(self.reward_sat.saturating_mul(1_000)).is_ok()
            && i32::try_from(self.height).is_ok()
            && !self.account.is_empty()
            && self.account.len() <= ACCOUNT_BYTES_MAX
            && !self.account.contains(char::is_control)
            && self.proof.as_ref().is_none_or(|proof| {
                proof.coinbase.len() <= SHOWN_COINBASE_BYTES_MAX
                    && proof.merkle_path.len() <= MERKLE_PATH_MAX
            });
        if fits {
            Ok(())
        } else {
            Err(CommitRefusal::Invalid)
        }
    }
}
