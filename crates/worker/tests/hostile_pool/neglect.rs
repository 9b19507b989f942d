//! Pools that stay connected and are no good: the worker leaves them for the next one. And one that has it ask in a circle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_miner::hasher::{self, HasherOptions, HasherStats};
use dovetail_miner::pool_watch::Patience;
use dovetail_sv2::Frame;
use dovetail_sv2::extension::RequestBatchJob;
use dovetail_sv2::messages::{
    B064KOwned, NewExtendedMiningJob, SetTarget, Sv2OptionOwned, U256Owned,
};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::fixture::{Server, TIME_MAX};
use crate::support::pool::{CHANNEL, job, pools_tip, session, tip};
use crate::support::{Fixture, Played, Setup};

/// Not as long as a miner would wait, so that nobody waits for the tests.
fn impatience() -> Patience {
    let mut patience = Patience {
        job: Duration::from_secs(1),
        ..Patience::default()
    };
    patience.answers.some = Duration::from_secs(1);
    patience.target = Duration::from_secs(1);
    patience
}

/// A worker that prefers a pool of no good to a second one.
struct Choice {
    fixture: Fixture,
    second: Server,
}

impl Choice {
    async fn start(patience: Patience) -> Self {
        Self::start_with(Setup {
            declares_jobs: false,
            patience,
            ..Setup::with_devices("pool-jobs")
        })
        .await
    }

    async fn start_with(setup: Setup) -> Self {
        let second = Server::start().await;
        let more = format!("[[pool]]\n{}", second.config());
        let fixture = Fixture::start(Setup { more, ..setup }).await;
        Self { fixture, second }
    }

    /// The worker goes to the second pool.
    async fn goes_on(self) {
        let gone_on = timeout(TIME_MAX, session(&self.second)).await;
        gone_on.expect("the worker stays with a pool that is no good");
        self.fixture.stop().await;
    }

    /// A device that hashes as fast as it can.
    fn device(&self) -> DropGuard {
        let (address, key) = self.fixture.firmware();
        let options = HasherOptions {
            address: address.to_string(),
            authority: Some(key),
            user: "device".to_owned(),
            threads: 1,
        };
        let stop = CancellationToken::new();
        let stats = Arc::<HasherStats>::default();
        tokio::spawn(hasher::run(options, stats, stop.clone()));
        stop.drop_guard()
    }
}

/// A job for at once that carries the batch.
fn batch_job(job_id: u32, root: BatchRoot) -> NewExtendedMiningJob {
    let mut job = job(job_id);
    let suffix = job.coinbase_tx_suffix.as_bytes();
    // The sequence, the number of outputs, the outputs, the lock time.
    let (sequence, outputs) = (&suffix[..4], &suffix[5..]);
    let (payout, locktime) = outputs.split_at(outputs.len() - 4);
    let commitment = serialize(&commitment_output(root));
    let suffix = [sequence, &[2], payout, &commitment, locktime].concat();
    job.coinbase_tx_suffix = B064KOwned::new(suffix).unwrap();
    job.min_ntime = Sv2OptionOwned::new(Some(1_700_000_000));
    job
}

fn target(top: u8) -> SetTarget {
    let mut target = [0; 32];
    target[10] = top;
    SetTarget {
        channel_id: CHANNEL,
        maximum_target: U256Owned::from(target),
    }
}

#[tokio::test]
async fn a_pool_that_says_nothing_does_not_keep_the_devices() {
    let choice = Choice::start(impatience()).await;
    let _silent = choice.fixture.session().await;
    choice.goes_on().await;
}

#[tokio::test]
async fn a_pool_whose_jobs_no_device_could_hash_does_not_keep_them_either() {
    let choice = Choice::start(impatience()).await;
    let mut pool = choice.fixture.session().await;
    let mut long = job(1);
    long.coinbase_tx_prefix = B064KOwned::new(vec![1; 65_400]).unwrap();
    pool.send(&long).await;
    pool.send(&tip(1, [9; 32])).await;
    choice.goes_on().await;
}

#[tokio::test]
async fn a_pool_that_answers_no_share_is_left() {
    let choice = Choice::start(impatience()).await;
    let _device = choice.device();
    let mut pool = choice.fixture.session().await;
    pools_tip(&mut pool, 1, [9; 32]).await;
    choice.goes_on().await;
}

#[tokio::test]
async fn a_pool_that_asks_for_shares_that_nobody_finds_is_left() {
    let choice = Choice::start(impatience()).await;
    let mut pool = choice.fixture.session().await;
    pools_tip(&mut pool, 1, [9; 32]).await;
    pool.send(&target(1)).await;
    choice.goes_on().await;
}

#[tokio::test]
async fn a_pool_that_changes_its_tip_all_the_time_is_left() {
    let choice = Choice::start(Patience::default()).await;
    let mut pool = choice.fixture.session().await;
    let flood = async {
        for number in 0..20_000_u32 {
            let mut prev_hash = [9; 32];
            prev_hash[..4].copy_from_slice(&number.to_le_bytes());
            for frame in [
                Frame::new(&job(number)).unwrap(),
                Frame::new(&tip(number, prev_hash)).unwrap(),
            ] {
                // The worker may hang up at any moment.
                if pool.writer.write(&frame).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::join!(flood, choice.goes_on());
}

#[tokio::test]
async fn a_pool_that_names_another_network_target_than_our_node_is_left() {
    let choice = Choice::start_with(Setup::with_devices("pool-jobs")).await;
    let mut pool = choice.fixture.session().await;
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let mut easier = tip(1, genesis.block_hash().to_byte_array());
    easier.nbits = 0x1a00_ffff;
    pool.send(&job(1)).await;
    pool.send(&easier).await;
    choice.goes_on().await;
}

#[tokio::test]
async fn a_pool_whose_target_moves_all_the_time_is_not_asked_for_jobs_in_a_circle() {
    let setup = Setup {
        declares_jobs: false,
        ..Setup::with_devices("pool-jobs")
    };
    let fixture = Fixture::start(setup).await;
    let mut pool = fixture.session().await;
    pools_tip(&mut pool, 1, [9; 32]).await;
    let root = fixture.batch(&mut pool).await;
    let Played {
        mut reader,
        mut writer,
        ..
    } = pool;
    let restless = async {
        for number in 2.. {
            for frame in [
                Frame::new(&target(1)).unwrap(),
                Frame::new(&batch_job(number, root)).unwrap(),
                Frame::new(&target(0xff)).unwrap(),
            ] {
                writer.write(&frame).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let asked = async {
        let mut times = Vec::new();
        while times.len() < 4 {
            let frame = reader.read().await.unwrap();
            if frame.is::<RequestBatchJob>() {
                times.push(Instant::now());
            }
        }
        times[3] - times[0]
    };
    let took = tokio::select! {
        took = timeout(TIME_MAX, asked) => took.unwrap(),
        () = restless => unreachable!("it never ends"),
    };
    assert!(took >= Duration::from_secs(1), "{took:?}");
    fixture.stop().await;
}
