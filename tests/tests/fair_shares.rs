//! One connection's flood is its own affair.

#![allow(clippy::unwrap_used)]

mod played;

use dovetail_tests::scenario::Options;
use played::LOCALHOST;
use played::miner::Miner;

/// More than may be under way at once.
const FLOOD: u32 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn while_one_connection_floods_the_pool_all_shares_of_another_are_acknowledged() {
    let options = Options {
        worker: false,
        hasher: false,
        // No block comes by chance, which would make a job stale.
        bits: "1d00ffff",
        min_hashrate: 100,
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let open = |account| Miner::open_as(account, LOCALHOST, &scenario.mining, 0.0);
    let (mut flooder, mut honest) = (
        open("flooder").await.unwrap(),
        open("honest").await.unwrap(),
    );
    let flood = tokio::spawn(async move {
        let job = flooder.job(0, |_| true).await;
        flooder.flood(&job, FLOOD).await
    });
    let job = honest.job(0, |_| true).await;
    let mut shares = 0;
    while shares < 20 || !flood.is_finished() {
        assert_eq!(honest.share(&job, job.parts.min_ntime).await, Ok(()));
        shares += 1;
    }
    // It waits for itself, and loses nothing.
    assert_eq!(flood.await.unwrap(), Vec::<String>::new());
    let credited = "SELECT count(*) FROM named_shares WHERE account = 'flooder'";
    scenario.query_until(credited, &FLOOD.to_string()).unwrap();
}
