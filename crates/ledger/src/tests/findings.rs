//! What one replay found is kept until a second one has had its say.

use super::*;
use crate::{BatchState, CommitRefusal, SuspectFinding, UNDONE_CLAIMS_MAX, Undone};

fn finding(index: usize) -> SuspectFinding {
    SuspectFinding {
        header_hash: HeaderHash::from_bytes([5; 32]),
        index,
        mismatch: "tokens".to_owned(),
        position: Some(1),
        replayed: Some(ReplayedDigests {
            tokens: 2,
            output_digest: [0xee; 32],
            trace_root: [0xff; 32],
        }),
        validator: "one".to_owned(),
    }
}

async fn suspects(ledger: &Ledger) -> Vec<(BatchRoot, SuspectFinding)> {
    let suspects = ledger.suspects(None, 10).await.unwrap();
    suspects.into_iter().map(|s| (s.root, s.finding)).collect()
}

#[test]
fn the_first_finding_about_a_batch_outlives_the_claim_and_the_pool() {
    run(|db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1, 2]).await;
        ledger.keep_finding(root, &finding(1)).await.unwrap();
        ledger.keep_finding(root, &finding(0)).await.unwrap();
        let restarted = db.ledger().await;
        assert_eq!(suspects(&restarted).await, [(root, finding(1))]);
        let of_worker = ledger.suspects(Some(WORKER), 10).await.unwrap();
        assert_eq!(of_worker.len(), 1);
        assert_eq!(of_worker[0].worker, WORKER);
        let another = Some(WorkerKey::from_bytes([1; 32]));
        assert_eq!(ledger.suspects(another, 10).await.unwrap(), []);
        // Another one than this was contradicted.
        ledger.drop_finding(root, &finding(0)).await.unwrap();
        assert_eq!(suspects(&ledger).await, [(root, finding(1))]);
        ledger.drop_finding(root, &finding(1)).await.unwrap();
        assert_eq!(suspects(&ledger).await, []);
    });
}

#[test]
fn a_finding_without_a_replay_is_kept_too() {
    run(|_db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1]).await;
        let found = SuspectFinding {
            mismatch: "prompt".to_owned(),
            position: None,
            replayed: None,
            ..finding(0)
        };
        ledger.keep_finding(root, &found).await.unwrap();
        assert_eq!(suspects(&ledger).await, [(root, found)]);
    });
}

#[test]
fn a_suspect_batch_is_neither_settled_nor_given_up() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        ledger.keep_finding(root, &finding(0)).await.unwrap();
        for _ in 0..=UNDONE_CLAIMS_MAX {
            assert_eq!(ledger.count_undone(root).await.unwrap(), Undone::Open);
        }
        let settled = running
            .committer
            .commit(inference_share(1, root, &tasks))
            .await;
        assert!(settled.is_err());
        let batch = ledger.batch(root).await.unwrap().unwrap();
        assert_eq!(batch.state, BatchState::Open);
        assert!(!batch.is_expired());
        running.stop().await;
    });
}

#[test]
fn a_suspect_batch_keeps_its_tasks_longer_than_they_would_last() {
    run(|_db, ledger| async move {
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let before = ledger.task(tasks[0]).await.unwrap().unwrap();
        ledger.keep_finding(root, &finding(0)).await.unwrap();
        let after = ledger.task(tasks[0]).await.unwrap().unwrap();
        assert!(after.expires_at_unix > before.expires_at_unix + 3_600);
    });
}

/// The pool may be away for longer than anything lasts, and a validator too.
#[test]
fn a_suspect_batch_never_expires_and_nothing_of_its_worker_matures() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (settled, tasks) = open_batch(&ledger, &[1]).await;
        let share = inference_share(1, settled, &tasks);
        running.committer.commit(share).await.unwrap();
        let (root, tasks) = open_batch(&ledger, &[2]).await;
        ledger.stake(WORKER, root).await.unwrap();
        ledger.keep_finding(root, &finding(0)).await.unwrap();
        sqlx::raw_sql("UPDATE batches SET expires_at = 1; UPDATE tasks SET expires_at = 1")
            .execute(&mut db.connection().await)
            .await
            .unwrap();
        assert_eq!(ledger.expire_tasks(unix_now()).await.unwrap(), []);
        assert_eq!(mature(&ledger).await, 0);
        assert_eq!(suspects(&ledger).await, [(root, finding(0))]);
        let task = ledger.task(tasks[0]).await.unwrap().unwrap();
        assert!(task.prompt.is_some());
        // Once nobody has lied, time counts again.
        ledger.drop_finding(root, &finding(0)).await.unwrap();
        assert_eq!(ledger.expire_tasks(unix_now()).await.unwrap(), tasks);
        assert_eq!(mature(&ledger).await, 1_000);
        running.stop().await;
    });
}

#[test]
fn a_suspect_batch_that_nobody_can_confirm_keeps_none_from_being_looked_at() {
    run(|db, ledger| async move {
        let mut roots = Vec::new();
        for n in 1..=3 {
            let (root, _) = open_batch(&ledger, &[n]).await;
            ledger.keep_finding(root, &finding(0)).await.unwrap();
            roots.push(root);
        }
        // All are equally old; then the first one is looked at.
        sqlx::raw_sql("UPDATE batches SET expires_at = 1")
            .execute(&mut db.connection().await)
            .await
            .unwrap();
        let first = ledger.suspects(None, 1).await.unwrap();
        assert_eq!(first[0].root, roots[0]);
        ledger
            .keep_finding(first[0].root, &first[0].finding)
            .await
            .unwrap();
        let next = ledger.suspects(None, 1).await.unwrap();
        assert_eq!(next[0].root, roots[1]);
    });
}

#[test]
fn a_confirmed_finding_fails_the_batch_and_is_one_no_more() {
    run(|_db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[3]).await;
        ledger.keep_finding(root, &finding(0)).await.unwrap();
        assert!(fail(&ledger, root, 3, 5).await.unwrap().is_some());
        assert_eq!(suspects(&ledger).await, []);
        let batch = ledger.batch(root).await.unwrap().unwrap();
        assert_eq!(batch.state, BatchState::Failed);
        assert_eq!(batch.code.as_deref(), Some("tokens"));
        // It comes too late.
        ledger.keep_finding(root, &finding(0)).await.unwrap();
        assert_eq!(suspects(&ledger).await, []);
    });
}

/// The audit of one batch may end while what another one's has found late is not confirmed yet.
#[test]
fn while_a_batch_is_suspect_no_other_of_its_worker_is_settled_and_of_what_is_settled_nothing_is_found()
 {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (suspect, lies) = open_batch(&ledger, &[1]).await;
        let (other, tasks) = open_batch(&ledger, &[2]).await;
        ledger.keep_finding(suspect, &finding(0)).await.unwrap();
        let claim = || running.committer.commit(inference_share(1, other, &tasks));
        assert_eq!(claim().await, Err(CommitRefusal::WorkerSuspect));
        ledger.drop_finding(suspect, &finding(0)).await.unwrap();
        assert_eq!(claim().await, Ok(()));
        // The task of the first one has ended meanwhile: there is nothing to compare with any more.
        let ended = ledger.expire_tasks(unix_now() + 10_000_000).await.unwrap();
        assert_eq!(ended, lies);
        ledger.keep_finding(suspect, &finding(0)).await.unwrap();
        assert_eq!(suspects(&ledger).await, []);
        running.stop().await;
    });
}
