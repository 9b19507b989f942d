//! Hostile and broken peers at the ports that strangers reach: each loses its own connection at most,
//! gets a typed error where the protocol has one, and nobody else notices.

#![allow(clippy::unwrap_used)]

mod bad_frames;

use std::time::Duration;

use bad_frames::{SEQUENCE_NUMBER, bad_share, random_frame};
use dovetail_sv2::messages::{
    AllocateMiningJobToken, B064KOwned, B0255Owned, DeclareMiningJob, DeclareMiningJobError,
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, Seq064KOwned, SetCustomMiningJob,
    SetCustomMiningJobError, Str0255Owned, SubmitSharesError, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, declaration_flags, mining_flags};
use dovetail_sv2::{
    AuthorityPublicKey, Frame, FrameReader, FrameWriter, Message, connect, negotiation, setup,
};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TIME_MAX: Duration = Duration::from_secs(20);

/// A running pool with an honest hasher on it, whom nothing here may disturb.
fn with_bystander() -> (tempfile::TempDir, Scenario) {
    let options = Options {
        worker: false,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

fn assert_undisturbed(scenario: &mut Scenario) {
    // What was credited before is passed over: only what comes from now on counts.
    while scenario.pool.next_line(Duration::ZERO).unwrap().is_some() {}
    scenario.pool.event("share_accepted", TIME_MAX).unwrap();
    assert!(!scenario.pool.log().contains("panicked"));
    assert!(!scenario.declarator.log().contains("panicked"));
    let hasher = scenario.hasher.as_ref().unwrap().log();
    assert!(
        !hasher.contains("the connection to the pool ended"),
        "{hasher}"
    );
}

/// A connection that the test plays, past its set-up.
struct Peer {
    reader: FrameReader,
    writer: FrameWriter,
}

impl Peer {
    async fn open(address: &str, protocol: SetupProtocol, flags: u32) -> Self {
        let authority: AuthorityPublicKey = AUTHORITY_PUBLIC.parse().unwrap();
        let (mut reader, mut writer) = connect(address, Some(authority)).await.unwrap();
        let request = setup::request(protocol, flags, address, "test").unwrap();
        setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        Self { reader, writer }
    }

    async fn miner(scenario: &Scenario) -> Self {
        let flags = mining_flags::REQUIRES_WORK_SELECTION;
        Self::open(&scenario.mining, SetupProtocol::MiningProtocol, flags).await
    }

    async fn declarer(scenario: &Scenario) -> Self {
        let flags = declaration_flags::DECLARE_TX_DATA;
        let protocol = SetupProtocol::JobDeclarationProtocol;
        Self::open(&scenario.declaration, protocol, flags).await
    }

    async fn send<M: Message>(&mut self, message: &M) {
        self.writer
            .write(&Frame::new(message).unwrap())
            .await
            .unwrap();
    }

    /// The next message of this kind; others are passed over.
    async fn receive<M: Message>(&mut self) -> M {
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

    async fn channel(&mut self, request_id: u32) -> OpenExtendedMiningChannelSuccess {
        self.send(&OpenExtendedMiningChannel {
            request_id,
            user_identity: Str0255Owned::try_from("stranger.1").unwrap(),
            nominal_hash_rate: 1_000_000.0,
            max_target: U256Owned::from([0xff; 32]),
            min_extranonce_size: 8,
        })
        .await;
        self.receive().await
    }

    /// Waits until the other side hangs up.
    async fn hung_up(&mut self) {
        let drain = async { while self.reader.read().await.is_ok() {} };
        timeout(TIME_MAX, drain).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_are_no_sv2_lose_their_connection_and_disturb_nobody() {
    let (_dir, mut scenario) = with_bystander();
    for address in [scenario.mining.clone(), scenario.declaration.clone()] {
        // Another protocol altogether.
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let http = b"GET / HTTP/1.1\r\nHost: pool\r\n\r\n".repeat(16);
        stream.write_all(&http).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(TIME_MAX, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        // Half a handshake, then silence: it is left to its time limit while others are served.
        let mut silent = TcpStream::connect(&address).await.unwrap();
        silent.write_all(&[1; 10]).await.unwrap();
        // A frame of more bytes than that port takes, past a good handshake.
        let mut peer = if address == scenario.mining {
            Peer::miner(&scenario).await
        } else {
            Peer::declarer(&scenario).await
        };
        let long = Frame {
            extension_type: 0,
            channel_msg: false,
            message_type: 0x1b,
            payload: vec![0; (1 << 24) - 1],
        };
        let _ = peer.writer.write(&long).await;
        peer.hung_up().await;
    }
    assert_undisturbed(&mut scenario);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_frames_end_at_most_the_connection_that_sent_them() {
    let (_dir, mut scenario) = with_bystander();
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..150 {
        let mut miner = Peer::miner(&scenario).await;
        negotiation::request(&mut miner.reader, &mut miner.writer, &[0x4149])
            .await
            .unwrap();
        let channel = miner.channel(1).await;
        let mut declarer = Peer::declarer(&scenario).await;
        for peer in [&mut miner, &mut declarer] {
            for _ in 0..8 {
                let frame = random_frame(&mut random, channel.channel_id);
                if peer.writer.write(&frame).await.is_err() {
                    break;
                }
            }
        }
    }
    assert_undisturbed(&mut scenario);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_gets_typed_errors_and_keeps_its_connection_until_a_frame_is_malformed() {
    let (_dir, mut scenario) = with_bystander();
    let mut peer = Peer::miner(&scenario).await;
    // An extension that nobody negotiated is discarded, and so is ours before it is.
    for extension_type in [0x7777, 0x4149] {
        let frame = Frame {
            extension_type,
            channel_msg: false,
            message_type: 0,
            payload: vec![0xff; 50],
        };
        peer.writer.write(&frame).await.unwrap();
    }
    // Channels of one connection share a group and the size of their extranonces (5.2.3).
    let first = peer.channel(1).await;
    let second = peer.channel(2).await;
    assert_eq!(first.group_channel_id, second.group_channel_id);
    assert_eq!(first.extranonce_size, second.extranonce_size);
    assert_ne!(first.channel_id, second.channel_id);
    assert_ne!(first.extranonce_prefix, second.extranonce_prefix);

    let cases = [
        (bad_share(99, 1, 8), "invalid-channel-id"),
        (bad_share(first.channel_id, u32::MAX, 8), "invalid-job-id"),
    ];
    for (share, code) in cases {
        peer.send(&share).await;
        let refused: SubmitSharesError = peer.receive().await;
        assert_eq!(refused.sequence_number, SEQUENCE_NUMBER);
        assert_eq!(refused.error_code.as_utf8_or_hex(), code);
    }

    // A job that nobody declared.
    peer.send(&SetCustomMiningJob {
        channel_id: first.channel_id,
        request_id: 5,
        token: B0255Owned::new(vec![3; 32]).unwrap(),
        version: 0x2000_0000,
        prev_hash: U256Owned::from([0; 32]),
        min_ntime: 0,
        nbits: 0,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![].try_into().unwrap(),
        coinbase_tx_input_n_sequence: 0,
        coinbase_tx_outputs: B064KOwned::new(vec![]).unwrap(),
        coinbase_tx_locktime: 0,
        merkle_path: Vec::new().try_into().unwrap(),
    })
    .await;
    let refused: SetCustomMiningJobError = peer.receive().await;
    assert_eq!(refused.request_id, 5);
    assert_eq!(
        refused.error_code.as_utf8_or_hex(),
        "invalid-mining-job-token"
    );

    // A field behind the share that says it is longer than the frame (3.4.3).
    let mut frame = Frame::new(&bad_share(first.channel_id, 1, 8)).unwrap();
    frame.payload.extend([0x49, 0x41, 1, 200, 0, 1, 2, 3]);
    peer.writer.write(&frame).await.unwrap();
    peer.hung_up().await;
    assert_undisturbed(&mut scenario);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_is_wrong_is_refused_and_the_next_one_is_heard() {
    let (_dir, mut scenario) = with_bystander();
    let mut peer = Peer::declarer(&scenario).await;
    let declaration = |request_id, token: Vec<u8>, prefix: Vec<u8>| DeclareMiningJob {
        request_id,
        mining_job_token: B0255Owned::new(token).unwrap(),
        version: 0x2000_0000,
        coinbase_tx_prefix: B064KOwned::new(prefix).unwrap(),
        coinbase_tx_suffix: B064KOwned::new(vec![0xff; 60_000]).unwrap(),
        wtxid_list: Seq064KOwned::new(Vec::new()).unwrap(),
        excess_data: B064KOwned::new(Vec::new()).unwrap(),
    };
    peer.send(&declaration(1, vec![9; 32], vec![0; 60])).await;
    let refused: DeclareMiningJobError = peer.receive().await;
    assert_eq!(
        refused.error_code.as_utf8_or_hex(),
        "invalid-mining-job-token"
    );
    for (request_id, prefix) in (2..).zip([vec![], vec![0xff; 60_000], vec![0; 41]]) {
        peer.send(&AllocateMiningJobToken {
            user_identifier: Str0255Owned::try_from("stranger").unwrap(),
            request_id,
        })
        .await;
        let token: dovetail_sv2::messages::AllocateMiningJobTokenSuccess = peer.receive().await;
        let token = token.mining_job_token.into_bytes();
        peer.send(&declaration(request_id, token.clone(), prefix.clone()))
            .await;
        let refused: DeclareMiningJobError = peer.receive().await;
        assert_eq!(refused.request_id, request_id);
        assert_eq!(refused.error_code.as_utf8_or_hex(), "invalid-coinbase-tx");
        // A token is good for one declaration, a refused one included.
        peer.send(&declaration(request_id, token, prefix)).await;
        let refused: DeclareMiningJobError = peer.receive().await;
        assert_eq!(
            refused.error_code.as_utf8_or_hex(),
            "invalid-mining-job-token"
        );
    }
    assert_undisturbed(&mut scenario);
}
