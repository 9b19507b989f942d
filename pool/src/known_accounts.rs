//! The accounts that have earned before: their connections may keep a reserved place of the mining port. A name proves
//! nothing, so it saves nobody from the other limits.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dovetail_ledger::{Ledger, LedgerError};

/// Accounts that are remembered, at some hundred bytes each. Once there are so many no further one is learnt.
const ACCOUNTS_MAX: u32 = 100_000;

/// The names, in memory only.
#[derive(Debug, Default)]
pub(crate) struct KnownAccounts(Mutex<HashSet<String>>);

impl KnownAccounts {
    /// Those of the ledger, the newest first if there are too many.
    pub(crate) async fn read(ledger: &Ledger) -> Result<Self, LedgerError> {
        let names = ledger.newest_workers(ACCOUNTS_MAX).await?;
        Ok(Self(Mutex::new(names.into_iter().collect())))
    }

    /// The account has earned something.
    pub(crate) fn learn(&self, account: &str) {
        let mut names = self.names();
        if !names.contains(account) && names.len() < ACCOUNTS_MAX as usize {
            names.insert(account.to_owned());
        }
    }

    pub(crate) fn knows(&self, account: &str) -> bool {
        self.names().contains(account)
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
