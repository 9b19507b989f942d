//! A worker's wish to be paid later, and to be audited less for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Msat;

/// How much of a worker's credit it leaves held although that could mature: 0 unless it says otherwise. A number of its
/// own, so that no mistake in a configuration keeps more than [`KeptCredit::MAX`] from anybody.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct KeptCredit(u64);

/// A wish above [`KeptCredit::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptTooMuch;

impl fmt::Display for KeptTooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {} msat may be kept, which is one bitcoin",
            KeptCredit::MAX
        )
    }
}

impl std::error::Error for KeptTooMuch {}

impl KeptCredit {
    /// The most that may be kept, in msat.
    pub const MAX: u64 = 100_000_000_000;

    /// Nothing: credit matures as soon as it can.
    pub const NONE: Self = Self(0);

    /// So many msat.
    ///
    /// # Errors
    /// [`KeptTooMuch`].
    pub const fn new(msat: u64) -> Result<Self, KeptTooMuch> {
        if msat > Self::MAX {
            return Err(KeptTooMuch);
        }
        Ok(Self(msat))
    }

    /// As the wire has it, in msat.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As an amount.
    pub fn msat(self) -> Msat {
        Msat::new(i64::try_from(self.0).expect("at most KeptCredit::MAX"))
    }
}

impl TryFrom<u64> for KeptCredit {
    type Error = KeptTooMuch;

    fn try_from(msat: u64) -> Result<Self, KeptTooMuch> {
        Self::new(msat)
    }
}

impl From<KeptCredit> for u64 {
    fn from(kept: KeptCredit) -> Self {
        kept.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_one_bitcoin_is_kept() {
        let most = KeptCredit::new(KeptCredit::MAX).unwrap();
        assert_eq!(most.msat(), Msat::new(100_000_000_000));
        assert_eq!(KeptCredit::new(KeptCredit::MAX + 1), Err(KeptTooMuch));
        assert_eq!(KeptCredit::new(u64::MAX), Err(KeptTooMuch));
        assert_eq!(KeptCredit::NONE.msat(), Msat::ZERO);
        assert_eq!(KeptCredit::default(), KeptCredit::NONE);
    }
}
