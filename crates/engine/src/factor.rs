//! A factor that takes exact sums back to Q16.

/// A positive factor `mantissa / 2^shift` with 2^30 <= mantissa < 2^31, or zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Factor {
    pub(crate) mantissa: u32,
    pub(crate) shift: u32,
}

impl Factor {
    pub(crate) const ZERO: Self = Self {
        mantissa: 0,
        shift: 62,
    };

    /// `numerator / denominator` rounded down to 31 bits. Both are below 2^90 and the quotient lies
    /// between 2^-90 and 2^29, so that the shift is at least 1.
    pub(crate) fn of(numerator: u128, denominator: u128) -> Self {
        if numerator == 0 || denominator == 0 {
            return Self::ZERO;
        }
        // A first guess of the shift from the lengths, then one step where it was one too many.
        let length = |n: u128| 128 - n.leading_zeros();
        let mut shift = (31 + length(denominator)).saturating_sub(length(numerator));
        let scaled = |shift: u32| (numerator << shift) / denominator;
        if scaled(shift) >= 1 << 31 {
            shift = shift.saturating_sub(1);
        }
        Self {
            mantissa: u32::try_from(scaled(shift)).unwrap_or(u32::MAX >> 1),
            shift,
        }
    }

    /// This times 2^doublings. The caller knows that the shift stays at least 1.
    pub(crate) fn doubled(self, doublings: u32) -> Self {
        if self.mantissa == 0 {
            return self;
        }
        debug_assert!(self.shift > doublings);
        Self {
            mantissa: self.mantissa,
            shift: self.shift.saturating_sub(doublings).max(1),
        }
    }
}
