//! Weight by account: of a slice, or of a window.

use std::collections::BTreeMap;

use crate::account::AccountId;
use crate::weight::{Weight, WeightTooLarge};

/// What each account weighs, and all of them together. No account in it weighs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weights {
    accounts: BTreeMap<AccountId, Weight>,
    total: Weight,
}

/// Weight was to be taken from an account that has less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("account {account} has less weight than was to be taken from it")]
pub struct WeightMissing {
    /// The account.
    pub account: AccountId,
}

impl Weights {
    /// Adds to an account.
    ///
    /// # Errors
    /// [`WeightTooLarge`], for the sum of all; then nothing has changed.
    pub fn add(&mut self, account: &AccountId, weight: Weight) -> Result<(), WeightTooLarge> {
        let total = self.total.checked_add(weight)?;
        if weight == Weight::ZERO {
            return Ok(());
        }
        match self.accounts.get_mut(account) {
            Some(sum) => *sum = sum.checked_add(weight)?,
            None => {
                self.accounts.insert(account.clone(), weight);
            }
        }
        self.total = total;
        Ok(())
    }

    /// Takes from an account what was added before.
    ///
    /// # Errors
    /// [`WeightMissing`]; then nothing has changed.
    pub fn subtract(&mut self, account: &AccountId, weight: Weight) -> Result<(), WeightMissing> {
        let left = self.of(account).checked_sub(weight);
        let Some((left, total)) = left.zip(self.total.checked_sub(weight)) else {
            return Err(WeightMissing {
                account: account.clone(),
            });
        };
        if left == Weight::ZERO {
            self.accounts.remove(account);
        } else if let Some(sum) = self.accounts.get_mut(account) {
            *sum = left;
        }
        self.total = total;
        Ok(())
    }

    /// What an account weighs.
    pub fn of(&self, account: &AccountId) -> Weight {
        self.accounts.get(account).copied().unwrap_or_default()
    }

    /// All together.
    pub fn total(&self) -> Weight {
        self.total
    }

    /// How many accounts weigh something.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether no account weighs anything.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The accounts in the order of their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&AccountId, Weight)> {
        self.accounts
            .iter()
            .map(|(account, weight)| (account, *weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn account(n: u8) -> AccountId {
        AccountId::new([n]).unwrap()
    }

    #[test]
    fn what_cannot_be_added_or_taken_changes_nothing() {
        let mut weights = Weights::default();
        weights.add(&account(1), Weight::MAX).unwrap();
        let before = weights.clone();
        let one = Weight::new(1).unwrap();
        assert_eq!(weights.add(&account(2), one), Err(WeightTooLarge));
        assert!(weights.subtract(&account(2), one).is_err());
        weights.subtract(&account(2), Weight::ZERO).unwrap();
        weights.add(&account(2), Weight::ZERO).unwrap();
        assert_eq!(weights, before);
    }

    proptest! {
        #[test]
        fn what_was_added_can_be_taken_in_any_order(parts in vec((0_u8..5, 0_u128..1 << 100), 0..50), at: usize) {
            let mut weights = Weights::default();
            for (n, weight) in &parts {
                weights.add(&account(*n), Weight::new(*weight).unwrap()).unwrap();
            }
            let sum: u128 = weights.iter().map(|(_, weight)| weight.get()).sum();
            prop_assert_eq!(sum, weights.total().get());
            let mut parts = parts;
            let middle = at % (parts.len() + 1);
            parts.rotate_left(middle);
            for (n, weight) in &parts {
                weights.subtract(&account(*n), Weight::new(*weight).unwrap()).unwrap();
            }
            prop_assert_eq!(weights, Weights::default());
        }
    }
}
