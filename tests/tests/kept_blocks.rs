//! A block that is found while the template source is away is in the chain when the source is back, whatever has become
//! of the pool meanwhile.

#![allow(clippy::unwrap_used)]

mod devices;
mod kept;
mod played;

use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use devices::{Device, TIME_MAX, hard_target};
use dovetail_tests::bitcoin_core::turned;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use kept::{block_in, chain_has, start};
use played::miner::{Job, Miner};
use played::now;
use played::provider::Provider;
use tempfile::TempDir;

/// A target that nothing meets.
const NOTHING: [u8; 32] = [0; 32];

fn options() -> Options {
    Options {
        worker: false,
        hasher: false,
        // A block in a second or two of a device.
        bits: "1e0fffff",
        min_hashrate: 400_000,
        ..Options::default()
    }
}

/// Has a device find a block at `port` while the template source is away.
async fn find_with_the_source_away(scenario: &mut Scenario, port: &(String, String), folder: &str) {
    let idle = Device::start(port, NOTHING).await;
    idle.until("a job", |log| !log.jobs.is_empty()).await;
    scenario.network.kill_templates();
    let _device = Device::start(port, hard_target()).await;
    block_in(&scenario.file(folder)).await;
}

/// Waits until the pool says that a block was found, and checks that the chain has it. The ledger is asked: a pool that
/// starts again may find it before it is ready, and its events of that time are not kept.
fn is_in_the_chain(scenario: &mut Scenario) {
    let deadline = Instant::now() + TIME_MAX;
    let query = "SELECT encode(header_hash, 'hex') FROM blocks WHERE result = 'accepted' LIMIT 1";
    let found = loop {
        let found = scenario.query(query).unwrap();
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "no block was found");
        std::thread::sleep(Duration::from_millis(50));
    };
    // The ledger keeps hashes in the header's byte order.
    chain_has(scenario, &turned(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_found_while_the_source_is_away_is_in_the_chain_when_it_is_back() {
    let (_dir, mut scenario) = start(options()).await;
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    find_with_the_source_away(&mut scenario, &pool, "ledger/blocks").await;
    scenario.restart_templates().unwrap();
    is_in_the_chain(&mut scenario);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_survives_a_pool_that_is_killed_right_after_it_was_found() {
    let (_dir, mut scenario) = start(options()).await;
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    find_with_the_source_away(&mut scenario, &pool, "ledger/blocks").await;
    scenario.pool.kill();
    scenario.restart_templates().unwrap();
    scenario.restart_pool().unwrap();
    is_in_the_chain(&mut scenario);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_a_block_does_not_stop_the_pools_start() {
    let (_dir, mut scenario) = start(options()).await;
    scenario.pool.stop();
    let folder = scenario.file("ledger/blocks");
    std::fs::write(folder.join("junk.json"), "{\"hash\":").unwrap();
    scenario.restart_pool().unwrap();
    assert!(folder.join("damaged/junk.json").exists());
    assert!(
        scenario
            .pool
            .log()
            .contains("a damaged file of a solved block is set aside")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_folder_of_blocks_cannot_be_written_still_finds_blocks() {
    let (_dir, mut scenario) = start(options()).await;
    scenario.pool.stop();
    let folder = scenario.file("ledger/blocks");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "not a folder").unwrap();
    scenario.restart_pool().unwrap();
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    let _device = Device::start(&pool, hard_target()).await;
    is_in_the_chain(&mut scenario);
    assert!(scenario.pool.log().contains("cannot be written to disk"));
}

/// A miner on a pool whose source is away, with a job of which every other header is a block.
async fn blocks_without_a_source() -> (TempDir, Scenario, Miner, Job) {
    let mut provider = Provider::start().await;
    provider.tip(|tip| tip.n_bits = 0x207f_ffff);
    let options = Options {
        min_hashrate: 1,
        templates: Some(provider.config(60)),
        ..options()
    };
    let (dir, scenario) = start(options).await;
    let mut miner = Miner::open(&scenario.mining, 1.0).await.unwrap();
    let job = miner.job(0, |_| true).await;
    provider.leave();
    (dir, scenario, miner, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_on_a_share_that_solves_a_block_waits_for_the_disk() {
    let (_dir, scenario, mut miner, job) = blocks_without_a_source().await;
    let (share, hash) = miner.block(&job, now());
    let hash = BlockHash::from_byte_array(hash);
    // Whoever writes into a pipe waits until somebody reads from it: the disk hangs.
    let pipe = scenario.file("ledger/blocks").join(format!("{hash}.new"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    miner.hand_in(&share).await;
    scenario
        .query_until("SELECT count(*) FROM shares", "1")
        .unwrap();
    // The pool had time to say so: it answers other questions meanwhile.
    for _ in 0..20 {
        let _ = miner.open_another().await;
    }
    assert!(!miner.is_answered(share.sequence_number));
    let written = tokio::task::spawn_blocking(move || std::fs::read(pipe).unwrap());
    miner.answer(share.sequence_number).await.unwrap();
    assert!(!written.await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_solves_a_block_is_acknowledged_when_the_block_is_on_disk() {
    let (_dir, mut scenario, mut miner, job) = blocks_without_a_source().await;
    for _ in 0..10 {
        let (share, _) = miner.block(&job, now());
        miner.hand_in(&share).await;
        miner.answer(share.sequence_number).await.unwrap();
    }
    // Nothing is waited for: what was acknowledged survives a kill from then on.
    scenario.pool.kill();
    let files = std::fs::read_dir(scenario.file("ledger/blocks")).unwrap();
    let kept = files
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
        .count();
    assert_eq!(kept, 10);
}
