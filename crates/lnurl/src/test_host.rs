//! A host of Lightning addresses on this machine, for tests: `wallet.example` and all names below it, over real HTTPS,
//! with a certificate that only [`roots_file`] vouches for. It says whatever a test has it say.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::LOCATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{LnurlOptions, Resolve};

const CERTIFICATE: &[u8] = include_bytes!("../test-certificates/host.pem");
const KEY: &[u8] = include_bytes!("../test-certificates/host.key");

/// The certificate that signed the host's.
pub fn roots_file() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/test-certificates/ca.pem"
    ))
}

/// What the host answers.
#[derive(Debug, Clone)]
pub struct Page {
    /// HTTP's.
    pub status: u16,
    /// Where a redirection leads.
    pub location: Option<String>,
    /// The rest.
    pub body: Vec<u8>,
    /// How long it takes.
    pub after: Duration,
}

impl Page {
    /// This text, at once.
    pub fn of(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            location: None,
            body: body.into(),
            after: Duration::ZERO,
        }
    }

    /// Leads to another place.
    pub fn elsewhere(location: &str) -> Self {
        Self {
            status: 302,
            location: Some(location.to_owned()),
            ..Self::of("")
        }
    }

    /// What LUD-06 wants to hear first, with this callback and metadata, for up to `max_msat`.
    pub fn pay_request(callback: &str, metadata: &str, max_msat: u64) -> Self {
        let request = serde_json::json!({
            "tag": "payRequest", "callback": callback, "metadata": metadata, "minSendable": 1_000,
            "maxSendable": max_msat,
        });
        Self::of(request.to_string())
    }

    /// And then.
    pub fn invoice(bolt11: &str) -> Self {
        Self::of(serde_json::json!({ "pr": bolt11, "routes": [] }).to_string())
    }
}

/// A request, as the host heard it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which of its names was asked.
    pub host: String,
    /// The path and the query.
    pub path: String,
}

impl Asked {
    /// The amount in a callback's query.
    pub fn amount_msat(&self) -> Option<u64> {
        let (_, query) = self.path.split_once('?')?;
        let amount = |pair: &str| pair.strip_prefix("amount=")?.parse().ok();
        query.split('&').find_map(amount)
    }
}

type Answer = dyn Fn(&Asked) -> Page + Send + Sync;

/// The host, until this is dropped.
pub struct TestHost {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Arc<Answer>>>,
    task: JoinHandle<()>,
}

impl Drop for TestHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestHost {
    /// A host that answers so.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(
        answer: impl Fn(&Asked) -> Page + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = acceptor().map_err(io::Error::other)?;
        let asked = Arc::new(AtomicUsize::new(0));
        let answer: Arc<Mutex<Arc<Answer>>> = Arc::new(Mutex::new(Arc::new(answer)));
        let (count, answers) = (Arc::clone(&asked), Arc::clone(&answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serve(
                    tls.clone(),
                    stream,
                    Arc::clone(&count),
                    Arc::clone(&answers),
                );
                tokio::spawn(serving);
            }
        });
        Ok(Self {
            address,
            asked,
            answer,
            task,
        })
    }

    /// From now on it answers so.
    pub fn answer(&self, answer: impl Fn(&Asked) -> Page + Send + Sync + 'static) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answer);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// What makes a client find it under these names, and trust it.
    pub fn options(&self, names: &[&str]) -> LnurlOptions {
        let known = names.iter().map(|name| ((*name).to_owned(), self.address));
        LnurlOptions {
            allow_private_hosts: true,
            extra_roots: Some(roots_file()),
            resolve: Resolve::Fixed(Arc::new(known.collect::<HashMap<_, _>>())),
            ..LnurlOptions::default()
        }
    }
}

fn acceptor() -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE)?;
    let key = PrivateKeyDer::from_pem_slice(KEY)?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(
    tls: TlsAcceptor,
    stream: TcpStream,
    count: Arc<AtomicUsize>,
    answers: Arc<Mutex<Arc<Answer>>>,
) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(|request: Request<Incoming>| {
        count.fetch_add(1, Ordering::Relaxed);
        let host = request.headers().get(hyper::header::HOST);
        let asked = Asked {
            host: host
                .and_then(|host| host.to_str().ok())
                .unwrap_or("")
                .to_owned(),
            path: request
                .uri()
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
        };
        let answer = Arc::clone(&*answers.lock().unwrap_or_else(PoisonError::into_inner));
        let page = answer(&asked);
        async move {
            tokio::time::sleep(page.after).await;
            let mut response = Response::new(Full::new(Bytes::from(page.body)));
            if let Ok(status) = page.status.try_into() {
                *response.status_mut() = status;
            }
            if let Some(Ok(location)) = page.location.map(TryInto::try_into) {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok::<_, Infallible>(response)
        }
    });
    // Whoever hangs up in the middle is no fault of the host's.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
