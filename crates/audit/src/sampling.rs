//! Which transcripts of a batch are replayed: each for itself, the likelier the more it is worth beside what its worker
//! stands to lose. `docs/audit.md` proves that lies do not pay then, however their worth is spread.
//!
//! Integers only, so that every machine draws the same sample.

use dovetail_commitment::{LeafHash, tagged_hash};
use dovetail_units::Msat;

/// How likely a transcript is replayed: the threshold that 64 random bits have to stay below, at most 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probability(u128);

impl Probability {
    /// It is replayed in any case.
    pub const CERTAIN: Self = Self(1 << 64);
    /// 5 %: so likely is every transcript replayed at least.
    pub const FLOOR: Self = Self(Self::CERTAIN.0.div_ceil(20));

    /// `numerator / denominator`, rounded up to the next threshold: never less than that, and less than 2^-64 more.
    /// Certain for 1 and more, and for a denominator of 0.
    fn at_least(numerator: u128, denominator: u64) -> Self {
        let denominator = u128::from(denominator);
        if numerator >= denominator {
            return Self::CERTAIN;
        }
        // Less than a denominator of 64 bits, so it has room for 64 more.
        Self((numerator << 64).div_ceil(denominator))
    }

    /// Whether a transcript of this draw is replayed.
    pub fn covers(self, draw: u64) -> bool {
        u128::from(draw) < self.0
    }

    /// The probability times 2^64: from 0 to 2^64.
    pub fn threshold(self) -> u128 {
        self.0
    }
}

/// What a worker loses if a lie of it is found now: its credit that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stake {
    held_msat: u64,
}

impl Stake {
    /// A transcript that is worth this part of the stake is replayed in any case. With 1 a small lie would bring about
    /// nothing; with 2 it is expected to cost as much as it claims.
    pub const DIVISOR: u64 = 2;

    /// The stake of a worker for whom so much is held. Less than nothing counts as nothing.
    pub fn new(held: Msat) -> Self {
        Self {
            held_msat: u64::try_from(held.get()).unwrap_or(0),
        }
    }

    /// How likely a transcript of this value is replayed: `min(1, max(DIVISOR * value / held, 5 %))`. An amount below
    /// zero is no value, so such a transcript is replayed in any case.
    pub fn probability(self, value: Msat) -> Probability {
        let Ok(value) = u64::try_from(value.get()) else {
            return Probability::CERTAIN;
        };
        let weighed = u128::from(value) * u128::from(Self::DIVISOR);
        Probability::at_least(weighed, self.held_msat).max(Probability::FLOOR)
    }
}

/// A transcript of a batch as the sampling sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeighedLeaf {
    /// Its leaf.
    pub leaf: LeafHash,
    /// What its task earns.
    pub value: Msat,
}

/// The places of the leaves that are replayed, in ascending order. `output` is what the pool's verifiable function gives
/// for the batch and the share that fixed its sample. There may be none. A larger value or a smaller stake only adds to a sample.
pub fn sample(output: &[u8; 32], leaves: &[WeighedLeaf], stake: Stake) -> Vec<usize> {
    let is_replayed = |of: &WeighedLeaf| stake.probability(of.value).covers(draw(output, &of.leaf));
    leaves
        .iter()
        .enumerate()
        .filter_map(|(index, leaf)| is_replayed(leaf).then_some(index))
        .collect()
}

/// The draw of a leaf: it depends on nothing else in the batch, and not on what is at stake.
pub fn draw(output: &[u8; 32], leaf: &LeafHash) -> u64 {
    let hash = tagged_hash("dovetail/sample", &[output, leaf.as_bytes()]);
    let (random, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*random)
}

#[cfg(test)]
mod tests;
