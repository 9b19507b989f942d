//! Credit that is held: when it matures, what forfeits it, and who is left alone.

use super::*;

/// Each credit of 1,000 msat matures with the next one.
const WINDOW: MaturityWindow = MaturityWindow {
    seconds: 0,
    seconds_max: 1_000_000,
};

/// Settles a batch of one task of this number, for 1,000 msat and 10 for its hashes.
async fn settle(ledger: &Ledger, running: &Running, n: u8) -> BatchRoot {
    let (root, tasks) = open_batch(ledger, &[n]).await;
    let share = inference_share(n, root, &tasks);
    running.committer.commit(share).await.unwrap();
    root
}

async fn balance(ledger: &Ledger) -> (i64, i64) {
    let balance = ledger.balance("miner").await.unwrap();
    (balance.available.get(), balance.held.get())
}

#[test]
fn credit_matures_with_later_credit_and_once() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1).await;
        assert_eq!(ledger.mature_credits(WINDOW, None).await.unwrap(), []);
        assert_eq!(balance(&ledger).await, (10, 1_000));
        settle(&ledger, &running, 2).await;
        // Two callers at once, as a settlement and the clock would be.
        let (one, two) = tokio::join!(
            ledger.mature_credits(WINDOW, Some(WORKER)),
            ledger.mature_credits(WINDOW, None)
        );
        let matured: Vec<_> = [one.unwrap(), two.unwrap()].concat();
        let [matured] = &matured[..] else {
            panic!("{matured:?}");
        };
        assert_eq!((matured.credits, matured.amount.get()), (1, 1_000));
        assert_eq!(
            (matured.worker, matured.account.as_str()),
            (WORKER, "miner")
        );
        assert_eq!(balance(&ledger).await, (1_020, 1_000));
        let other = Some(WorkerKey::from_bytes([1; 32]));
        assert_eq!(ledger.mature_credits(AT_ONCE, other).await.unwrap(), []);
    });
}

#[test]
fn a_standing_is_what_was_settled_and_what_is_held_and_a_mismatch_takes_the_latter() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let standing = async |worker| {
            let standing = ledger.standing(&worker).await.unwrap();
            (standing.has_settled, standing.held.get())
        };
        assert_eq!(standing(WORKER).await, (false, 0));
        for n in 1..=3 {
            settle(&ledger, &running, n).await;
        }
        assert_eq!(standing(WORKER).await, (true, 3_000));
        ledger.mature_credits(WINDOW, None).await.unwrap();
        // The last one has none after it.
        assert_eq!(standing(WORKER).await, (true, 1_000));
        let (bad, _) = open_batch(&ledger, &[4]).await;
        fail(&ledger, bad, 4, 4).await.unwrap().unwrap();
        assert_eq!(standing(WORKER).await, (true, 0));
        assert_eq!(standing(WorkerKey::from_bytes([1; 32])).await, (false, 0));
    });
}

#[test]
fn credit_is_held_for_its_time_and_no_longer_than_the_longest() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1).await;
        settle(&ledger, &running, 2).await;
        let for_an_hour = MaturityWindow {
            seconds: 3_600,
            seconds_max: 7_200,
        };
        assert_eq!(ledger.mature_credits(for_an_hour, None).await.unwrap(), []);
        // A worker that leaves makes no more batches.
        assert_eq!(mature(&ledger).await, 2_000);
        assert_eq!(balance(&ledger).await, (2_020, 0));
    });
}

#[test]
fn a_mismatch_forfeits_what_is_held_and_neither_what_has_matured_nor_hashes() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=3 {
            settle(&ledger, &running, n).await;
        }
        ledger.mature_credits(WINDOW, None).await.unwrap();
        assert_eq!(balance(&ledger).await, (2_030, 1_000));

        let (bad, _) = open_batch(&ledger, &[4]).await;
        let forfeited = fail(&ledger, bad, 4, 4).await.unwrap().unwrap();
        assert_eq!((forfeited.credits, forfeited.amount.get()), (1, 1_000));
        assert_eq!(balance(&ledger).await, (2_030, 0));
        // The same audit again is the same forfeiture; nothing matures any more.
        assert_eq!(fail(&ledger, bad, 4, 4).await.unwrap(), Some(forfeited));
        assert_eq!(mature(&ledger).await, 0);
        let record = &ledger.failed_audits(None, 1).await.unwrap()[0];
        assert_eq!(
            (record.forfeited_msat, record.forfeited_credits),
            (1_000, 1)
        );
        let owed: i64 =
            sqlx::query_scalar("SELECT debits_pending FROM accounts WHERE name = 'paid:inference'")
                .fetch_one(&ledger.pool)
                .await
                .unwrap();
        assert_eq!(owed, 0);
    });
}

