//! The Merkle-sum tree of a slice: what each account weighs, and that no more was counted in all.
//!
//! The idea is G. Maxwell's, as P. Todd and others wrote it down for proofs of an exchange's liabilities. There a node
//! hashed only the sum of its children, so a parent could be given two readings and leaves could be hidden (K. Hu, Z. Zhang,
//! K. Guo, "Breaking the Binding", eprint 2018/1139). Here a branch hashes the sum of each child, weights have no sign and a
//! bound, leaves, branches and headers have tags of their own, and an odd node moves up rather than being doubled.

use std::ops::Range;

use dovetail_commitment::tagged_hash;

use crate::account::{ACCOUNT_BYTES_MAX, AccountId};
use crate::chain::{SliceHeader, SliceRoot};
use crate::encoding::{DecodeError, Reader};
use crate::evidence::{Evidence, Tally};
use crate::slice::Slice;
use crate::weight::{Weight, WeightTooLarge};

/// The version of a proof's encoding.
const VERSION: u8 = 1;
/// The longest way up: the height of a tree of [`SLICE_ACCOUNTS_MAX`](crate::SLICE_ACCOUNTS_MAX) leaves.
pub const PROOF_STEPS_MAX: usize = 16;

/// A node as its parent binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its hash.
    pub hash: [u8; 32],
    /// The weight of all leaves under it; more than nothing.
    pub sum: Weight,
}

impl Node {
    fn leaf(account: &AccountId, tally: &Tally) -> Self {
        let parts: [&[u8]; 5] = [
            &[account.length()],
            account.as_bytes(),
            &tally.weight.to_bytes(),
            &tally.shares.to_le_bytes(),
            tally.evidence.as_bytes(),
        ];
        Self {
            hash: tagged_hash("dovetail/reward-leaf", &parts),
            sum: tally.weight,
        }
    }

    fn branch(left: &Self, right: &Self) -> Result<Self, WeightTooLarge> {
        let sums = [left.sum, right.sum].map(Weight::to_bytes);
        let parts: [&[u8]; 4] = [&left.hash, &sums[0], &right.hash, &sums[1]];
        Ok(Self {
            hash: tagged_hash("dovetail/reward-branch", &parts),
            sum: left.sum.checked_add(right.sum)?,
        })
    }
}

/// The tree over a closed slice, with all its nodes: to publish the header and to answer for each account.
#[derive(Debug, Clone)]
pub struct SumTree {
    slice: Slice,
    /// From the leaves to the top.
    levels: Vec<Vec<Node>>,
}

impl SumTree {
    /// Of this slice, its accounts in the order of their bytes. O(accounts).
    pub fn new(slice: Slice) -> Self {
        let leaf = |(account, tally): (&AccountId, &Tally)| Node::leaf(account, tally);
        let mut levels = vec![slice.accounts().iter().map(leaf).collect::<Vec<_>>()];
        while let Some(level) = levels.last()
            && level.len() > 1
        {
            levels.push(level.chunks(2).map(parent).collect());
        }
        Self { slice, levels }
    }

    /// The slice.
    pub fn slice(&self) -> &Slice {
        &self.slice
    }

    /// What is published, on the slice before.
    pub fn header(&self, previous: SliceRoot) -> SliceHeader {
        let top = self.levels.last().and_then(|level| level.first());
        SliceHeader {
            number: self.slice.number(),
            previous,
            accounts: u32::try_from(self.slice.accounts().len()).expect("at most 2^16"),
            total: self.slice.total(),
            top: top.expect("a slice closes with a share").hash,
        }
    }

    /// The proof of an account's leaf, or `None` if it has no share in the slice. O(accounts), for finding its place.
    pub fn proof(&self, account: &AccountId) -> Option<LeafProof> {
        let tally = *self.slice.accounts().get(account)?;
        let index = self.slice.accounts().range(..account).count();
        let mut place = index;
        let mut siblings = Vec::new();
        for level in &self.levels {
            siblings.extend(level.get(place ^ 1));
            place /= 2;
        }
        Some(LeafProof {
            account: account.clone(),
            tally,
            index: u32::try_from(index).ok()?,
            siblings,
        })
    }
}

fn parent(pair: &[Node]) -> Node {
    match pair {
        [left, right] => Node::branch(left, right).expect("parts of the slice's total"),
        [promoted] => *promoted,
        _ => unreachable!("chunks of 2 have one or two nodes"),
    }
}

