//! Reading the bytes that travel to miners and auditors. Each format has a version or a fixed length, one encoding for
//! each value, and no length in it takes memory before the bytes are there.

use crate::account::{AccountId, AccountLength};
use crate::weight::{Weight, WeightTooLarge};

/// Why bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too few bytes, or some left over.
    #[error("the bytes end too early, or go on behind the end")]
    Length,
    /// A version that this code does not know.
    #[error("unknown version {0}")]
    Version(u8),
    /// An account without a name.
    #[error(transparent)]
    Account(#[from] AccountLength),
    /// A sum that no honest pool reaches.
    #[error(transparent)]
    Weight(#[from] WeightTooLarge),
    /// More steps than the largest tree has.
    #[error("the proof is longer than a tree is high")]
    Steps,
}

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        let [version] = self.take()?;
        match version == known {
            true => Ok(()),
            false => Err(DecodeError::Version(version)),
        }
    }

    pub(crate) fn weight(&mut self) -> Result<Weight, DecodeError> {
        Ok(Weight::new(u128::from_le_bytes(self.take()?))?)
    }

    /// An account behind its length.
    pub(crate) fn account(&mut self) -> Result<AccountId, DecodeError> {
        let [length] = self.take()?;
        let (account, rest) = self
            .0
            .split_at_checked(usize::from(length))
            .ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(AccountId::new(account)?)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(DecodeError::Length),
        }
    }
}
