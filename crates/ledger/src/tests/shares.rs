//! Group commit, duplicates and batches that are spent once.

use super::*;
use crate::{BatchRefusal, BatchState, CommitRefusal, TaskState};

#[test]
fn a_share_is_not_acked_before_it_is_durable() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let held = db.hold_commits().await;
        let committer = running.committer.clone();
        let acked = tokio::spawn(async move { committer.commit(hash_share(1, "alice", 5)).await });
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(!acked.is_finished());
        assert_eq!(ledger.stats().await.unwrap().shares, 0);
        held.close().await.unwrap();
        acked.await.unwrap().unwrap();
        let elsewhere = db.ledger().await;
        assert_eq!(elsewhere.stats().await.unwrap().shares, 1);
        assert_eq!(available(&elsewhere, "alice").await, 5);
    });
}

#[test]
fn a_group_is_committed_when_it_is_full_or_its_first_share_has_waited() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let wait = Duration::from_millis(800);
        let running = Running::start_with(&ledger, dir.path(), 3, wait).await;
        let commit = |n| running.committer.commit(hash_share(n, "alice", 1));
        let start = std::time::Instant::now();
        let (a, b, c) = tokio::join!(commit(1), commit(2), commit(3));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert!(start.elapsed() < wait, "a full group does not wait");
        let start = std::time::Instant::now();
        commit(4).await.unwrap();
        assert!(start.elapsed() >= wait, "a lone share waits for company");
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
fn a_bad_share_does_not_sink_its_group() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let wait = Duration::from_millis(200);
        let running = Running::start_with(&ledger, dir.path(), 100, wait).await;
        let commit = |share| running.committer.commit(share);
        let unknown = inference_share(4, BatchRoot::from_bytes([4; 32]), &[]);
        let (good, full, overflow, unknown, nul, after) = tokio::join!(
            commit(hash_share(1, "alice", 1)),
            commit(hash_share(2, "rich", i64::MAX)),
            commit(hash_share(3, "rich", 1)),
            commit(unknown),
            commit(hash_share(5, "a\0b", 1)),
            commit(hash_share(6, "alice", 2)),
        );
        assert_eq!(good, Ok(()));
        // The pool's own account is full before the worker's.
        assert_eq!(full, Err(CommitRefusal::Invalid));
        assert_eq!(overflow, Ok(()));
        assert_eq!(unknown, Err(CommitRefusal::BatchUnknown));
        assert_eq!(nul, Err(CommitRefusal::Invalid));
        assert_eq!(after, Ok(()));
        assert_eq!(available(&ledger, "alice").await, 3);
        // It was not taken for an outage: inference is still settled.
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        assert_eq!(commit(inference_share(9, root, &tasks)).await, Ok(()));
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
        let wait = Duration::from_millis(300);
        let running = Running::start_with(&ledger, dir.path(), 100, wait).await;
        let committer = running.committer.clone();
        let last = tokio::spawn(async move { committer.commit(hash_share(1, "alice", 1)).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let committer = running.committer.clone();
        running.stop().await;
        assert_eq!(last.await.unwrap(), Ok(()));
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

#[test]
fn a_source_that_floods_the_committer_has_nobody_else_refused_or_held_up() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let wait = Duration::from_millis(2);
        let running = Running::start_with(&ledger, dir.path(), 4, wait).await;
        let numbered = |number: u16, account| {
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&number.to_le_bytes());
            Share {
                header_hash: HeaderHash::from_bytes(hash),
                ..hash_share(0, account, 1)
            }
        };
        let commit = |committer: &Committer, share| {
            let committer = committer.clone();
            tokio::spawn(async move { committer.commit(share).await })
        };
        // Nothing is committed while the flood comes.
        let held = db.hold_commits().await;
        let flood: Vec<_> = (0..600)
            .map(|number| commit(&running.committer, numbered(number, "flood")))
            .collect();
        let other = running.committer.for_another_source();
        let others: Vec<_> = (600..603)
            .map(|number| commit(&other, numbered(number, "other")))
            .collect();
        held.close().await.unwrap();
        for share in others.into_iter().chain(flood) {
            assert_eq!(share.await.unwrap(), Ok(()));
        }
        let before: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM shares WHERE account = 'flood' AND created_at <
             (SELECT max(created_at) FROM shares WHERE account = 'other')",
        )
        .fetch_one(&ledger.pool)
        .await
        .unwrap();
        assert!(before < 100, "{before} shares of the flood came first");
    });
}

/// A group in one go gives each share what it would be given by itself.
#[test]
fn of_shares_that_come_together_each_proof_counts_once_for_whoever_was_first() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let wait = Duration::from_millis(300);
        let running = Running::start_with(&ledger, dir.path(), 100, wait).await;
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
        let transfers: i64 = sqlx::query_scalar("SELECT count(*) FROM transfers")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        assert_eq!(transfers, 4, "what is worth nothing moves nothing");
    });
}

/// A claim needs its share. The same proof without the claim, in the same group, does not take it away.
#[test]
fn of_a_claim_and_a_hash_share_of_one_proof_in_a_group_the_claim_is_settled() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let wait = Duration::from_millis(300);
        let running = Running::start_with(&ledger, dir.path(), 100, wait).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let outcomes = tokio::join!(
            running.committer.commit(hash_share(9, "miner", 5)),
            running.committer.commit(inference_share(9, root, &tasks)),
        );
        assert_eq!(outcomes, (Err(CommitRefusal::DuplicateShare), Ok(())));
    });
}
