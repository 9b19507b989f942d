//! Clients that nobody here wrote mine on the pool: `mining_device` (standard channels) and
//! `translator_sv2` (extended channels, fed by a minimal Sv1 miner). `cargo xtask test` names the
//! programs in the environment and runs these.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256d};
use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use dovetail_tests::{free_port, needed};
use serde_json::{Value, json};

const TIME_MAX: Duration = Duration::from_secs(120);

fn pool() -> (tempfile::TempDir, Scenario) {
    let options = Options {
        worker: false,
        hasher: false,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

/// Far more easy shares than it takes until one is worth the pool's target.
const SHARES_MAX: u32 = 3_000;

/// How Sv1 says that a share's job is gone ("Job not found (=stale)" of its table of errors).
const JOB_NOT_FOUND: u64 = 21;

fn accepted_from(scenario: &mut Scenario, account: &str) {
    scenario
        .pool
        .wait_for(TIME_MAX, &format!("a share of {account}"), |line| {
            line["event"] == "share_accepted" && line["worker"] == account
        })
        .unwrap();
}

#[test]
#[ignore = "needs mining_device: cargo xtask test"]
fn the_sri_mining_device_gets_shares_accepted() {
    let (dir, mut scenario) = pool();
    let device = mining_device(&scenario.mining, AUTHORITY_PUBLIC, dir.path());
    for _ in 0..3 {
        accepted_from(&mut scenario, "device");
    }
    drop(device);
    let shares = "SELECT count(*) >= 3 FROM named_shares WHERE account = 'device'";
    scenario.query_until(shares, "t").unwrap();
}

#[test]
#[ignore = "needs translator_sv2: cargo xtask test"]
fn sv1_miners_behind_the_sri_translator_get_shares_accepted() {
    let (dir, mut scenario) = pool();
    let _translated = mine_through_a_translator(&scenario.mining, AUTHORITY_PUBLIC, dir.path());
    accepted_from(&mut scenario, "translated");
}

#[test]
#[ignore = "needs translator_sv2: cargo xtask test"]
fn a_translator_that_requires_worker_tracking_mines_and_its_miners_are_told_apart() {
    let (dir, scenario) = pool();
    let options = "aggregate_channels = true
supported_extensions = [2]
required_extensions = [2]";
    let (translator, port) = translator(&scenario.mining, AUTHORITY_PUBLIC, options, dir.path());
    let mut miners = ["rig1", "rig2"].map(|name| Sv1Miner::connect(port, name));
    let devices =
        "SELECT string_agg(device, ' ' ORDER BY device) FROM devices WHERE account = 'translated'";
    let begun = Instant::now();
    // Not every share that the translator takes is worth the pool's target, and the pool writes now and then which devices gave some.
    while scenario.query(devices).unwrap() != "rig1 rig2" {
        assert!(begun.elapsed() < TIME_MAX, "{}", translator.log_tail());
        for miner in &mut miners {
            mine_one(miner, &translator);
        }
    }
}

#[test]
#[ignore = "needs mining_device: cargo xtask test"]
fn a_share_of_the_sri_mining_device_behind_a_worker_settles_the_workers_batch() {
    device_settles_a_batch(true);
}

#[test]
#[ignore = "needs mining_device: cargo xtask test"]
fn a_share_of_the_sri_mining_device_settles_a_batch_on_a_job_that_the_pool_built() {
    device_settles_a_batch(false);
}

fn device_settles_a_batch(node: bool) {
    let (dir, mut scenario) = worker_with_firmware(node);
    let (address, key) = scenario.firmware.clone().unwrap();
    let _device = mining_device(&address, &key, dir.path());
    let worker = worker_name(&scenario);
    // Before there is any batch: jobs on the worker's own templates, or the pool's where it has no node.
    accepted_from(&mut scenario, &worker);
    let answer = scenario.ask("a prompt", 16, "receipt.json", &[]).unwrap();
    assert_eq!(answer["receipt"]["verified"], true);
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    let kinds = format!(
        "SELECT string_agg(DISTINCT kind::text, ',' ORDER BY kind::text) FROM named_shares WHERE account = '{worker}'"
    );
    scenario.query_until(&kinds, "hash,inference").unwrap();
    // The device goes on: what follows the claim are ordinary shares again.
    accepted_from(&mut scenario, &worker);
}

#[test]
#[ignore = "needs translator_sv2: cargo xtask test"]
fn sv1_miners_behind_the_sri_translator_mine_through_a_worker() {
    let (dir, mut scenario) = worker_with_firmware(true);
    let (address, key) = scenario.firmware.clone().unwrap();
    let (translator, mut miner) = mine_through_a_translator(&address, &key, dir.path());
    let worker = worker_name(&scenario);
    // The pool asks for more work per share than the worker does, so only some of these reach it.
    let credited = format!("SELECT count(*) > 0 FROM named_shares WHERE account = '{worker}'");
    let mut mined = 0;
    while scenario.query(&credited).unwrap() != "t" {
        assert!(mined < SHARES_MAX, "{}", translator.log_tail());
        mine_one(&mut miner, &translator);
        mined += 1;
    }
    accepted_from(&mut scenario, &worker);
}

fn worker_with_firmware(node: bool) -> (tempfile::TempDir, Scenario) {
    let options = Options {
        node,
        firmware: true,
        hasher: false,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

/// The account of the one worker.
fn worker_name(scenario: &Scenario) -> String {
    scenario.worker_key.clone().unwrap()
}

fn mining_device(address: &str, key: &str, dir: &Path) -> Daemon {
    let mut command = Command::new(needed("DOVETAIL_MINING_DEVICE").unwrap());
    command.args(["--address-pool", address, "--pubkey-pool", key]);
    command.args(["--id-user", "device.1", "--cores", "1"]);
    command.args(["--nominal-hashrate-multiplier", "0.05"]);
    Daemon::spawn("mining_device", command, dir).unwrap()
}

/// A translator with an Sv1 miner behind it that had three shares accepted.
fn mine_through_a_translator(address: &str, key: &str, dir: &Path) -> (Daemon, Sv1Miner) {
    let options = "aggregate_channels = false
supported_extensions = []";
    let (translator, port) = translator(address, key, options, dir);
    let mut miner = Sv1Miner::connect(port, "rig");
    for _ in 0..3 {
        mine_one(&mut miner, &translator);
    }
    (translator, miner)
}

/// A translator with these options, and its port.
fn translator(address: &str, key: &str, options: &str, dir: &Path) -> (Daemon, u16) {
    let port = free_port().unwrap();
    let config = dir.join("translator.toml");
    std::fs::write(&config, translator_config(port, address, key, options)).unwrap();
    let mut command = Command::new(needed("DOVETAIL_TRANSLATOR").unwrap());
    command.arg("-c").arg(&config);
    let translator = Daemon::spawn("translator", command, dir).unwrap();
    (translator, port)
}

fn mine_one(miner: &mut Sv1Miner, translator: &Daemon) {
    let answer = miner.mine_one();
    assert_eq!(answer, Value::Bool(true), "{}", translator.log_tail());
}

fn translator_config(port: u16, mining: &str, key: &str, options: &str) -> String {
    let (address, pool_port) = mining.split_once(':').unwrap();
    format!(
        "downstream_address = \"127.0.0.1\"
downstream_port = {port}
max_supported_version = 2
min_supported_version = 2
downstream_extranonce2_size = 4
verify_payout = false
{options}
[downstream_difficulty_config]
min_individual_miner_hashrate = 200000.0
shares_per_minute = 60.0
enable_vardiff = false
job_keepalive_interval_secs = 60
[[upstreams]]
address = \"{address}\"
port = {pool_port}
authority_pubkey = \"{key}\"
user_identity = \"translated\"
"
    )
}

/// The least of an Sv1 miner that really hashes.
struct Sv1Miner {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    extranonce1: Vec<u8>,
    extranonce2_len: usize,
    difficulty: f64,
    job: Value,
    counter: u32,
    id: u64,
    name: &'static str,
}

impl Sv1Miner {
    fn connect(port: u16, name: &'static str) -> Self {
        let deadline = Instant::now() + TIME_MAX;
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100))
                }
                Err(error) => panic!("the translator does not listen: {error}"),
            }
        };
        stream.set_read_timeout(Some(TIME_MAX)).unwrap();
        let mut miner = Self {
            lines: BufReader::new(stream.try_clone().unwrap()),
            stream,
            extranonce1: Vec::new(),
            extranonce2_len: 0,
            difficulty: 1.0,
            job: Value::Null,
            counter: 0,
            id: 0,
            name,
        };
        let subscribed = miner.call("mining.subscribe", &json!(["dovetail-test/1"]));
        miner.extranonce1 = hex::decode(subscribed[1].as_str().unwrap()).unwrap();
        miner.extranonce2_len = usize::try_from(subscribed[2].as_u64().unwrap()).unwrap();
        assert_eq!(miner.call("mining.authorize", &json!([name, "x"])), true);
        while miner.job.is_null() {
            let line = miner.read();
            miner.notice(&line);
        }
        miner
    }

    /// Calls a method and returns its result.
    fn call(&mut self, method: &str, params: &Value) -> Value {
        let answer = self.ask(method, params);
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    /// Calls a method and returns the whole answer; notices what arrives in between.
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.id += 1;
        let request = json!({ "id": self.id, "method": method, "params": params });
        writeln!(self.stream, "{request}").unwrap();
        loop {
            let line = self.read();
            if line["id"] == self.id && line.get("method").is_none_or(Value::is_null) {
                return line;
            }
            self.notice(&line);
        }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        assert!(
            self.lines.read_line(&mut line).unwrap() > 0,
            "the translator hung up"
        );
        serde_json::from_str(&line).unwrap()
    }

    fn notice(&mut self, line: &Value) {
        match line["method"].as_str() {
            Some("mining.set_difficulty") => self.difficulty = line["params"][0].as_f64().unwrap(),
            Some("mining.notify") => self.job = line["params"].clone(),
            _ => {}
        }
    }

    /// Finds one share and submits it; returns the translator's answer.
    ///
    /// A tip that comes while this device searches makes its share stale, as it does any device's:
    /// it has noticed the new job by the time it is told so, and goes on with that.
    fn mine_one(&mut self) -> Value {
        for _ in 0..SHARES_MAX {
            let share = self.search();
            let answer = self.ask("mining.submit", &share);
            if answer["error"][0] != JOB_NOT_FOUND {
                assert!(answer["error"].is_null(), "{answer}");
                return answer["result"].clone();
            }
        }
        panic!("every job was gone when its share was found");
    }

    /// A share on the newest job, as the parameters of `mining.submit`.
    fn search(&mut self) -> Value {
        self.counter += 1;
        let mut extranonce2 = vec![0; self.extranonce2_len];
        extranonce2[..4].copy_from_slice(&self.counter.to_be_bytes());
        let text = |index: usize| self.job[index].as_str().unwrap().to_owned();
        let bytes = |index: usize| hex::decode(text(index)).unwrap();
        let coinbase = [
            bytes(2),
            self.extranonce1.clone(),
            extranonce2.clone(),
            bytes(3),
        ]
        .concat();
        let mut root = sha256d::Hash::hash(&coinbase).to_byte_array();
        for branch in self.job[4].as_array().unwrap() {
            let branch = hex::decode(branch.as_str().unwrap()).unwrap();
            root = sha256d::Hash::hash(&[root.as_slice(), &branch].concat()).to_byte_array();
        }
        // Sv1 sends the previous hash as eight big-endian words.
        let previous: Vec<u8> = bytes(1)
            .chunks(4)
            .flat_map(|word| word.iter().rev().copied())
            .collect();
        let reversed = |index: usize| bytes(index).into_iter().rev().collect::<Vec<u8>>();
        let mut header = [
            reversed(5),
            previous,
            root.to_vec(),
            reversed(7),
            reversed(6),
            vec![0; 4],
        ]
        .concat();
        assert_eq!(header.len(), 80);
        let nonce = (0..u32::MAX)
            .find(|nonce| {
                header[76..].copy_from_slice(&nonce.to_le_bytes());
                meets(
                    &sha256d::Hash::hash(&header).to_byte_array(),
                    self.difficulty,
                )
            })
            .unwrap();
        json!([
            self.name,
            text(0),
            hex::encode(extranonce2),
            text(7),
            format!("{nonce:08x}")
        ])
    }
}

/// Whether the 64 highest bits of the hash are below what the difficulty asks.
fn meets(hash: &[u8; 32], difficulty: f64) -> bool {
    let high = u64::from_le_bytes(hash[24..].try_into().unwrap());
    high < (2_f64.powi(32) / difficulty) as u64
}
