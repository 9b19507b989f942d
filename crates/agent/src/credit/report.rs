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
    /// The signer has signed the block's terms and the root of its parts.
    Statement,
    /// What the pool has signed that the account gets is the account's part.
    Stated,
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
    pub const ALL: [Self; 13] = [
        Self::Format,
        Self::PoolKey,
        Self::Fee,
        Self::Chain,
        Self::Signature,
        Self::Window,
        Self::Leaves,
        Self::Statement,
        Self::Stated,
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
            Self::Statement => "the signer has signed what the block pays and how it is divided",
            Self::Stated => "the part that the pool has signed is the account's, to the msat",
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
            Self::Statement => "statement",
            Self::Stated => "stated",
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
    /// What the pool has signed of the block, if all up to that holds.
    pub stated: Option<StatedSummary>,
    /// The part, if all up to the leaves holds, and the block has a window.
    pub part: Option<PartSummary>,
}

/// What a pool has signed of a block and of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatedSummary {
    /// The hash that is signed.
    pub hash: String,
    /// What the account gets.
    pub amount_msat: Msat,
    /// How many accounts have a part.
    pub accounts: u32,
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
    /// Whether these hold the window's length. If not, they are all slices from slice 0 on.
    pub window_is_full: bool,
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
            window_is_full: part.is_full,
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
const UNSIGNED: &str = "the pool has not signed this block: it is from before it did so";
const DROPPED: &str = "the pool does not keep the leaves of so old a block";
const ON_THE_CHAIN: &str = "look at the block";
const OWN_COUNT: &str = "compare the number with your own";
const BEFORE: &str = "fetch slices before blocks are found";

type Failure = (CreditCheck, String);

/// Checks what a miner has kept. `pool_key` is the x-only key that must have signed, `amount` what the account was
/// credited with.
pub fn check(file: &CreditFile, pool_key: Option<[u8; 32]>, amount: Option<Msat>) -> CreditReport {
    let found = match file.part_proof() {
        Err(why) => Err((CreditCheck::Format, why)),
        Ok(Some(proof)) => check_part(proof, pool_key).map(Some),
        Ok(None) => Ok(None),
    };
    let stated = found.as_ref().map_err(Clone::clone).and_then(|shown| {
        let range = match shown {
            Some((part, _)) if has_dropped(file) => Range::up_to(part.rest),
            Some((part, _)) => Range::of(part),
            None => Range::of_finder(file)?,
        };
        let stated = check_statement(file, pool_key, &range)?;
        Ok((range, stated))
    });
    let failure = stated
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|(range, stated)| {
            range.check_amount(stated.as_ref().map(|stated| stated.amount_msat), amount)
        });
    let failure = failure.err();
    let part = found.ok().flatten();
    CreditReport {
        verified: failure.is_none(),
        first_failure: failure.as_ref().map(|(check, _)| *check),
        lines: lines(
            failure.as_ref(),
            Given {
                key: pool_key.is_some(),
                amount: amount.is_some(),
                window: file.window.is_some(),
                statement: file.statement.is_some(),
                leaves: !has_dropped(file),
            },
        ),
        account: file.account.clone(),
        block: file.block.hash,
        height: file.block.height,
        signer: part.as_ref().map(|(_, proof)| hex::encode(proof.signer)),
        stated: stated.ok().and_then(|(_, stated)| stated),
        part: part
            .filter(|_| !has_dropped(file))
            .map(|(part, proof)| PartSummary::new(&part, &proof)),
    }
}

/// Whether the account's leaves were not there to fetch any more.
fn has_dropped(file: &CreditFile) -> bool {
    file.window
        .as_ref()
        .is_some_and(|window| window.leaves_dropped)
}

/// A part, and what shows it.
type Shown = (Part, PartProof);

fn check_part(proof: PartProof, pool_key: Option<[u8; 32]>) -> Result<Shown, Failure> {
    check_key(pool_key, &proof.signer)?;
    match proof.check() {
        Ok(part) => Ok((part, proof)),
        Err(error) => Err((check_of(error), error.to_string())),
    }
}

fn check_key(pool_key: Option<[u8; 32]>, signer: &[u8; 32]) -> Result<(), Failure> {
    match pool_key {
        Some(key) if key != *signer => {
            let why = format!("another key has signed: {}", hex::encode(signer));
            Err((CreditCheck::PoolKey, why))
        }
        _ => Ok(()),
    }
}

/// What the rules allow the account.
struct Range {
    least: Msat,
    most: Msat,
    /// Nobody but the finder has anything: nothing is allowed too.
    is_finders: bool,
}

impl Range {
    fn of(part: &Part) -> Self {
        Self {
            least: part.least,
            most: part.most,
            is_finders: false,
        }
    }

