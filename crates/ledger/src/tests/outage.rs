//! Postgres goes away and comes back.

use super::*;
use crate::CommitRefusal;

/// Waits until the ledger has this many shares. The bound only ends a wait that would never end: a
/// busy machine may take a while for 1,500 commits.
pub(super) async fn shares_reach(ledger: &Ledger, count: u64) {
    for _ in 0..1200 {
        let stats = ledger.stats().await;
        // And, looked at later, their credit interval is over.
        let open = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM hash_credits WHERE unsettled >= 1048576000000000000",
        )
        .fetch_one(&ledger.pool)
        .await;
        if stats.is_ok_and(|stats| stats.shares == count) && matches!(open, Ok(0)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the log was not written: {:?}", ledger.stats().await);
}

#[test]
fn hash_shares_survive_an_outage_and_are_credited_once() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        running
            .committer
            .commit(hash_share(1, "alice", 1))
            .await
            .unwrap();
        db.go_away().await;
        assert_eq!(running.log(hash_share(2, "alice", 10)).await, Ok(()));
        for n in [1, 2] {
            let again = running.log(hash_share(n, "alice", 10)).await;
            assert_eq!(again, Err(CommitRefusal::DuplicateShare));
        }
        let inference = inference_share(3, root, &tasks);
        assert_eq!(
            running.log(inference.clone()).await,
            Err(CommitRefusal::Unavailable)
        );
        db.come_back().await;
        shares_reach(&ledger, 2).await;
        assert_eq!(available(&ledger, "alice").await, 11);
        // The worker tries again until it is taken.
        while running.committer.commit(inference.clone()).await == Err(CommitRefusal::Unavailable) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let balance = ledger.balance("miner").await.unwrap();
        assert_eq!((balance.available.get(), balance.held.get()), (10, 1_000));
    });
}

#[test]
fn a_connection_that_breaks_inside_the_commit_loses_no_share() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let _held = db.hold_commits().await;
        running.log(hash_share(1, "alice", 5)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        db.go_away().await;
        db.come_back().await;
        shares_reach(&ledger, 1).await;
        assert_eq!(available(&ledger, "alice").await, 5);
        assert_eq!(ledger.stats().await.unwrap().shares, 1);
    });
}

#[test]
fn the_log_is_written_after_a_restart_and_its_proofs_are_known() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(hash_share(9, "alice", 1))
            .await
            .unwrap();
        db.go_away().await;
        for n in 1..=5 {
            running.log(hash_share(n, "alice", 1)).await.unwrap();
        }
        running.stop().await;
        db.come_back().await;
        let reconnected = db.ledger().await;
        let running = Running::start(&reconnected, dir.path()).await;
        for n in [3, 9] {
            let again = running.log(hash_share(n, "alice", 1)).await;
            assert_eq!(again, Err(CommitRefusal::DuplicateShare));
        }
        shares_reach(&reconnected, 6).await;
        assert_eq!(available(&reconnected, "alice").await, 6);
    });
}

#[test]
fn shares_go_on_being_taken_while_the_log_is_written() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        db.go_away().await;
        let log_many = async |from: u16, to: u16| {
            for n in from..to {
                running.log(numbered_share(n, "alice", 1)).await.unwrap();
            }
        };
        log_many(0, 1_500).await;
        db.come_back().await;
        log_many(1_500, 2_000).await;
        shares_reach(&ledger, 2_000).await;
        assert_eq!(available(&ledger, "alice").await, 2_000);
    });
}

/// A time limit drops what it limits, at whatever it waits for: also between `BEGIN` and the server's answer.
#[test]
fn a_transaction_that_nobody_waits_for_any_more_stays_open_on_no_connection() {
    run(|db, ledger| async move {
        let mut other = db.connection().await;
        for turns in 0..200_i64 {
            let mut beginning = Box::pin(ledger.begin());
            for _ in 0..turns * 5 {
                tokio::select! {
                    biased;
                    _ = &mut beginning => break,
                    () = tokio::task::yield_now() => {}
                }
            }
            drop(beginning);
            // Whichever connection it is written on, it is committed.
            sqlx::query("INSERT INTO accounts (name, never_negative) VALUES ($1, true)")
                .bind(format!("worker:{turns}"))
                .execute(&ledger.pool)
                .await
                .unwrap();
            let count = "SELECT count(*) FROM accounts WHERE starts_with(name, 'worker:')";
            let seen: i64 = sqlx::query_scalar(count)
                .fetch_one(&mut other)
                .await
                .unwrap();
            assert_eq!(seen, turns + 1, "after {turns} turns");
        }
    });
}
