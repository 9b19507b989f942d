//! The worker from a task to its credited batch, against a pool and a job declarator that this test
//! plays, on templates of an embedded chain.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::Duration;

use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{DeliverTranscript, RegisterBatch};
use dovetail_sv2::messages::{PushSolution, SubmitSharesSuccess};
use dovetail_vrf::VrfProof;
use support::claim::{Claim, claimed, take_declaration, take_share};
use support::fixture::{BLOCKS_ALWAYS, BLOCKS_NEVER};
use support::pool::{CHANNEL, EXTRANONCE_PREFIX, hung_up};
use support::{Fixture, Played, Setup};

async fn nothing_more(pool: &mut Played) {
    let more = tokio::time::timeout(Duration::from_secs(3), pool.reader.read()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_task_becomes_tokens_a_transcript_a_declared_job_and_a_claiming_share() {
    let (fixture, mut pool, _declarator, claim) = claimed(Setup::alone(BLOCKS_NEVER)).await;
    // One success for the claim and a share behind it.
    pool.send(&SubmitSharesSuccess {
        channel_id: CHANNEL,
        last_sequence_number: claim.share.sequence_number + 1,
        new_submits_accepted_count: 2,
        new_shares_sum: 2,
    })
    .await;
    pool.send(&claim.passed()).await;
    nothing_more(&mut pool).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_stale_share_leads_to_another_declaration_and_a_mismatch_to_none() {
    let (fixture, mut pool, mut declarator, claim) = claimed(Setup::alone(BLOCKS_NEVER)).await;
    let root = claim.root;
    claim.refuse(&mut pool, "stale-share").await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    let mismatch = Code::InferenceMismatch.as_str();
    claim.refuse(&mut pool, mismatch).await;
    pool.send(&claim.failed()).await;
    nothing_more(&mut pool).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_share_that_is_a_block_goes_to_the_declarator_and_to_the_template_source() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_ALWAYS)).await;
    let mut pool = fixture.session().await;
    let root = fixture.batch(&mut pool).await;
    let mut declarator = fixture.declarator().await;
    let declared = take_declaration(&mut declarator, root).await;
    let claim = take_share(&mut pool, &declared, root).await;
    let (pushed, share): (PushSolution, _) = (declarator.expect().await, &claim.share);
    assert_eq!((pushed.nonce, pushed.ntime), (share.nonce, share.ntime));
    assert!(pushed.extranonce.as_bytes().starts_with(&EXTRANONCE_PREFIX));
    // A block that the embedded chain took shows in the next declaration: it is one higher.
    claim.refuse(&mut pool, "stale-share").await;
    let next = take_declaration(&mut declarator, root).await;
    assert_ne!(
        next.coinbase_tx_prefix.as_bytes(),
        declared.coinbase_tx_prefix.as_bytes()
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_claim_that_was_cut_off_is_taken_up_on_the_next_session() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    let root = fixture.batch(&mut pool).await;
    drop(pool);
    let mut pool = fixture.session().await;
    let again: RegisterBatch = pool.expect().await;
    assert_eq!(again.root, root);
    fixture.stop().await;
}

#[tokio::test]
async fn a_transcript_without_an_answer_is_delivered_again_on_the_next_session() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    let transcript = fixture.transcript(&mut pool, 1).await;
    drop(pool);
    let mut pool = fixture.session().await;
    let again: DeliverTranscript = pool.expect().await;
    assert_eq!(again.transcript.0, transcript.encode());
    fixture.stop().await;
}

#[tokio::test]
async fn a_pool_that_cannot_prove_its_sample_is_left_for_good() {
    let (fixture, mut pool, _declarator, claim) = claimed(Setup::alone(BLOCKS_NEVER)).await;
    let mismatch = Code::InferenceMismatch.as_str();
    claim.refuse(&mut pool, mismatch).await;
    let mut chosen = claim.failed();
    chosen.proof = VrfProof::from_bytes([6; VrfProof::BYTES]);
    pool.send(&chosen).await;
    hung_up(&mut pool).await;
    let remembered = fixture.no_pool_is_left().await;
    assert!(remembered.contains("does not hold"), "{remembered}");
}
