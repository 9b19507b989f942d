//! Work that was proven or is asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of work: the hashes that are expected for a target, `2^256 / (target + 1)`, or a sum of such.
/// More than 2^128 of them is more than the whole chain holds, so a sum that overflows is a mistake or an attack.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Work(u128);

impl Work {
    /// None.
    pub const ZERO: Self = Self(0);

    /// This many expected hashes.
    pub const fn new(hashes: u128) -> Self {
        Self(hashes)
    }

    /// Of 256 bits, big-endian, as a target's work is computed. Saturates at 2^128 - 1.
    pub fn from_be_bytes(bytes: [u8; 32]) -> Self {
        let [high, low] = [0, 16].map(|at| {
            let half = bytes[at..at + 16].try_into().expect("half of 32 bytes");
            u128::from_be_bytes(half)
        });
        Self(if high == 0 { low } else { u128::MAX })
    }

    /// The number of hashes.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The number of hashes where only 64 bits are at hand (events, statistics). Saturates.
    pub fn to_u64(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }

    /// The sum, unless it overflows: for what is paid by.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The sum, or the largest number: for estimates and statistics.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hashes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_more_than_128_bits_saturates() {
        let mut bytes = [0; 32];
        bytes[30] = 1;
        assert_eq!(Work::from_be_bytes(bytes), Work::new(256));
        bytes[15] = 1;
        assert_eq!(Work::from_be_bytes(bytes), Work::new(u128::MAX));
        assert_eq!(Work::from_be_bytes([0; 32]), Work::ZERO);
    }

    #[test]
    fn sums_say_when_they_overflow_or_stay_at_the_largest_number() {
        let largest = Work::new(u128::MAX);
        assert_eq!(largest.checked_add(Work::new(1)), None);
        assert_eq!(largest.saturating_add(Work::new(1)), largest);
        assert_eq!(Work::new(2).checked_add(Work::new(3)), Some(Work::new(5)));
        assert_eq!((largest.to_u64(), Work::new(7).to_u64()), (u64::MAX, 7));
    }
}
