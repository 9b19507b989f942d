//! Postgres goes away and comes back.

use super::*;
use crate::CommitRefusal;

/// Waits until the ledger has this many shares. The bound only ends a wait that would never end: a
/// busy machine may take a while for 1,500 commits.
pub(super) async fn shares_reach(ledger: &Ledger, count: u64) {
    for _ in 0..1200 {
        if ledger
            .stats()
            .await
            .is_ok_and(|stats| stats.shares == count)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the spool was not moved: {:?}", ledger.stats().await);
}

#[test]
fn hash_shares_survive_an_outage_and_are_credited_once() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let commit = |share| running.committer.commit(share);
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        commit(hash_share(1, "alice", 1)).await.unwrap();
        db.go_away().await;
        assert_eq!(commit(hash_share(2, "alice", 10)).await, Ok(()));
        let spool = std::fs::read_to_string(dir.path().join("shares.jsonl")).unwrap();
        assert_eq!(
            spool.lines().count(),
            1,
            "it was on disk before it was acknowledged"
        );
        let again = commit(hash_share(2, "alice", 10)).await;
        assert_eq!(again, Err(CommitRefusal::DuplicateShare));
        let inference = inference_share(3, root, &tasks);
        assert_eq!(
            commit(inference.clone()).await,
            Err(CommitRefusal::Unavailable)
        );
        // Credited before the outage; only Postgres knows, so it is acknowledged, not credited.
        assert_eq!(commit(hash_share(1, "alice", 1)).await, Ok(()));
        db.come_back().await;
        shares_reach(&ledger, 2).await;
        assert_eq!(available(&ledger, "alice").await, 11);
        // The worker tries again until it is taken.
        while commit(inference.clone()).await == Err(CommitRefusal::Unavailable) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let balance = ledger.balance("miner").await.unwrap();
        assert_eq!((balance.available.get(), balance.held.get()), (10, 1_000));
        let spool = std::fs::read_to_string(dir.path().join("shares.jsonl")).unwrap();
        assert_eq!(spool, "");
    });
}

#[test]
fn a_connection_that_breaks_inside_the_commit_loses_no_share() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let _held = db.hold_commits().await;
        let committer = running.committer.clone();
        let acked = tokio::spawn(async move { committer.commit(hash_share(1, "alice", 5)).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!acked.is_finished());
        db.go_away().await;
        assert_eq!(acked.await.unwrap(), Ok(()));
        db.come_back().await;
        shares_reach(&ledger, 1).await;
        assert_eq!(available(&ledger, "alice").await, 5);
    });
}

#[test]
fn the_spool_is_replayed_after_a_restart() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        db.go_away().await;
        for n in 1..=5 {
            running
                .committer
                .commit(hash_share(n, "alice", 1))
                .await
                .unwrap();
        }
        running.stop().await;
        db.come_back().await;
        let reconnected = db.ledger().await;
        let running = Running::start(&reconnected, dir.path()).await;
        shares_reach(&reconnected, 5).await;
        assert_eq!(available(&reconnected, "alice").await, 5);
        let again = running.committer.commit(hash_share(3, "alice", 1)).await;
        assert_eq!(again, Err(CommitRefusal::DuplicateShare));
    });
}

#[test]
fn a_share_that_the_ledger_never_takes_does_not_hold_up_the_spool() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(hash_share(1, "alice", 1))
            .await
            .unwrap();
        db.go_away().await;
        let poison = hash_share(2, "alice", i64::MAX);
        running.committer.commit(poison).await.unwrap();
        running
            .committer
            .commit(hash_share(3, "alice", 1))
            .await
            .unwrap();
        db.come_back().await;
        shares_reach(&ledger, 2).await;
        assert_eq!(available(&ledger, "alice").await, 2);
        let rejected = std::fs::read_to_string(dir.path().join("rejected.jsonl")).unwrap();
        assert!(rejected.contains(&i64::MAX.to_string()));
        running.stop().await;
    });
}

#[test]
fn shares_go_on_being_taken_while_the_spool_is_moved() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        db.go_away().await;
        let commit_many = async |from: u16, to: u16| {
            let tasks: Vec<_> = (from..to)
                .map(|n| {
                    let committer = running.committer.clone();
                    let mut hash = [0; 32];
                    hash[..2].copy_from_slice(&n.to_le_bytes());
                    let share = Share {
                        header_hash: HeaderHash::from_bytes(hash),
                        ..hash_share(0, "alice", 1)
                    };
                    tokio::spawn(async move { committer.commit(share).await })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        };
        commit_many(0, 900).await;
        commit_many(900, 1_500).await;
        db.come_back().await;
        for start in (1_500..2_000).step_by(50) {
            commit_many(start, start + 50).await;
        }
        shares_reach(&ledger, 2_000).await;
        assert_eq!(available(&ledger, "alice").await, 2_000);
    });
}
