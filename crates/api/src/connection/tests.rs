use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

const TIME_MAX: Duration = Duration::from_secs(5);

fn certificate(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/test-certificates");
    Path::new(folder).join(name)
}

fn acceptor((chain, key): (&str, &str), protocol: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate(chain)).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(certificate(key)).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.into()];
    TlsAcceptor::from(Arc::new(config))
}

/// What became of a connection to `https://localhost` whose other side does this, with this authority.
async fn dialled<F: Future<Output = ()> + Send>(
    authority: &str,
    other_side: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> Result<Channel, DialError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        other_side(stream).await;
    });
    let address = PoolAddress::new(&format!("https://localhost:{port}"));
    let address = address.with_authority(&certificate(authority)).unwrap();
    let outcome = address.dial(TIME_MAX, |endpoint| endpoint).await;
    accepted.abort();
    outcome
}

/// The fault that a client sees at a server with this certificate and key.
async fn fault(authority: &str, shown: (&str, &str), protocol: &str) -> Option<TlsFault> {
    let acceptor = acceptor(shown, protocol);
    let outcome = dialled(authority, async move |stream| {
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    match outcome.await {
        Ok(_) => None,
        Err(DialError::Tls(fault)) => Some(fault),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pool_is_believed_by_its_authority_and_by_its_name() {
    assert_eq!(fault("ca.pem", ("pool.pem", "pool.key"), "h2").await, None);
    let unknown = fault("self.pem", ("pool.pem", "pool.key"), "h2").await;
    assert_eq!(unknown, Some(TlsFault::UnknownAuthority));
    let named = fault("ca.pem", ("elsewhere.pem", "elsewhere.key"), "h2").await;
    assert_eq!(named, Some(TlsFault::OtherName));
    let old = fault("ca.pem", ("expired.pem", "expired.key"), "h2").await;
    assert_eq!(old, Some(TlsFault::Expired));
    let marked = fault("self.pem", ("self.pem", "self.key"), "h2").await;
    assert_eq!(marked, Some(TlsFault::AuthorityAsServer));
    let own = fault("own.pem", ("own.pem", "own.key"), "h2").await;
    assert_eq!(own, None);
    let web = fault("ca.pem", ("pool.pem", "pool.key"), "http/1.1").await;
    // The server refuses, since it has nothing to speak with us.
    assert!(matches!(web, Some(TlsFault::Handshake(_))), "{web:?}");
}

#[tokio::test]
async fn an_address_is_not_vouched_for_by_this_machine_alone() {
    let address = PoolAddress::new("https://localhost:1");
    // Nobody listens; what the machine trusts, if it trusts anybody, has been read before that shows.
    let error = address.dial(TIME_MAX, |e| e).await.unwrap_err();
    let reason = error.to_string();
    assert!(
        matches!(
            error,
            DialError::Unreachable(_) | DialError::Tls(TlsFault::NoRoots)
        ),
        "{reason}"
    );
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_one_that_hangs_up_or_is_silent() {
    let plain = dialled("ca.pem", async |mut stream| {
        stream.read_u8().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(plain.await.unwrap_err(), TlsFault::NotSpoken.into());
    // As a pool that is just stopping does: worth another try.
    let gone = dialled("ca.pem", async |stream| drop(stream)).await;
    assert!(matches!(gone, Err(DialError::Unreachable(_))), "{gone:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = PoolAddress::new(&format!("https://{}", listener.local_addr().unwrap()));
    let address = address.with_authority(&certificate("ca.pem")).unwrap();
    let silent = address.dial(Duration::from_millis(100), |e| e).await;
    assert!(
        matches!(silent, Err(DialError::Unreachable(_))),
        "{silent:?}"
    );
}

#[test]
fn addresses_may_lack_a_scheme_but_not_a_host() {
    assert_eq!(PoolAddress::new("127.0.0.1:1").url(), "http://127.0.0.1:1");
    assert_eq!(PoolAddress::new(" https://pool:1 ").url(), "https://pool:1");
    assert!(PoolAddress::new("https://pool").endpoint().is_ok());
    for bad in ["", "http://", "https://", "ftp://x", "http://a b"] {
        let refused = PoolAddress::new(bad).endpoint();
        assert!(matches!(refused, Err(DialError::Address(_))), "{bad}");
    }
}

#[test]
fn what_others_may_read_on_the_way_is_known() {
    for (url, is_readable) in [
        ("127.0.0.1:1", false),
        ("http://localhost:1", false),
        ("http://[::1]:1", false),
        ("https://pool.example", false),
        ("http://pool.example", true),
        ("192.0.2.1:50051", true),
        ("http://localhost.example", true),
        ("http://[2001:db8::1]:1", true),
    ] {
        assert_eq!(
            PoolAddress::new(url).is_readable_on_the_way(),
            is_readable,
            "{url}"
        );
    }
}

#[test]
fn an_authority_is_a_file_with_certificates() {
    let named = |file: &Path| PoolAddress::new("https://pool").with_authority(file);
    assert!(named(&certificate("ca.pem")).is_ok());
    for wrong in ["pool.key", "make.sh", "nowhere.pem"] {
        let refused = named(&certificate(wrong)).unwrap_err().to_string();
        assert!(refused.contains(wrong), "{refused}");
    }
}
