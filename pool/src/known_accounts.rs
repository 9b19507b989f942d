//! The accounts that have earned before: their connections may keep a reserved place of the mining port. A name proves
//! nothing, and anybody may know it. So a name stands for a few connections at a time, until they prove work, and saves
//! none from the other limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_ledger::{Ledger, LedgerError};

/// Accounts that are remembered, at some hundred bytes each. Once there are so many no further one is learnt.
const ACCOUNTS_MAX: u32 = 100_000;
/// Connections that an account's name stands for at a time. A farm of one name comes in as they prove work.
const VOUCHED_MAX: usize = 16;

/// The names, in memory only. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownAccounts(Arc<Mutex<HashMap<String, usize>>>);

/// An account's name stands for a connection that has proven no work, until this is dropped.
#[derive(Debug)]
pub(crate) struct Voucher {
    accounts: KnownAccounts,
    account: String,
}

impl KnownAccounts {
    /// Those of the ledger, the newest first if there are too many.
    pub(crate) async fn read(ledger: &Ledger) -> Result<Self, LedgerError> {
        let names = ledger.newest_workers(ACCOUNTS_MAX).await?;
        Ok(Self::of(names))
    }

    fn of(names: impl IntoIterator<Item = String>) -> Self {
        let vouched = names.into_iter().map(|name| (name, 0)).collect();
        Self(Arc::new(Mutex::new(vouched)))
    }

    /// The account has earned something. Whether that is news.
    pub(crate) fn learn(&self, account: &str) -> bool {
        let mut vouched = self.vouched();
        if vouched.contains_key(account) || vouched.len() >= ACCOUNTS_MAX as usize {
            return false;
        }
        vouched.insert(account.to_owned(), 0);
        true
    }

    pub(crate) fn knows(&self, account: &str) -> bool {
        self.vouched().contains_key(account)
    }

    /// The account's name stands for another connection, if it is known and does not for too many already.
    pub(crate) fn vouch(&self, account: &str) -> Option<Voucher> {
        let mut vouched = self.vouched();
        let count = vouched.get_mut(account)?;
        if *count >= VOUCHED_MAX {
            return None;
        }
        *count += 1;
        Some(Voucher {
            accounts: self.clone(),
            account: account.to_owned(),
        })
    }

    /// How many connections each name stands for.
    fn vouched(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Voucher {
    fn drop(&mut self) {
        if let Some(count) = self.accounts.vouched().get_mut(&self.account) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_stands_for_a_few_connections_at_a_time() {
        let accounts = KnownAccounts::of(["alice".to_owned()]);
        let vouch = |account: &'static str| {
            let accounts = accounts.clone();
            std::iter::from_fn(move || accounts.vouch(account)).take(100)
        };
        assert_eq!(vouch("mallory").count(), 0);
        let mut vouchers: Vec<_> = vouch("alice").collect();
        assert_eq!(vouchers.len(), VOUCHED_MAX);
        // One of the connections has proven work, or is gone.
        vouchers.pop();
        assert_eq!(vouch("alice").collect::<Vec<_>>().len(), 1);
        assert!(accounts.learn("bob") && !accounts.learn("bob"));
        assert!(accounts.knows("bob") && accounts.vouch("bob").is_some());
    }
}
