//! Blocks of miners with a node of their own: one that is found while that node is away is in the chain when it is back,
//! across a restart of whoever keeps it. It is kept by nobody else here.

#![allow(clippy::unwrap_used)]

mod declaration;
mod devices;
mod kept;

use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::{CompactTarget, Target};
use declaration::{DeclaratorClient, Job, Mining};
use devices::{Device, TIME_MAX, hard_target};
use dovetail_templates::SourceConfig;
use dovetail_tests::process::{Daemon, output};
use dovetail_tests::program;
use dovetail_tests::scenario::{Options, Scenario};
use kept::{Chain, block_in, chain_has, log_has, start};
use tokio_util::sync::CancellationToken;

/// A block in a second or two of a device.
const BITS: &str = "1e0fffff";

fn options() -> Options {
    Options {
        worker: false,
        hasher: false,
        bits: BITS,
        ..Options::default()
    }
}

/// Makes sure that pool and declarator have nothing to publish.
fn only_the_worker_has_it(scenario: &mut Scenario) {
    scenario.pool.kill();
    scenario.declarator.kill();
    for folder in ["ledger/blocks", "declarator-blocks"] {
        // One that was never written to is not there.
        let _ = std::fs::remove_dir_all(scenario.file(folder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_on_a_workers_own_template_survives_the_workers_restart() {
    let options = Options {
        worker: true,
        firmware: true,
        ..options()
    };
    let (_dir, mut scenario) = start(options).await;
    let port = scenario.firmware.clone().unwrap();
    let device = Device::start_on_own_templates(&port, hard_target()).await;
    // Found while the node was there, so that it is of the worker's own job; handed in when it is away.
    device.until("a block", |log| log.found > 0).await;
    scenario.network.kill_templates();
    device.submit();
    let hash = block_in(&scenario.file("worker.blocks")).await;
    drop(device);
    only_the_worker_has_it(&mut scenario);
    scenario.worker.as_mut().unwrap().kill();
    scenario.restart_templates().unwrap();
    scenario.restart_pool().unwrap();
    scenario.restart_worker().unwrap();
    chain_has(&mut scenario, &hash);
}

/// A worker that mines alone, on a chain of its own.
struct SoloMiner {
    chain: Chain,
    worker: Daemon,
    port: (String, String),
    dir: tempfile::TempDir,
}

impl SoloMiner {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chain = Chain::start("chain", BITS, dir.path());
        let mut command = Command::new(program("dovetail-worker"));
        command.args(["model", "make-tiny", "--seed", "1", "--out"]);
        output(command.arg(dir.path().join("model.safetensors"))).unwrap();
        let place = dir.path().display();
        let config = format!(
            "[worker]
key_file = \"{place}/worker.key\"
models = [\"{place}/model.safetensors\"]
search = false
[templates]
{}
[solo]
network = \"regtest\"
payout_script = \"0014aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"
[downstream]
listen = \"127.0.0.1:0\"
key_file = \"{place}/downstream.key\"
",
            chain.config()
        );
        std::fs::write(dir.path().join("worker.toml"), config).unwrap();
        let (worker, port) = run_worker("worker", &dir);
        Self {
            chain,
            worker,
            port,
            dir,
        }
    }
}

fn run_worker(name: &str, dir: &tempfile::TempDir) -> (Daemon, (String, String)) {
    let mut command = Command::new(program("dovetail-worker"));
    command.arg("run").arg("--config");
    command.arg(dir.path().join("worker.toml"));
    let mut worker = Daemon::spawn(name, command, &dir.path().join("logs")).unwrap();
    let ready = worker.ready(TIME_MAX).unwrap();
    let text = |key: &str| ready[key].as_str().unwrap().to_owned();
    let port = (text("downstream"), text("authority_public_key"));
    (worker, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_solo_miners_block_survives_the_workers_restart() {
    let mut miner = tokio::task::spawn_blocking(SoloMiner::start).await.unwrap();
    let device = Device::start_on_own_templates(&miner.port, hard_target()).await;
    device.until("a block", |log| log.found > 0).await;
    miner.chain.daemon.kill();
    device.submit();
    let hash = block_in(&miner.dir.path().join("worker.blocks")).await;
    drop(device);
    miner.worker.kill();
    miner.chain.restart("chain-restarted", miner.dir.path());
    let (worker, _) = run_worker("worker-restarted", &miner.dir);
    log_has(|| miner.chain.daemon.log(), &hash);
    let deadline = Instant::now() + TIME_MAX;
    while !worker
        .log()
        .contains("the node has a block that was found here")
    {
        assert!(Instant::now() < deadline, "{}", worker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_solution_survives_the_declarators_restart() {
    let (_dir, mut scenario) = start(options()).await;
    let stop = CancellationToken::new();
    let source =
        SourceConfig::template_provider(scenario.network.template_provider().unwrap(), None);
    let templates = dovetail_templates::start(source, stop.clone()).unwrap();
    let mut declarator = DeclaratorClient::full_template(&scenario.declaration).await;
    let mining = Mining::open(&scenario.mining, "alice").await;
    let token = declarator.token("alice").await;
    let mut work = templates.subscribe();
    let work = work.wait_for(Option::is_some).await.unwrap().clone();
    let work = work.unwrap();
    let job = Job::new(work, Vec::new(), &token, &mining.channel, |_| {});
    declarator.declare(&token, &job).await.unwrap();
    let bits = CompactTarget::from_consensus(job.work.nbits());
    let target = Target::from_compact(bits).to_le_bytes();
    let found = job.search(&mining.channel, target).await;

    scenario.network.kill_templates();
    stop.cancel();
    let solution = job.solution(&mining.channel, &found);
    declarator.peer.send(&solution).await;
    let hash = block_in(&scenario.file("declarator-blocks")).await;
    scenario.declarator.kill();
    // The pool never had it: no share was handed in.
    scenario.restart_templates().unwrap();
    scenario.restart_declarator().unwrap();
    chain_has(&mut scenario, &hash);
}
