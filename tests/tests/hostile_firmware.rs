//! Hostile and broken firmware at the port where a worker serves its miner's devices: each costs itself
//! its own connection at most, while an honest device behind the same worker goes on earning.

#![allow(clippy::unwrap_used)]

mod bad_frames;
mod scripted_worker;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bad_frames::{SEQUENCE_NUMBER, bad_share, random_frame};
use dovetail_miner::search::{header_bytes, scan};
use dovetail_sv2::messages::{
    CloseChannel, NewMiningJob, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess,
    OpenMiningChannelError, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess,
    SetNewPrevHash, SetTarget, Str0255Owned, SubmitSharesError, SubmitSharesStandard,
    SubmitSharesSuccess, U256Owned, UpdateChannel,
};
use dovetail_sv2::setup::mining_flags;
use dovetail_sv2::{AuthorityPublicKey, Frame};
use dovetail_tests::process::Daemon;
use dovetail_tests::program;
use dovetail_tests::scenario::{Options, Scenario};
use rand::SeedableRng;
use rand::rngs::StdRng;
use scripted_worker::{TIME_MAX, Wire, decoded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Refused shares in a row that a device may send.
const BAD_SHARES_MAX: u32 = 256;
/// Channels that one connection may open.
const CHANNELS_MAX: u32 = 64;

/// A worker with an honest device behind it.
struct Fixture {
    device: Daemon,
    address: String,
    key: AuthorityPublicKey,
    scenario: Scenario,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let options = Options {
            firmware: true,
            hasher: false,
            // No blocks: shares do not go stale while a test holds them.
            bits: "1d00ffff",
            ..Options::default()
        };
        let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
        let (address, key) = scenario.firmware.clone().unwrap();
        let mut command = Command::new(program("dovetail-worker"));
        command.args(["hash", "--pool", &address, "--user", "honest.device"]);
        command.args(["--authority-key", &key]);
        let mut device = Daemon::spawn("device", command, &dir.path().join("logs")).unwrap();
        device.ready(TIME_MAX).unwrap();
        Self {
            device,
            key: key.parse().unwrap(),
            address,
            scenario,
            _dir: dir,
        }
    }

    async fn device(&self, flags: u32) -> Wire {
        Wire::open(&self.address, self.key, flags).await
    }

    /// The honest device kept its connection, and what it hashes from now on is credited.
    fn assert_undisturbed(&mut self) {
        let pool = &mut self.scenario.pool;
        while pool.next_line(Duration::ZERO).unwrap().is_some() {}
        pool.event("share_accepted", TIME_MAX).unwrap();
        let worker = self.scenario.worker.as_mut().unwrap().log();
        assert!(!worker.contains("panicked"), "{worker}");
        let device = self.device.log();
        assert!(
            !device.contains("the connection to the pool ended"),
            "{device}"
        );
    }
}

async fn open_extended(wire: &mut Wire, request: OpenExtendedMiningChannel) -> Result<u32, String> {
    wire.send(&request).await;
    wire.pick(|frame| {
        if frame.is::<OpenExtendedMiningChannelSuccess>() {
            return Some(Ok(
                decoded::<OpenExtendedMiningChannelSuccess>(frame).channel_id
            ));
        }
        refused_open(frame)
    })
    .await
}

fn refused_open<T>(frame: &Frame) -> Option<Result<T, String>> {
    frame.is::<OpenMiningChannelError>().then(|| {
        let error: OpenMiningChannelError = decoded(frame);
        Err(error.error_code.as_utf8_or_hex())
    })
}

fn extended_request() -> OpenExtendedMiningChannel {
    OpenExtendedMiningChannel {
        request_id: 1,
        user_identity: Str0255Owned::try_from("stranger").unwrap(),
        nominal_hash_rate: 1_000.0,
        max_target: U256Owned::from([0xff; 32]),
        min_extranonce_size: 4,
    }
}

