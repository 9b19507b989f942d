//! Looking at shares that a block's hash has chosen, over the network: the pool does not choose which it shows, and weight that it
//! has made up is found as often as `docs/rewards.md` says. Every check in a fixed order; for the shares, each point is looked
//! at, however many fail.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bitcoin::ScriptBuf;
use dovetail_api::rewards_v1 as v1;
use dovetail_api::{LEAF_SHARES_MAX, POINTS_PER_ANSWER_MAX};
use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    Answer, CountedShare, LeafProof, ShareId, ShareProof, ShownShare, SliceHeader, Weight,
    decode_shares, points,
};
use serde::Serialize;
use tokio::time::timeout;

use super::CreditClient;
use super::client::{kept_block, kept_statement, protocol, unary};
use super::file::{BlockHash, CreditFile};
use super::report::check_of;
use crate::AgentError;
use crate::verify::Outcome;

/// How many points that fail are told one by one.
const FAILURES_SHOWN: usize = 10;
/// Of how many shares it is remembered in which leaf they were seen. Beyond it, a share that is counted twice may be missed.
const SHARES_SEEN_MAX: usize = 1 << 22;

/// What to look at, and with what to compare.
#[derive(Clone, Debug, Default)]
pub struct SampleTerms {
    /// How many points are drawn.
    pub points: u32,
    /// The x-only key that must have signed.
    pub pool_key: Option<[u8; 32]>,
    /// What the pool writes into each coinbase.
    pub tag: Option<String>,
    /// The scripts that the pool's blocks pay; none if nobody says.
    pub scripts: Vec<ScriptBuf>,
    /// The compact targets that the network had; none if nobody says.
    pub bits: Vec<u32>,
}

/// One thing that a sample must satisfy. The order is the order of checking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleCheck {
    /// The window is one, of slices that follow on each other, and is signed, by the pool if its key was given.
    Window,
    /// The signer has signed that the block was divided over it.
    Statement,
    /// Each point falls on a leaf of its slice, and on one of the shares that the leaf is made of.
    Leaves,
    /// Each of these shares has a header with its hash and its work, a coinbase, and its weight.
    Shares,
    /// No share stands in two of the leaves that were shown.
    Once,
    /// Each header has the target that the network had.
    Bits,
    /// Each coinbase is the pool's.
    Coinbase,
}

impl SampleCheck {
    /// All of them, in the order of checking.
    pub const ALL: [Self; 7] = [
        Self::Window,
        Self::Statement,
        Self::Leaves,
        Self::Shares,
        Self::Once,
        Self::Bits,
        Self::Coinbase,
    ];

    /// What it says when it holds.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Window => "the window is whole, and signed by the pool",
            Self::Statement => "the signer has signed that the block was divided over it",
            Self::Leaves => "each point falls on a leaf of its slice and on a share of the leaf",
            Self::Shares => "each share was mined, and weighs what it counts",
            Self::Once => "no share is counted in two of the leaves",
            Self::Bits => "each header has the network's target",
            Self::Coinbase => "each coinbase is the pool's",
        }
    }

    /// The check's name as it is serialised.
    pub fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Statement => "statement",
            Self::Leaves => "leaves",
            Self::Shares => "shares",
            Self::Once => "once",
            Self::Bits => "bits",
            Self::Coinbase => "coinbase",
        }
    }
}

/// One line of a [`SampleReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SampleLine {
    /// The check.
    pub check: SampleCheck,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A point for which nothing valid was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedPoint {
    /// Its number.
    pub number: u32,
    /// The check that it failed.
    pub check: SampleCheck,
    /// Why.
    pub why: String,
}

/// What a sample found.
#[derive(Clone, Debug, Serialize)]
pub struct SampleReport {
    /// No check failed. Look at `lines` for what was not checked.
    pub verified: bool,
    /// The first thing that does not hold.
    pub first_failure: Option<SampleCheck>,
    /// Every check, in order.
    pub lines: Vec<SampleLine>,
    /// The block.
    pub block: BlockHash,
    /// Its height.
    pub height: u32,
    /// How many points were drawn.
    pub points: u32,
    /// For how many of them something valid was shown.
    pub shown: u32,
    /// Of the others, the first ones.
    pub failed: Vec<FailedPoint>,
    /// How many slices the window has.
    pub window_slices: usize,
    /// What the window weighs, a decimal number.
    pub window_weight: String,
    /// How many accounts, and how many shares, the points fell on.
    pub accounts: usize,
    /// The same of shares.
    pub shares: usize,
    /// The compact targets of their headers, and how many points have each.
    pub bits: BTreeMap<String, u32>,
    /// The scripts that their coinbases pay most to, and how many points have each.
    pub scripts: BTreeMap<String, u32>,
    /// The chance that a fake hundredth of the window would have been found.
    pub percent_found_with: f64,
    /// The smallest fake part that would have been found with a chance of 95 %.
    pub part_found_with_95_percent: f64,
}

