//! An account's part of a block, from what its pool has published: what a miner checks offline.
//!
//! It shows that the pool has signed these weights, that the window is as long as the rule says, and what the account gets
//! by them. It does not show what needs more than this: that the reward is what the block's coinbase pays, that no leaf of
//! the account was left out, and which of the accounts got the few msat that rounding leaves (all leaves would tell).

use dovetail_commitment::is_signed;
use dovetail_units::Msat;

use crate::account::AccountId;
use crate::chain::{ChainBroken, SliceHeader, SliceRoot, check_chain};
use crate::division::{DivisionError, PoolFee, msat, without_fee};
use crate::proportion::proportion;
use crate::sums::ProofError;
use crate::tree::LeafProof;
use crate::weight::Weight;
use crate::window::{Window, WindowError, WindowLength, WindowSlice};

/// What a block pays, as its pool has published it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockTerms {
    /// What its coinbase pays the pool.
    pub reward: Msat,
    /// What the pool keeps of it ..
    pub fee: Msat,
    /// .. and which part of the reward that is.
    pub fee_part: PoolFee,
}

/// The window that a block was divided over, as its pool has published it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowTerms {
    /// Its oldest slice.
    pub first: u64,
    /// Its newest slice.
    pub last: u64,
    /// How much it holds, once so much was mined.
    pub length: WindowLength,
}

/// A leaf, and the slice that it is said to stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceLeaf {
    /// The slice.
    pub slice: u64,
    /// The leaf, with its way to the slice's header.
    pub proof: LeafProof,
}

/// All that shows an account's part of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartProof {
    /// What the block pays.
    pub terms: BlockTerms,
    /// What it was divided over.
    pub window: WindowTerms,
    /// The headers of the window's slices, the oldest first.
    pub headers: Vec<SliceHeader>,
    /// Who has signed the newest slice's root. Whether that is the pool is for the caller to know.
    pub signer: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
    /// Whose part it is.
    pub account: AccountId,
    /// The account's leaves, the oldest first; none for slices in which it has no work.
    pub leaves: Vec<SliceLeaf>,
}

/// An account's part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What the account weighs in the window ..
    pub weight: Weight,
    /// .. of so much.
    pub of: Weight,
    /// Whether the window holds its length. If not, it is all slices from slice 0 on: a pool whose chain of slices is young,
    /// or one that has begun another.
    pub is_full: bool,
    /// How many shares the weight is made of. At most `u64::MAX`, which no account has.
    pub shares: u64,
    /// What the accounts of the window get together.
    pub rest: Msat,
    /// The part, rounded down.
    pub least: Msat,
    /// The part with the msat that the largest remainders get: the same as `least` if there is no remainder.
    pub most: Msat,
}

impl Part {
    /// Whether this may be what the account got. Which accounts get the msat that rounding leaves cannot be decided without
    /// the weights of all.
    pub fn allows(&self, amount: Msat) -> bool {
        (self.least..=self.most).contains(&amount)
    }
}

