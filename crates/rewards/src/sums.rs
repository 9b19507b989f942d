//! Merkle-sum trees, whatever their leaves are: the nodes, the way from a leaf to the top, and where a leaf lies.
//!
//! The idea is G. Maxwell's, as P. Todd and others wrote it down for proofs of an exchange's liabilities. There a node
//! hashed only the sum of its children, so a parent could be given two readings and leaves could be hidden (K. Hu, Z. Zhang,
//! K. Guo, "Breaking the Binding", eprint 2018/1139). Here a branch hashes the sum of each child, sums have no sign and a
//! bound, leaves, branches and what is signed have tags of their own, and an odd node moves up rather than being doubled.

use std::ops::Range;

use dovetail_commitment::tagged_hash;

use crate::encoding::{DecodeError, Reader};
use crate::weight::{Weight, WeightTooLarge};

/// A node as its parent binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its hash.
    pub hash: [u8; 32],
    /// What all leaves under it come to; more than nothing.
    pub sum: Weight,
}

/// Why a proof is none for this top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No such leaf, or no such tree.
    #[error("there is no leaf at this place")]
    Place,
    /// Too few siblings, or too many.
    #[error("the proof has another length than the way to the top")]
    Steps,
    /// A leaf or a sibling that comes to nothing.
    #[error("a node weighs nothing")]
    Empty,
    /// The sums do not lead to that at the top.
    #[error("the sums do not add up to the top's")]
    Sum,
    /// The hashes do not lead to that at the top.
    #[error("the hashes do not lead to the top's")]
    Hash,
}

impl Node {
    pub(crate) fn branch(left: &Self, right: &Self) -> Result<Self, WeightTooLarge> {
        let sums = [left.sum, right.sum].map(Weight::to_bytes);
        let parts: [&[u8]; 4] = [&left.hash, &sums[0], &right.hash, &sums[1]];
        Ok(Self {
            hash: tagged_hash("dovetail/reward-branch", &parts),
            sum: left.sum.checked_add(right.sum)?,
        })
    }
}

/// All nodes over some leaves, from the leaves to the top. The sum of all leaves is a weight.
#[derive(Debug, Clone)]
pub(crate) struct Levels(pub(crate) Vec<Vec<Node>>);

impl Levels {
    /// O(leaves).
    pub(crate) fn over(leaves: Vec<Node>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last()
            && level.len() > 1
        {
            levels.push(level.chunks(2).map(parent).collect());
        }
        Self(levels)
    }

    /// The node at the top; `None` over no leaves.
    pub(crate) fn top(&self) -> Option<&Node> {
        self.0.last().and_then(|level| level.first())
    }

    /// The siblings of the leaf at this place and of the nodes above it; levels where a node moves up alone have none.
    pub(crate) fn siblings(&self, index: usize) -> Vec<Node> {
        let mut place = index;
        let mut siblings = Vec::new();
        for level in &self.0 {
            siblings.extend(level.get(place ^ 1));
            place /= 2;
        }
        siblings
    }
}

pub(crate) fn parent(pair: &[Node]) -> Node {
    match pair {
        [left, right] => Node::branch(left, right).expect("parts of a sum that is a weight"),
        [promoted] => *promoted,
        _ => unreachable!("chunks of 2 have one or two nodes"),
    }
}

/// Checks that this leaf stands at this place of a tree of so many leaves with this top. Returns where it lies in the sum,
/// from 0: what the leaves before it come to, up to that and its own. Under one top, two leaves never overlap.
///
/// # Errors
/// [`ProofError`].
pub(crate) fn check_way(
    leaf: Node,
    index: u32,
    leaves: u32,
    siblings: &[Node],
    top: &Node,
) -> Result<Range<u128>, ProofError> {
    if index >= leaves {
        return Err(ProofError::Place);
    }
    let (mut place, mut width) = (index, leaves);
    let mut node = leaf;
    let mut before = Weight::ZERO;
    let mut siblings = siblings.iter();
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
    if leaf.sum == Weight::ZERO {
        return Err(ProofError::Empty);
    }
    if node.sum != top.sum {
        return Err(ProofError::Sum);
    }
    if node.hash != top.hash {
        return Err(ProofError::Hash);
    }
    Ok(before.get()..before.get() + leaf.sum.get())
}

/// The place of a leaf and its siblings: place, number of siblings, then each one's hash and sum.
pub(crate) fn encode_way(bytes: &mut Vec<u8>, index: u32, siblings: &[Node]) {
    bytes.extend_from_slice(&index.to_le_bytes());
    // A tree makes no more than its height; a longer list, made by hand, is one that no reader takes.
    bytes.push(u8::try_from(siblings.len()).unwrap_or(u8::MAX));
    for sibling in siblings {
        bytes.extend_from_slice(&sibling.hash);
        bytes.extend_from_slice(&sibling.sum.to_bytes());
    }
}

/// Reads what [`encode_way`] wrote, with at most so many siblings.
pub(crate) fn decode_way(
    reader: &mut Reader<'_>,
    steps_max: usize,
) -> Result<(u32, Vec<Node>), DecodeError> {
    let index = u32::from_le_bytes(reader.take()?);
    let [steps] = reader.take()?;
    if usize::from(steps) > steps_max {
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
    Ok((index, siblings))
}
