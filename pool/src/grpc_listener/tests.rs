//! The listener, without TLS.

use super::*;
use std::net::SocketAddr;

use dovetail_api::connection::{PoolAddress, TlsFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const SOON: Duration = Duration::from_secs(5);

fn socket_of(connection: &mut Connection) -> &mut Socket {
    match &mut connection.wire {
        Wire::Plain(socket) => socket,
        Wire::Tls(_) => panic!("it has TLS"),
    }
}

#[tokio::test]
async fn small_frames_are_sent_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connections = incoming(listener);
    let _client = TcpStream::connect(address).await.unwrap();
    let connection = connections.next().await.unwrap().unwrap();
    assert!(connection.nodelay().unwrap());
}

#[tokio::test]
async fn connections_of_a_port_for_strangers_have_numbers_addresses_and_no_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let mut connections = Box::pin(limited(listener, PlaceLimits::total(2), None, shutdown));
    for number in 1..=2 {
        let client = TcpStream::connect(address).await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        assert!(socket_of(&mut connection).stream.nodelay().unwrap());
        let origin = connection.connect_info();
        assert_eq!(origin.connection, number);
        assert_eq!(origin.address, Some(client.local_addr().unwrap().ip()));
    }
}

#[tokio::test]
async fn whoever_takes_nothing_of_what_is_sent_loses_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let mut connections = Box::pin(limited(listener, PlaceLimits::total(2), None, shutdown));
    let _client = TcpStream::connect(address).await.unwrap();
    let mut connection = connections.next().await.unwrap().unwrap();
    socket_of(&mut connection).write_time_max = Duration::from_millis(50);
    let sent = async {
        loop {
            connection.write_all(&[0; 1 << 16]).await?;
        }
    };
    let refused: io::Result<()> = timeout(SOON, sent).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// A port with two places for one address, and a tenth of a second for the preface.
async fn serve(shutdown: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = PlaceLimits {
        per_address_max: 2,
        ..PlaceLimits::total(8)
    };
    let times = Times {
        preface: Duration::from_millis(100),
        ..TIMES
    };
    let connections = limited_in(listener, limits, None, times, shutdown.clone());
    let (_, health) = tonic_health::server::health_reporter();
    let router = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(router.serve_with_incoming(connections));
    address
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn whoever_says_nothing_or_half_a_word_is_closed_and_makes_room() {
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let address = serve(&shutdown).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"PRI * HTTP/2").await.unwrap();
    assert!(is_closed(&mut silent).await && is_closed(&mut slow).await);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    // Whoever speaks may be silent afterwards.
    for _ in 0..3 {
        let request = HealthCheckRequest::default();
        timeout(SOON, client.check(request)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn one_address_has_a_few_connections_and_the_next_is_closed_at_once() {
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let address = serve(&shutdown).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        client.check(HealthCheckRequest::default()).await.unwrap();
        clients.push(client);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(is_closed(&mut third).await);
    // The others notice nothing.
    clients[0]
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn who_speaks_tls_where_none_is_spoken_is_told_so() {
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let address = PoolAddress::new(&format!("https://{}", serve(&shutdown).await));
    // Whose word counts does not matter: none is heard.
    let file = "/../crates/api/test-certificates/ca.pem";
    let file = concat!(env!("CARGO_MANIFEST_DIR")).to_owned() + file;
    let address = address.with_authority(file.as_ref()).unwrap();
    let error = address.dial(SOON, |endpoint| endpoint).await.unwrap_err();
    assert_eq!(error, TlsFault::NotSpoken.into());
}
