//! What a share weighs: how likely it is to solve a block, times what its block would bring beside the pool's own.
//!
//! Measuring work in difficulties *of the share's own header* is unit-PPLNS: M. Rosenfeld, "Analysis of Bitcoin Pooled
//! Mining Reward Systems" (2011, arXiv:1112.4980), 5.2 and 5.3. Work of before and after a change of the network's target
//! can be added then, and no share gains or loses by the change. Jobs of different value: 7.2 there.

use dovetail_units::Work;

use crate::proportion::{TOTAL_MAX, proportion};

/// An amount of weight, at most [`Weight::MAX`]. [`Weight::PER_DIFFICULTY`] is one block that is expected, of the value of
/// the pool's own template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Weight(u128);

/// More than [`Weight::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a weight is at most 2^120")]
pub struct WeightTooLarge;

impl Weight {
    /// None.
    pub const ZERO: Self = Self(0);
    /// The weight of work that is expected to solve one block: 2^100. Today's network needs 2^79 hashes for a block, so
    /// a hash weighs 2^21, and rounding a share down to a whole number costs nothing that could be paid.
    pub const PER_DIFFICULTY: Self = Self(1 << 100);
    /// The largest sum: 2^120, a million difficulties, a thousand of the largest windows.
    pub const MAX: Self = Self(1 << 120);

    /// So much weight.
    ///
    /// # Errors
    /// [`WeightTooLarge`].
    pub const fn new(weight: u128) -> Result<Self, WeightTooLarge> {
        match weight <= Self::MAX.0 {
            true => Ok(Self(weight)),
            false => Err(WeightTooLarge),
        }
    }

    /// The number, 0 to 2^120.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`WeightTooLarge`].
    pub const fn checked_add(self, other: Self) -> Result<Self, WeightTooLarge> {
        // Both are at most 2^120.
        Self::new(self.0 + other.0)
    }

    /// The difference, unless it is below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// 16 bytes, little-endian.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// What is known of a share when it is accepted. All of it is fixed before its hash is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareTerms {
    /// Hashes that are expected for a share of its target.
    pub work: Work,
    /// Hashes that are expected for a block: of the network's target in the share's own header. Not the one that Bitcoin
    /// calls difficulty, which counts in 2^32 hashes.
    pub block_work: Work,
    /// `V`: what the job's coinbase pays the pool, in satoshi.
    pub value_sat: u64,
    /// `V_ref`: what the pool's own template would pay it at the time of the share, in satoshi.
    pub reference_sat: u64,
}

/// The network's target is none that a block could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block takes 1 to 2^126 - 1 hashes")]
pub struct BlockWorkOutOfRange;

impl ShareTerms {
    /// `2^100 * min(work, block_work) / block_work * min(V, V_ref) / V_ref`, where each of the two divisions rounds down:
    /// less than 2 below the exact number, and at most [`Weight::PER_DIFFICULTY`].
    ///
    /// A share whose target is below the network's solves a block each time, and no more than one: it weighs one
    /// difficulty. If the reference is 0 (a test chain whose subsidy has ended), all jobs are worth as much as it.
    ///
    /// # Errors
    /// [`BlockWorkOutOfRange`].
    pub fn weight(&self) -> Result<Weight, BlockWorkOutOfRange> {
        let block_work = self.block_work.get();
        if !(1..=TOTAL_MAX).contains(&block_work) {
            return Err(BlockWorkOutOfRange);
        }
        let work = self.work.get().min(block_work);
        let blocks = proportion(Weight::PER_DIFFICULTY.0, work, block_work).quotient;
        let reference = u128::from(self.reference_sat);
        let value = u128::from(self.value_sat).min(reference);
        if value == reference {
            return Ok(Weight(blocks));
        }
        Ok(Weight(proportion(blocks, value, reference).quotient))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weight(work: u128, block_work: u128, value_sat: u64, reference_sat: u64) -> u128 {
        let terms = ShareTerms {
            work: Work::new(work),
            block_work: Work::new(block_work),
            value_sat,
            reference_sat,
        };
        terms.weight().unwrap().get()
    }

    const ONE: u128 = Weight::PER_DIFFICULTY.0;

    #[test]
    fn a_share_weighs_its_part_of_a_block_and_its_job_s_part_of_the_reference() {
        assert_eq!(weight(1, 4, 100, 100), ONE / 4);
        assert_eq!(weight(1, 4, 50, 100), ONE / 8);
        assert_eq!(weight(1, 4, 0, 100), 0);
        assert_eq!(weight(0, 4, 100, 100), 0);
        // More than the reference counts as the reference.
        assert_eq!(weight(1, 4, 101, 100), ONE / 4);
        assert_eq!(weight(1, 4, u64::MAX, 1), ONE / 4);
        // Nothing to compare with.
        assert_eq!(weight(1, 4, 0, 0), ONE / 4);
        assert_eq!(weight(1, 4, 7, 0), ONE / 4);
    }

    #[test]
    fn a_share_that_is_harder_than_a_block_weighs_one_block() {
        assert_eq!(weight(4, 4, 1, 1), ONE);
        assert_eq!(weight(5, 4, 1, 1), ONE);
        assert_eq!(weight(u128::MAX, 1, 1, 1), ONE);
    }

    #[test]
    fn a_target_that_no_block_could_have_is_refused() {
        for block_work in [0, 1 << 126, u128::MAX] {
            let terms = ShareTerms {
                work: Work::new(1),
                block_work: Work::new(block_work),
                value_sat: 1,
                reference_sat: 1,
            };
            assert_eq!(terms.weight(), Err(BlockWorkOutOfRange));
        }
        assert_eq!(weight(TOTAL_MAX, TOTAL_MAX, 1, 1), ONE);
    }

    #[test]
    fn sums_end_at_the_largest_weight() {
        assert_eq!(Weight::MAX.checked_add(Weight(1)), Err(WeightTooLarge));
        assert_eq!(Weight::MAX.checked_add(Weight::ZERO), Ok(Weight::MAX));
        assert_eq!(Weight(1).checked_sub(Weight(2)), None);
    }

    proptest! {
        #[test]
        fn rounding_takes_less_than_two(work in 1_u64.., block_work in 1_u64.., value in 0_u64..=2_100_000_000_000_000, reference in 1_u64..=2_100_000_000_000_000) {
            let found = weight(work.into(), block_work.into(), value, reference);
            let (work, value) = (work.min(block_work), value.min(reference));
            // exact = b * value / reference, with b = 2^100 * work / block_work in [blocks, blocks + 1).
            let blocks = proportion(ONE, work.into(), block_work.into()).quotient;
            let [least, most] = [blocks, blocks + 1].map(|b| proportion(b, value.into(), reference.into()));
            prop_assert_eq!(found, least.quotient);
            prop_assert!(most.quotient < found + 2);
        }

        #[test]
        fn more_work_or_more_value_never_weighs_less(work: u64, more: u64, block_work in 1_u128..1 << 100, value: u64, reference: u64) {
            let of = |work: u64, value| weight(work.into(), block_work, value, reference);
            prop_assert!(of(work, value) <= of(work.saturating_add(more), value));
            prop_assert!(of(work, value) <= of(work, value.saturating_add(more)));
            prop_assert!(of(work, value) <= ONE);
        }
    }
}
