//! A busy pool is killed again and again, while its wallet errs. Nothing is lost, and nothing is twice.
//!
//! `DOVETAIL_TEST_SEED` sets the wallet's faults and when the pool is killed. The rest is the machine's affair.

#![allow(clippy::unwrap_used)]

mod played;

use std::process::Stdio;
use std::time::{Duration, Instant};

use dovetail_lightning::Client;
use dovetail_tests::scenario::{Options, Scenario};
use dovetail_units::SplitMix64;
use played::LOCALHOST;
use played::miner::Miner;

const KILLS: u64 = 50;
/// How long a pool lives at most, from its ready line on.
const LIFE_MS_MAX: u64 = 500;
/// Payees that need not be connected, so that payouts are under way as soon as a pool is. A kill leaves some of them claimed
/// for a minute, so they are many.
const OFFERS: usize = 40;
/// As many as fit into so many lives, by far.
const FAULTS: usize = 2_000;
/// What each of the simulated wallets starts with.
const BALANCE_MSAT: i64 = 1_000_000_000;
/// How long what is under way may take to end. Whether a failed payment has arrived after all is asked ten seconds later.
const ENDING_TIME_MAX: Duration = Duration::from_secs(120);

/// Small payouts, one after the other, and no long waiting.
const PAYING: [(&str, &str); 4] = [
    ("LIGHTNING__INTERVAL_MS", "100"),
    ("LIGHTNING__RETRY_BASE_MS", "100"),
    ("LIGHTNING__PAYOUT_MAX_MSAT", "1000"),
    ("LIGHTNING__PAYOUT_THRESHOLD_MSAT", "1000"),
];
/// No payout begins: nobody has so much.
const ENDING: [(&str, &str); 4] = [
    PAYING[0],
    PAYING[1],
    ("LIGHTNING__PAYOUT_MAX_MSAT", "1000000000000000"),
    ("LIGHTNING__PAYOUT_THRESHOLD_MSAT", "1000000000000000"),
];

/// Accounts that are offers of the payees' wallet, each with enough for a payout in each life.
async fn rich_offers(scenario: &Scenario) {
    let wallet = Client::new(scenario.file("worker.sock"));
    for _ in 0..OFFERS {
        let offer = wallet.create_offer("payouts").await.unwrap().offer;
        let mut miner = Miner::open_as(&offer, LOCALHOST, &scenario.mining, 1_000_000.0)
            .await
            .unwrap();
        miner.job(0, |_| true).await;
        // A block may come, and the job be stale.
        loop {
            let job = miner.jobs.last().unwrap().clone();
            if miner.share(&job, job.parts.min_ntime).await.is_ok() {
                break;
            }
        }
    }
}

fn number(scenario: &Scenario, sql: &str) -> i64 {
    scenario.query(sql).unwrap().trim().parse().unwrap()
}

/// What is under way ends. Then what the wallet has spent is what the ledger has paid, to the last millisatoshi.
fn until_what_was_paid_is_what_was_spent(scenario: &mut Scenario) {
    const OPEN: &str = "SELECT count(*) FROM payouts WHERE state = 'reserved'";
    const IN_REVIEW: &str = "SELECT count(*) FROM attempts WHERE state = 'review'";
    let start = Instant::now();
    loop {
        let audit = scenario.ledger_audit().unwrap();
        let holdings = audit["holdings"].as_array().unwrap();
        let wallet = holdings.iter().find(|at| at["place"] == "lightning");
        let left = wallet.unwrap()["msat"].as_i64().unwrap();
        let paid = audit["paid_msat"].as_i64().unwrap();
        let open = number(scenario, OPEN);
        if open == 0 && left + paid == BALANCE_MSAT {
            return;
        }
        assert!(
            start.elapsed() < ENDING_TIME_MAX,
            "{open} payouts are open; the wallet has spent {}, the ledger has paid {paid}:\n{}",
            BALANCE_MSAT - left,
            scenario.pool.log_tail()
        );
        // The wallet knows by now what it could not tell; a running pool asks for that once an hour.
        if number(scenario, IN_REVIEW) > 0 {
            scenario.restart_pool().unwrap();
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_of_a_pool_whose_wallet_errs_leave_a_ledger_whose_sums_all_hold() {
    let seed = std::env::var("DOVETAIL_TEST_SEED");
    let seed = seed.map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("to run this again: DOVETAIL_TEST_SEED={seed}");
    let mut random = SplitMix64::new(seed);
    let options = Options {
        shares_per_minute: 600,
        min_hashrate: 100,
        hash_msat_per_mebihash: 1_000_000,
        pool_settings: &PAYING,
        wallet_faults: (FAULTS, seed),
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    rich_offers(&scenario).await;
    let (mut under_way, mut untold) = (0, 0);
    for kill in 0..KILLS {
        // Somebody asks, so that claims are under way too; the pool may be gone before it hears of it.
        let mut agent = scenario.agent();
        agent.args(["ask", "--max-tokens", "8", "--", "a question"]);
        let agent = agent.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        std::thread::sleep(Duration::from_millis(random.below(LIFE_MS_MAX)));
        scenario.pool.kill();
        let count = |state: &str| {
            let sql = format!("SELECT count(*) FROM attempts WHERE state IN ({state})");
            number(&scenario, &sql)
        };
        under_way += i64::from(count("'prepared', 'dispatched', 'review'") > 0);
        untold += count("'prepared'");
        if let Ok(mut agent) = agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if kill + 1 == KILLS {
            scenario.pool_settings = &ENDING;
        }
        scenario.restart_pool().unwrap();
    }
    println!(
        "{under_way} kills with payments under way, {untold} attempts that the wallet may not have heard of"
    );
    // Money was at stake.
    assert!(under_way > 8 && untold > 0, "{under_way}, {untold}");

    let back = Duration::from_secs(60);
    scenario.pool.event("worker_registered", back).unwrap();
    let answer = scenario.ask("a question after all kills", 32, "receipt.json", &[]);
    assert_eq!(answer.unwrap()["receipt"]["verified"], true);
    until_what_was_paid_is_what_was_spent(&mut scenario);
    // Once more, after a start: nothing was waiting for one.
    scenario.restart_pool().unwrap();
    until_what_was_paid_is_what_was_spent(&mut scenario);
    assert!(
        number(
            &scenario,
            "SELECT count(*) FROM payouts WHERE state = 'paid'"
        ) > 50
    );
    // What hashes have earned is what shares have: the log lost none, and wrote none twice.
    (scenario.worker, scenario.hasher) = (None, None);
    scenario.written().unwrap();
    let counted = "SELECT (SELECT count(*) FROM shares) = (SELECT sum(shares) FROM hash_credits)";
    assert_eq!(scenario.query(counted).unwrap().trim(), "t");
}