const EARLIER_FAILED: &str = "an earlier check failed";
const UNSIGNED: &str = "the pool has not signed this block: it is from before it did so";
const NO_BITS: &str = "compare them with the network's, or give --bits";
const NO_COINBASE: &str = "compare the scripts with the pool's, or give --tag or --pays";

type Failure = (SampleCheck, String);

impl CreditClient {
    /// Draws points on the window of a block and looks at what the pool shows for each: of the block with this hash, or of the
    /// newest that the chain has or may still take.
    ///
    /// # Errors
    /// [`AgentError::NoWindow`], [`AgentError::CreditLate`] if it takes longer than `time_max`, and what
    /// [`CreditClient::fetch`] fails with. What the pool shows wrongly is no error: the report says it.
    pub async fn sample(
        &self,
        block: Option<BlockHash>,
        terms: &SampleTerms,
        time_max: Duration,
    ) -> Result<SampleReport, AgentError> {
        let sampled = timeout(time_max, async {
            let found = self.block(block).await?;
            let kept = kept_block(&found)?;
            let window = found.window.as_ref();
            let window = window.ok_or(AgentError::NoWindow { block: kept.hash })?;
            // No account's: only the headers are looked at.
            let window = self.window_without_leaves(window).await?;
            let mut file = CreditFile::new("-", kept, Some(window));
            if let Some(signed) = &found.statement {
                file.statement = Some(kept_statement(signed, None)?);
            }
            self.sample_file(&file, terms).await
        });
        sampled.await.unwrap_or(Err(AgentError::CreditLate {
            waited_s: time_max.as_secs(),
        }))
    }

    async fn sample_file(
        &self,
        file: &CreditFile,
        terms: &SampleTerms,
    ) -> Result<SampleReport, AgentError> {
        let headers = match check_window(file, terms.pool_key) {
            Ok(headers) => headers,
            Err(failure) => return Ok(Sampler::new(file, Vec::new()).report(terms, Some(failure))),
        };
        let mut sampler = Sampler::new(file, headers);
        let drawn: Vec<u128> = sampler.draw(terms.points).collect();
        let (mut next, count) = (0, terms.points);
        while next < count {
            let limit = (count - next).min(POINTS_PER_ANSWER_MAX);
            let answer = self.call_large(|mut client| {
                let request = unary(v1::ShowPointsRequest {
                    block_hash: file.block.hash.0.to_vec(),
                    from: next,
                    limit,
                });
                async move { client.show_points(request).await }
            });
            let shown = answer.await?.points;
            if shown.is_empty() || shown.len() > limit as usize {
                return Err(protocol("its list of points does not go on"));
            }
            for point in shown {
                if point.number != next {
                    return Err(protocol("a point is out of turn"));
                }
                sampler.look_at(&point, drawn[next as usize], terms);
                next += 1;
            }
        }
        Ok(sampler.report(terms, None))
    }
}

/// The headers of the window, if they and the block are signed.
fn check_window(
    file: &CreditFile,
    pool_key: Option<[u8; 32]>,
) -> Result<Vec<SliceHeader>, Failure> {
    let refused = |why: String| (SampleCheck::Window, why);
    let proof = file.part_proof().map_err(refused)?;
    let proof = proof.ok_or_else(|| refused("there is no window".to_owned()))?;
    let is_pools = |signer: &[u8; 32]| pool_key.is_none_or(|key| key == *signer);
    if !is_pools(&proof.signer) {
        let why = format!("another key has signed: {}", hex::encode(proof.signer));
        return Err(refused(why));
    }
    if let Err(error) = proof.check() {
        return Err((
            SampleCheck::Window,
            format!("{}: {error}", check_of(error).name()),
        ));
    }
    let read = file.statement();
    let read = read.map_err(|why| (SampleCheck::Statement, why))?;
    if let (Some((statement, _)), Some(kept)) = (read, &file.statement) {
        let is_signed = statement.is_signed_by(&kept.signer, &kept.signature);
        if !is_signed || !is_pools(&kept.signer) {
            let why = "the key has not signed these terms".to_owned();
            return Err((SampleCheck::Statement, why));
        }
    }
    Ok(proof.headers)
}