/// A leaf and its way to the header: what a miner keeps, and what an auditor is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProof {
    /// Whose leaf it is.
    pub account: AccountId,
    /// What the account did in the slice.
    pub tally: Tally,
    /// The leaf's place, from 0.
    pub index: u32,
    /// The siblings from the leaf upwards; levels where the node moves up alone have none.
    pub siblings: Vec<Node>,
}

/// Why a proof is none for this header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No such leaf, or no such slice.
    #[error("the slice has no leaf at this place")]
    Place,
    /// Too few siblings, or too many.
    #[error("the proof has another length than the way to the top")]
    Steps,
    /// A leaf or a sibling without weight.
    #[error("a node weighs nothing")]
    Empty,
    /// The sums do not lead to the header's.
    #[error("the weights do not add up to the slice's")]
    Sum,
    /// The hashes do not lead to the header's.
    #[error("the hashes do not lead to the slice's")]
    Hash,
}

impl LeafProof {
    /// The bytes of the longest encoding: a longest account and a longest way.
    pub const ENCODED_LEN_MAX: usize =
        1 + 1 + ACCOUNT_BYTES_MAX + 16 + 8 + 32 + 4 + 1 + PROOF_STEPS_MAX * 48;

    /// Checks that the leaf stands in the slice of this header. Returns where its weight lies in the slice's, from 0:
    /// what the leaves before it weigh together, up to that and its own. Under one header, the ranges of two leaves
    /// never overlap. Whether the pool has published the header is for the caller to know.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, header: &SliceHeader) -> Result<Range<u128>, ProofError> {
        if self.index >= header.accounts || !header.is_plausible() {
            return Err(ProofError::Place);
        }
        let (mut place, mut width) = (self.index, header.accounts);
        let mut node = Node::leaf(&self.account, &self.tally);
        let mut before = Weight::ZERO;
        let mut siblings = self.siblings.iter();
        while width > 1 {
            if place ^ 1 < width {
                let sibling = siblings.next().ok_or(ProofError::Steps)?;
                if sibling.sum == Weight::ZERO {
                    return Err(ProofError::Empty);
                }
                node = if place.is_multiple_of(2) {
                    Node::branch(&node, sibling)
                } else {
                    before = before
                        .checked_add(sibling.sum)
                        .map_err(|_| ProofError::Sum)?;
                    Node::branch(sibling, &node)
                }
                .map_err(|_| ProofError::Sum)?;
            }
            place /= 2;
            width = width.div_ceil(2);
        }
        if siblings.next().is_some() {
            return Err(ProofError::Steps);
        }
        if self.tally.weight == Weight::ZERO {
            return Err(ProofError::Empty);
        }
        if node.sum != header.total {
            return Err(ProofError::Sum);
        }
        if node.hash != header.top {
            return Err(ProofError::Hash);
        }
        Ok(before.get()..before.get() + self.tally.weight.get())
    }

    /// Version, account behind its length, weight, shares, evidence, place, number of siblings, then each sibling's hash
    /// and sum. Integers are little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.account.length()];
        bytes.extend_from_slice(self.account.as_bytes());
        bytes.extend_from_slice(&self.tally.weight.to_bytes());
        bytes.extend_from_slice(&self.tally.shares.to_le_bytes());
        bytes.extend_from_slice(self.tally.evidence.as_bytes());
        bytes.extend_from_slice(&self.index.to_le_bytes());
        // A tree makes no more than PROOF_STEPS_MAX; a longer list, made by hand, is one that no reader takes.
        bytes.push(u8::try_from(self.siblings.len()).unwrap_or(u8::MAX));
        for sibling in &self.siblings {
            bytes.extend_from_slice(&sibling.hash);
            bytes.extend_from_slice(&sibling.sum.to_bytes());
        }
        bytes
    }

    /// Reads what [`LeafProof::encode`] wrote, and nothing else. Whether it proves anything, [`LeafProof::verify`] says.
    ///
    /// # Errors
    /// [`DecodeError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let account = reader.account()?;
        let tally = Tally {
            weight: reader.weight()?,
            shares: u64::from_le_bytes(reader.take()?),
            evidence: Evidence::from_bytes(reader.take()?),
        };
        let index = u32::from_le_bytes(reader.take()?);
        let [steps] = reader.take()?;
        if usize::from(steps) > PROOF_STEPS_MAX {
            return Err(DecodeError::Steps);
        }
        let mut node = || {
            Ok(Node {
                hash: reader.take()?,
                sum: reader.weight()?,
            })
        };
        let siblings = (0..steps)
            .map(|_| node())
            .collect::<Result<_, DecodeError>>()?;
        reader.end()?;
        Ok(Self {
            account,
            tally,
            index,
            siblings,
        })
    }
}

#[cfg(test)]
mod tests;
