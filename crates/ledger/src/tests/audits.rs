//! The beacon's steps, the audit log, trust and blocks.

use super::*;
use crate::{BatchState, LedgerError, TaskState};

#[test]
fn the_beacon_is_made_once_and_its_steps_are_never_taken_twice() {
    run(|db, ledger| async move {
        let other = db.ledger().await;
        let (first, second) = tokio::join!(ledger.beacon(), other.beacon());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.seed, first.length), (second.seed, second.length));
        let mut steps = Vec::new();
        for _ in 0..10 {
            let (one, two) = tokio::join!(ledger.take_step(), other.take_step());
            steps.extend([one.unwrap(), two.unwrap()]);
        }
        steps.sort_unstable();
        assert_eq!(steps, (0..20).collect::<Vec<u32>>());
        let reconnected = db.ledger().await;
        assert_eq!(reconnected.beacon().await.unwrap().seed, first.seed);
        assert_eq!(reconnected.take_step().await.unwrap(), 20);
    });
}

#[test]
fn a_step_is_recorded_for_one_audit_only() {
    run(|_db, ledger| async move {
        let (hash, root) = (
            HeaderHash::from_bytes([1; 32]),
            BatchRoot::from_bytes([2; 32]),
        );
        ledger
            .record_audit(hash, root, 0, &[3, 1], "tokens")
            .await
            .unwrap();
        ledger
            .record_audit(hash, root, 0, &[3, 1], "tokens")
            .await
            .unwrap();
        let other = ledger.record_audit(hash, root, 0, &[3, 2], "tokens").await;
        assert!(matches!(other, Err(LedgerError::Conflict(_))));
        assert_eq!(ledger.stats().await.unwrap().transcripts_replayed, 2);
    });
}

#[test]
fn trust_grows_with_settled_transcripts_and_starts_over_after_a_mismatch() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let trust = async || ledger.audited_transcripts(&WORKER).await.unwrap();
        assert_eq!(trust().await, 0);
        let (root, tasks) = open_batch(&ledger, &[1, 2]).await;
        running
            .committer
            .commit(inference_share(1, root, 0, &tasks))
            .await
            .unwrap();
        assert_eq!(trust().await, 2);

        let (bad, tasks) = open_batch(&ledger, &[3]).await;
        ledger.fail_batch(bad, "tokens").await.unwrap();
        assert_eq!(trust().await, 0);
        assert_eq!(
            ledger.batch(bad).await.unwrap().unwrap().state,
            BatchState::Failed
        );
        let task = ledger.task(tasks[0]).await.unwrap().unwrap();
        assert_eq!((task.state, task.prompt), (TaskState::Failed, None));
        let spent = running
            .committer
            .commit(inference_share(2, bad, 1, &tasks))
            .await;
        assert_eq!(spent, Err(crate::CommitRefusal::BatchSpent));

        let (root, tasks) = open_batch(&ledger, &[4]).await;
        running
            .committer
            .commit(inference_share(3, root, 2, &tasks))
            .await
            .unwrap();
        assert_eq!(trust().await, 1);
    });
}

#[test]
fn a_block_is_recorded_once() {
    run(|_db, ledger| async move {
        let hash = HeaderHash::from_bytes([1; 32]);
        ledger
            .record_block(hash, 101, "miner", "accepted")
            .await
            .unwrap();
        ledger
            .record_block(hash, 101, "miner", "accepted")
            .await
            .unwrap();
        assert_eq!(ledger.stats().await.unwrap().blocks, 1);
    });
}
