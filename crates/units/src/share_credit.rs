//! What a share's hashes earn, finer than money can be paid.

use crate::Msat;

/// What hashes earn, in parts of a millisatoshi of which [`ShareCredit::PER_MSAT`] are one. A share of a small device is
/// worth far less than a millisatoshi; sums of these lose nothing, and only a sum is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShareCredit(u128);

impl ShareCredit {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// A millisatoshi: 10^12, the places of a rate, times 2^20, the hashes that a rate is for.
    pub const PER_MSAT: u128 = 1_000_000_000_000 << 20;
    /// The most that a share can earn: more than all bitcoin there will be.
    pub const MAX: Self = Self(Self::PER_MSAT * i64::MAX as u128);

    /// This many parts, at most [`ShareCredit::MAX`].
    pub const fn new(parts: u128) -> Self {
        if parts > Self::MAX.0 {
            Self::MAX
        } else {
            Self(parts)
        }
    }

    /// The parts.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Whole millisatoshi, rounded down.
    pub fn to_msat(self) -> Msat {
        let msat = i64::try_from(self.0 / Self::PER_MSAT).unwrap_or(i64::MAX);
        Msat::new(msat)
    }

    /// The sum, at most [`ShareCredit::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self::new(self.0.saturating_add(other.0))
    }
}

/// Nothing for an amount below zero.
impl From<Msat> for ShareCredit {
    fn from(amount: Msat) -> Self {
        let msat = u128::try_from(amount.get()).unwrap_or(0);
        Self::new(msat.saturating_mul(Self::PER_MSAT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_amounts_are_kept_and_parts_are_rounded_down_last() {
        for msat in [0, 1, 12, i64::MAX] {
            assert_eq!(
                ShareCredit::from(Msat::new(msat)).to_msat(),
                Msat::new(msat)
            );
        }
        assert_eq!(ShareCredit::from(Msat::new(-1)), ShareCredit::ZERO);
        let third = ShareCredit::new(ShareCredit::PER_MSAT / 2);
        assert_eq!(third.to_msat(), Msat::ZERO);
        assert_eq!(third.saturating_add(third).to_msat(), Msat::new(1));
        assert_eq!(ShareCredit::new(u128::MAX), ShareCredit::MAX);
        assert_eq!(ShareCredit::MAX.saturating_add(third), ShareCredit::MAX);
    }
}
