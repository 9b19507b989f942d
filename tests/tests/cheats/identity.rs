//! Who says to be whom: registrations that prove nothing, and claims without one.

use std::time::Duration;

use dovetail_commitment::ModelId;
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::{
    Binding, EXTENSION_TYPE, RegisterWorkerProof, sign_registration, verify_registration,
};
use dovetail_sv2::{AuthorityKeys, accept, connect};
use dovetail_tests::scenario::Options;
use tokio::net::TcpListener;

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
    let proof = sign_registration(&ours.pair, &nonce, &wire.binding());
    assert!(!verify_registration(
        &theirs.name,
        &nonce,
        &wire.binding(),
        &proof
    ));
    assert_refused(prove(&mut wire, &proof).await, "bad-proof");

    // Their signature under a nonce of before.
    let old = sign_registration(&theirs.pair, &nonce, &wire.binding());
    let fresh = challenge(&mut wire, &theirs, model, 1).await.unwrap();
    assert_ne!(fresh, nonce);
    assert_refused(prove(&mut wire, &old).await, "bad-proof");

    // A proof of nothing that was asked for, and one that is no signature.
    let proof = sign_registration(&theirs.pair, &fresh, &wire.binding());
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
async fn a_registration_that_a_relay_passes_on_from_its_own_pool_to_another() {
    let case = Case::start().await;
    let model = case.models().asked.id();
    let victim = WorkerKeys::generate();
    let mut to_pool = Wire::miner(&case.endpoints.mining).await;
    assert!(to_pool.negotiate(EXTENSION_TYPE).await);
    // The relay is a pool of the victim's itself, with a key that the victim has verified.
    let relay = AuthorityKeys::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &relay, Duration::from_secs(3_600)).await
    };
    let (served, from_victim) = tokio::join!(served, connect(&address, Some(relay.public())));
    let (_served, (from_victim, _writer)) = (served.unwrap(), from_victim.unwrap());

    // It shows the victim the nonce of the pool, and the pool the victim's answer.
    let seen_by_victim = Binding {
        authority: relay.public(),
        handshake: from_victim.handshake(),
    };
    let nonce = challenge(&mut to_pool, &victim, model, 1).await.unwrap();
    let proof = sign_registration(&victim.pair, &nonce, &seen_by_victim);
    assert_refused(prove(&mut to_pool, &proof).await, "bad-proof");

    // With the pool's name, but of another connection: neither half alone is enough.
    for binding in [
        Binding {
            authority: to_pool.binding().authority,
            ..seen_by_victim
        },
        Binding {
            authority: relay.public(),
            ..to_pool.binding()
        },
    ] {
        let nonce = challenge(&mut to_pool, &victim, model, 1).await.unwrap();
        let proof = sign_registration(&victim.pair, &nonce, &binding);
        assert_refused(prove(&mut to_pool, &proof).await, "bad-proof");
    }
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
