//! Connections over a real loopback socket, through the public doors of the crate.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use dovetail_sv2::connection::PAYLOAD_BYTES_DEFAULT;
use dovetail_sv2::extension::{self, RegisterWorkerChallenge};
use dovetail_sv2::handshake::connect_over;
use dovetail_sv2::setup::{ServerPolicy, SetupError, SetupProtocol, declaration_flags};
use dovetail_sv2::{
    AuthorityKeys, ConnectionError, Doubt, Frame, FrameReader, FrameWriter, Outbox, OutboxError,
    accept, connect, negotiation, setup,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const VALIDITY: Duration = Duration::from_secs(3600);

type Halves = (FrameReader, FrameWriter);

async fn pair() -> (Halves, Halves) {
    let keys = AuthorityKeys::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &keys, VALIDITY).await.unwrap()
    };
    let client = async { connect(&address, Some(keys.public())).await.unwrap() };
    tokio::join!(server, client)
}

fn frame(payload: Vec<u8>) -> Frame {
    Frame {
        extension_type: 0x4149,
        channel_msg: true,
        message_type: 0x7f,
        payload,
    }
}

#[tokio::test]
async fn frames_of_all_sizes_arrive_as_they_were_sent() {
    let ((mut reader, _keep), (_also, mut writer)) = pair().await;
    reader.set_payload_bytes_max(1 << 24);
    let sizes = [0, 1, 65_518, 65_519, 65_520, 65_536, 200_000];
    let send = async {
        for size in sizes {
            writer.write(&frame(vec![size as u8; size])).await.unwrap();
        }
    };
    let receive = async {
        for size in sizes {
            assert_eq!(reader.read().await.unwrap(), frame(vec![size as u8; size]));
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_by_its_header_and_ends_the_session() {
    let ((mut reader, _keep), (_also, mut writer)) = pair().await;
    let size = PAYLOAD_BYTES_DEFAULT + 1;
    tokio::spawn(async move { writer.write(&frame(vec![0; size])).await });
    assert!(matches!(
        reader.read().await,
        Err(ConnectionError::TooLong { declared, limit })
            if declared == size && limit == PAYLOAD_BYTES_DEFAULT
    ));
    assert!(reader.read().await.is_err());
}

#[tokio::test]
async fn a_server_with_another_authority_key_is_refused() {
    let keys = AuthorityKeys::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &keys, VALIDITY).await
    });
    let other = AuthorityKeys::generate().public();
    assert!(matches!(
        connect(&address, Some(other)).await,
        Err(ConnectionError::Certificate(Doubt::OtherAuthority))
    ));
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let ((mut reader, _keep), (_also, mut writer)) = pair().await;
    reader.set_payload_bytes_max(1 << 24);
    let sent = frame(vec![9; 3_000_000]);
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        writer.write(&copy).await.unwrap();
        writer
    });
    let mut cancelled = 0_u32;
    let received = loop {
        tokio::select! {
            biased;
            frame = reader.read() => break frame.unwrap(),
            () = tokio::task::yield_now() => cancelled += 1,
        }
    };
    assert_eq!(received, sent);
    assert!(cancelled > 0, "the test must have cancelled a read");
    sending.await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_on_the_wire_ends_the_session() {
    let keys = AuthorityKeys::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server_address = listener.local_addr().unwrap();
    let proxy_address = proxy.local_addr().unwrap().to_string();
    // Forwards the handshake untouched, then damages the first byte of the first frame.
    tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await.unwrap();
        let mut server = TcpStream::connect(server_address).await.unwrap();
        let mut hello = [0; 64];
        client.read_exact(&mut hello).await.unwrap();
        server.write_all(&hello).await.unwrap();
        let mut answer = [0; 234];
        server.read_exact(&mut answer).await.unwrap();
        client.write_all(&answer).await.unwrap();
        let mut sealed = [0; 22];
        client.read_exact(&mut sealed).await.unwrap();
        sealed[0] ^= 1;
        server.write_all(&sealed).await.unwrap();
        std::future::pending::<()>().await;
    });
    let public = keys.public();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &keys, VALIDITY).await.unwrap()
    };
    let client = async {
        let stream = TcpStream::connect(&proxy_address).await.unwrap();
        connect_over(stream, Some(public)).await.unwrap()
    };
    let ((mut reader, _keep), (_also, mut writer)) = tokio::join!(server, client);
    writer.write(&frame(vec![])).await.unwrap();
    assert!(matches!(reader.read().await, Err(ConnectionError::Decrypt)));
}

