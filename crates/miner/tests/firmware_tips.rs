//! What devices behind a worker are told when the tip changes in more than its hash, and what they may roll.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_miner::current_job::{Base, CurrentJob};
use dovetail_miner::firmware::{self, FirmwareOptions};
use dovetail_miner::job::{FoundShare, JobParts};
use dovetail_sv2::messages::{
    NewExtendedMiningJob, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess,
    SetNewPrevHash, SubmitSharesError, SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, request};
use dovetail_sv2::{Frame, FrameReader, FrameWriter, Message, connect, setup};
use support::{coinbase, listen};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

const TIME_MAX: Duration = Duration::from_secs(10);
const NBITS: u32 = 0x1900_ffff;
const START: u32 = 1_000_000;

/// A port for devices, what they hash, and one of them.
struct Fixture {
    base: Base,
    offers: mpsc::Sender<FoundShare>,
    _shares: mpsc::Receiver<FoundShare>,
    reader: FrameReader,
    writer: FrameWriter,
    channel_id: u32,
    _stop: DropGuard,
}

impl Fixture {
    async fn start() -> Self {
        let (listener, address, keys) = listen().await;
        let current_job = Arc::new(CurrentJob::default());
        let stop = CancellationToken::new();
        let options = FirmwareOptions {
            connections_max: 1,
            channels_per_connection_max: 1,
            shares_per_minute: 60.0,
            min_hash_rate: 1.0,
            job_interval: Duration::ZERO,
        };
        let (base, job) = (Base::new(current_job.clone()), current_job);
        tokio::spawn(firmware::serve(listener, keys, options, job, stop.clone()));
        let (mut reader, mut writer) = connect(&address, Some(keys.public())).await.unwrap();
        let setup_request = request(SetupProtocol::MiningProtocol, 0, &address, "test").unwrap();
        setup::open(&mut reader, &mut writer, &setup_request)
            .await
            .unwrap();
        let open = OpenExtendedMiningChannel {
            request_id: 1,
            user_identity: "device".try_into().unwrap(),
            nominal_hash_rate: 1.0,
            max_target: U256Owned::from([0xff; 32]),
            min_extranonce_size: 4,
        };
        writer.write(&Frame::new(&open).unwrap()).await.unwrap();
        let frame = reader.read().await.unwrap();
        let opened = frame.decode::<OpenExtendedMiningChannelSuccess>().unwrap();
        let (offers, shares) = mpsc::channel(16);
        Self {
            base,
            offers,
            _shares: shares,
            reader,
            writer,
            channel_id: opened.0.channel_id,
            _stop: stop.drop_guard(),
        }
    }

    fn offer(&self, nbits: u32, min_ntime: u32) {
        let parts = parts(nbits, min_ntime);
        self.base.offer(parts, self.offers.clone()).unwrap();
    }

    /// The next message of this kind; others are passed over.
    async fn next<M: Message>(&mut self) -> M {
        let search = async {
            loop {
                let frame = self.reader.read().await.unwrap();
                if frame.is::<M>() {
                    return frame.decode::<M>().unwrap().0;
                }
            }
        };
        timeout(TIME_MAX, search).await.unwrap()
    }

    /// The least time of the next job, which is one for at once.
    async fn job_at_once(&mut self) -> u32 {
        let job: NewExtendedMiningJob = self.next().await;
        job.min_ntime.as_ref().copied().unwrap()
    }

    /// The next tip, with the job that it activates.
    async fn job_with_tip(&mut self) -> SetNewPrevHash {
        let job: NewExtendedMiningJob = self.next().await;
        assert!(job.min_ntime.as_ref().is_none());
        let tip: SetNewPrevHash = self.next().await;
        assert_eq!(tip.job_id, job.job_id);
        tip
    }
}

