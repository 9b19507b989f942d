//! Amounts of money.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount in millisatoshi. Arithmetic is checked; there is no operator that could overflow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Msat(i64);

impl Msat {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// This many millisatoshi.
    pub const fn new(msat: i64) -> Self {
        Self(msat)
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, unless it overflows.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, unless it overflows.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}
