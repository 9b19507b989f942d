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

/// What an account's shares come to since it was told last: those that are credited with the slice, and those that are held.
type OfAccount = [Sum; 2];

/// Sums shares that are durable.
#[derive(Debug, Default)]
pub(crate) struct AcceptedShares(Mutex<HashMap<String, OfAccount>>);

impl AcceptedShares {
    /// Counts a share that claims nothing but its hash.
    pub(crate) fn count(&self, share: &ProvenShare, telemetry: &Telemetry) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !sums.contains_key(&share.account) {
            if sums.len() >= ACCOUNTS_MAX {
                tell(telemetry, &std::mem::take(&mut *sums));
            }
            sums.insert(share.account.clone(), OfAccount::default());
        }
        if let Some(of) = sums.get_mut(&share.account) {
            let sum = &mut of[usize::from(share.is_coinbase_only)];
            sum.shares += 1;
            sum.work = sum.work.saturating_add(share.work);
            sum.credit = sum.credit.saturating_add(share.credit);
        }
    }

    fn take(&self) -> HashMap<String, OfAccount> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tell(telemetry: &Telemetry, sums: &HashMap<String, OfAccount>) {
    for (account, of) in sums {
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
            _ = ticks.tick() => tell(&telemetry, &accepted.take()),
        }
    }
    tell(&telemetry, &accepted.take());
}
