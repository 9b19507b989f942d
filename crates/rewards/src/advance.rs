//! What a coinbase may pay an account itself, ahead of the division of its block. A coinbase is fixed when its job is made,
//! and the block is divided over the window when it is found, so what is paid ahead must stay below the part that the
//! account is given then.
//!
//! Between the two, the window moves by what is mined meanwhile, and what leaves it takes an account's weight along. Fees
//! come and go with each template. So it is reckoned from the subsidy alone, with a margin for the window.

use crate::division::PoolFee;
use crate::proportion::proportion;
use crate::weight::Weight;
use crate::window::WindowLength;

/// What is left of the part for the window to move, in millionths: a tenth. While a job is mined, a tenth of the window would
/// have to be mined at least before an account's part is less than what it was paid. With a window of 8 difficulties that
/// takes a pool of the whole network eight minutes, and one of a tenth of it more than an hour.
const MARGIN: u128 = 100_000;
const WHOLE: u128 = 1_000_000;
const MSAT_PER_SAT: u128 = 1_000;

/// What accounts are paid ahead of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdvanceTerms {
    /// What the block pays at least, in satoshi: its subsidy.
    pub subsidy_sat: u64,
    /// What the pool keeps of it.
    pub fee: PoolFee,
    /// How much a full window holds.
    pub length: WindowLength,
    /// What the window holds now.
    pub window: Weight,
}

impl AdvanceTerms {
    /// Whether accounts are paid ahead at all. A window that is not full grows, and every part of it shrinks.
    fn is_full(&self) -> bool {
        self.window.get() >= u128::from(self.length.get()) * Weight::PER_DIFFICULTY.get()
    }

    /// What an account of this weight is paid ahead, in satoshi: nine tenths of its part of the subsidy, rounded down; nothing
    /// if the window is not full.
    pub fn sat(&self, weight: Weight) -> u64 {
        if !self.is_full() || weight > self.window {
            return 0;
        }
        let subsidy = u128::from(self.subsidy_sat) * MSAT_PER_SAT;
        let rest = subsidy - self.fee.of(subsidy);
        let part = proportion(rest, weight.get(), self.window.get()).quotient;
        // A part of an amount of 64 bits and three digits, so the product fits.
        let ahead = part * (WHOLE - MARGIN) / WHOLE / MSAT_PER_SAT;
        u64::try_from(ahead).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountId;
    use crate::division::by_weight;
    use crate::weights::Weights;
    use dovetail_units::Msat;
    use proptest::prelude::*;

    const DIFFICULTY: u128 = Weight::PER_DIFFICULTY.get();

    fn terms(subsidy_sat: u64, fee: u32, window: u128) -> AdvanceTerms {
        AdvanceTerms {
            subsidy_sat,
            fee: PoolFee::from_millionths(fee).unwrap(),
            length: WindowLength::default(),
            window: Weight::new(window).unwrap(),
        }
    }

    #[test]
    fn nine_tenths_of_a_part_are_paid_ahead_and_nothing_of_a_window_that_is_not_full() {
        let full = terms(312_500_000, 10_000, 8 * DIFFICULTY);
        let quarter = Weight::new(2 * DIFFICULTY).unwrap();
        // 0.99 * 312,500,000 / 4 * 0.9.
        assert_eq!(full.sat(quarter), 69_609_375);
        assert_eq!(full.sat(Weight::ZERO), 0);
        let young = terms(312_500_000, 10_000, 8 * DIFFICULTY - 1);
        assert_eq!(young.sat(quarter), 0);
        assert_eq!(
            terms(u64::MAX, 0, 1 << 120).sat(Weight::MAX),
            u64::MAX / 10 * 9 + 4
        );
    }

    proptest! {
        /// Whatever else the window holds, and whatever more the block pays: while less than a tenth of the window is replaced,
        /// no part is smaller than what was paid ahead.
        #[test]
        fn what_is_paid_ahead_stays_below_the_part_while_a_tenth_of_the_window_moves(
            subsidy in 0..2_100_000_000_000_000_u64,
            fees in 0..100_000_000_000_u64,
            fee in 0..=1_000_000_u32,
            total in 8 * DIFFICULTY..1 << 119,
            own in any::<u64>(),
            gone in 0..100_000_u64,
        ) {
            let own = proportion(total, own.into(), u64::MAX.into()).quotient.max(1);
            let terms = terms(subsidy, fee, total);
            let ahead = terms.sat(Weight::new(own).unwrap());
            // Of the account's weight, so much has left, and somebody else has mined as much.
            let left = own - own / 1_000_000 * u128::from(gone);
            let mut weights = Weights::default();
            let [me, other] = ["me", "other"].map(|name| AccountId::new(name).unwrap());
            weights.add(&me, Weight::new(left).unwrap()).unwrap();
            if total > left {
                weights.add(&other, Weight::new(total - left).unwrap()).unwrap();
            }
            let reward = Msat::new(i64::try_from((u128::from(subsidy) + u128::from(fees)) * 1_000).unwrap());
            let division = by_weight(reward, terms.fee, &weights).unwrap();
            let part = division.credits.iter().find(|credit| credit.account == me);
            let part = part.map_or(0, |credit| credit.amount.get());
            prop_assert!(i128::from(ahead) * 1_000 <= i128::from(part), "{ahead} sat of {part} msat");
        }
    }
}
