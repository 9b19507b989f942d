//! A pool owes an outcome for each claim that it decided, and for nothing else.

use dovetail_commitment::{BatchRoot, HeaderHash};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    BatchOutcome, DeliverTranscriptSuccess, RegisterBatch, RegisterBatchError,
};
use dovetail_vrf::VrfProof;
use serde_json::Value;

use crate::support::claim::{Claim, claimed, passed};
use crate::support::fixture::BLOCKS_NEVER;
use crate::support::pool::{accept_batch, batch_of, hung_up, next, settled};
use crate::support::{Fixture, Played, Setup};
use crate::{impatient, status};

/// The claim of a batch with one task, which has this number.
async fn claim_of(
    fixture: &Fixture,
    pool: &mut Played,
    declarator: &mut Option<Played>,
    number: u8,
) -> Claim {
    let transcript = fixture.transcript(pool, number).await;
    let root = accept_batch(pool, &transcript).await;
    let declarator = match declarator {
        Some(declarator) => declarator,
        // The worker connects when it first has something to declare.
        None => declarator.insert(fixture.declarator().await),
    };
    Claim::take(pool, declarator, root).await
}

#[tokio::test]
async fn a_mismatch_without_its_outcome_makes_the_worker_leave_for_good() {
    let (fixture, mut pool, _declarator, claim) = claimed(impatient()).await;
    let mismatch = Code::InferenceMismatch.as_str();
    claim.refuse(&mut pool, mismatch).await;
    hung_up(&mut pool).await;
    let remembered = fixture.no_pool_is_left().await;
    assert!(remembered.contains("keeps the proof"), "{remembered}");
}

#[tokio::test]
async fn a_mismatch_that_its_outcome_calls_an_audit_that_was_not_done_is_one_without_its_outcome() {
    let (fixture, mut pool, _declarator, claim) = claimed(impatient()).await;
    let mismatch = Code::InferenceMismatch.as_str();
    claim.refuse(&mut pool, mismatch).await;
    pool.send(&claim.undone()).await;
    hung_up(&mut pool).await;
    fixture.no_pool_is_left().await;
}

#[tokio::test]
async fn an_acceptance_without_its_outcome_is_no_credit_and_the_third_in_a_row_makes_the_worker_leave()
 {
    let fixture = Fixture::start(impatient()).await;
    let mut pool = fixture.session().await;
    let mut declarator = None;
    for number in [1, 2] {
        let claim = claim_of(&fixture, &mut pool, &mut declarator, number).await;
        claim.accept(&mut pool).await;
        let seen = status(&fixture, |page| {
            page["earned"]["inference_batches_unexplained"] == number
        });
        let page = seen.await;
        assert_eq!(page["earned"]["inference_batches"], 0);
        assert_eq!(page["earned"]["inference_tokens"], 0);
    }
    // One that is explained makes good for the two.
    let good = claim_of(&fixture, &mut pool, &mut declarator, 3).await;
    good.accept(&mut pool).await;
    pool.send(&good.passed()).await;
    let page = status(&fixture, |page| page["earned"]["inference_batches"] == 1).await;
    assert_eq!(page["earned"]["inference_tokens"], 12);
    assert_eq!(page["earned"]["inference_msat"], 24_000);
    for number in [4, 5, 6] {
        let claim = claim_of(&fixture, &mut pool, &mut declarator, number).await;
        claim.accept(&mut pool).await;
    }
    hung_up(&mut pool).await;
    let remembered = fixture.no_pool_is_left().await;
    assert!(remembered.contains("3 claims in a row"), "{remembered}");
}

#[tokio::test]
async fn only_an_outcome_of_the_very_share_that_was_sent_is_looked_at_and_only_once() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    let root = fixture.batch(&mut pool).await;
    let mut declarator = fixture.declarator().await;
    // Before its share is there, of a batch that is another's, and of another header.
    let never_sent = HeaderHash::from_bytes([8; 32]);
    pool.send(&passed(root, never_sent)).await;
    settled(&mut pool).await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    let of_another_batch = BatchOutcome {
        root: BatchRoot::from_bytes([9; 32]),
        ..claim.passed()
    };
    let of_another_header = BatchOutcome {
        header_hash: HeaderHash::from_bytes([9; 32]),
        ..claim.passed()
    };
    // A proof of nothing would be a reason to leave, if it were looked at.
    let of_nothing = BatchOutcome {
        proof: VrfProof::from_bytes([7; VrfProof::BYTES]),
        accepted: false,
        ..of_another_header.clone()
    };
    for outcome in [&of_another_batch, &of_another_header, &of_nothing] {
        pool.send(outcome).await;
    }
    settled(&mut pool).await;
    let page = fixture.status().await;
    assert_eq!(page["earned"]["inference_batches"], 0);
    assert_eq!(page["earned"]["inference_msat"], 0);
    assert_eq!(page["earned"]["inference_held_msat"], 0);
    assert_eq!(page["pools"][0]["outcomes_ignored"], 4);
    // Its own is credited, and another of the same share is not.
    claim.accept(&mut pool).await;
    pool.send(&claim.passed()).await;
    pool.send(&claim.passed()).await;
    settled(&mut pool).await;
    let page = fixture.status().await;
    assert_eq!(page["earned"]["inference_batches"], 1);
    assert_eq!(page["earned"]["inference_msat"], 24_000);
    assert_eq!(page["pools"][0]["outcomes_ignored"], 5);
    fixture.stop().await;
}

