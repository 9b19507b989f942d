//! Blocks become rewards on Bitcoin Core: two miners' blocks are divided over their newest work, come and go with the chain
//! at any depth, and pay once, when they have matured. Each miner checks its part of each.

#![allow(clippy::unwrap_used)]

mod devices;

use devices::{Device, TIME_MAX, hard_target};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts, OTHERS_ADDRESS, turned};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, RECEIPT_PUBLIC, Scenario};
use serde_json::Value;
use tempfile::TempDir;

/// Blocks that the miners find, at least: the first of them is its finder's, the others are divided.
const BLOCKS: usize = 12;
/// And at most, until both of them have a part of one block.
const BLOCKS_MAX: usize = 60;
const BOTH_EARN: &str = "
    SELECT EXISTS (SELECT FROM block_rewards JOIN block_credits ON block = header_hash
                    WHERE state = 'active' GROUP BY block HAVING count(*) = 2)";

const DIVIDES: [Setting; 4] = [
    ("REWARDS__SCHEME", "pplns"),
    ("REWARDS__WINDOW", "8"),
    ("REWARDS__FEE_PERCENT", "1.5"),
    ("JOB_DECLARATOR__COINBASE_ONLY", "false"),
];
type Setting = (&'static str, &'static str);

/// A pool on Core that divides its blocks, after its two miners have found some.
async fn found_blocks(pool_settings: &'static [Setting]) -> (TempDir, Scenario) {
    let options = Options {
        worker: false,
        // Each share is a block on Core's regtest, and a difficulty.
        shares_per_minute: 120,
        min_hashrate: 400_000,
        hash_msat_per_mebihash: 0,
        core: Some(CoreParts::from_environment().unwrap()),
        pool_settings,
        ..Options::default()
    };
    let start = move || dovetail_tests::scenario(&options).unwrap();
    let (dir, mut scenario) = tokio::task::spawn_blocking(start).await.unwrap();
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    let device = Device::start(&pool, hard_target()).await;
    for found in 1.. {
        assert!(found <= BLOCKS_MAX, "one of them finds no block");
        scenario.pool.event("block_found", TIME_MAX).unwrap();
        if found >= BLOCKS && scenario.query(BOTH_EARN).unwrap() == "t" {
            break;
        }
    }
    drop(device);
    if let Some(mut hasher) = scenario.hasher.take() {
        hasher.stop();
    }
    scenario.written().unwrap();
    (dir, scenario)
}

fn core(scenario: &Scenario) -> &BitcoinCore {
    scenario.network.bitcoin_core().unwrap()
}

fn count(scenario: &Scenario, condition: &str) -> usize {
    let query = format!("SELECT count(*) FROM block_rewards WHERE {condition}");
    scenario.query(&query).unwrap().parse().unwrap()
}

/// The hashes of divided blocks, the lowest first, as Core names them.
fn hashes(scenario: &Scenario) -> Vec<String> {
    let hashes = scenario
        .query("SELECT string_agg(encode(header_hash, 'hex'), ' ' ORDER BY height) FROM block_rewards WHERE state <> 'submitted'")
        .unwrap();
    hashes.split_whitespace().map(turned).collect()
}

fn states_are(scenario: &Scenario, active: usize, orphaned: usize) {
    let states = "SELECT count(*) FILTER (WHERE state = 'active') || ' ' || count(*) FILTER (WHERE state = 'orphaned') FROM block_rewards";
    scenario
        .query_until(states, &format!("{active} {orphaned}"))
        .unwrap();
}

/// The height of the pool's first block: the harness has mined one.
const LOWEST: usize = 2;

/// How many blocks of the chain lie below one without a sibling, on one without a sibling: Core has none to go to if the block
/// is invalidated.
fn before_a_lone_block(scenario: &Scenario, all: usize) -> usize {
    let is_lone = |place: &usize| count(scenario, &format!("height = {}", place + LOWEST)) == 1;
    let mut places = 2..all;
    let found = places.find(|place| is_lone(place) && is_lone(&(place - 1)));
    found.expect("two blocks found at once are the exception")
}

const SUM_OF_ALL: &str = "SELECT sum(credits_posted - debits_posted) FROM accounts";
const CREDITED: &str = "
    SELECT COALESCE(sum(credits_posted), 0) FROM accounts
     WHERE starts_with(name, 'worker:') OR name = 'pool:fees'";

