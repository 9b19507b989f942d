//! What keeps one target to one header space. A miner that could hash a space under two targets would submit each hash
//! under the harder target that it meets, and be paid for more hashes than it did.
//!
//! The pool's own jobs differ by a salt. A custom job is its miner's, who may bring the same one again: on its channel,
//! on a later one with the same extranonce, or after the channel has forgotten it. So the targets of custom jobs are
//! remembered, for as long as their tip stands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Target, Transaction};
use dovetail_units::header::VERSION_ROLLING_MASK;
use stratum_core::mining_sv2::SetCustomMiningJobOwned;

/// A salt's bytes.
pub(crate) const SALT_BYTES: usize = 8;

/// The salts of a pool's jobs: each is used once. They begin anywhere, so that two processes, or one before and after
/// a restart, do not hash the same headers either.
#[derive(Debug)]
pub(crate) struct JobSalts(AtomicU64);

impl Default for JobSalts {
    fn default() -> Self {
        Self(AtomicU64::new(rand::random()))
    }
}

impl JobSalts {
    pub(crate) fn next(&self) -> [u8; SALT_BYTES] {
        self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()
    }
}

/// Spaces that are remembered of one tip: about 20 MB. Each takes a token that the ledger has spent. When they are full,
/// no new ones are given until the next tip: forgetting one could pay its hashes again.
const SPACES_MAX: usize = 1 << 18;

/// All headers that a custom job allows on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HeaderSpace([u8; 32]);

impl HeaderSpace {
    /// A made-up one.
    #[cfg(test)]
    pub(crate) fn from_byte(byte: u8) -> Self {
        Self([byte; 32])
    }

    /// Of a job with this coinbase, which has zeros for the whole extranonce, on a channel with this prefix. Times and the
    /// version's bits that miners roll are not part of it.
    pub(crate) fn of(
        message: &SetCustomMiningJobOwned,
        coinbase: &Transaction,
        extranonce_prefix: &[u8],
    ) -> Self {
        let mut hash = sha256::Hash::engine();
        let version = message.version & !VERSION_ROLLING_MASK;
        hash.input(&version.to_le_bytes());
        hash.input(message.prev_hash.as_array());
        hash.input(&message.nbits.to_le_bytes());
        // Of a fixed length on one pool, and behind it a transaction says its own length.
        hash.input(extranonce_prefix);
        hash.input(&serialize(coinbase));
        for node in message.merkle_path.as_slice() {
            hash.input(node.as_array());
        }
        Self(sha256::Hash::from_engine(hash).to_byte_array())
    }
}

/// The targets of all custom jobs' header spaces on the newest tips.
#[derive(Debug, Default)]
pub(crate) struct HeaderSpaces {
    tips: Mutex<[Tip; 2]>,
}

/// A tip, and the spaces on it.
#[derive(Debug, Default)]
struct Tip {
    hash: [u8; 32],
    targets: HashMap<HeaderSpace, Target>,
}

impl HeaderSpaces {
    /// The target of a space on a tip: the one that it was given first, or else `target`. `None` if there is no room for
    /// another space.
    pub(crate) fn target(
        &self,
        tip: [u8; 32],
        space: HeaderSpace,
        target: Target,
    ) -> Option<Target> {
        let mut tips = self.tips.lock().unwrap_or_else(PoisonError::into_inner);
        if tips[0].hash != tip {
            // Two, since miners and the pool hear of a block at different moments.
            tips.swap(0, 1);
            if tips[0].hash != tip {
                tips[0] = Tip {
                    hash: tip,
                    targets: HashMap::new(),
                };
            }
        }
        let targets = &mut tips[0].targets;
        if let Some(given) = targets.get(&space) {
            return Some(*given);
        }
        if targets.len() >= SPACES_MAX {
            tracing::warn!("no more custom jobs are taken on this tip");
            return None;
        }
        targets.insert(space, target);
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EASY: Target = Target::MAX_ATTAINABLE_REGTEST;
    const HARD: Target = Target::MAX_ATTAINABLE_MAINNET;

    #[test]
    fn a_header_space_keeps_its_first_target_for_as_long_as_its_tip_may_stand() {
        let spaces = HeaderSpaces::default();
        let [one, other] = [1, 2].map(|byte| HeaderSpace([byte; 32]));
        let of = |tip: u8, space, target| spaces.target([tip; 32], space, target);
        assert_eq!(of(1, one, EASY), Some(EASY));
        assert_eq!(of(1, one, HARD), Some(EASY));
        assert_eq!(of(1, other, HARD), Some(HARD));
        // Another tip, and back.
        assert_eq!(of(2, one, HARD), Some(HARD));
        assert_eq!(of(1, one, HARD), Some(EASY));
        assert_eq!(of(2, one, EASY), Some(HARD));
        // Long gone.
        assert_eq!(of(3, one, HARD), Some(HARD));
        assert_eq!(of(1, one, HARD), Some(HARD));
    }

    #[test]
    fn no_space_is_forgotten_for_another() {
        let spaces = HeaderSpaces::default();
        let space = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            HeaderSpace(bytes)
        };
        for number in 0..SPACES_MAX {
            assert_eq!(spaces.target([1; 32], space(number), EASY), Some(EASY));
        }
        assert_eq!(spaces.target([1; 32], space(SPACES_MAX), EASY), None);
        assert_eq!(spaces.target([1; 32], space(0), HARD), Some(EASY));
        assert_eq!(spaces.target([2; 32], space(SPACES_MAX), HARD), Some(HARD));
    }
}
