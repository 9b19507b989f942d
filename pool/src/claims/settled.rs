//! What goes into a settlement, and how it ends: what miner and worker are told of a share and of the batch it claims.

use std::borrow::Cow;

use dovetail_commitment::{BatchRoot, HeaderHash};
use dovetail_rewards::{ShareProof, Weight};
use dovetail_sv2::extension::codes::Code;
use dovetail_units::{Msat, ShareCredit, Work};
use dovetail_vrf::VrfProof;

/// A share whose header hash met its target.
#[derive(Debug, Clone)]
pub(crate) struct ProvenShare {
    pub(crate) account: String,
    pub(crate) header_hash: HeaderHash,
    pub(crate) work: Work,
    /// The height of the block that the header builds on.
    pub(crate) height: u32,
    /// What its hashes are worth, where hashes earn a rate ..
    pub(crate) credit: ShareCredit,
    /// .. and what they weigh, where blocks are divided.
    pub(crate) weight: Weight,
    /// What its block pays the pool; nothing if it solves none, or blocks are not divided.
    pub(crate) reward_sat: u64,
    pub(crate) is_block: bool,
    /// Whether its job was one in coinbase-only mode.
    pub(crate) is_coinbase_only: bool,
    /// What shows it to auditors, where that is kept.
    pub(crate) proof: Option<Box<ShareProof>>,
}

/// How a batch's claim ended, for the worker.
#[derive(Debug, Clone)]
pub(crate) struct BatchReport {
    pub(crate) root: BatchRoot,
    pub(crate) header_hash: HeaderHash,
    pub(crate) accepted: bool,
    /// What the sample was drawn with, once the batch has ended. Whoever saw it before could claim again only if the
    /// sample suited.
    pub(crate) drawn: Option<Drawn>,
    /// What the audit found, or why it was not done; empty if the batch is accepted.
    pub(crate) code: Cow<'static, str>,
    /// What the batch's tokens are credited with; 0 unless it is accepted.
    pub(crate) credit: Msat,
    /// What is held of the worker's credit for inference; `None` if the ledger did not say.
    pub(crate) held: Option<Msat>,
}

/// What a batch's sample was drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// The header of the batch's first admitted claim.
    pub(crate) sample_header: HeaderHash,
    pub(crate) proof: VrfProof,
    /// What was at stake for the worker.
    pub(crate) stake: Msat,
}

/// How a share ended.
#[derive(Debug, Clone)]
pub(crate) enum Settled {
    /// Durable, and credited.
    Accepted(Option<BatchReport>),
    /// Refused.
    Refused(SettleRefusal, Option<BatchReport>),
}

/// Why a share was not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettleRefusal {
    /// The header was submitted before.
    Duplicate,
    /// A reason of the extension.
    Code(Code),
}

impl SettleRefusal {
    /// The code of `SubmitShares.Error`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => stratum_core::mining_sv2::ERROR_CODE_SUBMIT_SHARES_DUPLICATE_SHARE,
            Self::Code(code) => code.as_str(),
        }
    }

    /// Whether no later share can claim the batch either.
    pub(crate) fn is_final_for_batch(self) -> bool {
        matches!(self, Self::Code(code) if code.is_final_for_batch())
    }
}

impl From<Code> for SettleRefusal {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

impl Settled {
    /// Refused before anything was found out about the batch.
    pub(super) fn refused(refusal: impl Into<SettleRefusal>) -> Self {
        Self::Refused(refusal.into(), None)
    }
}
