//! Group commit, duplicates and batches that are spent once.

use super::*;
use crate::share_record::LoggedShare;
use crate::{BatchRefusal, BatchState, CommitRefusal, TaskState};

#[test]
fn a_share_is_acknowledged_once_it_is_logged_whatever_postgres_does() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(hash_share(1, "alice", 5))
            .await
            .unwrap();
        let held = db.hold_commits().await;
        for n in 2..=5 {
            running.log(hash_share(n, "alice", 5)).await.unwrap();
        }
        assert_eq!(ledger.stats().await.unwrap().shares, 1);
        held.close().await.unwrap();
        running.committer.0.written().await;
        assert_eq!(ledger.stats().await.unwrap().shares, 5);
        assert_eq!(available(&ledger, "alice").await, 25);
    });
}

#[test]
fn one_proof_is_one_credit_across_reconnects_restarts_and_groups() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let commit = |share| running.committer.commit(share);
        let (first, second) = tokio::join!(
            commit(hash_share(1, "alice", 5)),
            commit(hash_share(1, "alice", 5))
        );
        assert_eq!(
            (first, second),
            (Ok(()), Err(CommitRefusal::DuplicateShare))
        );
        running.stop().await;
        let reconnected = db.ledger().await;
        let running = Running::start(&reconnected, dir.path()).await;
        let again = running.committer.commit(hash_share(1, "mallory", 9)).await;
        assert_eq!(again, Err(CommitRefusal::DuplicateShare));
        assert_eq!(available(&ledger, "alice").await, 5);
        assert_eq!(available(&ledger, "mallory").await, 0);
    });
}

#[test]
fn a_bad_share_is_refused_at_once_and_nobody_elses() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let commit = |share| running.committer.commit(share);
        let unknown = inference_share(4, BatchRoot::from_bytes([4; 32]), &[]);
        let too_high = Share {
            height: u32::MAX,
            ..hash_share(7, "alice", 1)
        };
        let outcomes = tokio::join!(
            commit(hash_share(1, "alice", 1)),
            commit(unknown),
            commit(hash_share(5, "a\0b", 1)),
            commit(hash_share(8, "", 1)),
            commit(too_high),
            commit(hash_share(6, "alice", 2)),
        );
        let invalid = Err(CommitRefusal::Invalid);
        let unknown = Err(CommitRefusal::BatchUnknown);
        assert_eq!(
            outcomes,
            (Ok(()), unknown, invalid, invalid, invalid, Ok(()))
        );
        assert_eq!(available(&ledger, "alice").await, 3);
        // What was refused may be submitted again.
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        assert_eq!(commit(inference_share(4, root, &tasks)).await, Ok(()));
    });
}

#[test]
fn a_batch_is_settled_with_its_tasks_receipts_audit_and_credit_at_once() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1, 2]).await;
        let missing = inference_share(1, root, &tasks[..1]);
        assert_eq!(
            running.committer.commit(missing).await,
            Err(CommitRefusal::Invalid)
        );
        assert_eq!(ledger.receipt(tasks[0]).await.unwrap(), None);
        let share = inference_share(1, root, &tasks);
        running.committer.commit(share.clone()).await.unwrap();
        // The inference credit is held.
        let balance = ledger.balance("miner").await.unwrap();
        assert_eq!((balance.available.get(), balance.held.get()), (10, 1_000));
        assert_eq!(
            ledger.batch(root).await.unwrap().unwrap().state,
            BatchState::Settled
        );
        for id in &tasks {
            let task = ledger.task(*id).await.unwrap().unwrap();
            assert_eq!((task.state, task.prompt), (TaskState::Settled, None));
            assert_eq!(ledger.receipt(*id).await.unwrap().as_deref(), Some("{}"));
        }
        let stats = ledger.stats().await.unwrap();
        assert_eq!((stats.inference_shares, stats.transcripts_replayed), (1, 1));
        // The same proof again is a duplicate, another proof finds the batch spent.
        assert_eq!(
            running.committer.commit(share).await,
            Err(CommitRefusal::DuplicateShare)
        );
        let another = inference_share(2, root, &tasks);
        assert_eq!(
            running.committer.commit(another).await,
            Err(CommitRefusal::BatchSpent)
        );
        assert!(matches!(
            ledger.register_batch(WORKER, root, &tasks).await,
            Err(BatchRefusal::Spent)
        ));
        assert_eq!(mature(&ledger).await, 1_000);
        assert_eq!(available(&ledger, "miner").await, 1_010);
    });
}

