//! Tells of shares that claim nothing, once a second for each account: an event for each of them would cost more than the
//! share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dovetail_telemetry::{Event, Telemetry};
use dovetail_units::{ShareCredit, Work};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::claims::settle::ProvenShare;

/// How often it is told.
const INTERVAL: Duration = Duration::from_secs(1);
/// Accounts that are summed at once, at some hundred bytes each. Beyond it what there is is told at once.
const ACCOUNTS_MAX: usize = 1 << 14;

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    shares: u64,
    work: Work,
    credit: ShareCredit,
}

/// What an account's shares come to since it was told last: those that are credited at the end of the interval, and those that are held.
type OfAccount = [Sum; 2];

/// Sums shares that are durable.
#[derive(Debug, Default)]
pub(crate) struct AcceptedShares(Mutex<HashMap<String, OfAccount>>);

impl AcceptedShares {
    /// Counts a share that claims nothing but its hash.
    pub(crate) fn count(&self, share: &ProvenShare, telemetry: &Telemetry) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = sums.len() >= ACCOUNTS_MAX && !sums.contains_key(&share.account);
        let taken = full.then(|| std::mem::take(&mut *sums));
        if !sums.contains_key(&share.account) {
            sums.insert(share.account.clone(), OfAccount::default());
        }
        if let Some(of) = sums.get_mut(&share.account) {
            let sum = &mut of[usize::from(share.is_coinbase_only)];
            sum.shares += 1;
            sum.work = sum.work.saturating_add(share.work);
            sum.credit = sum.credit.saturating_add(share.credit);
        }
        drop(sums);
        for (account, of) in taken.into_iter().flatten() {
            tell(telemetry, &account, &of);
        }
    }

    /// What there is to tell. Parts of a millisatoshi stay for the account's next shares; accounts that had none leave.
    fn take(&self) -> Vec<(String, OfAccount)> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.retain(|_, of| of.iter().any(|sum| sum.shares > 0));
        let taken = sums.iter_mut().map(|(account, of)| {
            let told = *of;
            for sum in of.iter_mut() {
                let part = sum.credit.get() % ShareCredit::PER_MSAT;
                *sum = Sum {
                    credit: ShareCredit::new(part),
                    ..Sum::default()
                };
            }
            (account.clone(), told)
        });
        taken.collect()
    }

    fn tell_all(&self, telemetry: &Telemetry) {
        for (account, of) in self.take() {
            tell(telemetry, &account, &of);
        }
    }
}

fn tell(telemetry: &Telemetry, account: &str, of: &OfAccount) {
    for (sum, held) in of.iter().zip([false, true]) {
        if sum.shares > 0 {
            telemetry.emit(&Event::ShareAccepted {
                kind: "hash",
                worker: account,
                shares: sum.shares,
                work: sum.work.to_u64(),
                credit_msat: sum.credit.to_msat(),
                held,
            });
        }
    }
}

/// Tells what was counted until `shutdown`, and once more then.
pub(crate) async fn keep_telling(
    accepted: Arc<AcceptedShares>,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => accepted.tell_all(&telemetry),
        }
    }
    accepted.tell_all(&telemetry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hash_share;

    #[test]
    fn shares_are_summed_by_account_and_parts_of_a_millisatoshi_add_up() {
        let (accepted, telemetry) = (AcceptedShares::default(), Telemetry::none());
        let third = ShareCredit::new(ShareCredit::PER_MSAT / 3 + 1);
        let mut credited = Vec::new();
        for _ in 0..3 {
            for account in ["alice", "bob"] {
                let share = ProvenShare {
                    credit: third,
                    ..hash_share(account)
                };
                accepted.count(&share, &telemetry);
            }
            let told = accepted.take();
            assert_eq!(told.len(), 2);
            credited.push(told[0].1[0].credit.to_msat().get());
            assert_eq!((told[0].1[0].shares, told[0].1[1].shares), (1, 0));
        }
        assert_eq!(credited, [0, 0, 1]);
        assert!(accepted.take().is_empty());
    }
}
