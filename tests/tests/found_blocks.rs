//! A block that the pool says was found is in the chain under the very hash that it names: found on a standard
//! channel, on an extended one and by a device behind a worker, on the embedded chain and on Bitcoin Core. That the chain's height rises
//! proves nothing: regtest's easy target takes half of all headers, wrong ones too.

#![allow(clippy::unwrap_used)]

mod devices;

use std::time::Instant;

use devices::{Device, TIME_MAX, hard_target};
use dovetail_tests::bitcoin_core::{CoreParts, turned};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use tempfile::TempDir;

/// Blocks to wait for: of a mistake that half of all headers survive, one in a thousand would come through.
const BLOCKS: usize = 10;

/// The plain hasher opens a standard channel, the tests' device an extended one, at the pool or at a worker that
/// declares its jobs.
#[derive(Clone, Copy)]
enum Channel {
    Standard,
    Extended,
    BehindWorker,
}

/// Starts a pool with one miner, and has it find blocks.
async fn finds_blocks(channel: Channel, core: Option<CoreParts>) -> (TempDir, Scenario) {
    let options = Options {
        worker: matches!(channel, Channel::BehindWorker),
        firmware: matches!(channel, Channel::BehindWorker),
        hasher: matches!(channel, Channel::Standard),
        // A block or two a second, so that the embedded chain's source shows each of them as its tip; on Bitcoin
        // Core's regtest every share is one.
        bits: "1e0fffff",
        min_hashrate: 400_000,
        core,
        ..Options::default()
    };
    let start = move || dovetail_tests::scenario(&options).unwrap();
    let (dir, mut scenario) = tokio::task::spawn_blocking(start).await.unwrap();
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    let port = match channel {
        Channel::Standard => None,
        Channel::Extended => Some(pool),
        Channel::BehindWorker => scenario.firmware.clone(),
    };
    let _device = match port {
        None => None,
        Some(port) => Some(Device::start(&port, hard_target()).await),
    };
    let account = match channel {
        Channel::Standard => "hasher".to_owned(),
        Channel::Extended => "device".to_owned(),
        Channel::BehindWorker => scenario.worker_key.clone().unwrap(),
    };
    for _ in 0..BLOCKS {
        let found = scenario.pool.event("block_found", TIME_MAX).unwrap();
        assert_eq!(found["worker"], account.as_str());
        let hash = found["hash"].as_str().unwrap();
        assert!(
            is_known(&mut scenario, hash),
            "the chain does not know {hash}"
        );
    }
    if let Some(mut hasher) = scenario.hasher.take() {
        hasher.stop();
    }
    (dir, scenario)
}

fn is_known(scenario: &mut Scenario, hash: &str) -> bool {
    if let Some(core) = scenario.network.bitcoin_core() {
        return core.rpc(&["getblockheader", hash]).is_ok();
    }
    let log = scenario.network.daemons().remove(0).log();
    log.lines()
        .any(|line| line.contains("block accepted") && line.contains(hash))
}

fn count(scenario: &Scenario, condition: &str) -> usize {
    let query = format!("SELECT count(*) FROM blocks WHERE {condition}");
    scenario.query(&query).unwrap().parse().unwrap()
}

/// Every block that was solved, whatever the pool said of it, is one that Core has.
async fn every_block_is_on_core(channel: Channel) {
    let parts = CoreParts::from_environment().unwrap();
    let (_dir, scenario) = finds_blocks(channel, Some(parts)).await;
    let deadline = Instant::now() + TIME_MAX;
    while count(&scenario, "result = 'solved'") > 0 {
        assert!(Instant::now() < deadline, "a block was never judged");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(count(&scenario, "result <> 'accepted'"), 0);
    // The ledger keeps hashes in the header's byte order.
    let hashes = scenario
        .query("SELECT string_agg(encode(header_hash, 'hex'), ' ') FROM blocks")
        .unwrap();
    let core = scenario.network.bitcoin_core().unwrap();
    for hash in hashes.split_whitespace() {
        let hash = turned(hash);
        assert!(
            core.rpc(&["getblockheader", &hash]).is_ok(),
            "Core does not know {hash}"
        );
    }
}

/// Every block that was solved is one that the embedded chain took or was too late for; it refused none.
async fn no_block_is_refused_by_the_embedded_chain(channel: Channel) {
    let (_dir, mut scenario) = finds_blocks(channel, None).await;
    let log = scenario.network.daemons().remove(0).log();
    assert!(!log.contains("block rejected"), "{log}");
    assert_eq!(count(&scenario, "result = 'not assembled'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_a_standard_channel_is_in_the_chain_under_the_announced_hash() {
    no_block_is_refused_by_the_embedded_chain(Channel::Standard).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_an_extended_channel_is_in_the_chain_under_the_announced_hash() {
    no_block_is_refused_by_the_embedded_chain(Channel::Extended).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn bitcoin_core_knows_every_block_of_a_standard_channel() {
    every_block_is_on_core(Channel::Standard).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn bitcoin_core_knows_every_block_of_an_extended_channel() {
    every_block_is_on_core(Channel::Extended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_behind_a_worker_is_in_the_chain_under_the_announced_hash() {
    finds_blocks(Channel::BehindWorker, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn bitcoin_core_knows_every_block_behind_a_worker() {
    every_block_is_on_core(Channel::BehindWorker).await;
}