fn declaration_policy() -> ServerPolicy {
    ServerPolicy {
        protocol: SetupProtocol::JobDeclarationProtocol,
        supported_flags: declaration_flags::DECLARE_TX_DATA,
        required_flags: declaration_flags::DECLARE_TX_DATA,
        success_flags: |_| 0,
    }
}

async fn set_up(protocol: SetupProtocol, flags: u32) -> Result<u16, SetupError> {
    let ((mut sr, mut sw), (mut cr, mut cw)) = pair().await;
    let request = setup::request(protocol, flags, "127.0.0.1:34254", "test").unwrap();
    let policy = declaration_policy();
    let (served, opened) = tokio::join!(
        setup::serve(&mut sr, &mut sw, &policy),
        setup::open(&mut cr, &mut cw, &request),
    );
    assert_eq!(served.is_ok(), opened.is_ok());
    opened.map(|success| success.used_version)
}

#[tokio::test]
async fn setup_answers_what_it_speaks_and_names_what_it_does_not() {
    let declaration = SetupProtocol::JobDeclarationProtocol;
    assert_eq!(set_up(declaration, 1).await.unwrap(), 2);
    let cases = [
        (SetupProtocol::MiningProtocol, 1, "unsupported-protocol", 0),
        (declaration, 0b111, "unsupported-feature-flags", 0b110),
        (declaration, 0, "missing-declare-tx-data-flag", 1),
    ];
    for (protocol, flags, expected, at_fault) in cases {
        match set_up(protocol, flags).await {
            Err(SetupError::Refused { code, flags }) => {
                assert_eq!((code.as_str(), flags), (expected, at_fault));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn extensions_are_granted_over_the_wire_or_refused_with_a_list() {
    for (asked, granted) in [
        (vec![extension::EXTENSION_TYPE, 2], Some(vec![0x4149])),
        (vec![2], None),
    ] {
        let ((mut sr, mut sw), (mut cr, mut cw)) = pair().await;
        let server = async {
            let question = sr.read().await.unwrap();
            let (question, _) = question.decode().unwrap();
            let answer = match negotiation::answer(&question, &[extension::EXTENSION_TYPE], &[]) {
                Ok(success) => Frame::new(&success),
                Err(error) => Frame::new(&error),
            };
            sw.write(&answer.unwrap()).await.unwrap();
        };
        let ((), result) = tokio::join!(server, negotiation::request(&mut cr, &mut cw, &asked));
        assert_eq!(result.ok(), granted);
    }
}

#[tokio::test]
async fn a_slow_peer_fills_its_outbox_and_loses_the_connection() {
    let ((_idle, _keep), (_also, writer)) = pair().await;
    let token = CancellationToken::new();
    let (outbox, task) = Outbox::spawn(writer, 4, token.clone());
    let big = frame(vec![0; 4_000_000]);
    let full = (0..100).any(|_| matches!(outbox.try_send(big.clone()), Err(OutboxError::Full)));
    assert!(full);
    assert!(token.is_cancelled());
    task.await.unwrap();
}

#[tokio::test]
async fn few_long_frames_fill_an_outbox_as_many_short_ones_do() {
    let ((_idle, _keep), (_also, writer)) = pair().await;
    let token = CancellationToken::new();
    let (outbox, task) = Outbox::spawn(writer, 1_000, token.clone());
    let long = frame(vec![0; 1 << 20]);
    let taken = (0..1_000).take_while(|_| outbox.try_send(long.clone()).is_ok());
    // Some more are in the hands of the system.
    let taken = taken.count();
    assert!((32..100).contains(&taken), "{taken}");
    assert!(token.is_cancelled());
    task.await.unwrap();
}

#[tokio::test]
async fn an_outbox_is_written_to_its_end_when_it_is_dropped() {
    let ((mut reader, _keep), (_also, writer)) = pair().await;
    let (outbox, task) = Outbox::spawn(writer, 8, CancellationToken::new());
    let message = RegisterWorkerChallenge { nonce: [3; 32] };
    outbox.send(&message).unwrap();
    outbox.send(&message).unwrap();
    drop(outbox);
    task.await.unwrap();
    for _ in 0..2 {
        let (received, tail) = reader
            .read()
            .await
            .unwrap()
            .decode::<RegisterWorkerChallenge>()
            .map(|(message, tail)| (message, tail.len()))
            .unwrap();
        assert_eq!((received, tail), (message.clone(), 0));
    }
    assert!(matches!(reader.read().await, Err(ConnectionError::Closed)));
}
