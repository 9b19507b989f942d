//! Jobs that the pool builds for a worker without a node: the same batches, claims and receipts as on
//! declared ones, and requests that are refused.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dovetail_commitment::BatchRoot;
use dovetail_engine::Model;
use dovetail_miner::keys::WorkerKeys;
use dovetail_miner::pool_session::{PoolEvent, PoolOptions, PoolSession};
use dovetail_sv2::extension::{KeptCredit, RequestBatchJob};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};

const TIME_MAX: Duration = Duration::from_secs(90);

fn ask(scenario: &Scenario, file: &str) {
    let answer = scenario.ask("a prompt", 24, file, &[]).unwrap();
    assert_eq!(answer["receipt"]["verified"], true);
}

#[test]
fn a_worker_without_a_node_earns_its_batches_on_jobs_that_the_pool_builds() {
    let options = Options {
        node: false,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    for file in ["first.json", "second.json"] {
        ask(&scenario, file);
        let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
        assert_eq!(settled["credit_msat"], 24_000);
    }
    let count = |sql: &str| scenario.query(sql).unwrap();
    let claims = "SELECT count(*) FROM named_shares WHERE kind = 'inference'";
    scenario.query_until(claims, "2").unwrap();
    assert_eq!(count("SELECT count(*) FROM declared_jobs"), "0");
}

#[test]
fn a_new_tip_brings_the_batch_again_and_blocks_may_carry_it() {
    // A block every 2^16 hashes or so: the hasher finds one after the other, and so does the worker.
    let options = Options {
        node: false,
        bits: "1f00ffff",
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    for _ in 0..3 {
        ask(&scenario, "receipt.json");
    }
    let worker = scenario.worker_key.clone().unwrap();
    let found = scenario.pool.wait_for(TIME_MAX, "a block", |line| {
        line["event"] == "block_found" && line["worker"] == worker.as_str()
    });
    assert_eq!(found.unwrap()["declared"], false);
    let taken = format!(
        "SELECT count(*) > 0 FROM blocks WHERE account = '{worker}' AND result = 'accepted'"
    );
    let deadline = std::time::Instant::now() + TIME_MAX;
    while scenario.query(&taken).unwrap() != "t" {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A worker that the test plays.
async fn session(scenario: &Scenario) -> PoolSession {
    let model = Model::load(&scenario.file("model.safetensors")).unwrap();
    let options = PoolOptions {
        address: scenario.mining.clone(),
        authority: AUTHORITY_PUBLIC.parse().unwrap(),
        models: vec![model.id()],
        max_tasks: 1,
        keep: KeptCredit::NONE,
        nominal_hash_rate: 1_000_000.0,
        declares_jobs: false,
    };
    PoolSession::open(&options, &WorkerKeys::generate())
        .await
        .unwrap()
}

/// Asks for a job for a batch that nobody registered; the code of the refusal.
async fn refusal(session: &mut PoolSession, request_id: u32, channel_id: u32) -> String {
    session
        .send(&RequestBatchJob {
            request_id,
            channel_id,
            root: BatchRoot::from_bytes([9; 32]),
        })
        .unwrap();
    let search = async {
        loop {
            match session.next().await.unwrap() {
                PoolEvent::BatchJobRefused {
                    request_id: id,
                    code,
                } if id == request_id => return code,
                PoolEvent::BatchJob(_) => panic!("a job for an unknown batch"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(TIME_MAX, search).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_lead_to_no_job_are_refused_each_with_its_code() {
    let options = Options {
        worker: false,
        hasher: false,
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let mut asking = session(&scenario).await;
    let channel_id = asking.channel().id;
    assert_eq!(
        refusal(&mut asking, 1, channel_id + 1).await,
        "channel-unknown"
    );
    assert_eq!(refusal(&mut asking, 2, channel_id).await, "batch-unknown");
    // One after the other without a pause: the allowance is used up, the connection stays.
    let mut flooded = false;
    for request_id in 3..200 {
        flooded |= refusal(&mut asking, request_id, channel_id).await == "too-many-jobs";
    }
    assert!(flooded);
    // Nobody else notices.
    let mut other = session(&scenario).await;
    let channel_id = other.channel().id;
    assert_eq!(refusal(&mut other, 1, channel_id).await, "batch-unknown");
}