    /// Nothing is known of the account's work: it has anything up to this.
    fn up_to(most: Msat) -> Self {
        Self {
            least: Msat::ZERO,
            most,
            is_finders: false,
        }
    }

    /// A block without a window: its finder has all but the fee, and nobody else anything.
    fn of_finder(file: &CreditFile) -> Result<Self, Failure> {
        let terms = file.block.terms();
        let terms = terms.map_err(|why| (CreditCheck::Format, why))?;
        let rest = terms.rest();
        let rest = rest.map_err(|error| (check_of(error), error.to_string()))?;
        Ok(Self {
            least: rest,
            most: rest,
            is_finders: true,
        })
    }

    fn allows(&self, amount: Msat) -> bool {
        let is_part = (self.least..=self.most).contains(&amount);
        is_part || self.is_finders && amount == Msat::ZERO
    }

    fn words(&self) -> String {
        match (self.is_finders, self.least == self.most) {
            (true, _) => format!("{}, which the block's finder has", self.least),
            (false, true) => self.least.to_string(),
            (false, false) => format!("{} or {}", self.least, self.most),
        }
    }

    fn check_amount(&self, stated: Option<Msat>, amount: Option<Msat>) -> Result<(), Failure> {
        let Some(amount) = amount else { return Ok(()) };
        let expected = match stated {
            Some(stated) if stated != amount => stated.to_string(),
            _ if !self.allows(amount) => self.words(),
            _ => return Ok(()),
        };
        Err((
            CreditCheck::Amount,
            format!("{amount} instead of {expected}"),
        ))
    }
}

/// What the pool has signed; `None` if it has signed nothing of this block.
fn check_statement(
    file: &CreditFile,
    pool_key: Option<[u8; 32]>,
    range: &Range,
) -> Result<Option<StatedSummary>, Failure> {
    let read = file.statement();
    let read = read.map_err(|why| (CreditCheck::Format, why))?;
    let (Some((statement, part)), Some(kept)) = (read, &file.statement) else {
        return Ok(None);
    };
    check_key(pool_key, &kept.signer)?;
    if !statement.is_signed_by(&kept.signer, &kept.signature) {
        let why = "the key has not signed these terms".to_owned();
        return Err((CreditCheck::Statement, why));
    }
    let refused = |why: String| (CreditCheck::Stated, why);
    let amount = match &part {
        Some(part) if part.account.as_bytes() != file.account.as_bytes() => {
            return Err(refused("the part is another account's".to_owned()));
        }
        Some(part) => {
            let shown = statement.check_part(part);
            shown.map_err(|error| refused(error.to_string()))?;
            part.amount
        }
        None => Msat::ZERO,
    };
    if !range.allows(amount) {
        return Err(refused(format!("{amount} instead of {}", range.words())));
    }
    Ok(Some(StatedSummary {
        hash: hex::encode(statement.hash()),
        amount_msat: amount,
        accounts: statement.parts.accounts,
    }))
}

pub(super) fn check_of(error: PartError) -> CreditCheck {
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

/// What there was to check, and to check with.
#[derive(Clone, Copy)]
struct Given {
    key: bool,
    amount: bool,
    window: bool,
    statement: bool,
    leaves: bool,
}

fn lines(failure: Option<&Failure>, given: Given) -> Vec<CreditLine> {
    use CreditCheck::{
        AllShares, Amount, Chain, Leaves, Newest, PoolKey, Reward, Signature, Stated, Statement,
        Window,
    };
    let outcome = |check: CreditCheck| match failure {
        Some((failed, why)) if *failed == check => Outcome::Fails(why.clone()),
        _ if check == Reward => Outcome::NotChecked(ON_THE_CHAIN),
        _ if !given.statement && matches!(check, Statement | Stated) => {
            Outcome::NotChecked(UNSIGNED)
        }
        _ if !given.window && !given.statement && check == PoolKey => {
            Outcome::NotChecked(NO_WINDOW)
        }
        _ if !given.window
            && matches!(
                check,
                Chain | Signature | Window | Leaves | AllShares | Newest
            ) =>
        {
            Outcome::NotChecked(NO_WINDOW)
        }
        _ if !given.leaves && matches!(check, Leaves | AllShares) => Outcome::NotChecked(DROPPED),
        _ if check == AllShares => Outcome::NotChecked(OWN_COUNT),
        _ if check == Newest => Outcome::NotChecked(BEFORE),
        Some((failed, _)) if *failed < check => Outcome::NotChecked(EARLIER_FAILED),
        _ if check == PoolKey && !given.key => Outcome::NotChecked(NO_KEY),
        _ if check == Amount && !given.amount => Outcome::NotChecked(NO_AMOUNT),
        _ => Outcome::Holds,
    };
    let line = |check| CreditLine {
        check,
        outcome: outcome(check),
    };
    CreditCheck::ALL.into_iter().map(line).collect()
}