async fn refusal(wire: &mut Wire) -> String {
    let refused: SubmitSharesError = wire.receive().await;
    assert_eq!(refused.sequence_number, SEQUENCE_NUMBER);
    refused.error_code.as_utf8_or_hex()
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_and_random_frames_end_at_most_the_connection_that_sent_them() {
    let mut fixture = Fixture::start();
    // Another protocol altogether.
    let mut stream = TcpStream::connect(&fixture.address).await.unwrap();
    let http = b"GET / HTTP/1.1\r\nHost: miner\r\n\r\n".repeat(16);
    stream.write_all(&http).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(TIME_MAX, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    // Half a handshake, then silence.
    let mut silent = TcpStream::connect(&fixture.address).await.unwrap();
    silent.write_all(&[1; 10]).await.unwrap();
    // A frame of more bytes than the port takes.
    let mut wire = fixture.device(0).await;
    let long = Frame {
        extension_type: 0,
        channel_msg: true,
        message_type: 0x1b,
        payload: vec![0; (1 << 24) - 1],
    };
    let _ = wire.try_send_frame(&long).await;
    wire.hung_up().await;

    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..100 {
        let mut wire = fixture.device(0).await;
        let channel_id = open_extended(&mut wire, extended_request()).await.unwrap();
        for _ in 0..8 {
            let frame = random_frame(&mut random, channel_id);
            if wire.try_send_frame(&frame).await.is_err() {
                break;
            }
        }
    }
    fixture.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_numbers_get_typed_errors_and_a_run_of_bad_shares_ends_the_connection() {
    let mut fixture = Fixture::start();
    let mut wire = fixture.device(0).await;
    let absurd: [fn(&mut OpenExtendedMiningChannel); 5] = [
        |open| open.nominal_hash_rate = f32::NAN,
        |open| open.nominal_hash_rate = f32::INFINITY,
        |open| open.nominal_hash_rate = -1.0,
        |open| open.max_target = U256Owned::from([0; 32]),
        |open| open.min_extranonce_size = u16::MAX,
    ];
    for change in absurd {
        let mut request = extended_request();
        change(&mut request);
        open_extended(&mut wire, request).await.unwrap_err();
    }
    let channel_id = open_extended(&mut wire, extended_request()).await.unwrap();
    let job: dovetail_sv2::messages::NewExtendedMiningJob = wire.receive().await;
    let cases = [
        (
            bad_share(channel_id + 1, job.job_id, 4),
            "invalid-channel-id",
        ),
        (bad_share(1, job.job_id, 4), "invalid-channel-id"),
        (bad_share(channel_id, u32::MAX, 4), "invalid-job-id"),
        (bad_share(channel_id, job.job_id, 0), "bad-extranonce-size"),
        (bad_share(channel_id, job.job_id, 32), "bad-extranonce-size"),
    ];
    for (share, code) in cases {
        wire.send(&share).await;
        assert_eq!(refusal(&mut wire).await, code);
    }
    // Nothing that hashes our jobs is wrong so often in a row.
    let sent = 5;
    for _ in sent..BAD_SHARES_MAX {
        wire.send(&bad_share(channel_id, u32::MAX, 4)).await;
    }
    for _ in sent..BAD_SHARES_MAX {
        assert_eq!(refusal(&mut wire).await, "invalid-job-id");
    }
    wire.send(&bad_share(channel_id, u32::MAX, 4)).await;
    wire.hung_up().await;
    fixture.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_clock_does_not_fit_the_job_is_told_so_and_keeps_its_connection() {
    let mut fixture = Fixture::start();
    let mut wire = fixture.device(0).await;
    let channel_id = open_extended(&mut wire, extended_request()).await.unwrap();
    let job: dovetail_sv2::messages::NewExtendedMiningJob = wire.receive().await;
    for _ in 0..2 * BAD_SHARES_MAX {
        // Two seconds after 1970.
        wire.send(&bad_share(channel_id, job.job_id, 6)).await;
        assert_eq!(refusal(&mut wire).await, "invalid-share");
    }
    open_extended(&mut wire, extended_request()).await.unwrap();
    fixture.assert_undisturbed();
}

/// A standard channel and a share that it finds on its first job.
async fn standard_share(wire: &mut Wire) -> SubmitSharesStandard {
    wire.send(&OpenStandardMiningChannel {
        request_id: 1,
        user_identity: Str0255Owned::try_from("flood").unwrap(),
        nominal_hash_rate: 1_000.0,
        max_target: U256Owned::from([0xff; 32]),
    })
    .await;
    let opened: OpenStandardMiningChannelSuccess = wire.receive().await;
    let job: NewMiningJob = wire.receive().await;
    let tip: SetNewPrevHash = wire.receive().await;
    let targets = wire.arrived::<SetTarget>();
    let target = targets.last().map_or(&opened.target, |t| &t.maximum_target);
    let header = header_bytes(
        job.version,
        tip.prev_hash.as_array(),
        job.merkle_root.as_array(),
        tip.min_ntime,
        tip.nbits,
        0,
    );
    let target = target.to_array();
    let nonce = tokio::task::spawn_blocking(move || {
        let (stop, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
        scan(&header, 0..1 << 32, &target, &stop, &hashes)
    });
    SubmitSharesStandard {
        channel_id: opened.channel_id,
        sequence_number: 7,
        job_id: job.job_id,
        nonce: nonce.await.unwrap().unwrap(),
        ntime: tip.min_ntime,
        version: job.version,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_share_counts_once_and_a_flood_of_it_ends_the_connection() {
    let mut fixture = Fixture::start();
    let mut wire = fixture.device(mining_flags::REQUIRES_STANDARD_JOBS).await;
    let share = standard_share(&mut wire).await;
    wire.send(&share).await;
    let accepted: SubmitSharesSuccess = wire.receive().await;
    assert_eq!(accepted.new_submits_accepted_count, 1);
    for _ in 0..BAD_SHARES_MAX {
        wire.send(&share).await;
        assert_eq!(refusal(&mut wire).await, "duplicate-share");
    }
    let flood = Frame::new(&share).unwrap();
    while wire.try_send_frame(&flood).await.is_ok() {}
    fixture.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_read_is_dropped() {
    let mut fixture = Fixture::start();
    let mut wire = fixture.device(0).await;
    // Each of these is answered, and the answers are never taken.
    let question = Frame::new(&UpdateChannel {
        channel_id: 99,
        nominal_hash_rate: 1.0,
        maximum_target: U256Owned::from([0xff; 32]),
    })
    .unwrap();
    let asking = async { while wire.try_send_frame(&question).await.is_ok() {} };
    timeout(TIME_MAX, asking)
        .await
        .expect("it was served for ever");
    fixture.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_channels_are_refused_or_given_back() {
    let mut fixture = Fixture::start();
    // More than a connection may have.
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut wire = fixture.device(0).await;
        let mut opened = 0;
        for _ in 0..500 {
            match open_extended(&mut wire, extended_request()).await {
                Ok(_) => opened += 1,
                Err(code) => assert_eq!(code, "channel-capacity-exhausted"),
            }
        }
        assert_eq!(opened, CHANNELS_MAX);
        greedy.push(wire);
    }
    // Opened and closed again, for longer than any space of extranonces of two bytes would last.
    let mut wire = fixture.device(0).await;
    for _ in 0..2_000 {
        let channel_id = open_extended(&mut wire, extended_request()).await.unwrap();
        wire.send(&CloseChannel {
            channel_id,
            reason_code: Str0255Owned::try_from("tired").unwrap(),
        })
        .await;
    }
    drop(greedy);
    fixture.assert_undisturbed();
    // There is room for the next device.
    let mut late = fixture.device(0).await;
    open_extended(&mut late, extended_request()).await.unwrap();
}
