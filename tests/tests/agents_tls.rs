//! TLS on the agents' port of a real pool, with a real worker: agents, HTTP clients and workers that fetch models go through it, whoever
//! comes without it is told so, and a renewed certificate is shown without a restart.

#![allow(clippy::unwrap_used)]

use std::fs::{Permissions, set_permissions};
use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_agent::PoolAddress;
use dovetail_tests::program;
use dovetail_tests::scenario::{Options, Scenario};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::{Request, Version};

const TIME_MAX: Duration = Duration::from_secs(60);

/// A file of the certificates that tests have.
fn made(name: &str) -> PathBuf {
    dovetail_tests::root()
        .join("crates/api/test-certificates")
        .join(name)
}

/// Puts this pair where the pool has its own.
fn put(dir: &Path, pair: &str) {
    for ending in ["pem", "key"] {
        let next = dir.join("next");
        std::fs::copy(made(&format!("{pair}.{ending}")), &next).unwrap();
        set_permissions(&next, Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&next, dir.join(format!("live.{ending}"))).unwrap();
    }
}

/// A pool with a worker behind a certificate that lies in `dir`; its address.
fn start(dir: &Path) -> (tempfile::TempDir, Scenario, String) {
    put(dir, "pool");
    let place = |name: &str| &*dir.join(name).to_string_lossy().into_owned().leak();
    let settings = Box::leak(Box::new([
        ("API__TLS_CERTIFICATE", place("live.pem")),
        ("API__TLS_KEY__FILE", place("live.key")),
    ]));
    let options = Options {
        pool_settings: settings,
        ..Options::default()
    };
    let (scenario_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let port = scenario.grpc.rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}");
    (scenario_dir, scenario, url)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The last line, as JSON, of a program that must not fail.
fn json(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// What a program says that must fail.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    words(&output)
}

/// A connection that has shaken hands.
async fn tls(url: &str, protocol: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(made("ca.pem")).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let address = url.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

/// The status of `/healthz` over HTTP/1.1, and over HTTP/2.
async fn health(url: &str) -> (String, u16) {
    let mut stream = tls(url, "http/1.1").await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().next().unwrap_or_default().to_owned();

    let address = PoolAddress::new(url).with_authority(&made("ca.pem"));
    let address = address.unwrap();
    let mut channel = address.dial(TIME_MAX, |e| e).await.unwrap();
    poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context))
        .await
        .unwrap();
    let request = Request::get(format!("{url}/healthz")).body(Body::empty());
    let answer = GrpcService::call(&mut channel, request.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    (line, answer.status().as_u16())
}

#[test]
fn agents_http_clients_and_workers_come_through_tls_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (_dir, scenario, url) = start(dir.path());
    let ca = made("ca.pem");
    let ask = |more: &[&str]| {
        let mut command = scenario.agent();
        command.args(["ask", "--json", "--max-tokens", "8"]);
        command.args(more).args(["--", "a question"]);
        command
    };
    let answer = json(ask(&["--pool", &url]).env("DOVETAIL_CA", &ca));
    assert_eq!(
        answer["output_tokens"].as_array().map(Vec::len),
        Some(8),
        "{answer}"
    );

    // Somebody else's authority, nobody's, another name for the same host, and no TLS at all.
    let stranger = made("self.pem");
    let said = refusal(&mut ask(&[
        "--pool",
        &url,
        "--ca",
        stranger.to_str().unwrap(),
    ]));
    assert!(said.contains("nobody who is trusted here"), "{said}");
    assert!(said.contains("--ca FILE"), "{said}");
    let said = refusal(&mut ask(&["--pool", &url]));
    assert!(said.contains("--ca FILE"), "{said}");
    let other = url.replace("localhost", "0.0.0.0");
    let said = refusal(&mut ask(&["--pool", &other, "--ca", ca.to_str().unwrap()]));
    assert!(said.contains("for another name"), "{said}");
    let plain = url.replace("https://", "http://");
    let said = refusal(&mut ask(&["--pool", &plain]));
    assert!(
        said.contains("write https:// in place of http://"),
        "{said}"
    );

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (over_1, over_2) = runtime.block_on(health(&url));
    assert_eq!((&*over_1, over_2), ("HTTP/1.1 200 OK", 200));

    let models = json(
        scenario
            .agent()
            .args(["models", "--json", "--pool", &url, "--ca"])
            .arg(&ca),
    );
    let name = models[0]["name"].as_str().unwrap();
    let out = dir.path().join("fetched.safetensors");
    let fetch = |authority: &Path| {
        let mut command = Command::new(program("dovetail-worker"));
        command.args(["model", "fetch", "--pool", &url, "--model", name]);
        command.arg("--ca").arg(authority).arg("--out").arg(&out);
        command.output().unwrap()
    };
    let refused = fetch(&stranger);
    assert!(!refused.status.success() && !out.exists());
    assert!(words(&refused).contains("nobody who is trusted here"));
    let fetched = fetch(&ca);
    assert!(
        fetched.status.success() && out.exists(),
        "{}",
        words(&fetched)
    );
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_dir, scenario, url) = start(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shown = || {
        let stream = runtime.block_on(tls(&url, "http/1.1"));
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        chain[0].clone().into_owned()
    };
    let own = |name: &str| CertificateDer::from_pem_file(made(name)).unwrap();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !is_so() {
            assert!(
                begun.elapsed() < TIME_MAX,
                "{what}: {}",
                scenario.pool.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(shown(), own("pool.pem"));
    std::fs::copy(made("renewed.pem"), dir.path().join("live.pem")).unwrap();
    let refused = "the port goes on with the certificate that it has";
    until("a warning", &|| scenario.pool.log().contains(refused));
    assert_eq!(shown(), own("pool.pem"));
    put(dir.path(), "renewed");
    until("the new one", &|| shown() == own("renewed.pem"));
    let secret = std::fs::read_to_string(made("pool.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!scenario.pool.log().contains(secret));
}
