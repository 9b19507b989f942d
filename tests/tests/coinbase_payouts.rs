//! Accounts that are paid in the coinbase itself, on Bitcoin Core: by the pool's own jobs, and by those that a worker declares.

#![allow(clippy::unwrap_used)]

mod devices;

use std::time::Instant;

use devices::{Device, TIME_MAX, hard_target};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts, OTHERS_ADDRESS, turned};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use serde_json::Value;
use tempfile::TempDir;

/// The account, which is paid at the address that it is named by.
const ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
const SETTINGS: [(&str, &str); 6] = [
    ("REWARDS__SCHEME", "pplns"),
    ("REWARDS__WINDOW", "2"),
    ("REWARDS__FEE_PERCENT", "1.5"),
    ("REWARDS__COINBASE_PAYOUTS_MAX", "20"),
    ("REWARDS__COINBASE_PAYOUTS_RENEWED_S", "1"),
    ("JOB_DECLARATOR__COINBASE_ONLY", "false"),
];

async fn start() -> (TempDir, Scenario) {
    let options = Options {
        firmware: true,
        hasher: false,
        // Each share is a block on Core's regtest, and a difficulty.
        min_hashrate: 400_000,
        hash_msat_per_mebihash: 0,
        core: Some(CoreParts::from_environment().unwrap()),
        pool_settings: &SETTINGS,
        ..Options::default()
    };
    let start = move || dovetail_tests::scenario(&options).unwrap();
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn core(scenario: &Scenario) -> &BitcoinCore {
    scenario.network.bitcoin_core().unwrap()
}

/// What the coinbase of a block pays the account, in satoshi.
fn paid_in(core: &BitcoinCore, hash: &str) -> u64 {
    let block: Value = serde_json::from_str(&core.rpc(&["getblock", hash, "2"]).unwrap()).unwrap();
    let outputs = block["tx"][0]["vout"].as_array().unwrap();
    let to_account = outputs
        .iter()
        .filter(|output| output["scriptPubKey"]["address"] == ADDRESS);
    // Of a double: amounts below 21 million bitcoin are exact to the satoshi after rounding.
    to_account
        .map(|output| (output["value"].as_f64().unwrap() * 1e8).round() as u64)
        .sum()
}

/// Waits for a block of this account's miners whose coinbase pays the address.
fn pays_the_address(scenario: &mut Scenario, finder: &str) {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        assert!(Instant::now() < deadline, "no block of {finder}'s pays it");
        let found = scenario.pool.event("block_found", TIME_MAX).unwrap();
        let hash = found["hash"].as_str().unwrap();
        if found["worker"] == finder && paid_in(core(scenario), hash) > 0 {
            return;
        }
    }
}

const OPEN: &str = "SELECT count(*) FROM block_rewards WHERE state = 'submitted'";
const IMMATURE: &str = "SELECT count(*) FROM block_rewards WHERE state = 'active'";
/// Millisatoshi that matured blocks have paid, and what became of them.
const SUMS: &str = "
    SELECT (SELECT sum(reward_msat) FROM block_rewards WHERE state = 'matured')
         - (SELECT sum(credits_posted - debits_posted) FROM accounts
             WHERE starts_with(name, 'worker:') OR name IN ('pool:fees', 'pool:coinbase', 'pool:loss'))";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn the_pools_jobs_and_declared_ones_pay_the_heaviest_account_in_the_coinbase() {
    let (_dir, mut scenario) = start().await;
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    let own = Device::start_as(ADDRESS, &pool, hard_target()).await;
    pays_the_address(&mut scenario, ADDRESS);
    // A worker's device, on jobs that the worker declares.
    let behind = Device::start(&scenario.firmware.clone().unwrap(), hard_target()).await;
    let worker = scenario.worker_key.clone().unwrap();
    pays_the_address(&mut scenario, &worker);
    let declared = "SELECT count(*) > 0 FROM declared_jobs";
    assert_eq!(scenario.query(declared).unwrap(), "t");
    drop((own, behind));
    scenario.written().unwrap();

    // A restarted pool knows what blocks have paid as one that never stopped.
    scenario.pool.kill();
    scenario.restart_pool().unwrap();
    core(&scenario).mine(1, OTHERS_ADDRESS).unwrap();
    let noted = "SELECT count(*) > 0 FROM block_advances";
    scenario.query_until(noted, "t").unwrap();
    core(&scenario).mine(100, OTHERS_ADDRESS).unwrap();
    scenario.query_until(IMMATURE, "0").unwrap();
    // A block that lost against another of its height stays submitted.
    let lost: usize = scenario.query(OPEN).unwrap().parse().unwrap();
    assert!(lost < 10, "{lost}");

    // What coinbases have paid is noted to the satoshi, and nothing is paid twice or lost.
    let advances = scenario
        .query(
            "SELECT string_agg(encode(block, 'hex') || ' ' || amount_sat, ',') FROM block_advances",
        )
        .unwrap();
    for advance in advances.split(',') {
        let (block, sat) = advance.split_once(' ').unwrap();
        assert_eq!(paid_in(core(&scenario), &turned(block)).to_string(), sat);
    }
    let unnoted = "SELECT count(*) FROM block_rewards WHERE state = 'matured'
                    AND NOT EXISTS (SELECT FROM block_advances WHERE block = header_hash)";
    let rewards = "SELECT count(*) FROM block_rewards WHERE state = 'matured'";
    assert!(scenario.query(unnoted).unwrap() != scenario.query(rewards).unwrap());
    assert_eq!(scenario.query(SUMS).unwrap(), "0");
    let taken_off = "SELECT (SELECT sum(1000 * amount_sat) FROM block_advances)
        = (SELECT credits_posted - debits_posted FROM accounts WHERE name = 'pool:coinbase')";
    assert_eq!(scenario.query(taken_off).unwrap(), "t");
    let whole = "SELECT count(*) FROM block_rewards WHERE state = 'matured' AND reward_msat <> 5000000000000
                  AND height < 150";
    assert_eq!(scenario.query(whole).unwrap(), "0");
    let log = scenario.pool.log();
    assert!(!log.contains("no payout list has them"), "{log}");
}
