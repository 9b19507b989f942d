//! The Merkle-sum tree of a slice: what each account weighs, and that no more was counted in all.

use std::ops::Range;

use dovetail_commitment::tagged_hash;

use crate::account::{ACCOUNT_BYTES_MAX, AccountId};
use crate::chain::{SliceHeader, SliceRoot};
use crate::encoding::{DecodeError, Reader};
use crate::evidence::{Evidence, Tally};
use crate::slice::Slice;
use crate::sums::{Levels, Node, ProofError, check_way, decode_way, encode_way};

/// The version of a proof's encoding.
const VERSION: u8 = 1;
/// The longest way up: the height of a tree of [`SLICE_ACCOUNTS_MAX`](crate::SLICE_ACCOUNTS_MAX) leaves.
pub const PROOF_STEPS_MAX: usize = 16;

fn leaf(account: &AccountId, tally: &Tally) -> Node {
    let parts: [&[u8]; 5] = [
        &[account.length()],
        account.as_bytes(),
        &tally.weight.to_bytes(),
        &tally.shares.to_le_bytes(),
        tally.evidence.as_bytes(),
    ];
    Node {
        hash: tagged_hash("dovetail/reward-leaf", &parts),
        sum: tally.weight,
    }
}

/// The tree over a closed slice, with all its nodes: to publish the header and to answer for each account.
#[derive(Debug, Clone)]
pub struct SumTree {
    slice: Slice,
    levels: Levels,
}

impl SumTree {
    /// Of this slice, its accounts in the order of their bytes. O(accounts).
    pub fn new(slice: Slice) -> Self {
        let leaves = slice.accounts().iter();
        let levels = Levels::over(
            leaves
                .map(|(account, tally)| leaf(account, tally))
                .collect(),
        );
        Self { slice, levels }
    }

    /// The slice.
    pub fn slice(&self) -> &Slice {
        &self.slice
    }

    /// What is published, on the slice before.
    pub fn header(&self, previous: SliceRoot) -> SliceHeader {
        SliceHeader {
            number: self.slice.number(),
            previous,
            accounts: u32::try_from(self.slice.accounts().len()).expect("at most 2^16"),
            total: self.slice.total(),
            top: self.levels.top().expect("a slice closes with a share").hash,
        }
    }

    /// The proof of an account's leaf, or `None` if it has no share in the slice. O(accounts), for finding its place.
    pub fn proof(&self, account: &AccountId) -> Option<LeafProof> {
        let tally = *self.slice.accounts().get(account)?;
        let index = self.slice.accounts().range(..account).count();
        Some(LeafProof {
            account: account.clone(),
            tally,
            index: u32::try_from(index).ok()?,
            siblings: self.levels.siblings(index),
        })
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
        if !header.is_plausible() {
            return Err(ProofError::Place);
        }
        let top = Node {
            hash: header.top,
            sum: header.total,
        };
        let leaf = leaf(&self.account, &self.tally);
        check_way(leaf, self.index, header.accounts, &self.siblings, &top)
    }

    /// Version, account behind its length, weight, shares, evidence, place, number of siblings, then each sibling's hash
    /// and sum. Integers are little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.account.length()];
        bytes.extend_from_slice(self.account.as_bytes());
        bytes.extend_from_slice(&self.tally.weight.to_bytes());
        bytes.extend_from_slice(&self.tally.shares.to_le_bytes());
        bytes.extend_from_slice(self.tally.evidence.as_bytes());
        encode_way(&mut bytes, self.index, &self.siblings);
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
        let (index, siblings) = decode_way(&mut reader, PROOF_STEPS_MAX)?;
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