#[test]
fn of_many_shares_that_claim_a_batch_at_once_one_is_credited() {
    run(|db, ledger| async move {
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        // Two processes, each with a group full of claims.
        let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let other = db.ledger().await;
        let a = Running::start(&ledger, dir_a.path()).await;
        let b = Running::start(&other, dir_b.path()).await;
        let claims = (0..20u8).map(|n| {
            let running = if n % 2 == 0 { &a } else { &b };
            let committer = running.committer.clone();
            let share = inference_share(n, root, &tasks);
            tokio::spawn(async move { committer.commit(share).await })
        });
        let claims: Vec<_> = claims.collect();
        let mut credited = 0;
        for claim in claims {
            match claim.await.unwrap() {
                Ok(()) => credited += 1,
                Err(refusal) => assert_eq!(refusal, CommitRefusal::BatchSpent),
            }
        }
        assert_eq!(credited, 1);
        assert_eq!(mature(&ledger).await, 1_000);
        assert_eq!(available(&ledger, "miner").await, 1_010);
    });
}

#[test]
fn a_task_is_paid_for_in_one_batch_only() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let transcripts = [
            finished_task(&ledger, 1).await,
            finished_task(&ledger, 2).await,
        ];
        let ids = [transcripts[0].task_id, transcripts[1].task_id];
        let (small, large) = (root_of(&transcripts[..1]), root_of(&transcripts));
        ledger
            .register_batch(WORKER, small, &ids[..1])
            .await
            .unwrap();
        ledger.register_batch(WORKER, large, &ids).await.unwrap();
        let share = inference_share(1, small, &ids[..1]);
        running.committer.commit(share).await.unwrap();
        let share = inference_share(2, large, &ids);
        assert_eq!(
            running.committer.commit(share).await,
            Err(CommitRefusal::BatchSpent)
        );
        assert_eq!(
            ledger.task(ids[1]).await.unwrap().unwrap().state,
            TaskState::Finished
        );
    });
}

#[test]
fn a_batch_whose_tasks_have_expired_earns_nothing() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        ledger.expire_tasks(unix_now() + 601).await.unwrap();
        let share = inference_share(1, root, &tasks);
        assert_eq!(
            running.committer.commit(share).await,
            Err(CommitRefusal::TaskExpired)
        );
        assert_eq!(available(&ledger, "miner").await, 0);
    });
}

#[test]
fn shares_taken_before_the_end_are_committed_and_later_ones_refused() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running.log(hash_share(1, "alice", 1)).await.unwrap();
        let committer = running.committer.clone();
        running.stop().await;
        let late = committer.commit(hash_share(2, "alice", 1)).await;
        assert_eq!(late, Err(CommitRefusal::Unavailable));
        assert_eq!(ledger.stats().await.unwrap().shares, 1);
    });
}

#[test]
fn a_block_is_found_once_by_whatever_process() {
    run(|db, ledger| async move {
        let header = HeaderHash::from_bytes([7; 32]);
        assert!(ledger.record_block(header, 5, "alice").await.unwrap());
        let note = |result| ledger.note_submission(header, result);
        assert!(note("unknown").await.unwrap());
        assert!(note("accepted").await.unwrap());
        assert!(!note("accepted").await.unwrap(), "it was found before");
        assert!(!note("unknown").await.unwrap(), "the node's word stands");
        let restarted = db.ledger().await;
        assert!(!restarted.record_block(header, 6, "alice").await.unwrap());
        let found: (i64, String) = sqlx::query_as("SELECT height, result FROM blocks")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(found, (5, "accepted".to_owned()));
        assert_eq!(ledger.stats().await.unwrap().blocks, 1);
    });
}