/// A job of the pool on one tip.
fn parts(nbits: u32, min_ntime: u32) -> JobParts {
    let (coinbase_prefix, coinbase_suffix) = coinbase(&[1, 2], 4 + 8);
    JobParts {
        upstream_job_id: Some(7),
        version: 0x2000_0000,
        version_rolling: true,
        prev_hash: [1; 32],
        min_ntime,
        nbits,
        coinbase_prefix,
        coinbase_suffix,
        merkle_path: vec![],
        extranonce_prefix: vec![9; 4],
        extranonce_size: 8,
        target: [0xff; 32],
        blocks: None,
    }
}

#[tokio::test]
async fn another_target_is_a_new_tip_and_so_is_a_time_that_is_much_earlier() {
    let mut device = Fixture::start().await;
    device.offer(NBITS, START);
    assert_eq!(device.job_with_tip().await.nbits, NBITS);
    device.offer(NBITS, START + 100);
    assert_eq!(device.job_at_once().await, START + 100);
    // The minimum difficulty of a testnet, and back.
    device.offer(0x1d00_ffff, START + 100);
    let tip = device.job_with_tip().await;
    assert_eq!((tip.nbits, tip.min_ntime), (0x1d00_ffff, START + 100));
    device.offer(NBITS, START + 100);
    assert_eq!(device.job_with_tip().await.nbits, NBITS);
    // Two clocks that differ a little cost nobody any work ..
    device.offer(NBITS, START + 90);
    assert_eq!(device.job_at_once().await, START + 100);
    // .. and one that was set back is believed.
    device.offer(NBITS, START - 7_000);
    assert_eq!(device.job_with_tip().await.min_ntime, START - 7_000);
}

#[tokio::test]
async fn of_many_tips_the_last_one_wins_and_devices_get_a_few_of_them() {
    const TIPS: u32 = 100;
    let mut device = Fixture::start().await;
    let begun = Instant::now();
    device.offer(NBITS, START);
    device.job_with_tip().await;
    for number in 1..=TIPS {
        device.offer(NBITS + number, START);
        // The port takes every one of them, if it likes.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut told = 1;
    loop {
        told += 1;
        if device.job_with_tip().await.nbits == NBITS + TIPS {
            break;
        }
    }
    let at_most = 2 + begun.elapsed().as_millis() / 250;
    assert!(told <= at_most, "{told} tips, {at_most} are a few");
}

#[tokio::test]
async fn a_job_that_devices_could_not_be_told_of_costs_them_nothing() {
    let mut device = Fixture::start().await;
    device.offer(NBITS, START);
    device.job_with_tip().await;
    let mut parts = parts(NBITS, START);
    parts.coinbase_prefix = vec![1; 65_500];
    let refused = device.base.offer(parts, device.offers.clone());
    assert!(refused.is_err());
    // The connection stands.
    device.offer(NBITS, START + 1);
    assert_eq!(device.job_at_once().await, START + 1);
}

#[tokio::test]
async fn devices_may_roll_every_general_purpose_bit_of_the_version_as_at_the_pool() {
    let mut device = Fixture::start().await;
    device.offer(NBITS, START);
    let job_id = device.job_with_tip().await.job_id;
    let mut share = SubmitSharesExtended {
        channel_id: device.channel_id,
        sequence_number: 0,
        job_id,
        nonce: 0,
        ntime: START,
        version: 0x3fff_ffe0,
        extranonce: vec![0; 6].try_into().unwrap(),
    };
    // Every header meets so easy a target.
    for nonce in 0..32 {
        (share.nonce, share.sequence_number) = (nonce, nonce);
        let frame = Frame::new(&share).unwrap();
        device.writer.write(&frame).await.unwrap();
    }
    device.next::<SubmitSharesSuccess>().await;
    share.version = 0x4000_0000;
    share.sequence_number = 100;
    let frame = Frame::new(&share).unwrap();
    device.writer.write(&frame).await.unwrap();
    let code = loop {
        let error: SubmitSharesError = device.next().await;
        if error.sequence_number == 100 {
            break error.error_code.as_utf8_or_hex();
        }
    };
    assert_eq!(code, "invalid-non-rollable-version-bit");
}
