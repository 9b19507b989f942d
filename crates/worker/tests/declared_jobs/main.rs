//! Jobs on templates of our own between batches, against a pool, a declarator and a device that this test
//! plays: when devices get them, when they get the pool's instead, and what becomes of their shares.
#![allow(clippy::unwrap_used, missing_docs)]

mod device;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use bitcoin::ScriptBuf;
use dovetail_sv2::extension::find_claim;
use dovetail_sv2::messages::{
    DeclareMiningJob, Str0255Owned, SubmitSharesError, SubmitSharesExtended,
};
use scene::{
    CHANNEL, POOLS, Scene, accept_declaration, accept_job, committed, declaration, give_token,
    pays, pools_tip, refuse_declaration, session,
};
use support::listen;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_job_is_hashed_at_once_and_its_shares_wait_until_it_is_accepted() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    let job = device.our_job().await;
    let nonce = device.find_share(&job).await;
    accept_declaration(&mut declarator, &declared).await;
    // The custom job is the first that the pool hears; the share comes with its number.
    accept_job(&mut pool, 77).await;
    let frame = pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!((share.job_id, share.nonce), (77, nonce));
    assert_eq!(find_claim(&fields), Ok(None));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_gives_devices_the_pools_job_until_one_of_ours_is_accepted() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    refuse_declaration(&mut declarator, &declared, "invalid-job").await;
    device.pools_job().await;
    // It is tried again on the same connection, and not shown before it is accepted.
    let declared = declaration(&mut declarator).await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 78).await;
    let job = device.our_job().await;
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 78);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_block_overtook_on_its_way_is_no_reason_to_leave_our_templates() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    refuse_declaration(&mut declarator, &declared, "stale-chain-tip").await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 79).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_refusal_again_on_the_same_tip_is_one() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    for _ in 0..2 {
        let declared = declaration(&mut declarator).await;
        device.our_job().await;
        pools_tip(&mut pool, 1, device.tip()).await;
        refuse_declaration(&mut declarator, &declared, "stale-chain-tip").await;
    }
    device.pools_job().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_our_node_has_not_is_followed_with_the_pools_job_but_not_at_once() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    let ours = device.tip();
    pools_tip(&mut pool, 1, ours).await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 80).await;
    let since = Instant::now();
    pools_tip(&mut pool, 2, [9; 32]).await;
    device.pools_job().await;
    assert_eq!(device.tip(), [9; 32]);
    assert!(since.elapsed() > Duration::from_secs(4), "{since:?}");
    // The block is undone: our job is good again.
    pools_tip(&mut pool, 3, ours).await;
    let mut job = device.job().await;
    if job.coinbase_tx_suffix.as_bytes() == POOLS {
        job = device.our_job().await;
    }
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 80);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declarator_that_hangs_costs_some_seconds_of_hashing_and_what_was_found_in_them_is_kept()
{
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    let job = device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    let nonce = device.find_share(&job).await;
    device.pools_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 82).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!((share.job_id, share.nonce), (82, nonce));
    device.our_job().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declarator_that_asks_for_what_no_coinbase_can_pay_is_asked_again() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    pools_tip(&mut pool, 1, [1; 32]).await;
    let mut declarator = scene.declarator().await;
    for outputs in [
        vec![],
        vec![0xff; 60_000],
        pays(ScriptBuf::from_bytes(vec![0x51; 60_000])),
    ] {
        give_token(&mut declarator, outputs).await;
    }
    device.pools_job().await;
    let declared = declaration(&mut declarator).await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 83).await;
    device.our_job().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_outputs_again_are_the_same_job_and_others_another() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    // Overtaken: the next job is built, and shown, before the declarator has said what it asks for now.
    refuse_declaration(&mut declarator, &declared, "stale-chain-tip").await;
    device.our_job().await;
    let other = ScriptBuf::from_bytes([vec![0x00, 0x14], vec![8; 20]].concat());
    give_token(&mut declarator, pays(other.clone())).await;
    let declared: DeclareMiningJob = declarator.expect().await;
    let suffix = hex::encode(declared.coinbase_tx_suffix.as_bytes());
    assert!(suffix.contains(&other.to_hex_string()), "{suffix}");
    let job = device.job().await;
    let suffix = hex::encode(job.coinbase_tx_suffix.as_bytes());
    assert!(suffix.contains(&other.to_hex_string()), "{suffix}");
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 84).await;
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 84);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_only_so_long_for_a_plain_declaration_that_hangs() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    assert_eq!(committed(&declaration(&mut declarator).await), None);
    device.our_job().await;
    let root = scene.batch(&mut pool).await;
    assert!(declarator.reader.read().await.is_err());
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    assert_eq!(committed(&declared), Some(root));
    let job = device.our_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 85).await;
    device.find_share(&job).await;
    let frame = pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!((share.job_id, find_claim(&fields)), (85, Ok(Some(root))));
    // A stale one needs another job, and the batch is claimed with a share of that.
    pool.send(&SubmitSharesError {
        channel_id: CHANNEL,
        sequence_number: share.sequence_number,
        error_code: Str0255Owned::try_from("stale-share").unwrap(),
    })
    .await;
    assert_eq!(committed(&declaration(&mut declarator).await), Some(root));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_leaves_devices_on_our_plain_job() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    let plain = device.our_job().await.job_id;
    pools_tip(&mut pool, 1, device.tip()).await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 86).await;
    let root = scene.batch(&mut pool).await;
    let declared = declaration(&mut declarator).await;
    assert_eq!(committed(&declared), Some(root));
    assert_ne!(device.our_job().await.job_id, plain);
    refuse_declaration(&mut declarator, &declared, "invalid-batch-commitment").await;
    let job = device.our_job().await;
    assert_eq!(job.job_id, plain);
    // The batch is tried again, and shown only when it is accepted.
    scene.batch_again(&mut pool, root).await;
    let declared = declaration(&mut declarator).await;
    assert_eq!(committed(&declared), Some(root));
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 86);
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 87).await;
    assert_ne!(device.our_job().await.job_id, plain);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_a_job_is_pending_leaves_devices_on_it_until_the_next_has_one() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    declaration(&mut declarator).await;
    device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    drop(pool);
    let mut pool = scene.pool().await;
    // The declaration of the session before is not gone on with.
    assert!(declarator.reader.read().await.is_err());
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    // The job of the pool that is gone is not shown in between.
    let job = device.our_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 81).await;
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 81);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_may_want_the_pools_jobs_between_batches() {
    let scene = Scene::start("pool-jobs").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    pools_tip(&mut pool, 1, [1; 32]).await;
    device.pools_job().await;
    pools_tip(&mut pool, 2, [2; 32]).await;
    device.pools_job().await;
    assert_eq!(device.tip(), [2; 32]);
    let declared = timeout(Duration::from_secs(1), scene.declarator.0.accept()).await;
    assert!(declared.is_err(), "a job was declared between batches");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_declarator_has_its_own_jobs_hashed() {
    let (second, address, keys) = listen().await;
    let key = keys.public();
    let more = format!("[[pool]]\naddress = {address:?}\nauthority_public_key = \"{key}\"\n");
    let scene = Scene::start_beside("own-templates", &more).await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 88).await;
    drop(pool);
    let mut pool = session(&second, &keys).await;
    for (job_id, tip) in [(1, [7; 32]), (2, [8; 32])] {
        pools_tip(&mut pool, job_id, tip).await;
        device.pools_job().await;
        assert_eq!(device.tip(), tip);
    }
    // Nothing is declared for it anywhere.
    assert!(declarator.reader.read().await.is_err());
    scene.stop().await;
}
