//! The work of devices: what is summed, and that no miner's names fill the table.

use super::*;
use crate::{DEVICES_PER_ACCOUNT_MAX, DeviceWork};

fn work(account: &str, device: &str, hashes: u128) -> DeviceWork {
    DeviceWork {
        account: account.to_owned(),
        device: device.to_owned(),
        work: Work::new(hashes),
        shares: 1,
    }
}

/// Devices with their work and shares, by name.
async fn devices(ledger: &Ledger, account: &str) -> Vec<(String, String, u64)> {
    let mut devices: Vec<_> = ledger
        .devices(account)
        .await
        .unwrap()
        .into_iter()
        .map(|device| (device.device, device.work, device.shares))
        .collect();
    devices.sort();
    devices
}

#[test]
fn the_work_of_each_device_is_summed_and_its_rate_follows_the_last_two_hours() {
    run(|db, ledger| async move {
        for _ in 0..2 {
            let counted = [
                work("alice", "one", u128::MAX),
                work("alice", "two", 7_200_000),
                work("bob", "one", 1),
                work("bob", "", 3),
            ];
            ledger.add_device_work(&counted).await.unwrap();
        }
        let alice = devices(&ledger, "alice").await;
        // Wider than 128 bits.
        assert_eq!(
            alice[0],
            (
                "one".into(),
                "680564733841876926926749214863536422910".into(),
                2
            )
        );
        assert_eq!(alice[1], ("two".into(), "14400000".into(), 2));
        let bob = devices(&ledger, "bob").await;
        assert_eq!(
            bob,
            [("".into(), "6".into(), 2), ("one".into(), "2".into(), 2)]
        );

        let mut by_hand = db.connection().await;
        let rate = async |ledger: &Ledger| {
            let devices = ledger.devices("alice").await.unwrap();
            let two = devices.iter().find(|device| device.device == "two");
            two.unwrap().hash_rate
        };
        let mut set = async |sql: &'static str| {
            sqlx::query(sql).execute(&mut by_hand).await.unwrap();
        };
        // It has been there for less than a minute.
        assert_eq!(rate(&ledger).await, 240_000.0);
        set("UPDATE devices SET first_share_at = now() - interval '1000 s'").await;
        let hours = rate(&ledger).await;
        assert!((hours - 14_400.0).abs() < 100.0, "{hours}");
        // Its hour passes: what it did then still counts for an hour, and then no more.
        set("UPDATE devices SET hour = hour - 1").await;
        let later = rate(&ledger).await;
        assert!((later - 14_400.0).abs() < 100.0, "{later}");
        ledger
            .add_device_work(&[work("alice", "two", 7_200_000)])
            .await
            .unwrap();
        let both = rate(&ledger).await;
        assert!((both - 21_600.0).abs() < 150.0, "{both}");
        set("UPDATE devices SET hour = hour - 2").await;
        assert_eq!(rate(&ledger).await, 0.0);
    });
}

#[test]
fn an_account_has_a_bounded_number_of_devices_whatever_their_names() {
    run(|_db, ledger| async move {
        let max = usize::try_from(DEVICES_PER_ACCOUNT_MAX).unwrap();
        ledger
            .add_device_work(&[work("bob", "rig", 1)])
            .await
            .unwrap();
        let flood = |from: usize| -> Vec<DeviceWork> {
            let names = from..from + max;
            names
                .map(|name| work("eve", &name.to_string(), 1))
                .collect()
        };
        for round in 0..3 {
            ledger.add_device_work(&flood(round * max)).await.unwrap();
        }
        let eve = devices(&ledger, "eve").await;
        assert_eq!(eve.len(), max);
        // Nothing of the work is lost: the rest has no name.
        let rest = (3 * max - (max - 1)).to_string();
        assert_eq!((eve[0].0.as_str(), &eve[0].1), ("", &rest));
        // A device that is known goes on, and so do other accounts.
        let counted = [
            work("eve", &eve[1].0, 5),
            work("bob", "rig", 1),
            work("bob", "new", 1),
        ];
        ledger.add_device_work(&counted).await.unwrap();
        assert_eq!(devices(&ledger, "eve").await[1].1, "6");
        assert_eq!(devices(&ledger, "bob").await.len(), 2);
    });
}

#[test]
fn a_device_that_is_idle_for_a_month_is_forgotten() {
    run(|db, ledger| async move {
        let counted = [work("alice", "one", 1), work("alice", "two", 1)];
        ledger.add_device_work(&counted).await.unwrap();
        let mut by_hand = db.connection().await;
        sqlx::query(
            "UPDATE devices SET last_share_at = now() - interval '31 days' WHERE device = 'one'",
        )
        .execute(&mut by_hand)
        .await
        .unwrap();
        assert_eq!(ledger.forget_idle_devices().await.unwrap(), 1);
        assert_eq!(devices(&ledger, "alice").await.len(), 1);
        assert_eq!(ledger.forget_idle_devices().await.unwrap(), 0);
    });
}
