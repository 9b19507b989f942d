//! The listener with a certificate: real handshakes, real HTTP/2 and HTTP/1.1 inside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::routing::get;
use dovetail_api::connection::{DialError, PoolAddress, TlsFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_stream::StreamExt;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::certificate::tests::with_pair;
use super::*;

const SOON: Duration = Duration::from_secs(10);
const PATIENT: Times = Times {
    handshake: SOON,
    preface: SOON,
};

fn authority() -> PathBuf {
    let file = "/../crates/api/test-certificates/ca.pem";
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR")).to_owned() + file)
}

/// A port with a certificate for `localhost`.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Served {
    /// With so many places for one address.
    async fn with(per_address_max: usize, times: Times) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let renewal = Renewal::new(with_pair(dir.path(), "pool")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = PlaceLimits {
            per_address_max,
            ..PlaceLimits::total(8)
        };
        let stop = CancellationToken::new();
        let connections = limited_in(listener, limits, Some(renewal.shown()), times, stop.clone());
        let (_, health) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(health);
        let router = std::mem::take(routes.axum_router_mut());
        *routes.axum_router_mut() = router.route("/healthz", get(async || "ok"));
        let server = tonic::transport::Server::builder().accept_http1(true);
        let server = server.clone().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(connections));
        Self {
            address,
            stop,
            _dir: dir,
        }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client of gRPC over TLS.
    async fn grpc(&self) -> HealthClient<Channel> {
        let address = PoolAddress::new(&format!("https://{}", self.address));
        let address = address.with_authority(&authority()).unwrap();
        HealthClient::new(address.dial(SOON, |endpoint| endpoint).await.unwrap())
    }

    async fn is_healthy(&self) -> bool {
        let mut client = self.grpc().await;
        let asked = client.check(HealthCheckRequest::default());
        timeout(SOON, asked).await.unwrap().is_ok()
    }
}

fn connector(protocol: &str, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    "localhost".try_into().unwrap()
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

/// Closed or reset.
async fn is_closed(stream: &mut TcpStream) -> bool {
    timeout(SOON, stream.read_to_end(&mut Vec::new()))
        .await
        .is_ok()
}

#[tokio::test]
async fn one_port_speaks_grpc_and_http_over_both_versions_of_tls() {
    let served = Served::with(8, PATIENT).await;
    assert!(served.is_healthy().await);
    for version in [&TLS12, &TLS13] {
        let connector = connector("http/1.1", version);
        let mut stream = connector
            .connect(localhost(), served.tcp().await)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = b"GET /healthz HTTP/1.1\r\nhost: pool\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
            "{answer}"
        );
        let connector = self::connector("h2", version);
        let stream = connector
            .connect(localhost(), served.tcp().await)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn connections_over_tls_have_numbers_addresses_and_no_delay_and_must_take_what_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let renewal = Renewal::new(with_pair(dir.path(), "pool")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (limits, stop) = (PlaceLimits::total(4), CancellationToken::new());
    let mut connections = Box::pin(limited(listener, limits, Some(renewal.shown()), stop));
    // The first never shakes hands, and its number is not given again.
    let _stalled = TcpStream::connect(address).await.unwrap();
    let connector = connector("h2", &TLS13);
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect(localhost(), stream).await.unwrap()
    };
    let (client, connection) = tokio::join!(client, connections.next());
    let mut connection = connection.unwrap().unwrap();
    let origin = connection.connect_info();
    let ip = client.get_ref().0.local_addr().unwrap().ip();
    assert_eq!((origin.connection, origin.address), (2, Some(ip)));
    let Wire::Tls(stream) = &mut connection.wire else {
        panic!("it has no TLS")
    };
    let socket = stream.get_mut().0;
    assert!(socket.stream.nodelay().unwrap());
    socket.write_time_max = Duration::from_millis(50);
    let sent = async {
        loop {
            connection.write_all(&[0; 1 << 16]).await?;
        }
    };
    let refused: io::Result<()> = timeout(SOON, sent).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_stalls_in_a_handshake_delays_nobody() {
    let served = Served::with(4, PATIENT).await;
    let _silent = served.tcp().await;
    let mut half = served.tcp().await;
    // A record of 512 bytes, of which three come.
    half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).await.unwrap();
    let _plain_half = served.tcp().await;
    assert!(served.is_healthy().await);
    let early = timeout(Duration::from_millis(50), half.read_u8()).await;
    assert!(early.is_err(), "it has its time: {early:?}");
    // A pool that stops waits for none of them.
    served.stop.cancel();
    assert!(is_closed(&mut half).await);
}

#[tokio::test]
async fn a_handshake_that_fails_or_takes_too_long_gives_its_place_back() {
    let times = Times {
        handshake: Duration::from_millis(200),
        ..PATIENT
    };
    let served = Served::with(1, times).await;
    let begun = std::time::Instant::now();
    let mut silent = served.tcp().await;
    assert!(is_closed(&mut silent).await);
    assert!(begun.elapsed() >= times.handshake && begun.elapsed() < SOON / 2);
    let mut garbage = served.tcp().await;
    garbage
        .write_all(&[22, 3, 1, 0, 4, 9, 9, 9, 9])
        .await
        .unwrap();
    assert!(is_closed(&mut garbage).await);
    // One that trusts somebody else hangs up in the middle.
    let other = PoolAddress::new(&format!("https://{}", served.address));
    let other = other
        .with_authority(&authority().with_file_name("self.pem"))
        .unwrap();
    let refused = other.dial(SOON, |endpoint| endpoint).await.unwrap_err();
    assert_eq!(refused, DialError::Tls(TlsFault::UnknownAuthority));
    assert!(served.is_healthy().await);
}

#[tokio::test]
async fn after_its_handshake_a_client_has_to_say_something() {
    let times = Times {
        preface: Duration::from_millis(100),
        ..PATIENT
    };
    let served = Served::with(1, times).await;
    let connector = connector("h2", &TLS13);
    let mut silent = connector
        .connect(localhost(), served.tcp().await)
        .await
        .unwrap();
    let closed = timeout(SOON, silent.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok());
    assert!(served.is_healthy().await);
}

#[tokio::test]
async fn who_speaks_without_tls_is_told_so_in_its_own_protocol_and_makes_room() {
    let served = Served::with(4, PATIENT).await;
    let mut stream = served.tcp().await;
    // Longer than what is looked at: none of it may be left unread, or the answer is lost.
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\n\r\n{}",
        "x".repeat(9_000)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    drop(stream);
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"]["code"], "https_required");
    // More often than there are places.
    for _ in 0..20 {
        let plain = PoolAddress::new(&format!("http://{}", served.address));
        let channel = plain.dial(SOON, |endpoint| endpoint).await.unwrap();
        let mut client = HealthClient::new(channel);
        let asked = client.check(HealthCheckRequest::default());
        let status = timeout(SOON, asked).await.unwrap().unwrap_err();
        assert_eq!(
            TlsFault::of_status(&status),
            Some(TlsFault::Needed),
            "{status:?}"
        );
    }
    assert!(served.is_healthy().await);
}