#[test]
fn held_credit_cannot_be_paid_out() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1).await;
        let due = payouts::claim(&ledger, &["miner"], 1_000).await;
        assert_eq!(due, [] as [&str; 0]);
        let refused = payouts::begin(&ledger, 1, "miner", 500).await;
        assert!(matches!(refused, Err(LedgerError::Refused(_))));
        mature(&ledger).await;
        let due = payouts::claim(&ledger, &["miner"], 1_000).await;
        assert_eq!(due, ["miner"]);
        payouts::begin(&ledger, 1, "miner", 500).await.unwrap();
    });
}

#[test]
fn settling_maturing_and_forfeiting_at_once_never_lock_each_other_out() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let mut batches = Vec::new();
        for n in 1..=40 {
            batches.push((n, open_batch(&ledger, &[n]).await));
        }
        let maturing = {
            let ledger = db.ledger().await;
            tokio::spawn(async move {
                for _ in 0..100 {
                    ledger.mature_credits(AT_ONCE, None).await.unwrap();
                }
            })
        };
        let mut settling = Vec::new();
        for (n, (root, tasks)) in batches {
            let committer = running.committer.clone();
            let ledger = ledger.clone();
            settling.push(tokio::spawn(async move {
                if n % 10 == 0 {
                    fail(&ledger, root, n, n).await.unwrap().unwrap();
                } else {
                    let share = inference_share(n, root, &tasks);
                    committer.commit(share).await.unwrap();
                    // Hash shares of others go on beside it.
                    committer
                        .commit(hash_share(n + 100, "alice", 1))
                        .await
                        .unwrap();
                }
            }));
        }
        for task in settling {
            task.await.unwrap();
        }
        maturing.await.unwrap();
        mature(&ledger).await;
        let forfeited: i64 = sqlx::query_scalar("SELECT sum(forfeited_msat)::bigint FROM appeals")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(balance(&ledger).await, (36 * 1_010 - forfeited, 0));
        assert_eq!(available(&ledger, "alice").await, 36);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn held_credits_end_by_their_transfers_even_by_hand() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1).await;
        let mut by_hand = db.connection().await;
        for sql in [
            "UPDATE held_credits SET state = 'matured'",
            "UPDATE held_credits SET state = 'forfeited'",
            "UPDATE held_credits SET amount_msat = 5",
            "DELETE FROM held_credits",
            "TRUNCATE held_credits",
        ] {
            let refused = sqlx::query(sql).execute(&mut by_hand).await;
            assert!(refused.is_err(), "{sql}");
        }
        mature(&ledger).await;
        let again = sqlx::query("UPDATE held_credits SET state = 'held'").execute(&mut by_hand);
        assert!(again.await.is_err());
        assert_eq!(balance(&ledger).await, (1_010, 0));
    });
}

#[test]
fn a_claimed_batch_does_not_expire_under_its_audit() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let (other, _) = open_batch(&ledger, &[2]).await;
        ledger.keep_claimed(root, unix_now() + 900).await.unwrap();
        ledger.expire_tasks(unix_now() + 700).await.unwrap();
        assert!(ledger.batch(other).await.unwrap().unwrap().is_expired());
        let share = inference_share(1, root, &tasks);
        running.committer.commit(share).await.unwrap();
        // Not shortened either.
        let (third, _) = open_batch(&ledger, &[3]).await;
        ledger.keep_claimed(third, 1).await.unwrap();
        assert!(!ledger.batch(third).await.unwrap().unwrap().is_expired());
    });
}
