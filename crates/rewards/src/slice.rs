//! Slices: shares in the order in which they were accepted, cut where enough weight has come together. Time has no part
//! in it, so nobody gains by choosing one. Cutting the window of PPLNS into slices is the idea of SLICE (DMND,
//! <https://blog.dmnd.work/understanding-slice-pplns-jd>); there jobs are scored by their fees within a slice, here each
//! share has its job's value in its weight.

use std::collections::BTreeMap;

use crate::account::AccountId;
use crate::evidence::{CountedShare, Tally};
use crate::weight::Weight;

/// The most accounts of a slice. A slice that has them closes before its weight is full: identities are free, and the
/// memory and the proofs of an open slice are not.
pub const SLICE_ACCOUNTS_MAX: usize = 1 << 16;

/// The slice that shares are added to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSlice {
    number: u64,
    size: Weight,
    accounts: BTreeMap<AccountId, Tally>,
    total: Weight,
}

/// A slice that has closed, and does not change any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    number: u64,
    accounts: BTreeMap<AccountId, Tally>,
    total: Weight,
}

/// Why a share is not added, or a slice not taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// A slice of no weight would close with every share, and one of more than a difficulty holds back too much.
    #[error("a slice holds more than nothing and at most one difficulty")]
    Size,
    /// Above [`Weight::PER_DIFFICULTY`], which no share weighs.
    #[error("a share weighs at most one difficulty")]
    Share,
    /// What was kept is no open slice: full, of too many accounts, an account twice or without weight.
    #[error("the accounts are not those of an open slice")]
    NotOpen,
    /// No accounts, too many, one twice, or one without weight.
    #[error("the accounts are not those of a closed slice")]
    NotClosed,
}

impl OpenSlice {
    /// A slice of this number, which closes once it holds `size`: [`Slice::SIZE`], unless a test chain wants other ones.
    ///
    /// # Errors
    /// [`SliceError::Size`].
    pub fn new(number: u64, size: Weight) -> Result<Self, SliceError> {
        match size > Weight::ZERO && size <= Weight::PER_DIFFICULTY {
            true => Ok(Self::empty(number, size)),
            false => Err(SliceError::Size),
        }
    }

    fn empty(number: u64, size: Weight) -> Self {
        Self {
            number,
            size,
            accounts: BTreeMap::new(),
            total: Weight::ZERO,
        }
    }

    /// The slice as it was when it was last kept, for a pool that starts again.
    ///
    /// # Errors
    /// [`SliceError::Size`] and [`SliceError::NotOpen`].
    pub fn resume(
        number: u64,
        size: Weight,
        accounts: impl IntoIterator<Item = (AccountId, Tally)>,
    ) -> Result<Self, SliceError> {
        let mut slice = Self::new(number, size)?;
        for (account, tally) in accounts {
            let total = slice.total.checked_add(tally.weight);
            slice.total = total.map_err(|_| SliceError::NotOpen)?;
            let before = slice.accounts.insert(account, tally);
            if before.is_some() || tally.weight == Weight::ZERO || slice.is_full() {
                return Err(SliceError::NotOpen);
            }
        }
        Ok(slice)
    }

    /// Counts a share. If that fills the slice, it closes: the closed one is returned, and this is the next.
    ///
    /// A share counts whole in the slice that it fills, however much it overfills it. So each header is counted in one
    /// slice, a share closes one slice at most on any network, and a slice holds less than its size and one share more.
    /// A share that weighs nothing is no part of a slice.
    ///
    /// # Errors
    /// [`SliceError::Share`]; then nothing has changed.
    pub fn add(
        &mut self,
        account: &AccountId,
        share: &CountedShare,
    ) -> Result<Option<Slice>, SliceError> {
        if share.weight > Weight::PER_DIFFICULTY {
            return Err(SliceError::Share);
        }
        if share.weight == Weight::ZERO {
            return Ok(None);
        }
        let bounded = "less than the size and a share, each at most one difficulty";
        let before = self.accounts.get(account).copied();
        let tally = before.unwrap_or_else(|| Tally::none(self.number, account));
        let tally = tally.with(share).expect(bounded);
        self.accounts.insert(account.clone(), tally);
        self.total = self.total.checked_add(share.weight).expect(bounded);
        Ok(self.is_full().then(|| self.close()))
    }

    fn is_full(&self) -> bool {
        self.total >= self.size || self.accounts.len() >= SLICE_ACCOUNTS_MAX
    }

    fn close(&mut self) -> Slice {
        let next = self.number.checked_add(1).expect("a share for each slice");
        let full = std::mem::replace(self, Self::empty(next, self.size));
        Slice {
            number: full.number,
            accounts: full.accounts,
            total: full.total,
        }
    }

    /// The number of the slice: one more than that of the slice before.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it holds so far.
    pub fn total(&self) -> Weight {
        self.total
    }

    /// The accounts so far, in the order of their bytes.
    pub fn accounts(&self) -> &BTreeMap<AccountId, Tally> {
        &self.accounts
    }
}

impl Slice {
    /// A closed slice from where it was kept.
    ///
    /// # Errors
    /// [`SliceError::NotClosed`] if an account comes twice or weighs nothing, or there is none.
    pub fn from_parts(
        number: u64,
        parts: impl IntoIterator<Item = (AccountId, Tally)>,
    ) -> Result<Self, SliceError> {
        let (mut accounts, mut total) = (BTreeMap::new(), Weight::ZERO);
        for (account, tally) in parts {
            let sum = total.checked_add(tally.weight);
            total = sum.map_err(|_| SliceError::NotClosed)?;
            if accounts.insert(account, tally).is_some() || tally.weight == Weight::ZERO {
                return Err(SliceError::NotClosed);
            }
        }
        match (1..=SLICE_ACCOUNTS_MAX).contains(&accounts.len()) {
            true => Ok(Self {
                number,
                accounts,
                total,
            }),
            false => Err(SliceError::NotClosed),
        }
    }

    /// What a slice holds, at the least: 1/1024 of a difficulty. At one percent of the network's hashes that takes a
    /// pool a minute.
    pub const SIZE: Weight = match Weight::new(Weight::PER_DIFFICULTY.get() >> 10) {
        Ok(size) => size,
        Err(_) => unreachable!(),
    };

    /// The number of the slice: one more than that of the slice before.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it holds.
    pub fn total(&self) -> Weight {
        self.total
    }

    /// Its accounts, in the order of their bytes: 1 to [`SLICE_ACCOUNTS_MAX`].
    pub fn accounts(&self) -> &BTreeMap<AccountId, Tally> {
        &self.accounts
    }
}

#[cfg(test)]
mod tests;
