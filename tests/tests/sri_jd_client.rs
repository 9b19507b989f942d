//! The SRI's own job declarator client, unmodified, declares jobs in both modes on a real Bitcoin
//! Core, and its `mining_device` mines on them. `cargo xtask test` names the programs in the
//! environment and runs these.

#![allow(clippy::unwrap_used)]

mod declaration;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use declaration::coins::{mine_to_anybody, spend_coinbase};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET, Options, Scenario};
use dovetail_tests::{free_port, needed};

const TIME_MAX: Duration = Duration::from_secs(120);
/// What the client's shares are credited to.
const ACCOUNT: &str = "jdc";
/// Blocks of coins to spend; a coinbase can be spent in the 100th block after it.
const BLOCKS: u32 = 130;

struct Client {
    daemon: Daemon,
    address: String,
    log: std::path::PathBuf,
}

fn pool() -> (tempfile::TempDir, Scenario) {
    let options = Options {
        worker: false,
        hasher: false,
        core: Some(CoreParts::from_environment().unwrap()),
        ..Options::default()
    };
    let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    mine_to_anybody(scenario.network.bitcoin_core().unwrap(), BLOCKS);
    (dir, scenario)
}

fn jd_client(scenario: &Scenario, mode: &str, dir: &Path) -> Client {
    let core = scenario.network.bitcoin_core().unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let log = dir.join("jd_client.log");
    let config = dir.join("jd_client.toml");
    std::fs::write(&config, client_config(scenario, core, mode, &address, &log)).unwrap();
    let mut command = Command::new(needed("DOVETAIL_JD_CLIENT").unwrap());
    command.arg("-c").arg(&config);
    Client {
        daemon: Daemon::spawn("jd_client", command, dir).unwrap(),
        address,
        log,
    }
}

fn client_config(
    scenario: &Scenario,
    core: &BitcoinCore,
    mode: &str,
    address: &str,
    log: &Path,
) -> String {
    let (pool_host, pool_port) = scenario.mining.split_once(':').unwrap();
    let (jds_host, jds_port) = scenario.declaration.split_once(':').unwrap();
    // Its own payout, for solo mining only: it differs from the pool's.
    let solo = "addr(bcrt1qft5p2uhsdcdc3l2ua4ap5qqfg4pjaqlp250x7us7a8qqhrxrxfsqseac85)";
    // On regtest each share is a block, and a block's time must be past the median of eleven. The device takes its
    // clock's second when a job comes and keeps it for the job: six blocks within one second, and its shares are too
    // early for good, because this client has no new job without a new block. It measures its speed before it mines, a
    // loaded machine makes that too low by several times, and ten a minute leave room for it.
    let shares_per_minute = "10.0";
    format!(
        "listening_address = \"{address}\"
max_supported_version = 2
min_supported_version = 2
authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = \"{AUTHORITY_SECRET}\"
cert_validity_sec = 3600
shares_per_minute = {shares_per_minute}
share_batch_size = 1
mode = \"{mode}\"
jdc_signature = \"test\"
coinbase_reward_script = \"{solo}\"
log_file = \"{}\"
supported_extensions = []
required_extensions = []
[[upstreams]]
authority_pubkey = \"{AUTHORITY_PUBLIC}\"
pool_address = \"{pool_host}\"
pool_port = {pool_port}
jds_address = \"{jds_host}\"
jds_port = {jds_port}
user_identity = \"{ACCOUNT}.1\"
[template_provider_type.BitcoinCoreIpc]
version = 31
network = \"regtest\"
data_dir = \"{}\"
fee_threshold = 100
min_interval = 1
",
        log.display(),
        core.data().display()
    )
}

fn mining_device(client: &Client, dir: &Path) -> Daemon {
    let mut command = Command::new(needed("DOVETAIL_MINING_DEVICE").unwrap());
    command.args(["--address-pool", &client.address]);
    command.args(["--pubkey-pool", AUTHORITY_PUBLIC]);
    command.args(["--id-user", "device.1", "--cores", "1"]);
    command.args(["--nominal-hashrate-multiplier", "0.5"]);
    Daemon::spawn("mining_device", command, dir).unwrap()
}

/// Waits until the client listens: then it has its templates and both connections.
fn listens(client: &mut Client) {
    let deadline = Instant::now() + TIME_MAX;
    while std::net::TcpStream::connect(&client.address).is_err() {
        assert!(Instant::now() < deadline, "{}", said(client));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn said(client: &Client) -> String {
    let log = std::fs::read_to_string(&client.log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(60)..].join("\n");
    format!("{tail}\n{}", client.daemon.log_tail())
}

/// Waits for a credited share of the client's.
fn accepted(scenario: &mut Scenario, client: &Client) {
    let share = scenario.pool.wait_for(TIME_MAX, "a share", |line| {
        line["event"] == "share_accepted" && line["worker"] == ACCOUNT
    });
    assert!(share.is_ok(), "{:#}\n{}", share.unwrap_err(), said(client));
}

#[test]
#[ignore = "needs jd_client_sv2, mining_device and Bitcoin Core: cargo xtask test"]
fn the_sri_jd_client_declares_full_templates_and_mines_on_them() {
    let (dir, mut scenario) = pool();
    let core = scenario.network.bitcoin_core().unwrap();
    let spend = spend_coinbase(core, 2, 10_000);
    core.rpc(&["sendrawtransaction", &serialize_hex(&spend)])
        .unwrap();
    let mut client = jd_client(&scenario, "FULLTEMPLATE", dir.path());
    listens(&mut client);
    let _device = mining_device(&client, dir.path());
    for _ in 0..3 {
        accepted(&mut scenario, &client);
    }
    assert!(scenario.declarator.log().contains("job declared"));
    assert!(scenario.pool.log().contains("declared job accepted"));
    // On this chain every share is a block; the transaction is in one of them.
    let txid = spend.compute_txid().to_string();
    let core = scenario.network.bitcoin_core().unwrap();
    let pool = core.rpc(&["getrawmempool"]).unwrap();
    assert!(!pool.contains(&txid), "{pool}");
    // It never fell back to mining alone.
    let log = std::fs::read_to_string(&client.log).unwrap();
    assert!(!log.contains("allback"), "{}", said(&client));
    // It was sent none of the pool's jobs and tips, which it does not expect.
    assert!(!log.contains("does not expect"), "{}", said(&client));
}

#[test]
#[ignore = "needs jd_client_sv2, mining_device and Bitcoin Core: cargo xtask test"]
fn the_sri_jd_client_mines_in_coinbase_only_mode() {
    let (dir, mut scenario) = pool();
    let mut client = jd_client(&scenario, "COINBASEONLY", dir.path());
    listens(&mut client);
    let _device = mining_device(&client, dir.path());
    // This client hands in a job only for a template that is better than the one before on the
    // same tip, so every now and then somebody pays a fee.
    let deadline = Instant::now() + TIME_MAX;
    let mut height = 2;
    while !scenario.pool.log().contains("declared job accepted") {
        assert!(Instant::now() < deadline, "{}", said(&client));
        let core = scenario.network.bitcoin_core().unwrap();
        let spend = spend_coinbase(core, height, 100_000);
        core.rpc(&["sendrawtransaction", &serialize_hex(&spend)])
            .unwrap();
        height += 1;
        std::thread::sleep(Duration::from_millis(1_500));
    }
    accepted(&mut scenario, &client);
    assert!(!scenario.declarator.log().contains("job declared"));
    let shares = format!("SELECT count(*) > 0 FROM named_shares WHERE account = '{ACCOUNT}'");
    scenario.query_until(&shares, "t").unwrap();
}
