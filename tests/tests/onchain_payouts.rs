//! Payouts on the chain of Bitcoin Core: in a batch, replaced, through a crash and a reorganisation, with money that comes
//! late, and when somebody else spends the wallet's coins. What the chain has and what the ledger says is the same to the
//! satoshi.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, FeeRate, Network, OutPoint, TxOut};
use dovetail_onchain::{Coin, Payment, Request, WalletKeys, compose};
use dovetail_tests::bitcoin_core::{
    BitcoinCore, CoreParts, ONCHAIN_DESCRIPTOR, OTHERS_ADDRESS, turned,
};
use dovetail_tests::scenario::{Options, Scenario};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = "range = 50
threshold_msat = 50000000
fee_max_msat = 5000000
interval_s = 1
confirmations = 2
conf_target = 3
check_interval_ms = 100";
/// Two payees: a taproot and a segwit address.
const PAYEES: [&str; 2] = [
    "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
    "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw",
];
const TIME_MAX: Duration = Duration::from_secs(60);

fn keys() -> WalletKeys {
    WalletKeys::parse(ONCHAIN_DESCRIPTOR, Network::Regtest, 50).unwrap()
}

fn start() -> (TempDir, Scenario) {
    let options = Options {
        worker: false,
        hasher: false,
        core: Some(CoreParts::from_environment().unwrap()),
        onchain: Some(CONFIG),
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

fn core(scenario: &Scenario) -> &BitcoinCore {
    scenario.network.bitcoin_core().unwrap()
}

fn rpc(scenario: &Scenario, arguments: &[&str]) -> Value {
    let said = core(scenario).rpc(arguments).unwrap();
    serde_json::from_str(&said).unwrap_or(Value::String(said))
}

/// Gives a payee a balance, as a matured block does.
fn earn(scenario: &Scenario, payee: &str, msat: i64) {
    scenario
        .query(&format!(
            "INSERT INTO accounts (name, never_negative) VALUES ('pool:hash', false), ('worker:{payee}', true) ON CONFLICT DO NOTHING;
             INSERT INTO transfers (id, kind, debit, credit, amount, reason)
             SELECT substr(sha256(random()::text::bytea), 1, 16), 'posted', p.id, a.id, {msat}, 'test'
               FROM accounts p, accounts a WHERE p.name = 'pool:hash' AND a.name = 'worker:{payee}'"
        ))
        .unwrap();
}

/// A block of the wallet's, and enough on top of it to spend it.
fn fund(scenario: &Scenario) {
    let address = keys().address().to_string();
    core(scenario).mine(1, &address).unwrap();
    core(scenario).mine(100, OTHERS_ADDRESS).unwrap();
}

/// Until the audit says that the wallet has so much. The node searches for one caller at a time.
fn until_it_holds(scenario: &Scenario, msat: u64) {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let audit = scenario.pool_says(&["ledger", "audit", "--json"]).unwrap();
        let holdings = audit["holdings"].as_array().unwrap();
        let held = holdings
            .iter()
            .any(|holding| holding["place"] == "onchain" && holding["msat"] == msat);
        if held {
            return;
        }
        assert!(Instant::now() < deadline, "{audit}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Mines a block without the transactions that wait.
fn mine_empty(scenario: &Scenario) {
    rpc(scenario, &["generateblock", OTHERS_ADDRESS, "[]"]);
}

/// The transaction of the next event of this state.
fn batch_event(scenario: &mut Scenario, state: &str) -> (String, i64) {
    for _ in 0..20 {
        let event = scenario.pool.event("onchain_batch", TIME_MAX).unwrap();
        if event["state"] == state {
            let txid = event["txid"].as_str().unwrap().to_owned();
            return (txid, event["fee_sat"].as_i64().unwrap());
        }
    }
    panic!("no batch is {state}");
}

/// What a transaction in the node's memory or in this block pays an address, in satoshi.
fn paid(scenario: &Scenario, txid: &str, block: Option<&str>, address: &str) -> Vec<u64> {
    let mut arguments = vec!["getrawtransaction", txid, "1"];
    arguments.extend(block);
    let transaction = rpc(scenario, &arguments);
    let outputs = transaction["vout"].as_array().unwrap();
    outputs
        .iter()
        .filter(|output| output["scriptPubKey"]["address"] == address)
        .map(|output| {
            Amount::from_btc(output["value"].as_f64().unwrap())
                .unwrap()
                .to_sat()
        })
        .collect()
}

fn balance(scenario: &Scenario, account: &str) -> i64 {
    let query =
        format!("SELECT credits_posted - debits_posted FROM accounts WHERE name = '{account}'");
    scenario.query(&query).unwrap().parse().unwrap()
}

const STATES: &str = "SELECT string_agg(state, ' ' ORDER BY created_at, id) FROM payouts";

#[test]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
fn two_payees_are_paid_by_one_batch_that_is_replaced_killed_and_reorganised() {
    let (_dir, mut scenario) = start();
    // The wallet has nothing: nobody is paid, and nobody loses anything.
    earn(&scenario, PAYEES[0], 80_000_999);
    earn(&scenario, PAYEES[1], 60_000_000);
    let short = scenario.pool.event("onchain_short", TIME_MAX).unwrap();
    assert_eq!(short["has_sat"], 0);
    let waiting = "SELECT count(*) FROM payees WHERE failure_class = 'pool_short'";
    scenario.query_until(waiting, "2").unwrap();
    let account = scenario
        .pool_says(&["account", "--account", PAYEES[0], "--json"])
        .unwrap();
    assert_eq!(
        account["payout"]["failure_class"], "pool_short",
        "{account}"
    );

    until_it_holds(&scenario, 0);
    fund(&scenario);
    let (first, fee_first) = batch_event(&mut scenario, "broadcast");
    // Five thousand satoshi of each balance are set aside for the fee.
    for (payee, sat) in PAYEES.iter().zip([75_000, 55_000]) {
        assert_eq!(paid(&scenario, &first, None, payee), [sat]);
    }
    // It does not come into the chain in time: another one takes its place, with all that it pays.
    (0..3).for_each(|_| mine_empty(&scenario));
    let (second, fee_second) = batch_event(&mut scenario, "broadcast");
    assert_ne!(first, second);
    assert!(fee_second > fee_first, "{fee_first} {fee_second}");
    assert_eq!(
        rpc(&scenario, &["getrawmempool"]),
        Value::from(vec![&*second])
    );
    // A pool that dies goes on where it was.
    scenario.pool.kill();
    core(&scenario).mine(1, OTHERS_ADDRESS).unwrap();
    let block = core(&scenario).rpc(&["getbestblockhash"]).unwrap();
    for (payee, sat) in PAYEES.iter().zip([75_000, 55_000]) {
        assert_eq!(paid(&scenario, &second, Some(&block), payee), [sat]);
    }
    scenario.restart_pool().unwrap();
    // One block is not deep enough.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(scenario.query(STATES).unwrap(), "reserved reserved");
    mine_empty(&scenario);
    let (confirmed, fee) = batch_event(&mut scenario, "confirmed");
    assert_eq!((&confirmed, fee), (&second, fee_second));
    scenario.query_until(STATES, "paid paid").unwrap();
    check_books(&scenario, fee);
    let left = 5_000_000_000 - 75_000 - 55_000 - fee;
    until_it_holds(&scenario, u64::try_from(left * 1_000).unwrap());
    lose_the_block(&scenario, &block);
    let audit = scenario.ledger_audit().unwrap();
    assert_eq!(audit["paid_msat"], (75_000 + 55_000 + fee) * 1_000);
    let shown = scenario
        .pool_says(&["payouts", "--all", "--limit", "1", "--json"])
        .unwrap();
    assert_eq!(shown["attempts"][0]["txid"], *second, "{shown}");
}

/// What each account has after both payouts.
fn check_books(scenario: &Scenario, fee: i64) {
    // The fee is divided to the satoshi, and what it did not take is the payees' again.
    let left = [80_000_999 - 75_000_000, 60_000_000 - 55_000_000];
    let balances: Vec<i64> = PAYEES
        .iter()
        .map(|payee| balance(scenario, &format!("worker:{payee}")))
        .collect();
    let borne: Vec<i64> = left
        .iter()
        .zip(&balances)
        .map(|(left, has)| left - has)
        .collect();
    assert_eq!(borne.iter().sum::<i64>(), fee * 1_000, "{borne:?}");
    assert!((borne[0] - borne[1]).abs() <= 1_000, "{borne:?}");
    assert_eq!(
        balance(scenario, "pool:onchain"),
        (75_000 + 55_000 + fee) * 1_000
    );
    assert_eq!(balance(scenario, "pool:onchain_fees"), 0);
}

/// The block with the payouts leaves the chain, and another one comes to have them.
fn lose_the_block(scenario: &Scenario, block: &str) {
    // The chain loses the block. The node has the transaction again, and so has another block.
    core(scenario).rpc(&["invalidateblock", block]).unwrap();
    // Not the same blocks again.
    core(scenario)
        .mine(3, &keys().address().to_string())
        .unwrap();
    let height = rpc(scenario, &["getblockcount"]).as_i64().unwrap() - 2;
    let hash = core(scenario)
        .rpc(&["getblockhash", &height.to_string()])
        .unwrap();
    assert_ne!(hash, block);
    let moved = "SELECT encode(block, 'hex') FROM onchain_transactions WHERE state = 'confirmed'";
    scenario.query_until(moved, &turned(&hash)).unwrap();
    assert_eq!(scenario.query(STATES).unwrap(), "paid paid");
}

#[test]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
fn a_batch_whose_coins_somebody_else_spends_fails_and_its_payee_is_paid_once() {
    let (_dir, mut scenario) = start();
    fund(&scenario);
    fund(&scenario);
    earn(&scenario, PAYEES[1], 60_000_000);
    let (first, _) = batch_event(&mut scenario, "broadcast");
    // The operator spends the same coin by hand, and pays more for it.
    let transaction = rpc(&scenario, &["getrawtransaction", &first, "1"]);
    let input = &transaction["vin"][0];
    let outpoint = OutPoint::new(
        input["txid"].as_str().unwrap().parse().unwrap(),
        u32::try_from(input["vout"].as_u64().unwrap()).unwrap(),
    );
    let keys = keys();
    let coin = Coin {
        outpoint,
        output: TxOut {
            value: Amount::from_sat(5_000_000_000),
            script_pubkey: keys.address().script_pubkey(),
        },
    };
    let elsewhere = Payment {
        script: keys.change_script(7),
        amount: Amount::from_sat(4_000_000_000),
    };
    let by_hand = compose(
        &keys,
        &Request {
            payments: &[elsewhere],
            required: &[coin],
            spare: &[],
            change: &keys.change_script(8),
            fee_rate: FeeRate::from_sat_per_vb_u32(50),
            fee_max: Amount::from_sat(100_000),
            replaces: None,
        },
    )
    .unwrap();
    let raw = serialize_hex(&by_hand.transaction);
    core(&scenario).rpc(&["sendrawtransaction", &raw]).unwrap();
    core(&scenario).mine(1, OTHERS_ADDRESS).unwrap();
    scenario
        .query_until(
            "SELECT count(*) FROM onchain_batches WHERE conflict_height IS NOT NULL",
            "1",
        )
        .unwrap();
    assert_eq!(scenario.query(STATES).unwrap(), "reserved");
    core(&scenario).mine(6, OTHERS_ADDRESS).unwrap();
    batch_event(&mut scenario, "failed");
    // The same payout, by another batch.
    let (second, fee) = batch_event(&mut scenario, "broadcast");
    assert_eq!(paid(&scenario, &second, None, PAYEES[1]), [55_000]);
    core(&scenario).mine(2, OTHERS_ADDRESS).unwrap();
    batch_event(&mut scenario, "confirmed");
    scenario.query_until(STATES, "paid").unwrap();
    assert_eq!(balance(&scenario, "pool:onchain"), (55_000 + fee) * 1_000);
    scenario.ledger_audit().unwrap();
}
