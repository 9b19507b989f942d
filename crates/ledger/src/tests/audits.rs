//! The audit log, workers' records and failed audits.

use super::*;
use crate::{BatchState, TaskState};

#[test]
fn a_claim_is_recorded_with_one_sample_only() {
    run(|_db, ledger| async move {
        let (hash, root) = (
            HeaderHash::from_bytes([1; 32]),
            BatchRoot::from_bytes([2; 32]),
        );
        let drawn = |indices: &[usize]| DrawnSample {
            indices: indices.to_vec(),
            ..sample(3)
        };
        let record = async |indices, verdict| {
            let drawn = drawn(indices);
            ledger.record_audit(hash, root, &drawn, verdict).await
        };
        record(&[1, 3], "audit-unavailable").await.unwrap();
        record(&[1, 3], "audit-unavailable").await.unwrap();
        let other = record(&[2, 3], "audit-unavailable").await;
        assert!(matches!(other, Err(LedgerError::Conflict(_))));
        assert_eq!(ledger.stats().await.unwrap().transcripts_replayed, 2);
        // A sample may be empty.
        record(&[], "passed").await.unwrap();
        let stakes: Vec<Option<i64>> = sqlx::query_scalar("SELECT stake_msat FROM audits")
            .fetch_all(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(stakes, [Some(5_000); 2]);
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
            .commit(inference_share(1, root, &tasks))
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
            .commit(inference_share(2, bad, &tasks))
            .await;
        assert_eq!(spent, Err(crate::CommitRefusal::BatchSpent));

        let (root, tasks) = open_batch(&ledger, &[4]).await;
        running
            .committer
            .commit(inference_share(3, root, &tasks))
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
        // Another claim finds the batch failed, and costs nothing more.
        assert_eq!(fail(&ledger, root, 3, 8).await.unwrap(), None);
        assert_eq!(ledger.audit_record(&WORKER).await.unwrap().mismatches, 1);

        let records = ledger.failed_audits(None, 10).await.unwrap();
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        let claimed = transcript(&new_task(3), &[1, 2, 3]);
        assert_eq!(record.leaf_index, 0);
        assert_eq!(record.header_hash, "07".repeat(32));
        assert_eq!(record.sample_header, Some("07".repeat(32)));
        assert_eq!(record.vrf_proof, Some("07".repeat(VrfProof::BYTES)));
        assert_eq!(record.stake_msat, Some(5_000));
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
        let (transcript, sample) = (transcript(&new_task(1), &[1, 2, 3]), sample(5));
        let of_another = FailedAudit {
            worker: WorkerKey::from_bytes([1; 32]),
            ..failed(root, &transcript, &sample)
        };
        assert_eq!(ledger.fail_audit(&of_another).await.unwrap(), None);
        running
            .committer
            .commit(inference_share(1, root, &tasks))
            .await
            .unwrap();
        assert_eq!(fail(&ledger, root, 1, 6).await.unwrap(), None);
        assert_eq!(ledger.failed_audits(None, 10).await.unwrap(), []);
        assert_eq!(ledger.balance("miner").await.unwrap().held.get(), 1_000);
    });
}
