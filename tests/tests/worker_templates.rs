//! A worker with a node of its own: what devices behind it hash is built on that node's templates, between
//! batches too, as long as a declarator takes such jobs; and never nothing.

#![allow(clippy::unwrap_used)]

mod declaration;
mod devices;

use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use declaration::coins::{mine_to_anybody, spend_coinbase};
use devices::{Device, TIME_MAX, hard_target};
use dovetail_tests::bitcoin_core::CoreParts;
use dovetail_tests::scenario::{Options, Scenario};
use tempfile::TempDir;

/// A worker with a node, and a device behind it.
struct Fixture {
    scenario: Scenario,
    device: Device,
    worker: String,
    _dir: TempDir,
}

impl Fixture {
    async fn start(core: Option<CoreParts>) -> Self {
        let options = Options {
            firmware: true,
            hasher: false,
            // A block every few shares of the device; on Bitcoin Core's regtest every share is one.
            bits: "1e03ffff",
            core,
            ..Options::default()
        };
        let start = move || dovetail_tests::scenario(&options).unwrap();
        let (dir, scenario) = tokio::task::spawn_blocking(start).await.unwrap();
        let firmware = scenario.firmware.clone().unwrap();
        Self {
            device: Device::start(&firmware, hard_target()).await,
            worker: scenario.worker_key.clone().unwrap(),
            scenario,
            _dir: dir,
        }
    }

    /// Waits until the device hashes the worker's templates and earns.
    async fn on_own_templates(core: Option<CoreParts>) -> Self {
        let mut fixture = Self::start(core).await;
        let first = fixture.device.until("a job", |log| !log.jobs.is_empty());
        first.await;
        fixture.credited();
        assert_eq!(fixture.templates(), "own");
        fixture
    }

    /// Waits for a share that is credited from now on.
    fn credited(&mut self) {
        let pool = &mut self.scenario.pool;
        while pool.next_line(Duration::ZERO).ok().flatten().is_some() {}
        let waited = pool.wait_for(TIME_MAX, "a share of the worker", |line| {
            line["event"] == "share_accepted" && line["worker"] == self.worker.as_str()
        });
        if let Err(error) = waited {
            panic!("{error:#}\nthe worker:\n{}", self.worker_log());
        }
    }

    fn worker_log(&self) -> String {
        self.scenario.worker.as_ref().unwrap().log()
    }

    fn templates(&self) -> String {
        let status = self.scenario.worker_status().unwrap();
        status["templates"]["kind"].as_str().unwrap().to_owned()
    }

    /// Has a prompt answered and its batch settled.
    fn settle_a_batch(&mut self) {
        let asked = self.scenario.ask("a prompt", 16, "receipt.json", &[]);
        let answer = asked.unwrap_or_else(|error| panic!("{error:#}\n{}", self.worker_log()));
        assert_eq!(answer["receipt"]["verified"], true);
        let settled = self.scenario.pool.event("batch_settled", TIME_MAX);
        settled.unwrap_or_else(|error| panic!("{error:#}\n{}", self.worker_log()));
    }
}

/// Before a batch, with it, after it, and over new tips.
async fn hashes_only_own_templates(core: Option<CoreParts>) -> Fixture {
    let mut fixture = Fixture::on_own_templates(core).await;

    fixture.settle_a_batch();
    let with_batch = |log: &devices::Log| log.jobs.iter().rposition(|job| job.root.is_some());
    let log = fixture
        .device
        .until("a batch's job", |log| with_batch(log).is_some());
    let tip = log.await.last().unwrap().tip;
    let after = |log: &devices::Log| log.last().is_some_and(|job| job.root.is_none());
    fixture
        .device
        .until("a plain job after the batch", after)
        .await;
    fixture.credited();
    let tips_after = |log: &devices::Log| {
        let mut tips: Vec<_> = log.jobs.iter().map(|job| job.tip).collect();
        tips.dedup();
        let batch = tips.iter().rposition(|of| *of == tip);
        batch.map_or(0, |batch| tips.len() - batch)
    };
    fixture
        .device
        .until("two new tips", |log| tips_after(log) > 2)
        .await;
    fixture.credited();

    let log = fixture.device.log();
    let pools = log.jobs.iter().filter(|job| job.pools).count();
    assert_eq!(pools, 0, "{:#?}\n{}", log.jobs, fixture.worker_log());
    assert_eq!(fixture.templates(), "own");
    let kinds = format!(
        "SELECT string_agg(DISTINCT kind::text, ',' ORDER BY kind::text) FROM named_shares WHERE account = '{}'",
        fixture.worker
    );
    fixture
        .scenario
        .query_until(&kinds, "hash,inference")
        .unwrap();
    fixture
}

/// Without a declarator the device is on the pool's jobs within the next tip, and back on ours as soon as
/// there is one again.
async fn falls_back_and_returns(core: Option<CoreParts>) {
    let mut fixture = Fixture::on_own_templates(core).await;

    fixture.scenario.declarator.kill();
    let before = fixture.device.log();
    let log = fixture.device.until("a job of the pool", |log| {
        log.since(before.jobs.len()).iter().any(|job| job.pools)
    });
    log.await;
    fixture.credited();
    let status = fixture.scenario.worker_status().unwrap();
    assert_eq!(status["templates"]["kind"], "fallen-back", "{status}");
    assert!(
        status["templates"]["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );
    assert!(fixture.worker_log().contains("hashing the pool's jobs"));

    fixture.scenario.restart_declarator().unwrap();
    let before = fixture.device.log();
    let again = fixture.device.until("a job of ours again", |log| {
        log.since(before.jobs.len()).iter().any(|job| !job.pools)
    });
    again.await;
    fixture.credited();
    assert!(fixture.worker_log().contains("on our own templates again"));
    // It is the same connection as at the start, and the device's work was taken all the time.
    assert!(fixture.device.log().taken > before.taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_hash_only_own_templates_before_with_and_after_a_batch() {
    hashes_only_own_templates(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_declarator_devices_are_not_idle_and_come_back_with_it() {
    falls_back_and_returns(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn devices_hash_only_own_templates_on_bitcoin_core() {
    let parts = CoreParts::from_environment().unwrap();
    let fixture = hashes_only_own_templates(Some(parts)).await;
    // A transaction comes: the job that pays its fee follows on the same tip.
    let core = fixture.scenario.network.bitcoin_core().unwrap();
    mine_to_anybody(core, 101);
    let height: u32 = core.rpc(&["getblockcount"]).unwrap().parse().unwrap();
    let spend = spend_coinbase(core, height - 100, 100_000);
    core.rpc(&["sendrawtransaction", &serialize_hex(&spend)])
        .unwrap();
    let with_fees = |log: &devices::Log| log.jobs.iter().any(|job| job.path > 0 && !job.pools);
    fixture
        .device
        .until("a job with the transaction", with_fees)
        .await;
    assert!(!fixture.device.log().jobs.iter().any(|job| job.pools));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn without_a_declarator_devices_on_bitcoin_core_are_not_idle() {
    falls_back_and_returns(Some(CoreParts::from_environment().unwrap())).await;
}
