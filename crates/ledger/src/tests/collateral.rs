//! Credit that is held: when it matures, what forfeits it, and who is left alone.

use super::*;

const WINDOW: MaturityWindow = MaturityWindow {
    batches: 2,
    seconds: 0,
    seconds_max: 1_000_000,
};

/// Settles a batch of one task of this number, for 1,000 msat and 10 for its hashes.
async fn settle(ledger: &Ledger, running: &Running, n: u8) -> BatchRoot {
    let (root, tasks) = open_batch(ledger, &[n]).await;
    let share = inference_share(n, root, u32::from(n), &tasks);
    running.committer.commit(share).await.unwrap();
    root
}

async fn balance(ledger: &Ledger) -> (i64, i64) {
    let balance = ledger.balance("miner").await.unwrap();
    (balance.available.get(), balance.held.get())
}

#[test]
fn credit_matures_after_enough_later_batches_and_once() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=2 {
            settle(&ledger, &running, n).await;
            assert_eq!(ledger.mature_credits(WINDOW, None).await.unwrap(), []);
        }
        assert_eq!(balance(&ledger).await, (20, 2_000));
        settle(&ledger, &running, 3).await;
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
        assert_eq!(balance(&ledger).await, (1_030, 2_000));
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
        assert_eq!(standing(WORKER).await, (true, 2_000));
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
        let for_an_hour = MaturityWindow {
            batches: 0,
            seconds: 3_600,
            seconds_max: 7_200,
        };
        assert_eq!(ledger.mature_credits(for_an_hour, None).await.unwrap(), []);
        // A worker that leaves makes no more batches.
        let idle = MaturityWindow {
            batches: 1_000,
            seconds: 0,
            seconds_max: 0,
        };
        assert_eq!(ledger.mature_credits(idle, None).await.unwrap().len(), 1);
        assert_eq!(balance(&ledger).await, (1_010, 0));
    });
}

/// What is found to be due and what is then posted follow one rule of the database, and the rule is this.
#[test]
fn what_is_due_is_what_is_posted_in_every_window() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=4 {
            settle(&ledger, &running, n).await;
        }
        let mut by_hand = db.connection().await;
        // From the strictest window to the most lenient one: each posts what the ones before left.
        for (batches, seconds, seconds_max, due) in [
            (4, 0, 1_000_000, 0),
            (3, 1_000, 1_000_000, 0),
            (3, 0, 1_000_000, 1),
            (1, 0, 1_000_000, 2),
            (1_000, 1_000, 1_000, 0),
            (1_000, 0, 0, 1),
        ] {
            let window = MaturityWindow {
                batches,
                seconds,
                seconds_max,
            };
            let found: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM held_credits h JOIN trust t USING (worker)
                  WHERE h.state = 'held' AND is_mature(h, t.batches, $1, $2, $3)",
            )
            .bind(i64::from(batches))
            .bind(f64::from(seconds))
            .bind(f64::from(seconds_max))
            .fetch_one(&mut by_hand)
            .await
            .unwrap();
            let matured = ledger.mature_credits(window, None).await.unwrap();
            let posted = matured.iter().map(|of| of.credits).sum::<u64>();
            assert_eq!((found, posted), (due, u64::try_from(due).unwrap()));
        }
        assert_eq!(balance(&ledger).await, (4_040, 0));
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
        assert_eq!(balance(&ledger).await, (1_030, 2_000));

        let (bad, _) = open_batch(&ledger, &[4]).await;
        let forfeited = fail(&ledger, bad, 4, 4).await.unwrap().unwrap();
        assert_eq!((forfeited.credits, forfeited.amount.get()), (2, 2_000));
        assert_eq!(balance(&ledger).await, (1_030, 0));
        // The same audit again is the same forfeiture; nothing matures any more.
        assert_eq!(fail(&ledger, bad, 4, 4).await.unwrap(), Some(forfeited));
        assert_eq!(mature(&ledger).await, 0);
        let record = &ledger.failed_audits(None, 1).await.unwrap()[0];
        assert_eq!(
            (record.forfeited_msat, record.forfeited_credits),
            (2_000, 2)
        );
        let owed: i64 =
            sqlx::query_scalar("SELECT debits_pending FROM accounts WHERE name = 'pool:inference'")
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
        let due = async |threshold| {
            let due = ledger.workers_with_balance_at_least(Msat::new(threshold), 10);
            due.await.unwrap().len()
        };
        assert_eq!((due(10).await, due(11).await), (1, 0));
        let amount = Msat::new(500);
        ledger
            .create_payout([1; 32], "miner", amount)
            .await
            .unwrap();
        let reserved = ledger
            .reserve_payout([1; 32], "lnbcrt1", [1; 32], Msat::ZERO)
            .await;
        assert!(matches!(reserved, Err(LedgerError::Refused(_))));
        mature(&ledger).await;
        ledger
            .reserve_payout([1; 32], "lnbcrt1", [1; 32], Msat::ZERO)
            .await
            .unwrap();
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
                    fail(&ledger, root, n, u32::from(n)).await.unwrap().unwrap();
                } else {
                    let share = inference_share(n, root, u32::from(n), &tasks);
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
fn trust_that_was_earned_before_the_migration_is_kept() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1).await;
        let (bad, _) = open_batch(&ledger, &[2]).await;
        fail(&ledger, bad, 2, 100).await.unwrap();
        for n in 3..=5 {
            settle(&ledger, &running, n).await;
        }
        let before = ledger.trust(&WORKER).await.unwrap();
        assert_eq!((before.transcripts, before.batches), (3, 4));
        // What the migration does with the batches that it finds.
        let migration = include_str!("../../../../migrations/0004_audit.sql");
        let begin = migration.find("INSERT INTO trust").unwrap();
        let end = begin + migration[begin..].find(';').unwrap();
        let mut by_hand = db.connection().await;
        sqlx::query("DELETE FROM trust")
            .execute(&mut by_hand)
            .await
            .unwrap();
        sqlx::query(&migration[begin..end])
            .execute(&mut by_hand)
            .await
            .unwrap();
        assert_eq!(ledger.trust(&WORKER).await.unwrap(), before);
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
        let share = inference_share(1, root, 0, &tasks);
        running.committer.commit(share).await.unwrap();
        // Not shortened either.
        let (third, _) = open_batch(&ledger, &[3]).await;
        ledger.keep_claimed(third, 1).await.unwrap();
        assert!(!ledger.batch(third).await.unwrap().unwrap().is_expired());
    });
}
