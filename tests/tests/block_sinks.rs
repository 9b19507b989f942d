//! A solved block goes to every node that the configuration names: if the source of its template dies before it gets
//! the block, another node takes it.

#![allow(clippy::unwrap_used)]

mod devices;
mod kept;

use std::path::Path;
use std::time::{Duration, Instant};

use devices::{Device, TIME_MAX, hard_target};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use kept::{Chain, log_has, start};

/// A target that nothing meets.
const NOTHING: [u8; 32] = [0; 32];

async fn pool_on(templates: String) -> (tempfile::TempDir, Scenario) {
    let options = Options {
        worker: false,
        hasher: false,
        min_hashrate: 400_000,
        templates: Some(templates),
        ..Options::default()
    };
    start(options).await
}

/// Has a device find blocks at the pool once `die` has ended the source. The hash of the first that the pool says is
/// found.
async fn found_without_the_source(scenario: &mut Scenario, die: impl FnOnce()) -> String {
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    let idle = Device::start(&pool, NOTHING).await;
    idle.until("a job", |log| !log.jobs.is_empty()).await;
    die();
    let _device = Device::start(&pool, hard_target()).await;
    let found = scenario.pool.event("block_found", TIME_MAX).unwrap();
    found["hash"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_source_died_is_taken_by_another_template_provider() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = Chain::start("source", "1e0fffff", dir.path());
    let other = Chain::start("other", "1e0fffff", dir.path());
    let templates = format!(
        "{}[[templates.block_sinks]]\n{}",
        source.config(),
        other.config()
    );
    let (_dir, mut scenario) = pool_on(templates).await;
    let hash = found_without_the_source(&mut scenario, || source.daemon.kill()).await;
    log_has(|| other.daemon.log(), &hash);
}

/// A second Bitcoin Core on the same chain.
fn twin(core: &BitcoinCore, parts: &CoreParts, dir: &Path) -> BitcoinCore {
    let twin = BitcoinCore::start(parts, &dir.join("twin"), &dir.join("twin-logs")).unwrap();
    let hash = core.rpc(&["getblockhash", "1"]).unwrap();
    let block = core.rpc(&["getblock", &hash, "0"]).unwrap();
    twin.rpc(&["submitblock", &block]).unwrap();
    twin
}

async fn bitcoin_core_takes_it(sink: impl FnOnce(&BitcoinCore, &Path) -> String) {
    let parts = CoreParts::from_environment().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (data, logs) = (dir.path().join("source"), dir.path().join("source-logs"));
    let mut source = BitcoinCore::start(&parts, &data, &logs).unwrap();
    source
        .rpc(&["generatetodescriptor", "1", "raw(51)"])
        .unwrap();
    let other = twin(&source, &parts, dir.path());
    let templates = format!(
        "kind = \"bitcoin-core\"\nsocket = \"{}\"\n[[templates.block_sinks]]\n{}",
        source.socket().display(),
        sink(&other, dir.path())
    );
    let (_dir, mut scenario) = pool_on(templates).await;
    let hash = found_without_the_source(&mut scenario, || source.daemon().kill()).await;
    let deadline = Instant::now() + TIME_MAX;
    while other.rpc(&["getblockheader", &hash]).is_err() {
        assert!(
            Instant::now() < deadline,
            "the other node does not know {hash}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn a_block_whose_source_died_is_taken_by_another_bitcoin_core_over_ipc() {
    bitcoin_core_takes_it(|core, _| {
        let socket = core.socket();
        format!(
            "kind = \"bitcoin-core\"\nsocket = \"{}\"\n",
            socket.display()
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn a_block_whose_source_died_is_taken_by_another_bitcoin_core_over_rpc() {
    bitcoin_core_takes_it(|core, dir| {
        let cookie = dir.join("cookie");
        std::fs::write(&cookie, core.rpc_credentials()).unwrap();
        format!(
            "kind = \"bitcoin-rpc\"\naddress = \"{}\"\ncookie_file = \"{}\"\n",
            core.rpc_address(),
            cookie.display()
        )
    })
    .await;
}
