//! `UpdateChannel`: the pool's target follows what a miner says of its hash rate, and what devices behind a
//! worker prove.

#![allow(clippy::unwrap_used)]

mod declaration;
mod devices;

use std::time::{Duration, Instant};

use bitcoin::Target;
use declaration::Mining;
use devices::{Device, hard_target};
use dovetail_sv2::messages::{SetTarget, U256Owned, UpdateChannel, UpdateChannelError};
use dovetail_tests::scenario::Options;

/// The worker tells its hash rate once a minute, from a minute's shares.
const TELLING_TIME_MAX: Duration = Duration::from_secs(240);

fn update(mining: &Mining, nominal_hash_rate: f32) -> UpdateChannel {
    UpdateChannel {
        channel_id: mining.channel.id,
        nominal_hash_rate,
        maximum_target: U256Owned::from([0xff; 32]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pools_target_follows_a_channels_hash_rate() {
    let options = Options {
        worker: false,
        hasher: false,
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let mut mining = Mining::open(&scenario.mining, "alice").await;
    let difficulty = |target: [u8; 32]| Target::from_le_bytes(target).difficulty_float();
    let at_first = difficulty(mining.channel.target);
    mining.peer.send(&update(&mining, 1e9)).await;
    let harder: SetTarget = mining.peer.receive().await;
    let times = difficulty(harder.maximum_target.to_array()) / at_first;
    // It was opened with 100 kh/s.
    assert!((9_000.0..11_000.0).contains(&times), "{times}");
    mining.peer.send(&update(&mining, 1e6)).await;
    let easier: SetTarget = mining.peer.receive().await;
    let times = difficulty(easier.maximum_target.to_array()) / at_first;
    assert!((9.0..11.0).contains(&times), "{times}");
    let nobodys = UpdateChannel {
        channel_id: 9_999,
        ..update(&mining, 1e6)
    };
    mining.peer.send(&nobodys).await;
    let refused: UpdateChannelError = mining.peer.receive().await;
    assert_eq!(refused.channel_id, 9_999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_tells_the_pool_what_its_devices_hash_and_shares_get_their_size_from_it() {
    let options = Options {
        firmware: true,
        hasher: false,
        // A fast machine's one thread does more than a million: that would be no change worth telling.
        nominal_hash_rate: 8_000_000,
        ..Options::default()
    };
    let start = move || dovetail_tests::scenario(&options).unwrap();
    let (_dir, scenario) = tokio::task::spawn_blocking(start).await.unwrap();
    let firmware = scenario.firmware.clone().unwrap();
    // The worker says eight million hashes a second when it connects; this device proves far fewer.
    let _device = Device::start(&firmware, hard_target()).await;
    let largest_and_last = "SELECT count(*) > 1 AND
        max(work) >= 2 * (SELECT work FROM shares ORDER BY created_at DESC LIMIT 1) FROM shares";
    let deadline = Instant::now() + TELLING_TIME_MAX;
    let log = || scenario.worker.as_ref().unwrap().log();
    while !log().contains("telling the pool what we hash")
        || scenario.query(largest_and_last).unwrap() != "t"
    {
        assert!(Instant::now() < deadline, "{}", log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