/// A block whose share was never logged.
const FORGOTTEN: &str = "
    SET session_replication_role = replica;
    DELETE FROM block_credits WHERE block = (SELECT header_hash FROM block_rewards WHERE height = 5 AND state = 'active');
    DELETE FROM block_rewards WHERE height = 5 AND state = 'active';";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn blocks_follow_the_chain_back_and_forth_and_pay_their_reward_once() {
    let (_dir, mut scenario) = found_blocks(&DIVIDES).await;
    // Two miners find blocks of one height now and then; of these one stays submitted.
    let in_chain = |scenario: &Scenario| {
        let tip: usize = core(scenario)
            .rpc(&["getblockcount"])
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        tip - 1
    };
    let all = in_chain(&scenario);
    assert!(all > BLOCKS / 2, "{all}");
    states_are(&scenario, all, 0);
    let chain = hashes(&scenario);
    assert_eq!(chain.len(), all);

    // Another chain replaces all but the first few of them, and is replaced in turn.
    let kept = before_a_lone_block(&scenario, all);
    core(&scenario)
        .rpc(&["invalidateblock", &chain[kept]])
        .unwrap();
    let rivals = u32::try_from(all).unwrap();
    core(&scenario).mine(rivals, OTHERS_ADDRESS).unwrap();
    states_are(&scenario, kept, all - kept);
    scenario.pool.kill();
    scenario.restart_pool().unwrap();
    let height = (kept + LOWEST).to_string();
    let rival = core(&scenario).rpc(&["getblockhash", &height]).unwrap();
    core(&scenario)
        .rpc(&["invalidateblock", rival.trim()])
        .unwrap();
    core(&scenario)
        .rpc(&["reconsiderblock", &chain[kept]])
        .unwrap();
    states_are(&scenario, all, 0);
    assert_eq!(scenario.query(CREDITED).unwrap(), "0");

    // A block whose share was never logged is found on the chain, and divided over the window.
    scenario.pool.kill();
    scenario.query(FORGOTTEN).unwrap();
    assert_eq!(count(&scenario, "state = 'active'"), all - 1);
    scenario.restart_pool().unwrap();
    states_are(&scenario, all, 0);
    assert_eq!(count(&scenario, "height = 5 AND finder IS NULL"), 1);

    // One block less than maturity, for the first of them; then each has matured.
    let missing = 99 - u32::try_from(all - 1).unwrap();
    core(&scenario).mine(missing, OTHERS_ADDRESS).unwrap();
    scenario.pool.kill();
    scenario.restart_pool().unwrap();
    assert_eq!(count(&scenario, "state = 'matured'"), 0);
    core(&scenario)
        .mine(u32::try_from(all).unwrap(), OTHERS_ADDRESS)
        .unwrap();
    let matured = "SELECT count(*) FROM block_rewards WHERE state = 'matured'";
    scenario.query_until(matured, &all.to_string()).unwrap();

    // What the miners and the pool have is what the coinbases paid, to the last millisatoshi, and both miners have a part.
    let rewards = scenario
        .query("SELECT sum(reward_msat) FROM block_rewards WHERE state = 'matured'")
        .unwrap();
    assert_eq!(scenario.query(CREDITED).unwrap(), rewards);
    assert_eq!(scenario.query(SUM_OF_ALL).unwrap(), "0");
    assert_eq!(rewards, (all * 5_000_000_000_000).to_string());
    for account in ["hasher", "device"] {
        let earned =
            format!("SELECT credits_posted > 0 FROM accounts WHERE name = 'worker:{account}'");
        assert_eq!(scenario.query(&earned).unwrap(), "t", "{account}");
    }
    let divided = "SELECT max(parts) FROM (SELECT count(*) AS parts FROM block_credits GROUP BY block) counted";
    assert_eq!(scenario.query(divided).unwrap(), "2");
    parts_are_shown(&scenario, &chain);
}

