//! The proofs of the newest heights, in memory: a second one is refused before it is logged. Postgres' constraint is the
//! second line.

use std::collections::{HashMap, HashSet, VecDeque};

use dovetail_commitment::HeaderHash;

/// Heights of which the proofs are kept: the tip's, and those around it that a short fork brings back. A share of an older
/// tip is refused as stale.
pub(crate) const HEIGHTS_MAX: usize = 3;

/// Proofs that are kept at all, some hundred megabytes. If a tip stands for long, the oldest height is forgotten, or its
/// only one: Postgres' constraint is there still.
const PROOFS_MAX: usize = 16_000_000;

/// What stands for a proof: its first half, 128 bits that nobody can choose, as in the ledger.
pub(crate) type Key = [u8; 16];

/// The proofs that are known.
#[derive(Debug, Default)]
pub(crate) struct KnownShares {
    /// In the order in which they came.
    heights: VecDeque<u32>,
    proofs: HashMap<u32, HashSet<Key>>,
    count: usize,
}

/// The key of a proof.
pub(crate) fn key(header_hash: &HeaderHash) -> Key {
    let (key, _) = header_hash
        .as_bytes()
        .split_first_chunk()
        .expect("a hash has 32 bytes");
    *key
}

impl KnownShares {
    /// Notes a proof; `false` if it is known. A height that was not seen before takes the place of the oldest one.
    pub(crate) fn insert(&mut self, height: u32, key: Key) -> bool {
        if self.contains(&key) {
            return false;
        }
        if self.count >= PROOFS_MAX {
            self.forget_oldest();
        }
        if !self.proofs.contains_key(&height) {
            self.heights.push_back(height);
            if self.heights.len() > HEIGHTS_MAX {
                self.forget_oldest();
            }
        }
        let is_new = self.proofs.entry(height).or_default().insert(key);
        self.count += usize::from(is_new);
        is_new
    }

    /// Whether the proof is known.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.proofs.values().any(|proofs| proofs.contains(key))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.heights.pop_front();
        let forgotten = oldest.and_then(|height| self.proofs.remove(&height));
        self.count -= forgotten.map_or(0, |proofs| proofs.len());
    }

    /// Forgets a proof that was not made durable.
    pub(crate) fn remove(&mut self, height: u32, key: Key) {
        if let Some(proofs) = self.proofs.get_mut(&height) {
            self.count -= usize::from(proofs.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_known_at_whatever_height_until_three_newer_heights_have_come() {
        let mut known = KnownShares::default();
        assert!(known.insert(7, [1; 16]));
        assert!(!known.insert(7, [1; 16]));
        assert!(!known.insert(8, [1; 16]), "the tip moved between the two");
        assert!(known.insert(8, [2; 16]));
        assert!(known.insert(7, [3; 16]), "a fork goes back");
        known.remove(8, [2; 16]);
        assert!(known.insert(8, [2; 16]));
        assert!(known.insert(9, [4; 16]));
        assert!(!known.insert(9, [1; 16]));
        assert!(known.insert(10, [5; 16]));
        assert!(known.insert(10, [1; 16]), "height 7 is forgotten");
        assert_eq!(known.proofs.len(), HEIGHTS_MAX);
    }
}
