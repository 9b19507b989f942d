//! The work of each device of an account, for its miner to see. It moves no money: what is not written when the pool
//! dies is missing from a statistic. Names are the miners' own and prove nothing, so what is kept of them is bounded,
//! here and in the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use dovetail_ledger::{DeviceRecord, DeviceWork as Counted, Ledger, LedgerError};
use dovetail_units::Work;
use dovetail_units::time::unix_now;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::records;

/// How often what was counted goes to the ledger.
const WRITE_INTERVAL: Duration = Duration::from_secs(15);
/// How often devices that have not been seen for long are looked for: once in so many writes.
const WRITES_PER_CLEANING: u32 = 240;
/// Devices that are counted at once, at some hundred bytes each. Beyond it further ones count as no device in particular.
const DEVICES_MAX: usize = 1 << 14;

/// What was counted since it was written last.
#[derive(Debug, Default)]
pub(crate) struct DeviceWork(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Work and shares of each device of each account. A share of one that is known allocates nothing.
    accounts: HashMap<String, HashMap<String, (Work, u64)>>,
    devices: usize,
}

impl Counts {
    fn get_mut(&mut self, account: &str, device: &str) -> Option<&mut (Work, u64)> {
        self.accounts.get_mut(account)?.get_mut(device)
    }
}

impl DeviceWork {
    /// Counts a share that was credited.
    pub(crate) fn count(&self, account: &str, device: Option<&str>, work: Work) {
        self.add(account, device.unwrap_or_default(), work, 1);
    }

    fn add(&self, account: &str, device: &str, work: Work, shares: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        if let Some((sum, count)) = counts.get_mut(account, device) {
            *sum = sum.saturating_add(work);
            *count = count.saturating_add(shares);
        } else if counts.devices < DEVICES_MAX {
            let of_account = counts.accounts.entry(account.to_owned()).or_default();
            of_account.insert(device.to_owned(), (work, shares));
            counts.devices += 1;
        } else if !device.is_empty() {
            // An account that is not known without a device either is left out; so many do not prove work in a quarter of a
            // minute.
            if let Some((sum, count)) = counts.get_mut(account, "") {
                *sum = sum.saturating_add(work);
                *count = count.saturating_add(shares);
            }
        }
    }

    fn take(&self) -> Vec<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *counts);
        drop(counts);
        let counted = taken.accounts.into_iter().flat_map(|(account, devices)| {
            devices
                .into_iter()
                .map(move |(device, (work, shares))| Counted {
                    account: account.clone(),
                    device,
                    work,
                    shares,
                })
        });
        counted.collect()
    }

    /// Writes what was counted; keeps it for the next time if the ledger is away.
    async fn write(&self, ledger: &Ledger) {
        let counted = self.take();
        if counted.is_empty() {
            return;
        }
        if let Err(error) = ledger.add_device_work(&counted).await {
            tracing::warn!(%error, "the work of devices cannot be written yet");
            for each in &counted {
                self.add(&each.account, &each.device, each.work, each.shares);
            }
        }
    }
}

/// Writes what `devices` counts until `shutdown`, and once more then.
pub(crate) async fn keep(devices: Arc<DeviceWork>, ledger: Ledger, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writes: u32 = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return devices.write(&ledger).await,
            _ = ticks.tick() => {
                devices.write(&ledger).await;
                if writes.is_multiple_of(WRITES_PER_CLEANING) {
                    tell(ledger.forget_idle_devices().await);
                }
                writes = writes.wrapping_add(1);
            }
        }
    }
}

/// Prints the devices of an account, the last seen first; as one JSON object per line, or for people. Only reads the
/// ledger, so it may run beside the pool.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn print_devices(config: &Config, account: &str, json: bool) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    let devices = ledger
        .devices(account)
        .await
        .context("cannot read the devices: has this pool's database been migrated?")?;
    let none = "no device of this account has been seen lately";
    records::print(&devices, json, text, none)
}

fn text(record: &DeviceRecord) -> String {
    let name = match record.device.as_str() {
        "" => "(no name)",
        name => name,
    };
    format!(
        "{name}: {:.3e} h/s, {} shares, {} hashes, last share {} s ago\n",
        record.hash_rate,
        record.shares,
        record.work,
        i64::try_from(unix_now())
            .unwrap_or(i64::MAX)
            .saturating_sub(record.last_share_unix)
            .max(0),
    )
}

fn tell(forgotten: Result<u64, LedgerError>) {
    match forgotten {
        Ok(0) => {}
        Ok(devices) => tracing::info!(devices, "forgot devices that have not been seen for long"),
        Err(error) => tracing::warn!(%error, "cannot forget devices"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_summed_by_device_and_a_flood_of_names_is_one_device() {
        let devices = DeviceWork::default();
        devices.count("alice", Some("rig"), Work::new(2));
        devices.count("alice", Some("rig"), Work::new(3));
        devices.count("bob", None, Work::new(1));
        for number in 0..2 * DEVICES_MAX {
            devices.count("bob", Some(&number.to_string()), Work::new(1));
        }
        // Whoever comes when there is no room is not counted, and nobody else notices.
        devices.count("late", Some("rig"), Work::new(1));
        devices.count("alice", Some("rig"), Work::new(1));
        let counted = devices.take();
        assert_eq!(counted.len(), DEVICES_MAX);
        let of = |account: &str, device: &str| {
            let one = |each: &&Counted| each.account == account && each.device == device;
            counted
                .iter()
                .find(one)
                .map(|each| (each.work.get(), each.shares))
        };
        assert_eq!(of("alice", "rig"), Some((6, 3)));
        let rest = u64::try_from(DEVICES_MAX + 3).unwrap();
        assert_eq!(of("bob", ""), Some((u128::from(rest), rest)));
        assert_eq!(of("late", ""), None);
        assert!(devices.take().is_empty());
    }
}
