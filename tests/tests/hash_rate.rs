//! `UpdateChannel`: the pool's target follows what a miner says of its hash rate, and what devices behind a
//! worker prove.

#![allow(clippy::unwrap_used)]

mod declaration;
mod devices;

use std::time::{Duration, Instant};

use bitcoin::Target;
use declaration::{Mining, TIME_MAX};
use devices::{Device, hard_target};
use dovetail_miner::search::{Search, SearchJob};
use dovetail_sv2::messages::{
    NewExtendedMiningJob, SetNewPrevHash, SetTarget, SubmitSharesError, SubmitSharesExtended,
    SubmitSharesSuccess, U256Owned, UpdateChannel, UpdateChannelError,
};
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
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 100_000.0).await;
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

/// The next job for this channel alone, to be hashed at once.
async fn own_job(mining: &mut Mining) -> NewExtendedMiningJob {
    let searched = async {
        loop {
            let job: NewExtendedMiningJob = mining.peer.receive().await;
            if job.channel_id == mining.channel.id && job.min_ntime.as_ref().is_some() {
                return job;
            }
        }
    };
    // Jobs of the group come for ever.
    let found = tokio::time::timeout(TIME_MAX, searched).await;
    found.expect("the target comes with no job")
}

/// Hashes a job of the pool's to this target, another header for each number, and hands the share in.
async fn submit(
    mining: &mut Mining,
    job: &NewExtendedMiningJob,
    tip: &SetNewPrevHash,
    target: [u8; 32],
    number: u32,
) {
    let channel = &mining.channel;
    let prefix = job.coinbase_tx_prefix.as_bytes();
    let path = job.merkle_path.as_slice().iter();
    let min_ntime = job.min_ntime.as_ref().copied().unwrap_or(tip.min_ntime);
    let search = SearchJob {
        version: job.version,
        prev_hash: *tip.prev_hash.as_array(),
        min_ntime: min_ntime + number,
        nbits: tip.nbits,
        coinbase_prefix: [prefix, &channel.extranonce_prefix].concat(),
        coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
        extranonce_size: channel.extranonce_size,
        merkle_path: path.map(|node| *node.as_array()).collect(),
        target,
    };
    let found = Search::start(search).found().await.unwrap();
    let share = SubmitSharesExtended {
        channel_id: channel.id,
        sequence_number: number,
        job_id: job.job_id,
        nonce: found.nonce,
        ntime: found.ntime,
        version: job.version,
        extranonce: found.extranonce.try_into().unwrap(),
    };
    mining.peer.send(&share).await;
}

/// What the pool says to a share: the code if it is refused.
async fn answer(mining: &mut Mining) -> Result<(), String> {
    loop {
        let frame = mining.peer.frame().await;
        if frame.is::<SubmitSharesSuccess>() {
            return Ok(());
        }
        if frame.is::<SubmitSharesError>() {
            let (error, _) = frame.decode::<SubmitSharesError>().unwrap();
            return Err(error.error_code.as_utf8_or_hex());
        }
    }
}

/// No template comes meanwhile: the chain stands still.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_target_comes_with_a_job_that_has_it() {
    let options = Options {
        worker: false,
        hasher: false,
        // A block found by chance would be another tip.
        bits: "1d00ffff",
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 0.0).await;
    let tip: SetNewPrevHash = mining.peer.receive().await;
    let at_first = mining.channel.target;
    mining.peer.send(&update(&mining, 3e5)).await;
    let harder: SetTarget = mining.peer.receive().await;
    let harder = harder.maximum_target.to_array();
    let job = own_job(&mut mining).await;
    submit(&mut mining, &job, &tip, harder, 1).await;
    assert_eq!(answer(&mut mining).await, Ok(()));
    // Shares count by the target of their job.
    scenario
        .query_until("SELECT count(*) FROM shares", "1")
        .unwrap();
    let works = scenario.query("SELECT work FROM shares").unwrap();
    assert!(
        (290_000..310_000).contains(&works.parse::<u64>().unwrap()),
        "{works}"
    );
    mining.peer.send(&update(&mining, 0.0)).await;
    let easier: SetTarget = mining.peer.receive().await;
    assert_eq!(easier.maximum_target.to_array(), at_first);
    let job = own_job(&mut mining).await;
    submit(&mut mining, &job, &tip, at_first, 2).await;
    assert_eq!(answer(&mut mining).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_says_what_it_hashes_is_given_its_target_within_seconds() {
    let options = Options {
        worker: false,
        hasher: false,
        min_hashrate: 100,
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 0.0).await;
    let job: NewExtendedMiningJob = mining.peer.receive().await;
    let tip: SetNewPrevHash = mining.peer.receive().await;
    // A hundred hashes a share: a flood.
    let at_first = mining.channel.target;
    for number in 1..=16 {
        submit(&mut mining, &job, &tip, at_first, number).await;
    }
    // The pool looks at a channel every ten milliseconds at most: what came at once is seen with the next share.
    tokio::time::sleep(Duration::from_millis(50)).await;
    submit(&mut mining, &job, &tip, at_first, 17).await;
    let harder: SetTarget = mining.peer.receive().await;
    let difficulty = |target: [u8; 32]| Target::from_le_bytes(target).difficulty_float();
    let times = difficulty(harder.maximum_target.to_array()) / difficulty(at_first);
    assert!(times > 2.0, "{times}");
    // It comes with a job, and what was found meanwhile on the one before still counts.
    let job = own_job(&mut mining).await;
    submit(
        &mut mining,
        &job,
        &tip,
        harder.maximum_target.to_array(),
        18,
    )
    .await;
    assert_eq!(answer(&mut mining).await, Ok(()));
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
    let largest_and_later = "SELECT count(*) > 1 AND max(work) >= 2 * min(work) FROM shares";
    let deadline = Instant::now() + TELLING_TIME_MAX;
    let log = || scenario.worker.as_ref().unwrap().log();
    while !log().contains("telling the pool what we hash")
        || scenario.query(largest_and_later).unwrap() != "t"
    {
        assert!(Instant::now() < deadline, "{}", log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
