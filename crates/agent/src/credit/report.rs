//! Checking a miner's part of a block offline: every check in a fixed order, up to the first thing that does not hold.
//!
//! The last three checks are never made, and are listed so that nobody takes them for made: they need the chain, the
//! miner's own count of its shares, and the slices as they were when the block was found.

use dovetail_rewards::{Part, PartError, PartProof};
use dovetail_units::Msat;
use serde::Serialize;

use super::file::{BlockHash, CreditFile};
use crate::verify::Outcome;

/// One thing that a miner's part of a block must satisfy. The order is the order of checking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CreditCheck {
    /// Every field has its form and length.
    Format,
    /// The key that is named as the signer is the pool's.
    PoolKey,
    /// The pool keeps the part that it says.
    Fee,
    /// The headers are those of the window, and follow on each other.
    Chain,
    /// The signer has signed the newest root, which binds them all.
    Signature,
    /// The window holds its length, and not without its oldest slice.
    Window,
    /// Each leaf is the account's, and leads to the header of a slice.
    Leaves,
    /// The account was credited with its part.
    Amount,
    /// The reward is what the block's coinbase pays the pool.
    Reward,
    /// The leaves have all shares of the account.
    AllShares,
    /// The window's newest slice was the newest one when the block was found.
    Newest,
}

impl CreditCheck {
    /// All of them, in the order of checking.
    pub const ALL: [Self; 11] = [
        Self::Format,
        Self::PoolKey,
        Self::Fee,
        Self::Chain,
        Self::Signature,
        Self::Window,
        Self::Leaves,
        Self::Amount,
        Self::Reward,
        Self::AllShares,
        Self::Newest,
    ];

    /// What it says when it holds.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Format => "every field has its form",
            Self::PoolKey => "the signer is the pool",
            Self::Fee => "the pool's fee is the part of the reward that it says",
            Self::Chain => "the window's slices follow on each other",
            Self::Signature => "the signer has signed the newest slice, and with it all",
            Self::Window => "the window is as long as the rule says",
            Self::Leaves => "each of the account's leaves is in its slice",
            Self::Amount => "the amount is the account's part, to the msat",
            Self::Reward => "the reward is what the block's coinbase pays the pool",
            Self::AllShares => "the leaves have all of the account's shares",
            Self::Newest => "no newer slice had closed when the block was found",
        }
    }

    /// The check's name as it is serialised.
    pub fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::PoolKey => "pool-key",
            Self::Fee => "fee",
            Self::Chain => "chain",
            Self::Signature => "signature",
            Self::Window => "window",
            Self::Leaves => "leaves",
            Self::Amount => "amount",
            Self::Reward => "reward",
            Self::AllShares => "all-shares",
            Self::Newest => "newest",
        }
    }
}

/// One line of a [`CreditReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreditLine {
    /// The check.
    pub check: CreditCheck,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CreditReport {
    /// No check failed. Look at `lines` for what was not checked.
    pub verified: bool,
    /// The first thing that does not hold.
    pub first_failure: Option<CreditCheck>,
    /// Every check, in order.
    pub lines: Vec<CreditLine>,
    /// Whose part it is.
    pub account: String,
    /// The block.
    pub block: BlockHash,
    /// Its height.
    pub height: u32,
    /// Who signed the slices, if all up to the leaves holds.
    pub signer: Option<String>,
    /// The part, if all up to the leaves holds, and the block has a window.
    pub part: Option<PartSummary>,
}

/// What an account gets of a block, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// The account's weight, a decimal number.
    pub weight: String,
    /// The window's.
    pub window_weight: String,
    /// The number of the account's shares in the window.
    pub shares: u64,
    /// In how many slices they are.
    pub slices: usize,
    /// How many slices the window has.
    pub window_slices: usize,
    /// The root of the newest slice, which the pool has signed.
    pub newest_root: String,
    /// What the accounts get together: the reward less the fee.
    pub rest_msat: Msat,
    /// What the account gets at least ..
    pub least_msat: Msat,
    /// .. and at most. Which accounts get the msat that rounding leaves cannot be told without all weights.
    pub most_msat: Msat,
}

impl PartSummary {
    fn new(part: &Part, proof: &PartProof) -> Self {
        let newest = proof
            .headers
            .last()
            .map(dovetail_rewards::SliceHeader::root);
        Self {
            weight: part.weight.get().to_string(),
            window_weight: part.of.get().to_string(),
            shares: part.shares,
            slices: proof.leaves.len(),
            window_slices: proof.headers.len(),
            newest_root: newest.map(|root| root.to_string()).unwrap_or_default(),
            rest_msat: part.rest,
            least_msat: part.least,
            most_msat: part.most,
        }
    }
}

const EARLIER_FAILED: &str = "an earlier check failed";
const NO_KEY: &str = "no pool key was given to compare with";
const NO_AMOUNT: &str = "no amount was given to compare with";
const NO_WINDOW: &str = "whoever found the block has all of the rest";
const ON_THE_CHAIN: &str = "look at the block";
const OWN_COUNT: &str = "compare the number with your own";
const BEFORE: &str = "fetch slices before blocks are found";