/// An address for each block, of a key that is in the documentation of many wallets. The block of height 3 has the number 0.
const RANGED: &str = "wpkh(tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp/0/*)";
const RANGED_FROM: usize = 3;
const DIVIDES_RANGED: [Setting; 6] = [
    DIVIDES[0],
    DIVIDES[1],
    DIVIDES[2],
    DIVIDES[3],
    ("MINING__PAYOUT_ADDRESS", RANGED),
    ("MINING__PAYOUT_FIRST_HEIGHT", "3"),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn each_block_pays_an_address_of_its_own_which_is_known_after_a_restart() {
    let (_dir, mut scenario) = found_blocks(&DIVIDES_RANGED).await;
    let chain = hashes(&scenario);
    assert!(chain.len() > BLOCKS / 2, "{chain:?}");
    // Core derives the range by itself, and says what each block's coinbase pays.
    let described = core(&scenario).rpc(&["getdescriptorinfo", RANGED]).unwrap();
    let described: Value = serde_json::from_str(&described).unwrap();
    let descriptor = described["descriptor"].as_str().unwrap();
    let range = core(&scenario).rpc(&["deriveaddresses", descriptor, "[0,100]"]);
    let range: Vec<String> = serde_json::from_str(&range.unwrap()).unwrap();
    let mut paid = std::collections::BTreeSet::new();
    for hash in &chain {
        let block = core(&scenario).rpc(&["getblock", hash, "2"]).unwrap();
        let block: Value = serde_json::from_str(&block).unwrap();
        let height = usize::try_from(block["height"].as_u64().unwrap()).unwrap();
        let address = &block["tx"][0]["vout"][0]["scriptPubKey"]["address"];
        assert_eq!(
            *address,
            range[height.saturating_sub(RANGED_FROM)],
            "{height}"
        );
        if height >= RANGED_FROM {
            paid.insert((height, address.as_str().unwrap().to_owned()));
        }
    }
    let addresses: std::collections::BTreeSet<_> = paid.iter().map(|(_, of)| of).collect();
    assert!(addresses.len() == paid.len() && paid.len() > 4, "{paid:?}");
    // One that is not in the ledger is found on the chain by its own address.
    scenario.pool.kill();
    scenario.query(FORGOTTEN).unwrap();
    scenario.restart_pool().unwrap();
    states_are(&scenario, chain.len(), 0);
    assert_eq!(count(&scenario, "height = 5 AND finder IS NULL"), 1);
    let whole = "SELECT count(*) FROM block_rewards WHERE reward_msat <> 5000000000000";
    assert_eq!(scenario.query(whole).unwrap(), "0");
}

/// Runs `dovetail credit sample` on a block of this scenario.
fn sample(scenario: &Scenario, arguments: &[&str]) -> Value {
    let mut command = scenario.agent();
    command.args(["credit", "sample", "--json", "--k", "400"]);
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(output.status.success(), report["verified"] == true);
    report
}

/// A pool on the embedded chain, once a standard channel and an extended one have work in the window of a block.
async fn both_earn_on_the_embedded_chain() -> (TempDir, Scenario) {
    let options = Options {
        worker: false,
        // A chain inside the pool: a template provider could not say which blocks it has.
        templates: Some("kind = \"embedded\"\nbits = 0x1e0fffff\n".to_owned()),
        shares_per_minute: 120,
        min_hashrate: 400_000,
        hash_msat_per_mebihash: 0,
        pool_settings: &DIVIDES,
        ..Options::default()
    };
    let start = move || dovetail_tests::scenario(&options).unwrap();
    let (dir, mut scenario) = tokio::task::spawn_blocking(start).await.unwrap();
    let pool = (scenario.mining.clone(), AUTHORITY_PUBLIC.to_owned());
    let device = Device::start(&pool, hard_target()).await;
    let divided = "SELECT count(*) > 0 FROM (
        SELECT block FROM block_credits JOIN block_rewards ON header_hash = block
         WHERE last_slice >= first_slice + 8 GROUP BY block HAVING count(*) = 2 AND min(amount_msat) * 33 >= sum(amount_msat)) both_earn";
    for found in 1.. {
        assert!(found <= BLOCKS_MAX, "one of them finds too little");
        scenario.pool.event("block_found", TIME_MAX).unwrap();
        if scenario.query(divided).unwrap() == "t" {
            break;
        }
    }
    drop(device);
    if let Some(mut hasher) = scenario.hasher.take() {
        hasher.stop();
    }
    (dir, scenario)
}

/// On the embedded chain, where a share is a part of a block: whoever asks sees the headers that a block has chosen, and a
/// pool that has something else in its tables is found out.
#[tokio::test(flavor = "multi_thread")]
async fn shares_that_a_block_has_chosen_are_shown_to_whoever_asks() {
    let (_dir, scenario) = both_earn_on_the_embedded_chain().await;
    scenario.written().unwrap();
    // Of those in which both have a part, the one in which the smaller part is the largest. It is a 33rd at least: 400 points
    // miss it once in 200,000 times.
    let of_both = "
        SELECT encode(block, 'hex') FROM block_credits JOIN block_rewards ON header_hash = block
         WHERE last_slice >= first_slice + 8
         GROUP BY block HAVING count(*) = 2 ORDER BY min(amount_msat) DESC LIMIT 1";
    let block = turned(&scenario.query(of_both).unwrap());
    let all = [
        "--block",
        &*block,
        "--pool-key",
        RECEIPT_PUBLIC,
        "--tag",
        "Dovetail",
        "--bits",
        "1e0fffff",
    ];
    let report = sample(&scenario, &all);
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(
        (&report["shown"], &report["accounts"]),
        (&400.into(), &2.into()),
        "{report}"
    );
    assert!(report["shares"].as_u64().unwrap() > 5, "{report}");
    // What a share takes in the ledger, for docs/rewards.md.
    let bytes = "SELECT sum(shares) || ' shares, ' || sum(pg_column_size(bytes)) || ' bytes, ' || sum(length(bytes)) || ' raw' FROM slice_shares";
    println!("{}", scenario.query(bytes).unwrap());

    let failure = |arguments: &[&str]| sample(&scenario, arguments)["first_failure"].clone();
    assert_eq!(
        failure(&["--block", &block, "--tag", "somebody"]),
        "coinbase"
    );
    assert_eq!(failure(&["--block", &block, "--bits", "1d00ffff"]), "bits");
    assert_eq!(
        failure(&["--block", &block, "--pool-key", &"11".repeat(32)]),
        "window"
    );
    what_was_made_up_is_found(&scenario, &block);
}

