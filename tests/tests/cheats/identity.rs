//! Who says to be whom: registrations that prove nothing, and claims without one.

use dovetail_commitment::ModelId;
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::{
    EXTENSION_TYPE, RegisterWorkerProof, sign_registration, verify_registration,
};
use dovetail_tests::scenario::Options;

use crate::fixture::{Case, options};
use crate::scripted_worker::{Verdict, Wire, assert_refused, challenge, prove};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_ones_own() {
    let case = Case::start().await;
    let model = case.models().asked.id();
    let (ours, theirs) = (WorkerKeys::generate(), WorkerKeys::generate());
    let mut wire = Wire::miner(&case.endpoints.mining).await;
    assert!(wire.negotiate(EXTENSION_TYPE).await);

    // Their key, our signature.
    let nonce = challenge(&mut wire, &theirs, model, 1).await.unwrap();
    let proof = sign_registration(&ours.pair, &nonce);
    assert!(!verify_registration(&theirs.name, &nonce, &proof));
    assert_refused(prove(&mut wire, &proof).await, "bad-proof");

    // Their signature under a nonce of before.
    let old = sign_registration(&theirs.pair, &nonce);
    let fresh = challenge(&mut wire, &theirs, model, 1).await.unwrap();
    assert_ne!(fresh, nonce);
    assert_refused(prove(&mut wire, &old).await, "bad-proof");

    // A proof of nothing that was asked for, and one that is no signature.
    let proof = sign_registration(&theirs.pair, &fresh);
    assert_refused(prove(&mut wire, &proof).await, "not-registered");
    challenge(&mut wire, &ours, model, 1).await.unwrap();
    let junk = RegisterWorkerProof {
        signature: [0xff; 64],
    };
    assert_refused(prove(&mut wire, &junk).await, "bad-proof");

    // A model that the pool does not have, so that it could not replay it.
    let unknown = ModelId::from_bytes([9; 32]);
    assert_refused(
        challenge(&mut wire, &ours, unknown, 1).await,
        "model-unknown",
    );
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_key_on_a_connection_that_has_one() {
    let (case, mut cheat) = Case::with_worker().await;
    let other = WorkerKeys::generate();
    assert_refused(
        challenge(&mut cheat.wire, &other, case.models().asked.id(), 1).await,
        "bad-proof",
    );
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_and_a_batch_without_a_registration() {
    let (case, mut worker, batch) = Case::with_batch().await;
    let mut nobody = case.unregistered(&worker.keys).await;
    assert_refused(nobody.register_batch(&batch).await, "not-registered");
    let job = nobody.job(Some(&batch.root)).await;
    let verdict = nobody.submit_new(&job, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "not-registered");
    // The worker itself claims it.
    worker.claim(&batch.root).await.credited();
    case.earned_batches(&worker, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_without_deadlines_on_a_connection_that_the_key_has_left() {
    let options = Options {
        // One good share at the beginning is good for as long again.
        pool_settings: &[("MINING__FIRST_SHARE_S", "10")],
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let mut left = case.worker().await;
    let job = left.job(None).await;
    let mut here = case.again(&left.keys).await;
    // The key's first good share.
    assert_eq!(left.submit_new(&job, None).await, Verdict::Hashes);
    left.wire.hung_up().await;
    let job = here.job(None).await;
    assert_eq!(here.submit_new(&job, None).await, Verdict::Hashes);
    case.end().await;
}
