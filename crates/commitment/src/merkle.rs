//! Merkle trees over leaves and over trace digests. Leaves and branches are hashed under distinct
//! tags, an odd node is promoted rather than duplicated, and the batch root binds the leaf count:
//! so one root has one list of leaves.

use serde::{Deserialize, Serialize};

use crate::ids::{BatchRoot, LeafHash};
use crate::prompt::PROMPT_TOKENS_MAX;
use crate::tagged_hash::tagged_hash;
use crate::transcript::OUTPUT_TOKENS_MAX;

/// The most transcripts in one batch.
pub const BATCH_LEAVES_MAX: usize = 64;
/// The most tokens that the tasks of one batch take in and give together: as many as the longest task has. So a pool that
/// can replay every task in time can replay every sample in time, and no honest transcript keeps a false one from being
/// replayed.
pub const BATCH_TOKENS_MAX: u64 = PROMPT_TOKENS_MAX as u64 + OUTPUT_TOKENS_MAX as u64;
/// The longest path in a batch's tree.
pub const PROOF_STEPS_MAX: usize = 6;

/// Why leaves are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// None, or more than [`BATCH_LEAVES_MAX`].
    #[error("a batch has 1 to {BATCH_LEAVES_MAX} transcripts")]
    Size,
    /// The same transcript twice.
    #[error("a transcript stands in the batch twice")]
    Duplicate,
}

/// A batch of transcripts, in the order of their leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    leaves: Vec<LeafHash>,
}

/// The way from one leaf to the batch root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InclusionProof {
    /// The leaf's place.
    pub index: u32,
    /// How many leaves the batch has.
    pub count: u32,
    /// The siblings from the leaf upwards; levels where the node is promoted have none.
    pub siblings: Vec<LeafHash>,
}

impl Batch {
    /// A batch of these leaves.
    ///
    /// # Errors
    /// [`BatchError`] for too few, too many or repeated leaves.
    pub fn new(leaves: Vec<LeafHash>) -> Result<Self, BatchError> {
        if leaves.is_empty() || leaves.len() > BATCH_LEAVES_MAX {
            return Err(BatchError::Size);
        }
        let mut sorted = leaves.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != leaves.len() {
            return Err(BatchError::Duplicate);
        }
        Ok(Self { leaves })
    }

    /// The leaves, in order.
    pub fn leaves(&self) -> &[LeafHash] {
        &self.leaves
    }

    /// The root that the coinbase carries.
    pub fn root(&self) -> BatchRoot {
        let top = fold(self.nodes());
        batch_root(self.leaves.len(), &top)
    }

    /// The proof of the leaf at `index`, or `None` beyond the last.
    pub fn proof(&self, index: usize) -> Option<InclusionProof> {
        self.leaves.get(index)?;
        let mut siblings = Vec::new();
        let (mut place, mut level) = (index, self.nodes());
        while level.len() > 1 {
            if let Some(sibling) = level.get(place ^ 1) {
                siblings.push(LeafHash::from_bytes(*sibling));
            }
            level = parents(&level);
            place /= 2;
        }
        Some(InclusionProof {
            index: u32::try_from(index).ok()?,
            count: u32::try_from(self.leaves.len()).ok()?,
            siblings,
        })
    }

    fn nodes(&self) -> Vec<[u8; 32]> {
        self.leaves.iter().map(|leaf| leaf.to_bytes()).collect()
    }
}

impl InclusionProof {
    /// Whether `leaf` stands at [`InclusionProof::index`] of the batch with this root.
    pub fn verify(&self, leaf: LeafHash, root: BatchRoot) -> bool {
        let (mut place, mut width) = (self.index as usize, self.count as usize);
        if place >= width || width > BATCH_LEAVES_MAX {
            return false;
        }
        let mut node = leaf.to_bytes();
        let mut siblings = self.siblings.iter();
        while width > 1 {
            if place ^ 1 < width {
                let Some(sibling) = siblings.next() else {
                    return false;
                };
                node = if place.is_multiple_of(2) {
                    branch(&node, sibling.as_bytes())
                } else {
                    branch(sibling.as_bytes(), &node)
                };
            }
            place /= 2;
            width = width.div_ceil(2);
        }
        siblings.next().is_none() && batch_root(self.count as usize, &node) == root
    }
}

/// The Merkle root of trace digests, one per 32 positions; of none, the tagged hash of nothing.
pub fn trace_root(digests: &[[u8; 32]]) -> [u8; 32] {
    if digests.is_empty() {
        return tagged_hash("dovetail/trace", &[]);
    }
    // The digests are tagged hashes themselves, so they can be nodes as they are.
    fold(digests.to_vec())
}

fn batch_root(count: usize, top: &[u8; 32]) -> BatchRoot {
    // At most BATCH_LEAVES_MAX, checked by both callers.
    let count = u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
    BatchRoot::from_bytes(tagged_hash("dovetail/batch", &[&count, top]))
}

fn branch(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    tagged_hash("dovetail/branch", &[left, right])
}

fn parents(level: &[[u8; 32]]) -> Vec<[u8; 32]> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => branch(left, right),
            [promoted] => *promoted,
            _ => unreachable!("chunks of 2 have one or two nodes"),
        })
        .collect()
}

fn fold(mut level: Vec<[u8; 32]>) -> [u8; 32] {
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: usize) -> Vec<LeafHash> {
        (0..count)
            .map(|n| LeafHash::from_bytes(tagged_hash("test", &[&n.to_le_bytes()])))
            .collect()
    }

    #[test]
    fn a_batch_has_1_to_64_distinct_leaves() {
        assert_eq!(Batch::new(vec![]), Err(BatchError::Size));
        assert_eq!(Batch::new(leaves(65)), Err(BatchError::Size));
        let twice = [leaves(3), leaves(1)].concat();
        assert_eq!(Batch::new(twice), Err(BatchError::Duplicate));
        assert!(Batch::new(leaves(64)).is_ok());
    }

    #[test]
    fn the_longest_proof_has_six_steps() {
        let batch = Batch::new(leaves(64)).unwrap();
        assert_eq!(batch.proof(63).unwrap().siblings.len(), PROOF_STEPS_MAX);
    }

    proptest! {
        #[test]
        fn every_leaf_is_proven_at_its_place_and_nowhere_else(count in 1_usize..=64, index in 0_usize..64, other in 0_u32..70) {
            let index = index % count;
            let batch = Batch::new(leaves(count)).unwrap();
            let proof = batch.proof(index).unwrap();
            let leaf = batch.leaves()[index];
            prop_assert!(proof.verify(leaf, batch.root()));
            let wrong_count = InclusionProof { count: proof.count + 1, ..proof.clone() };
            prop_assert!(!wrong_count.verify(leaf, batch.root()));
            if other as usize != index {
                let wrong_place = InclusionProof { index: other, ..proof };
                prop_assert!(!wrong_place.verify(leaf, batch.root()));
            }
        }

        #[test]
        fn other_leaves_have_another_root(count in 1_usize..=63, at in 0_usize..64) {
            let root = Batch::new(leaves(count)).unwrap().root();
            prop_assert_ne!(Batch::new(leaves(count + 1)).unwrap().root(), root);
            let mut changed = leaves(count);
            changed[at % count] = LeafHash::from_bytes([7; 32]);
            prop_assert_ne!(Batch::new(changed).unwrap().root(), root);
        }
    }
}
