//! How many shares of one account the pool takes in a second, over all its connections. Vardiff keeps an honest account
//! far below it. Whoever is above it is not read from for a while, so the shares wait in its own socket and not in the
//! queue to the ledger, where they would be in others' way; its targets rise meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Accounts that are counted at once, at some hundred bytes each. Beyond it those that are not ahead are forgotten, which
/// changes nothing.
const ACCOUNTS_MAX: usize = 1 << 14;
/// A pause is this long at most, so that the connection's other messages are heard.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The shares of each account, by when the last of them would have come at an even pace.
#[derive(Debug)]
pub(crate) struct SharePace {
    /// The time of one share.
    interval: Duration,
    accounts: Mutex<HashMap<String, Instant>>,
}

impl SharePace {
    /// For so many shares a second, of which all may come at once.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            accounts: Mutex::default(),
        }
    }

    /// Counts a share. How long the connection that brought it is not to be read from; zero for an account that is within
    /// its pace.
    pub(crate) fn count(&self, account: &str, now: Instant) -> Duration {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= ACCOUNTS_MAX {
            accounts.retain(|_, even| *even > now);
        }
        let even = match accounts.get_mut(account) {
            Some(even) => {
                *even = (*even).max(now) + self.interval;
                *even
            }
            None => {
                let even = now + self.interval;
                accounts.insert(account.to_owned(), even);
                even
            }
        };
        let ahead = even.duration_since(now);
        ahead.saturating_sub(Duration::from_secs(1)).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_within_its_pace_is_never_paused_and_a_flood_is_slowed_to_it() {
        let pace = SharePace::new(100);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for turn in 0..1_000 {
            assert_eq!(pace.count("farm", at(turn * 10)), Duration::ZERO);
        }
        // A second's worth may come at once; then each share costs its time.
        let pauses: Vec<_> = (0..150).map(|_| pace.count("flood", start)).collect();
        assert!(pauses[..100].iter().all(Duration::is_zero));
        assert_eq!(pauses[149], Duration::from_millis(500));
        // It is the account that counts, not the connection, and nobody else.
        assert_eq!(pace.count("farm", at(10_000)), Duration::ZERO);
        assert_eq!(pace.count("flood", at(600)), Duration::ZERO);
        for _ in 0..100_000 {
            pace.count("flood", at(600));
        }
        assert_eq!(pace.count("flood", at(600)), PAUSE_MAX);
    }

    #[test]
    fn accounts_that_are_not_ahead_are_forgotten() {
        let pace = SharePace::new(1_000);
        let start = Instant::now();
        for number in 0..3 * ACCOUNTS_MAX {
            let now = start + Duration::from_millis(2 * number as u64);
            pace.count(&number.to_string(), now);
        }
        assert!(pace.accounts.lock().unwrap().len() <= ACCOUNTS_MAX);
    }
}