/// The tables are changed, so that they say more than was counted; and what shows the shares goes.
fn what_was_made_up_is_found(scenario: &Scenario, block: &str) {
    let failure = || sample(scenario, &["--block", block])["first_failure"].clone();
    let made_up =
        "SET session_replication_role = replica; UPDATE slice_work SET shares = shares + 1";
    scenario.query(made_up).unwrap();
    assert_eq!(failure(), "leaves");
    let restored =
        "SET session_replication_role = replica; UPDATE slice_work SET shares = shares - 1";
    scenario.query(restored).unwrap();
    assert_eq!(failure(), Value::Null);
    // Nothing is said of what is not kept.
    scenario
        .query("SET session_replication_role = replica; DELETE FROM slice_shares")
        .unwrap();
    let mut command = scenario.agent();
    let output = command
        .args(["credit", "sample", "--block", block])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("slices-dropped"),
        "{said}"
    );
}

/// Both miners check their part of each block.
fn parts_are_shown(scenario: &Scenario, chain: &[String]) {
    let last = chain.last().unwrap();
    for account in ["hasher", "device"] {
        for hash in chain {
            check_part(scenario, account, hash);
        }
        // The file is that of the last block. Luck may have left one of them without work in its window.
        if amount(scenario, account, last) > 0 {
            changed_files_fail(scenario, account, last);
        }
    }
}

/// What the account was credited with for this block; nothing if it had no part.
fn amount(scenario: &Scenario, account: &str, hash: &str) -> i64 {
    let credited = format!(
        "SELECT COALESCE(sum(amount_msat), 0) FROM block_credits JOIN accounts ON id = account
          WHERE name = 'worker:{account}' AND encode(block, 'hex') = '{}'",
        turned(hash)
    );
    scenario.query(&credited).unwrap().parse().unwrap()
}

/// Runs `dovetail credit verify` on a file of this scenario, held against this amount.
fn verify(scenario: &Scenario, file: &str, amount: i64) -> Value {
    let mut command = scenario.agent();
    command.args(["credit", "verify", "--json", "--pool-key", RECEIPT_PUBLIC]);
    command.args(["--amount", &amount.to_string()]);
    let output = command.arg(scenario.file(file)).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), report["verified"] == true);
    report
}

/// The miner fetches its part of a block and checks it, against what it was credited with.
fn check_part(scenario: &Scenario, account: &str, hash: &str) {
    let mut command = scenario.agent();
    command.args(["credit", "get", account, "--block", hash, "--into"]);
    let output = command.arg(scenario.file("credit.json")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("matured"),
        "{said}"
    );
    let credited = amount(scenario, account, hash);
    let report = verify(scenario, "credit.json", credited);
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(report["block"], hash);
    let wrong = verify(scenario, "credit.json", credited + 2);
    assert_eq!(wrong["first_failure"], "amount", "{wrong}");
}

/// As for the file of [`check_part`], a changed one does not hold, and the check is named.
fn changed_files_fail(scenario: &Scenario, account: &str, hash: &str) {
    let credited = amount(scenario, account, hash);
    let kept = std::fs::read(scenario.file("credit.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["window"]["length_difficulties"], 8);
    let outside = kept["window"]["last_slice"].as_u64().unwrap() + 1;
    for (field, to, check) in [
        ("/account", Value::from("nobody"), "leaves"),
        ("/block/fee_msat", Value::from(0), "fee"),
        ("/window/signer", Value::from("11".repeat(32)), "pool-key"),
        (
            "/window/signature",
            Value::from("11".repeat(64)),
            "signature",
        ),
        (
            "/window/headers/0",
            kept["window"]["headers"][1].clone(),
            "chain",
        ),
        ("/window/length_difficulties", Value::from(3), "window"),
        ("/window/leaves/0/slice", Value::from(outside), "leaves"),
        ("/block/height", Value::from(1), "statement"),
        ("/statement/accounts", Value::from(9), "statement"),
        ("/statement/part", Value::Null, "stated"),
    ] {
        let mut changed = kept.clone();
        *changed.pointer_mut(field).unwrap() = to;
        let file = scenario.file("changed.json");
        std::fs::write(&file, changed.to_string()).unwrap();
        let report = verify(scenario, "changed.json", credited);
        assert_eq!(report["first_failure"], check, "{field}: {report}");
    }
}