/// Many at once, of which some are the same proof.
#[test]
fn of_shares_that_come_together_each_proof_counts_once_for_whoever_was_first() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let commit = |share| running.committer.commit(share);
        commit(hash_share(1, "alice", 5)).await.unwrap();
        let outcomes = tokio::join!(
            commit(hash_share(1, "mallory", 9)),
            commit(hash_share(2, "alice", 7)),
            commit(hash_share(2, "mallory", 9)),
            // Too easy to be worth anything.
            commit(hash_share(3, "bob", 0)),
            commit(hash_share(4, "carol", 1)),
            commit(hash_share(5, "alice", 1)),
        );
        let duplicate = Err(CommitRefusal::DuplicateShare);
        assert_eq!(
            outcomes,
            (duplicate, Ok(()), duplicate, Ok(()), Ok(()), Ok(()))
        );
        let of = async |name: &str| available(&ledger, name).await;
        assert_eq!(
            (of("alice").await, of("bob").await, of("carol").await),
            (13, 0, 1)
        );
        assert_eq!(of("mallory").await, 0);
        assert_eq!(ledger.stats().await.unwrap().shares, 5);
        let mut sql = db.connection().await;
        let idle: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM transfers t JOIN accounts a ON a.id = t.credit WHERE a.name = 'worker:bob'",
        )
        .fetch_one(&mut sql)
        .await
        .unwrap();
        assert_eq!(idle, 0, "what is worth nothing moves nothing");
    });
}

/// The pool stops between a claim's transaction and its share in the log.
#[test]
fn the_share_of_a_claim_that_was_settled_and_not_logged_is_logged_at_the_next_start() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let log_id = running.committer.0.log_id();
        running.stop().await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let share = inference_share(9, root, &tasks);
        let batch = share.batch.clone().unwrap();
        let record = LoggedShare::new(&share, unix_now()).encode();
        let settled = ledger.settle_claim(&share, &batch, (log_id, &record)).await;
        assert_eq!(settled.unwrap(), Ok(()));
        // Another pool's start leaves it alone.
        let other = tempfile::tempdir().unwrap();
        Running::start(&ledger, other.path()).await.stop().await;
        assert_eq!(ledger.stats().await.unwrap().shares, 0);
        for _ in 0..2 {
            let running = Running::start(&ledger, dir.path()).await;
            running.committer.0.written().await;
            let again = running.committer.commit(share.clone()).await;
            assert_eq!(again, Err(CommitRefusal::DuplicateShare));
            let another = inference_share(8, root, &tasks);
            let another = running.committer.commit(another).await;
            assert_eq!(another, Err(CommitRefusal::BatchSpent));
            running.stop().await;
        }
        let balance = ledger.balance("miner").await.unwrap();
        assert_eq!((balance.available.get(), balance.held.get()), (10, 1_000));
        let stats = ledger.stats().await.unwrap();
        let counts = (
            stats.shares,
            stats.inference_shares,
            stats.transcripts_replayed,
        );
        assert_eq!(counts, (1, 1, 1));
    });
}

/// Another pool, or a fault, has brought the proof into the ledger: the second line.
#[test]
fn a_proof_that_is_in_the_ledger_and_not_in_memory_counts_once() {
    run(|db, ledger| async move {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let running = Running::start(&ledger, dir.path()).await;
        let pool = Running::start(&db.ledger().await, other.path()).await;
        running
            .committer
            .commit(hash_share(1, "alice", 5))
            .await
            .unwrap();
        // Acknowledged, since nobody knows it there; credited once.
        for n in [2, 1, 3] {
            pool.log(hash_share(n, "bob", 7)).await.unwrap();
        }
        pool.committer.0.written().await;
        assert_eq!(available(&ledger, "alice").await, 5);
        assert_eq!(available(&ledger, "bob").await, 14);
        assert_eq!(ledger.stats().await.unwrap().shares, 3);
    });
}