type Failure = (CreditCheck, String);

/// Checks what a miner has kept. `pool_key` is the x-only key that must have signed, `amount` what the account was
/// credited with.
pub fn check(file: &CreditFile, pool_key: Option<[u8; 32]>, amount: Option<Msat>) -> CreditReport {
    let found = match file.part_proof() {
        Err(why) => Err((CreditCheck::Format, why)),
        Ok(Some(proof)) => check_part(proof, pool_key),
        Ok(None) => Ok(None),
    };
    let failure = match &found {
        Err(failure) => Some(failure.clone()),
        Ok(Some((part, _))) => check_amount(part, amount).err(),
        Ok(None) => check_finder(file, amount).err(),
    };
    let part = found.ok().flatten();
    CreditReport {
        verified: failure.is_none(),
        first_failure: failure.as_ref().map(|(check, _)| *check),
        lines: lines(
            failure.as_ref(),
            pool_key.is_some(),
            amount.is_some(),
            file.window.is_some(),
        ),
        account: file.account.clone(),
        block: file.block.hash,
        height: file.block.height,
        signer: part.as_ref().map(|(_, proof)| hex::encode(proof.signer)),
        part: part.map(|(part, proof)| PartSummary::new(&part, &proof)),
    }
}

/// A part, and what shows it.
type Shown = (Part, PartProof);

fn check_part(proof: PartProof, pool_key: Option<[u8; 32]>) -> Result<Option<Shown>, Failure> {
    if let Some(key) = pool_key
        && key != proof.signer
    {
        let why = format!("another key has signed: {}", hex::encode(proof.signer));
        return Err((CreditCheck::PoolKey, why));
    }
    match proof.check() {
        Ok(part) => Ok(Some((part, proof))),
        Err(error) => Err((check_of(error), error.to_string())),
    }
}

fn check_amount(part: &Part, amount: Option<Msat>) -> Result<(), Failure> {
    match amount {
        Some(amount) if !part.allows(amount) => {
            let why = match part.least == part.most {
                true => format!("{amount} instead of {}", part.least),
                false => format!("{amount} instead of {} or {}", part.least, part.most),
            };
            Err((CreditCheck::Amount, why))
        }
        _ => Ok(()),
    }
}

/// A block without a window: its finder has all but the fee, and nobody else anything.
fn check_finder(file: &CreditFile, amount: Option<Msat>) -> Result<(), Failure> {
    let terms = file.block.terms();
    let terms = terms.map_err(|why| (CreditCheck::Format, why))?;
    let rest = terms.rest();
    let rest = rest.map_err(|error| (check_of(error), error.to_string()))?;
    match amount {
        Some(amount) if amount != rest && amount != Msat::ZERO => {
            let why = format!("{amount} instead of {rest}, which the block's finder has");
            Err((CreditCheck::Amount, why))
        }
        _ => Ok(()),
    }
}

fn check_of(error: PartError) -> CreditCheck {
    match error {
        PartError::Reward(_) | PartError::Fee { .. } => CreditCheck::Fee,
        PartError::Headers | PartError::Chain(_) => CreditCheck::Chain,
        PartError::Signature => CreditCheck::Signature,
        PartError::Window(_) | PartError::WindowTooLong(_) | PartError::WindowTooShort(_) => {
            CreditCheck::Window
        }
        PartError::LeafPlace(_) | PartError::LeafAccount(_) | PartError::Leaf { .. } => {
            CreditCheck::Leaves
        }
    }
}

fn lines(
    failure: Option<&Failure>,
    has_key: bool,
    has_amount: bool,
    has_window: bool,
) -> Vec<CreditLine> {
    use CreditCheck::{
        AllShares, Amount, Chain, Leaves, Newest, PoolKey, Reward, Signature, Window,
    };
    let outcome = |check: CreditCheck| match failure {
        Some((failed, why)) if *failed == check => Outcome::Fails(why.clone()),
        _ if check == Reward => Outcome::NotChecked(ON_THE_CHAIN),
        _ if !has_window
            && matches!(
                check,
                PoolKey | Chain | Signature | Window | Leaves | AllShares | Newest
            ) =>
        {
            Outcome::NotChecked(NO_WINDOW)
        }
        _ if check == AllShares => Outcome::NotChecked(OWN_COUNT),
        _ if check == Newest => Outcome::NotChecked(BEFORE),
        Some((failed, _)) if *failed < check => Outcome::NotChecked(EARLIER_FAILED),
        _ if check == PoolKey && !has_key => Outcome::NotChecked(NO_KEY),
        _ if check == Amount && !has_amount => Outcome::NotChecked(NO_AMOUNT),
        _ => Outcome::Holds,
    };
    let line = |check| CreditLine {
        check,
        outcome: outcome(check),
    };
    CreditCheck::ALL.into_iter().map(line).collect()
}