/// What was seen so far.
struct Sampler<'a> {
    file: &'a CreditFile,
    headers: Vec<SliceHeader>,
    shown: u32,
    failures: BTreeMap<SampleCheck, u32>,
    failed: Vec<FailedPoint>,
    accounts: BTreeSet<Vec<u8>>,
    shares: BTreeSet<ShareId>,
    /// In which leaf each share stands.
    places: HashMap<ShareId, (u64, u32)>,
    bits: BTreeMap<String, u32>,
    scripts: BTreeMap<String, u32>,
}

impl<'a> Sampler<'a> {
    fn new(file: &'a CreditFile, headers: Vec<SliceHeader>) -> Self {
        Self {
            file,
            headers,
            shown: 0,
            failures: BTreeMap::new(),
            failed: Vec::new(),
            accounts: BTreeSet::new(),
            shares: BTreeSet::new(),
            places: HashMap::new(),
            bits: BTreeMap::new(),
            scripts: BTreeMap::new(),
        }
    }

    /// What the window weighs. A window that was checked weighs no more than a weight can.
    fn total(&self) -> Weight {
        let mut totals = self.headers.iter().map(|header| header.total);
        let sum = totals.try_fold(Weight::ZERO, |sum, of| sum.checked_add(of).ok());
        sum.unwrap_or_default()
    }

    fn draw(&self, count: u32) -> impl Iterator<Item = u128> + use<> {
        let block = HeaderHash::from_bytes(self.file.block.hash.0);
        let newest = self.headers.last().map(SliceHeader::root);
        let total = self.total();
        newest
            .into_iter()
            .flat_map(move |newest| points(&block, &newest, total, count))
    }

    fn look_at(&mut self, shown: &v1::ShownPoint, point: u128, terms: &SampleTerms) {
        if let Err((check, why)) = self.check(shown, point, terms) {
            *self.failures.entry(check).or_default() += 1;
            if self.failed.len() < FAILURES_SHOWN {
                let number = shown.number;
                self.failed.push(FailedPoint { number, check, why });
            }
        } else {
            self.shown += 1;
        }
    }

    fn check(
        &mut self,
        shown: &v1::ShownPoint,
        point: u128,
        terms: &SampleTerms,
    ) -> Result<(), Failure> {
        let (answer, counted) = self.share_of(shown, point)?;
        let refused = |why: String| (SampleCheck::Shares, why);
        if shown.share_proof.is_empty() {
            return Err(refused("the pool does not have its header".to_owned()));
        }
        let proof = ShareProof::decode(&shown.share_proof);
        let proof = proof.map_err(|error| refused(error.to_string()))?;
        let found = proof.check(&counted);
        let found = found.map_err(|error| refused(error.to_string()))?;
        self.accounts
            .insert(answer.proof.account.as_bytes().to_vec());
        self.shares.insert(counted.id);
        self.check_once(shown.slice, &answer)?;
        self.check_terms(&found, terms)
    }

    /// The share on which the point falls.
    fn share_of(
        &self,
        shown: &v1::ShownPoint,
        point: u128,
    ) -> Result<(Answer, CountedShare), Failure> {
        let refused = |why: String| (SampleCheck::Leaves, why);
        if shown.shares.is_empty() {
            return Err(refused(
                "the pool does not have the leaf's shares".to_owned(),
            ));
        }
        let shares_max = LEAF_SHARES_MAX.saturating_mul(CountedShare::ENCODED_LEN as u64);
        if shown.shares.len() as u64 > shares_max || shown.leaf.len() > LeafProof::ENCODED_LEN_MAX {
            return Err(refused("the leaf is too long".to_owned()));
        }
        let proof = LeafProof::decode(&shown.leaf);
        let shares = decode_shares(&shown.shares);
        let answer = Answer {
            proof: proof.map_err(|error| refused(error.to_string()))?,
            shares: shares.map_err(|error| refused(error.to_string()))?,
        };
        let counted = answer.share_at(point, &self.headers);
        let counted = counted.map_err(|error| refused(error.to_string()))?;
        Ok((answer, counted))
    }

