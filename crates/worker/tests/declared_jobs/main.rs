//! Jobs on templates of our own between batches, against a pool, a declarator and a device that this test
//! plays: when devices get them, when they get the pool's instead, and what becomes of their shares.
#![allow(clippy::unwrap_used, missing_docs)]

mod device;
mod node;
mod script;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use bitcoin::ScriptBuf;
use device::Device;
use dovetail_sv2::extension::find_claim;
use dovetail_sv2::messages::{
    DeclareMiningJob, Str0255Owned, SubmitSharesError, SubmitSharesExtended,
};
use node::Node;
use script::Script;
use support::claim::committed;
use support::declarator::{give_token, pays};
use support::fixture::Server;
use support::pool::{CHANNEL, POOLS, pools_tip, session};
use support::{Fixture, Setup};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_job_is_hashed_at_once_and_its_shares_wait_until_it_is_accepted() {
    let mut script = Script::start().await;
    let declared = script.declared().await;
    let job = script.device.our_job().await;
    let nonce = script.device.find_share(&job).await;
    // The custom job is the first that the pool hears; the share comes with its number.
    script.accept(&declared, 77).await;
    let frame = script.pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!((share.job_id, share.nonce), (77, nonce));
    assert_eq!(find_claim(&fields), Ok(None));
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_gives_devices_the_pools_job_until_one_of_ours_is_accepted() {
    let mut script = Script::start().await;
    let declared = script.declared().await;
    script.device.our_job().await;
    script.pool_follows(1).await;
    script.refuse(&declared, "invalid-job").await;
    script.device.pools_job().await;
    // It is tried again on the same connection, and not shown before it is accepted.
    let declared = script.declared().await;
    script.accept(&declared, 78).await;
    let job = script.device.our_job().await;
    assert_eq!(script.share_of(&job).await.job_id, 78);
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_block_overtook_on_its_way_is_no_reason_to_leave_our_templates() {
    let mut script = Script::start().await;
    let declared = script.declared().await;
    script.device.our_job().await;
    script.pool_follows(1).await;
    script.refuse(&declared, "stale-chain-tip").await;
    let declared = script.declared().await;
    script.device.our_job().await;
    script.accept(&declared, 79).await;
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_refusal_again_on_the_same_tip_is_one() {
    let mut script = Script::start().await;
    for _ in 0..2 {
        let declared = script.declared().await;
        script.device.our_job().await;
        script.pool_follows(1).await;
        script.refuse(&declared, "stale-chain-tip").await;
    }
    script.device.pools_job().await;
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_our_node_has_not_is_followed_with_the_pools_job_but_not_at_once() {
    let mut script = Script::start().await;
    let declared = script.declared().await;
    script.device.our_job().await;
    let ours = script.device.tip();
    pools_tip(&mut script.pool, 1, ours).await;
    script.accept(&declared, 80).await;
    let since = Instant::now();
    pools_tip(&mut script.pool, 2, [9; 32]).await;
    script.device.pools_job().await;
    assert_eq!(script.device.tip(), [9; 32]);
    assert!(since.elapsed() > Duration::from_secs(4), "{since:?}");
    // The block is undone: our job is good again.
    pools_tip(&mut script.pool, 3, ours).await;
    let mut job = script.device.job().await;
    if job.coinbase_tx_suffix.as_bytes() == POOLS {
        job = script.device.our_job().await;
    }
    assert_eq!(script.share_of(&job).await.job_id, 80);
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declarator_that_hangs_costs_some_seconds_of_hashing_and_what_was_found_in_them_is_kept()
{
    let mut script = Script::start().await;
    let declared = script.declared().await;
    let job = script.device.our_job().await;
    script.pool_follows(1).await;
    let nonce = script.device.find_share(&job).await;
    script.device.pools_job().await;
    script.accept(&declared, 82).await;
    let share: SubmitSharesExtended = script.pool.expect().await;
    assert_eq!((share.job_id, share.nonce), (82, nonce));
    script.device.our_job().await;
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declarator_that_asks_for_what_no_coinbase_can_pay_is_asked_again() {
    let mut script = Script::start().await;
    pools_tip(&mut script.pool, 1, [1; 32]).await;
    for outputs in [
        vec![],
        vec![0xff; 60_000],
        pays(ScriptBuf::from_bytes(vec![0x51; 60_000])),
    ] {
        give_token(&mut script.declarator, outputs).await;
    }
    script.device.pools_job().await;
    let declared = script.declared().await;
    script.accept(&declared, 83).await;
    script.device.our_job().await;
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_outputs_again_are_the_same_job_and_others_another() {
    let mut script = Script::start().await;
    let declared = script.declared().await;
    script.device.our_job().await;
    // Overtaken: the next job is built, and shown, before the declarator has said what it asks for now.
    script.refuse(&declared, "stale-chain-tip").await;
    script.device.our_job().await;
    let other = ScriptBuf::from_bytes([vec![0x00, 0x14], vec![8; 20]].concat());
    give_token(&mut script.declarator, pays(other.clone())).await;
    let declared: DeclareMiningJob = script.declarator.expect().await;
    let suffix = hex::encode(declared.coinbase_tx_suffix.as_bytes());
    assert!(suffix.contains(&other.to_hex_string()), "{suffix}");
    let job = script.device.job().await;
    let suffix = hex::encode(job.coinbase_tx_suffix.as_bytes());
    assert!(suffix.contains(&other.to_hex_string()), "{suffix}");
    script.accept(&declared, 84).await;
    assert_eq!(script.share_of(&job).await.job_id, 84);
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_only_so_long_for_a_plain_declaration_that_hangs() {
    let mut script = Script::start().await;
    assert_eq!(committed(&script.declared().await), None);
    script.device.our_job().await;
    let root = script.batch().await;
    assert!(script.declarator.reader.read().await.is_err());
    script.declarator = script.fixture.declarator().await;
    let declared = script.declared().await;
    assert_eq!(committed(&declared), Some(root));
    let job = script.device.our_job().await;
    script.accept(&declared, 85).await;
    script.device.find_share(&job).await;
    let frame = script.pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!((share.job_id, find_claim(&fields)), (85, Ok(Some(root))));
    // A stale one needs another job, and the batch is claimed with a share of that.
    script
        .pool
        .send(&SubmitSharesError {
            channel_id: CHANNEL,
            sequence_number: share.sequence_number,
            error_code: Str0255Owned::try_from("stale-share").unwrap(),
        })
        .await;
    assert_eq!(committed(&script.declared().await), Some(root));
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_leaves_devices_on_our_plain_job() {
    let mut script = Script::start().await;
    let declared = script.declared().await;
    let plain = script.device.our_job().await.job_id;
    script.pool_follows(1).await;
    script.accept(&declared, 86).await;
    let root = script.batch().await;
    let declared = script.declared().await;
    assert_eq!(committed(&declared), Some(root));
    assert_ne!(script.device.our_job().await.job_id, plain);
    script.refuse(&declared, "invalid-batch-commitment").await;
    let job = script.device.our_job().await;
    assert_eq!(job.job_id, plain);
    // The batch is tried again, and shown only when it is accepted.
    script.batch_again(root).await;
    let declared = script.declared().await;
    assert_eq!(committed(&declared), Some(root));
    assert_eq!(script.share_of(&job).await.job_id, 86);
    script.accept(&declared, 87).await;
    assert_ne!(script.device.our_job().await.job_id, plain);
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_a_job_is_pending_leaves_devices_on_it_until_the_next_has_one() {
    let mut script = Script::start().await;
    script.declared().await;
    script.device.our_job().await;
    script.pool_follows(1).await;
    let mut script = script.with_pool_again().await;
    // The declaration of the session before is not gone on with.
    assert!(script.declarator.reader.read().await.is_err());
    script.declarator = script.fixture.declarator().await;
    let declared = script.declared().await;
    // The job of the pool that is gone is not shown in between.
    let job = script.device.our_job().await;
    script.accept(&declared, 81).await;
    assert_eq!(script.share_of(&job).await.job_id, 81);
    script.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_may_want_the_pools_jobs_between_batches() {
    let fixture = Fixture::start(Setup::with_devices("pool-jobs")).await;
    let mut pool = fixture.session().await;
    let mut device = Device::connect(fixture.firmware()).await;
    pools_tip(&mut pool, 1, [1; 32]).await;
    device.pools_job().await;
    pools_tip(&mut pool, 2, [2; 32]).await;
    device.pools_job().await;
    assert_eq!(device.tip(), [2; 32]);
    let declared = timeout(Duration::from_secs(1), fixture.declarator.listener.accept()).await;
    assert!(declared.is_err(), "a job was declared between batches");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_declarator_has_its_own_jobs_hashed() {
    let second = Server::start().await;
    let setup = Setup {
        more: format!("[[pool]]\n{}", second.config()),
        ..Setup::with_devices("own-templates")
    };
    let mut script = Script::on(Fixture::start(setup).await).await;
    let declared = script.declared().await;
    script.device.our_job().await;
    script.accept(&declared, 88).await;
    drop(script.pool);
    let mut pool = session(&second).await;
    for (job_id, tip) in [(1, [7; 32]), (2, [8; 32])] {
        pools_tip(&mut pool, job_id, tip).await;
        script.device.pools_job().await;
        assert_eq!(script.device.tip(), tip);
    }
    // Nothing is declared for it anywhere.
    assert!(script.declarator.reader.read().await.is_err());
    script.fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_on_the_pools_jobs_while_our_node_is_away_for_long_and_on_ours_when_it_is_back()
{
    let mut node = Node::start().await;
    let setup = Setup {
        node: node.config(1),
        ..Setup::with_devices("own-templates")
    };
    let mut script = Script::on(Fixture::start(setup).await).await;
    let declared = script.declared().await;
    script.accept(&declared, 81).await;
    script.device.our_job().await;
    script.pool_follows(1).await;
    let since = Instant::now();
    node.leave();
    script.device.pools_job().await;
    assert!(since.elapsed() >= Duration::from_secs(1), "{since:?}");
    node.come_back().await;
    let job = script.device.our_job().await;
    assert_eq!(script.share_of(&job).await.job_id, 81);
    script.stop().await;
}
