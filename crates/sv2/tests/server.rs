//! A server's connections over a real loopback socket, through the public doors of the crate.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use dovetail_sv2::connection::PAYLOAD_BYTES_DEFAULT;
use dovetail_sv2::server::{Client, Server};
use dovetail_sv2::setup::{self, ServerPolicy, SetupProtocol, mining_flags};
use dovetail_sv2::{
    AuthorityKeys, ConnectionError, Frame, FrameReader, FrameWriter, PlaceLimits, connect,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const FLAGS: u32 = mining_flags::REQUIRES_STANDARD_JOBS;
const FRAMES: u8 = 3;
const SOON: Duration = Duration::from_secs(5);

fn server(places: PlaceLimits) -> Server {
    Server {
        keys: AuthorityKeys::generate(),
        certificate_validity: Duration::from_secs(60),
        policy: ServerPolicy {
            protocol: SetupProtocol::MiningProtocol,
            supported_flags: FLAGS,
            required_flags: 0,
            success_flags: |_| 0,
        },
        places,
        outbox_max: FRAMES.into(),
        payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
    }
}

fn frame(number: u8) -> Frame {
    Frame {
        extension_type: 0x4149,
        channel_msg: false,
        message_type: 0x7f,
        payload: vec![number],
    }
}

/// Sends a few frames and is done with the client.
async fn greet(client: Client) {
    assert_eq!(client.flags, FLAGS);
    for number in 0..FRAMES {
        client.outbox.try_send(frame(number)).unwrap();
    }
}

async fn start(
    connections: TaskTracker,
    shutdown: CancellationToken,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = tokio::spawn(async move {
        let server = server(PlaceLimits::total(1));
        server.run(listener, &connections, &shutdown, greet).await;
    });
    (address, running)
}

async fn open(address: SocketAddr) -> (FrameReader, FrameWriter) {
    let address = address.to_string();
    let (mut reader, mut writer) = connect(&address, None).await.unwrap();
    let protocol = SetupProtocol::MiningProtocol;
    let request = setup::request(protocol, FLAGS, &address, "test").unwrap();
    setup::open(&mut reader, &mut writer, &request)
        .await
        .unwrap();
    (reader, writer)
}

#[tokio::test]
async fn what_a_client_was_sent_arrives_although_its_server_is_done_with_it() {
    let (connections, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let (address, running) = start(connections.clone(), shutdown.clone()).await;
    // One connection is allowed at a time, so the second begins only where the first gave its place back.
    for _ in 0..2 {
        let (mut reader, _writer) = timeout(SOON, open(address)).await.unwrap();
        for number in 0..FRAMES {
            assert_eq!(reader.read().await.unwrap(), frame(number));
        }
        let end = reader.read().await;
        assert!(matches!(end, Err(ConnectionError::Closed)), "{end:?}");
    }
    shutdown.cancel();
    timeout(SOON, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_stops_waits_for_no_client_that_is_yet_to_say_a_word() {
    let (connections, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let (address, running) = start(connections.clone(), shutdown.clone()).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    while connections.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    timeout(SOON, running).await.unwrap().unwrap();
    connections.close();
    timeout(SOON, connections.wait()).await.unwrap();
}

/// Takes every frame for a proof of work, and answers it.
async fn believe(mut client: Client) {
    loop {
        let frame = tokio::select! {
            () = client.token.cancelled() => return,
            frame = client.reader.read() => frame,
        };
        let Ok(frame) = frame else { return };
        client.place.prove();
        client.outbox.try_send(frame).unwrap();
    }
}

#[tokio::test]
async fn idle_connections_of_one_host_leave_room_and_each_proof_lets_another_in() {
    let (connections, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let _stop = shutdown.clone().drop_guard();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = PlaceLimits {
        per_address_max: 3,
        first_proof: Some(Duration::from_secs(3)),
        ..PlaceLimits::total(16)
    };
    tokio::spawn(async move {
        let server = server(limits);
        server.run(listener, &connections, &shutdown, believe).await;
    });
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(open(address).await);
    }
    let refused = || async { connect(&address.to_string(), None).await.is_err() };
    assert!(refused().await, "one host has more places than it may");
    // An honest one proves itself, and lets in one for itself and another one.
    let (mut reader, mut writer) = idle.pop().unwrap();
    writer.write(&frame(1)).await.unwrap();
    assert_eq!(reader.read().await.unwrap(), frame(1));
    idle.push(open(address).await);
    idle.push(open(address).await);
    assert!(refused().await, "idle connections let others in");
    // The idle ones have their time, and it goes on.
    for (mut reader, _writer) in idle {
        let end = timeout(SOON, reader.read()).await.unwrap();
        assert!(matches!(end, Err(ConnectionError::Closed)), "{end:?}");
    }
    writer.write(&frame(2)).await.unwrap();
    assert_eq!(reader.read().await.unwrap(), frame(2));
}