/// Why what was published does not show a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The reward is less than nothing.
    #[error(transparent)]
    Reward(#[from] DivisionError),
    /// The pool keeps another part than it says.
    #[error("the fee should be {expected}")]
    Fee {
        /// What it should keep.
        expected: Msat,
    },
    /// Headers are missing, or there are others.
    #[error("the headers are not those of the window's first slice up to its last")]
    Headers,
    /// The headers do not follow on each other.
    #[error(transparent)]
    Chain(#[from] ChainBroken),
    /// The newest root is not signed.
    #[error("the key has not signed the root of the newest slice")]
    Signature,
    /// A slice is none that a window can have.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The newest slices hold enough without the oldest.
    #[error("the window holds its length without slice {0}")]
    WindowTooLong(u64),
    /// Older slices are missing.
    #[error("the window does not hold its length, and there are slices before slice {0}")]
    WindowTooShort(u64),
    /// A leaf of a slice that is not in the window, or two of one slice.
    #[error("the leaf of slice {0} is none of the window, or comes twice or too late")]
    LeafPlace(u64),
    /// A leaf of somebody else.
    #[error("the leaf of slice {0} is another account's")]
    LeafAccount(u64),
    /// A leaf that is not in its slice.
    #[error("slice {slice}: {error}")]
    Leaf {
        /// The slice.
        slice: u64,
        /// Why it is not.
        error: ProofError,
    },
}

impl BlockTerms {
    /// What the miners get of it together, if the fee is what it should be. If a block has no window, its finder gets it all.
    ///
    /// # Errors
    /// [`PartError::Reward`] and [`PartError::Fee`].
    pub fn rest(&self) -> Result<Msat, PartError> {
        let (fee, rest) = without_fee(self.reward, self.fee_part)?;
        let expected = msat(fee);
        match self.fee == expected {
            true => Ok(msat(rest)),
            false => Err(PartError::Fee { expected }),
        }
    }
}

impl PartProof {
    /// Checks all of it, in the order of [`PartError`]. O(headers), and at most 17 hashes for each leaf.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<Part, PartError> {
        let rest = self.terms.rest()?;
        let newest = self.check_headers()?;
        if !is_signed(&self.signer, newest.as_bytes(), &self.signature) {
            return Err(PartError::Signature);
        }
        let window = self.check_window()?;
        let (weight, shares) = self.check_leaves()?;
        let whole = u128::try_from(rest.get()).expect("checked above");
        // A leaf weighs no more than its slice, and each slice has one at most.
        let part = proportion(whole, weight.get(), window.total().get());
        let more = u128::from(part.remainder > 0);
        Ok(Part {
            weight,
            of: window.total(),
            is_full: window.is_full(),
            shares,
            rest,
            least: msat(part.quotient),
            most: msat(part.quotient + more),
        })
    }

    /// The root of the newest slice, which binds all.
    fn check_headers(&self) -> Result<SliceRoot, PartError> {
        let (first, last) = (self.headers.first(), self.headers.last());
        let (first, last) = first.zip(last).ok_or(PartError::Headers)?;
        if (first.number, last.number) != (self.window.first, self.window.last) {
            return Err(PartError::Headers);
        }
        check_chain(&self.headers)?;
        Ok(last.root())
    }

    /// The window, which is that of the headers.
    fn check_window(&self) -> Result<Window, PartError> {
        let slices = self.headers.iter().rev().map(|header| WindowSlice {
            number: header.number,
            total: header.total,
        });
        let window = Window::from_newest(self.window.length, slices)?;
        if window.slices().len() < self.headers.len() {
            return Err(PartError::WindowTooLong(self.window.first));
        }
        // Before so much was mined, the window is all slices.
        if !window.is_full() && self.window.first > 0 {
            return Err(PartError::WindowTooShort(self.window.first));
        }
        Ok(window)
    }

    /// What the leaves weigh, and how many shares they are made of.
    fn check_leaves(&self) -> Result<(Weight, u64), PartError> {
        let (mut weight, mut shares) = (Weight::ZERO, 0_u64);
        let mut next = self.window.first;
        for SliceLeaf { slice, proof } in &self.leaves {
            let misplaced = PartError::LeafPlace(*slice);
            let place = slice.checked_sub(self.window.first).ok_or(misplaced)?;
            let place = usize::try_from(place).map_err(|_| misplaced)?;
            let header = self.headers.get(place).ok_or(misplaced)?;
            if *slice < next {
                return Err(misplaced);
            }
            if proof.account != self.account {
                return Err(PartError::LeafAccount(*slice));
            }
            proof.verify(header).map_err(|error| PartError::Leaf {
                slice: *slice,
                error,
            })?;
            let sum = weight.checked_add(proof.tally.weight);
            weight = sum.expect("parts of the window's total");
            shares = shares.saturating_add(proof.tally.shares);
            // Above the newest slice of all there can be, none is in the window.
            next = slice.saturating_add(1);
        }
        Ok((weight, shares))
    }
}

#[cfg(test)]
mod tests;
