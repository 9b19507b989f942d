//! Shares of a job that has become far too easy, on a channel over `channels_sv2`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{ScriptBuf, Target};
use dovetail_sv2::Vardiff;
use dovetail_sv2::messages::SubmitSharesExtended;
use dovetail_templates::WorkSnapshot;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use stratum_core::channels_sv2::server::extended::ExtendedChannel;
use stratum_core::mining_sv2::{
    ERROR_CODE_SUBMIT_SHARES_DIFFICULTY_TOO_LOW as TOO_LOW,
    ERROR_CODE_SUBMIT_SHARES_STALE_SHARE as STALE,
};

use super::channel::{Channel, ValidShare};
use crate::mining::shares::refusal::ShareRefusal;
use crate::mining::shares::share::SubmittedShare;
use crate::mining::template_jobs::job_maker::{JobMaker, Start};
use crate::test_support::work;

/// One hash of 256 is a block.
const BITS: u32 = 0x2000_ffff;
const EXTRANONCE_BYTES: u8 = 16;
const SHARES_PER_MINUTE: f32 = 6.0;
/// In h/s: a share is ten hashes.
const RATE: f32 = 1.0;
/// What the miner calls any job: a declared one has a number of its channel's and others of its miner's.
const MINERS_JOB_ID: u32 = 77;
/// Longer than any grace.
const LATE: Duration = Duration::from_secs(60);

/// An extended channel on the tip of `work`, and what makes its jobs.
struct Mining {
    work: Arc<WorkSnapshot>,
    maker: JobMaker,
    channel: Channel,
    next_nonce: u32,
}

impl Mining {
    async fn start(now: Instant) -> Self {
        let mut extranonces = ExtranonceAllocator::new(Vec::new(), EXTRANONCE_BYTES, 2).unwrap();
        let channel = ExtendedChannel::new_for_pool(
            2,
            "alice".to_owned(),
            extranonces.allocate_extended(8).unwrap(),
            Target::MAX_ATTAINABLE_REGTEST,
            RATE,
            true,
            u16::from(extranonces.rollable_extranonce_size()),
            1,
            SHARES_PER_MINUTE,
            "Dovetail".to_owned(),
            None,
        );
        let vardiff = Vardiff::new(SHARES_PER_MINUTE.into(), RATE.into(), RATE.into());
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let size = usize::from(EXTRANONCE_BYTES);
        let mut mining = Self {
            work: work(BITS).await,
            maker: JobMaker::new(
                Arc::default(),
                "Dovetail",
                true,
                size,
                dovetail_templates::Payout::one(script),
            ),
            channel: Channel::extended(
                channel.unwrap(),
                dovetail_sv2::Identity::parse("alice").unwrap(),
                vardiff,
            ),
            next_nonce: 0,
        };
        mining.job(Start::WithItsTip, now);
        let tip = mining.work.prev_hash.clone();
        mining.channel.activate(&tip, now).unwrap();
        mining
    }

    /// Gives the channel a job; its number.
    fn job(&mut self, start: Start, now: Instant) -> u32 {
        let job = self.maker.build(&self.work, 2, start).unwrap();
        let job_id = job.get_job_id();
        self.channel.install(&Arc::new(job), now).unwrap();
        job_id
    }

    /// The next share that meets its target or the block's.
    fn share(&mut self, job_id: u32, now: Instant) -> Result<ValidShare, ShareRefusal> {
        let size = self
            .channel
            .as_extended()
            .unwrap()
            .get_rollable_extranonce_size();
        loop {
            self.next_nonce += 1;
            let share = SubmittedShare::from(SubmitSharesExtended {
                channel_id: 2,
                sequence_number: self.next_nonce,
                job_id: MINERS_JOB_ID,
                nonce: self.next_nonce,
                ntime: self.work.min_ntime(),
                version: self.work.version(),
                extranonce: vec![0; usize::from(size)].try_into().unwrap(),
            });
            let share = share.with_channels_job_id(job_id);
            match self.channel.validate(&share, now) {
                Err(ShareRefusal::Standard(TOO_LOW)) => {}
                judged => return judged,
            }
        }
    }

    /// Of so many shares, those that solve no block, and those that do.
    fn shares(
        &mut self,
        job_id: u32,
        now: Instant,
    ) -> (Vec<Result<ValidShare, ShareRefusal>>, Vec<ValidShare>) {
        let (mut plain, mut blocks) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            match self.share(job_id, now) {
                Ok(valid) if valid.block.is_some() => blocks.push(valid),
                judged => plain.push(judged),
            }
        }
        (plain, blocks)
    }
}

#[tokio::test]
async fn nobody_lives_on_an_easy_job_for_longer_than_it_takes_to_change_over() {
    let start = Instant::now();
    let mut mining = Mining::start(start).await;
    let easy = 1 << 31;
    let (plain, _) = mining.shares(easy, start + LATE);
    assert!(plain.iter().all(Result::is_ok), "it is the only job");
    // The target rises a thousandfold, and a job comes with it.
    let risen = start + LATE;
    let rate = 1_000.0 * RATE;
    let any = Target::MAX_ATTAINABLE_REGTEST;
    assert!(mining.channel.state_rate(rate, any, risen).unwrap());
    let min_ntime = mining.work.min_ntime();
    let hard = mining.job(Start::AtOnce { min_ntime }, risen);
    // What is under way counts.
    let (plain, _) = mining.shares(easy, risen + Duration::from_secs(10));
    assert!(plain.iter().all(Result::is_ok));
    let (plain, blocks) = mining.shares(easy, risen + LATE);
    let stale = ShareRefusal::Standard(STALE);
    assert!(
        plain
            .iter()
            .all(|judged| judged.as_ref().err() == Some(&stale))
    );
    // A block is a block.
    assert!(!plain.is_empty() && !blocks.is_empty());
    assert!(
        blocks
            .iter()
            .all(|found| matches!(found.block, Some(Ok(_))))
    );
    assert!(mining.share(hard, risen + LATE).is_ok());
}

#[tokio::test]
async fn a_flood_on_an_ended_job_does_not_make_the_target_easier() {
    let start = Instant::now();
    let mut mining = Mining::start(start).await;
    let easy = 1 << 31;
    let rate = 100.0 * RATE;
    let any = Target::MAX_ATTAINABLE_REGTEST;
    assert!(mining.channel.state_rate(rate, any, start).unwrap());
    let min_ntime = mining.work.min_ntime();
    mining.job(Start::AtOnce { min_ntime }, start);
    let hard = mining.channel.target();
    // Ten shares of ten hashes in each second: what was stated. Most of them are refused.
    for second in 1..300 {
        let now = start + Duration::from_secs(second);
        for _ in 0..10 {
            let _ = mining.share(easy, now);
        }
        mining.channel.steer(now);
    }
    let ratio = mining.channel.target().difficulty_float() / hard.difficulty_float();
    assert!((0.25..4.0).contains(&ratio), "{ratio}");
}
