//! The sample belongs to the root.

use dovetail_vrf::{VrfPublicKey, VrfSecret};

use super::*;
use crate::{BatchState, CommitRefusal, UNDONE_CLAIMS_MAX, Undone};

fn key(n: u8) -> VrfPublicKey {
    VrfSecret::from_bytes([n; 32]).unwrap().public_key()
}

fn header(n: u8) -> HeaderHash {
    HeaderHash::from_bytes([n; 32])
}

#[test]
fn the_first_claim_of_a_root_fixes_its_sample_for_all_later_ones() {
    run(|db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1]).await;
        let fix = async |n| ledger.fix_sample(root, header(n), key(1)).await.unwrap();
        assert_eq!(fix(1).await, Some(header(1)));
        assert_eq!(fix(2).await, Some(header(1)));
        // Another process, after a restart.
        let other = db.ledger().await;
        let fixed = other.fix_sample(root, header(3), key(1)).await.unwrap();
        assert_eq!(fixed, Some(header(1)));
        let batch = ledger.batch(root).await.unwrap().unwrap();
        assert_eq!(batch.sample_header, Some(header(1)));
        let unknown = BatchRoot::from_bytes([9; 32]);
        let fixed = ledger.fix_sample(unknown, header(1), key(1)).await;
        assert_eq!(fixed.unwrap(), None);
    });
}

#[test]
fn of_claims_that_race_for_a_root_one_fixes_its_sample() {
    run(|db, ledger| async move {
        let other = db.ledger().await;
        for n in 1..10 {
            let (root, _) = open_batch(&ledger, &[n]).await;
            let (one, two) = tokio::join!(
                ledger.fix_sample(root, header(1), key(1)),
                other.fix_sample(root, header(2), key(1)),
            );
            let (one, two) = (one.unwrap(), two.unwrap());
            assert!(one.is_some());
            assert_eq!(one, two);
        }
    });
}

#[test]
fn a_pool_with_another_key_fixes_a_sample_that_it_can_prove() {
    run(|_db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1]).await;
        for (n, of_key, fixed) in [(1, 1, 1), (2, 2, 2), (3, 2, 2)] {
            let found = ledger.fix_sample(root, header(n), key(of_key)).await;
            assert_eq!(found.unwrap(), Some(header(fixed)));
        }
    });
}

#[test]
fn a_batch_dies_of_its_third_audit_that_cannot_be_done_and_costs_nobody_anything() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1, 2]).await;
        for _ in 1..UNDONE_CLAIMS_MAX {
            assert_eq!(ledger.count_undone(root).await.unwrap(), Undone::Open);
        }
        assert_eq!(ledger.count_undone(root).await.unwrap(), Undone::Over);
        assert_eq!(ledger.count_undone(root).await.unwrap(), Undone::Over);
        let batch = ledger.batch(root).await.unwrap().unwrap();
        assert_eq!(batch.state, BatchState::Dead);
        let fixed = ledger.fix_sample(root, header(1), key(1)).await.unwrap();
        assert_eq!(fixed, None);
        let claimed = running
            .committer
            .commit(inference_share(1, root, &tasks))
            .await;
        assert_eq!(claimed, Err(CommitRefusal::BatchSpent));
        assert_eq!(ledger.audit_record(&WORKER).await.unwrap().mismatches, 0);

        // Its tasks may go into smaller batches.
        let half = root_of(&[transcript(&new_task(1), &[1, 2, 3])]);
        ledger
            .register_batch(WORKER, half, &tasks[..1])
            .await
            .unwrap();
        let share = inference_share(2, half, &tasks[..1]);
        assert_eq!(running.committer.commit(share).await, Ok(()));
        running.stop().await;
    });
}
