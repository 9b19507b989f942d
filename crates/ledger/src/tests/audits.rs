//! The beacon's steps, the audit log, workers' records and blocks.

use super::*;
use crate::{BatchState, TaskState};

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
fn a_workers_record_counts_its_settled_batches_and_its_mismatches() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let record = async || {
            let record = ledger.audit_record(&WORKER).await.unwrap();
            (record.batches, record.mismatches)
        };
        assert_eq!(record().await, (0, 0));
        let (root, tasks) = open_batch(&ledger, &[1, 2]).await;
        running
            .committer
            .commit(inference_share(1, root, 0, &tasks))
            .await
            .unwrap();
        assert_eq!(record().await, (1, 0));

        let (bad, tasks) = open_batch(&ledger, &[3]).await;
        fail(&ledger, bad, 3, 7).await.unwrap();
        assert_eq!(record().await, (1, 1));
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
        assert_eq!(record().await, (2, 1));
    });
}

#[test]
fn a_failed_audit_is_recorded_once_with_all_that_an_appeal_needs() {
    run(|_db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[3]).await;
        let nothing = Some(crate::Forfeiture::default());
        assert_eq!(fail(&ledger, root, 3, 7).await.unwrap(), nothing);
        assert_eq!(fail(&ledger, root, 3, 7).await.unwrap(), nothing);
        // Another step finds the batch failed, and costs nothing more.
        assert_eq!(fail(&ledger, root, 3, 8).await.unwrap(), None);
        assert_eq!(ledger.audit_record(&WORKER).await.unwrap().mismatches, 1);

        let records = ledger.failed_audits(None, 10).await.unwrap();
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        let claimed = transcript(&new_task(3), &[1, 2, 3]);
        assert_eq!((record.step, record.leaf_index), (7, 0));
        assert_eq!(record.root, root.to_string());
        assert_eq!(record.task_id, claimed.task_id.to_string());
        assert_eq!(
            record.transcript_hash,
            hex::encode(claimed.leaf().as_bytes())
        );
        assert_eq!(
            (record.mismatch.as_str(), record.position),
            ("tokens", Some(1))
        );
        assert_eq!(
            record.claimed_output_digest,
            hex::encode(claimed.output_digest)
        );
        assert_eq!(record.replayed_tokens, Some(2));
        assert_eq!(record.replayed_output_digest, Some("ee".repeat(32)));
        assert_eq!(record.validators, ["one", "two"]);
        assert_eq!(
            ledger.failed_audits(Some(WORKER), 10).await.unwrap(),
            records
        );
        let other = WorkerKey::from_bytes([1; 32]);
        assert!(
            ledger
                .failed_audits(Some(other), 10)
                .await
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn nobody_elses_batch_and_no_settled_one_can_fail() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let transcript = transcript(&new_task(1), &[1, 2, 3]);
        let of_another = FailedAudit {
            worker: WorkerKey::from_bytes([1; 32]),
            ..failed(root, &transcript, 5)
        };
        assert_eq!(ledger.fail_audit(&of_another).await.unwrap(), None);
        running
            .committer
            .commit(inference_share(1, root, 0, &tasks))
            .await
            .unwrap();
        assert_eq!(fail(&ledger, root, 1, 6).await.unwrap(), None);
        assert_eq!(ledger.failed_audits(None, 10).await.unwrap(), []);
        assert_eq!(ledger.balance("miner").await.unwrap().held.get(), 1_000);
    });
}