    fn check_once(&mut self, slice: u64, answer: &Answer) -> Result<(), Failure> {
        let place = (slice, answer.proof.index);
        for share in &answer.shares {
            let known = self.places.get(&share.id);
            if known.is_some_and(|known| *known != place) {
                let why = format!("a share stands in slice {slice} and in another leaf");
                return Err((SampleCheck::Once, why));
            }
            if known.is_none() && self.places.len() < SHARES_SEEN_MAX {
                self.places.insert(share.id, place);
            }
        }
        Ok(())
    }

    fn check_terms(&mut self, found: &ShownShare, terms: &SampleTerms) -> Result<(), Failure> {
        let bits = found.header.bits.to_consensus();
        *self.bits.entry(format!("{bits:08x}")).or_default() += 1;
        let outputs = &found.coinbase.output;
        if let Some(largest) = outputs.iter().max_by_key(|output| output.value) {
            let script = largest.script_pubkey.to_hex_string();
            *self.scripts.entry(script).or_default() += 1;
        }
        if !terms.bits.is_empty() && !terms.bits.contains(&bits) {
            return Err((SampleCheck::Bits, format!("its target is {bits:08x}")));
        }
        let pays = |script: &ScriptBuf| {
            let paid = outputs.iter().filter(|output| output.value.to_sat() > 0);
            paid.clone().count() > 0 && paid.clone().all(|output| output.script_pubkey == *script)
        };
        if !terms.scripts.is_empty() && !terms.scripts.iter().any(pays) {
            let why = "its coinbase pays somebody else than the pool".to_owned();
            return Err((SampleCheck::Coinbase, why));
        }
        let script = found
            .coinbase
            .input
            .first()
            .map(|input| input.script_sig.as_bytes());
        let has = |tag: &str| {
            let script = script.unwrap_or_default();
            script
                .windows(tag.len().max(1))
                .any(|part| part == tag.as_bytes())
        };
        if terms.tag.as_ref().is_some_and(|tag| !has(tag)) {
            let why = "its coinbase does not have the pool's tag".to_owned();
            return Err((SampleCheck::Coinbase, why));
        }
        Ok(())
    }

    fn report(self, terms: &SampleTerms, failure: Option<Failure>) -> SampleReport {
        let first = failure.as_ref().map(|(check, _)| *check);
        let first_failure = first.or_else(|| self.failures.keys().next().copied());
        let outcome = |check: SampleCheck| match (&failure, self.failures.get(&check)) {
            (Some((failed, why)), _) if *failed == check => Outcome::Fails(why.clone()),
            (Some((failed, _)), _) if *failed < check => Outcome::NotChecked(EARLIER_FAILED),
            (_, Some(points)) => Outcome::Fails(format!("not for {points} point(s)")),
            _ if check == SampleCheck::Statement && self.file.statement.is_none() => {
                Outcome::NotChecked(UNSIGNED)
            }
            _ if check == SampleCheck::Bits && terms.bits.is_empty() => {
                Outcome::NotChecked(NO_BITS)
            }
            _ if check == SampleCheck::Coinbase
                && terms.tag.is_none()
                && terms.scripts.is_empty() =>
            {
                Outcome::NotChecked(NO_COINBASE)
            }
            _ => Outcome::Holds,
        };
        let line = |check| SampleLine {
            check,
            outcome: outcome(check),
        };
        let lines = SampleCheck::ALL.into_iter().map(line).collect();
        let points = f64::from(terms.points);
        SampleReport {
            verified: first_failure.is_none(),
            first_failure,
            lines,
            block: self.file.block.hash,
            height: self.file.block.height,
            points: terms.points,
            shown: self.shown,
            window_slices: self.headers.len(),
            window_weight: self.total().get().to_string(),
            accounts: self.accounts.len(),
            shares: self.shares.len(),
            failed: self.failed,
            bits: self.bits,
            scripts: self.scripts,
            percent_found_with: 1.0 - 0.99_f64.powf(points),
            part_found_with_95_percent: 1.0 - 0.05_f64.powf(1.0 / points.max(1.0)),
        }
    }
}