#[tokio::test]
async fn an_outcome_that_contradicts_the_answer_to_its_share_makes_the_worker_leave() {
    let (fixture, mut pool, _declarator, claim) = claimed(impatient()).await;
    claim.accept(&mut pool).await;
    let other = BatchOutcome {
        code: Code::Internal.to_string(),
        ..claim.undone()
    };
    pool.send(&other).await;
    hung_up(&mut pool).await;
    let remembered = fixture.no_pool_is_left().await;
    assert!(remembered.contains("contradicts"), "{remembered}");
}

#[tokio::test]
async fn an_outcome_that_comes_late_settles_its_batch() {
    let (fixture, mut pool, mut declarator, claim) = claimed(impatient()).await;
    let root = claim.root;
    // The audit could not be done, says the answer; the worker claims the batch again.
    let unavailable = Code::AuditUnavailable.as_str();
    claim.refuse(&mut pool, unavailable).await;
    let again: RegisterBatch = batch_of(&mut pool, root).await;
    assert_eq!(again.root, root);
    pool.send(&claim.undone()).await;
    let first = claim.header_hash;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    claim.accept(&mut pool).await;
    // The sample belongs to the batch: the first claim has fixed it.
    pool.send(&BatchOutcome {
        header_hash: claim.header_hash,
        ..passed(root, first)
    })
    .await;
    let page = status(&fixture, |page| page["earned"]["inference_batches"] == 1).await;
    assert_eq!(page["earned"]["inference_tokens"], 12);
    assert_eq!(page["pools"][0]["outcomes_ignored"], 0);
    fixture.stop().await;
}

#[tokio::test]
async fn a_sample_of_a_header_that_is_none_of_the_workers_shares_makes_it_leave() {
    let (fixture, mut pool, _declarator, claim) = claimed(impatient()).await;
    claim.accept(&mut pool).await;
    // The pool can prove the output of any header, and so could choose among headers.
    let chosen = BatchOutcome {
        header_hash: claim.header_hash,
        ..passed(claim.root, HeaderHash::from_bytes([9; 32]))
    };
    pool.send(&chosen).await;
    hung_up(&mut pool).await;
    let remembered = fixture.no_pool_is_left().await;
    assert!(remembered.contains("no share that claimed"), "{remembered}");
}

#[tokio::test]
async fn a_batch_that_was_claimed_on_an_earlier_session_is_settled_by_its_sample_on_a_later_one() {
    let (fixture, pool, _, claim) = claimed(impatient()).await;
    let (root, first) = (claim.root, claim.header_hash);
    // The connection breaks before an answer; the pool has fixed the sample by then.
    drop(pool);
    let mut pool = fixture.session().await;
    batch_of(&mut pool, root).await;
    let mut declarator = fixture.declarator().await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    assert_ne!(claim.header_hash, first);
    claim.accept(&mut pool).await;
    pool.send(&BatchOutcome {
        header_hash: claim.header_hash,
        ..passed(root, first)
    })
    .await;
    let page = status(&fixture, |page| page["earned"]["inference_batches"] == 1).await;
    assert_eq!(page["earned"]["inference_tokens"], 12);
    fixture.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_costly_to_audit_comes_again_in_halves() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    // A first batch is under way while two more tasks end.
    let task_id = fixture.transcript(&mut pool, 1).await.task_id;
    pool.send(&DeliverTranscriptSuccess { task_id }).await;
    let first: RegisterBatch = next(&mut pool).await;
    let mut others = Vec::new();
    for number in [2, 3] {
        let task_id = fixture.transcript(&mut pool, number).await.task_id;
        pool.send(&DeliverTranscriptSuccess { task_id }).await;
        others.push(task_id);
    }
    refuse_batch(&mut pool, &first, Code::TaskUnknown).await;
    let both: RegisterBatch = next(&mut pool).await;
    assert_eq!(both.task_ids, others);
    refuse_batch(&mut pool, &both, Code::BatchTooCostly).await;
    // What has no half is given up in the end.
    for task_id in others {
        let half: RegisterBatch = next(&mut pool).await;
        assert_eq!(half.task_ids, [task_id]);
        refuse_batch(&mut pool, &half, Code::BatchTooCostly).await;
    }
    let refused = |page: &Value| page["earned"]["inference_batches_refused"] == 3;
    status(&fixture, refused).await;
    fixture.stop().await;
}

async fn refuse_batch(pool: &mut Played, batch: &RegisterBatch, code: Code) {
    pool.send(&RegisterBatchError {
        request_id: batch.request_id,
        code: code.to_string(),
    })
    .await;
}
