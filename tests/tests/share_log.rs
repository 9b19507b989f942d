//! Shares wait for the pool's own disk, and for nothing else: not for a Postgres that is slow, not for a pool that is killed.

#![allow(clippy::unwrap_used)]

mod played;

use dovetail_tests::scenario::Options;
use played::LOCALHOST;
use played::miner::Miner;

fn options() -> Options {
    Options {
        worker: false,
        hasher: false,
        // No block comes by chance, which would make a job stale.
        bits: "1d00ffff",
        min_hashrate: 100,
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_acknowledged_while_postgres_takes_none_and_are_in_the_ledger_once_after_each_kill()
 {
    let (_dir, mut scenario) = dovetail_tests::scenario(&options()).unwrap();
    let mut acknowledged = 0_u64;
    for _ in 0..3 {
        // The writer waits here, in the middle of its transaction.
        let held = scenario
            .hold("LOCK TABLE hash_credits IN ACCESS EXCLUSIVE MODE")
            .unwrap();
        let mut miner = Miner::open_as("alice", LOCALHOST, &scenario.mining, 0.0)
            .await
            .unwrap();
        let job = miner.job(0, |_| true).await;
        for _ in 0..20 {
            assert_eq!(miner.share(&job, job.parts.min_ntime).await, Ok(()));
            acknowledged += 1;
        }
        let shares = "SELECT count(*) FROM named_shares WHERE account = 'alice'";
        let before = (acknowledged - 20).to_string();
        assert_eq!(scenario.query(shares).unwrap().trim(), before);
        scenario.pool.kill();
        drop(held);
        scenario.restart_pool().unwrap();
        // All of them, once.
        scenario
            .query_until(shares, &acknowledged.to_string())
            .unwrap();
    }
    let credited =
        "SELECT shares FROM hash_credits JOIN accounts ON id = account WHERE name = 'worker:alice'";
    scenario
        .query_until(credited, &acknowledged.to_string())
        .unwrap();
    // So says the command that its operator has for it.
    let printed = scenario
        .pool_says(&["account", "--account", "alice", "--json"])
        .unwrap();
    let hours = printed["hours"].as_array().unwrap();
    let shares: u64 = hours
        .iter()
        .map(|hour| hour["shares"].as_u64().unwrap())
        .sum();
    assert_eq!(shares, acknowledged, "{printed}");
}
