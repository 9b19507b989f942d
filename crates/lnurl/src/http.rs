//! GET over HTTPS, from hosts that strangers name: one connection for each request, HTTP/1.1, no cookies, no compression,
//! nothing kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use crate::LnurlOptions;
use crate::hosts::{Resolve, allowed};
use crate::places::Places;

/// The longest answer: an LNURL's metadata may hold a small picture.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest address of a page.
const URL_BYTES_MAX: usize = 4_096;
/// An answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// How often one answer may lead to another place. Wallets' names often lead to `www` in front of them.
const REDIRECTS_MAX: usize = 3;
/// The time for a connection to one address of a host.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);

/// Why a page could not be read. Nothing of what the host said is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Too many are asking; nobody has been asked.
    #[error("no place became free in time")]
    Busy,
    /// Not a place that is asked.
    #[error("it leads to what is no https:// address of a named host")]
    Url,
    /// A name without an address, or with one of somebody's own network.
    #[error("its host has no address, or one that is not of the public Internet")]
    Host,
    /// Nobody is there, or not whom the certificate names.
    #[error("its host cannot be connected to, or shows no certificate that is trusted")]
    Connection,
    /// Not HTTP.
    #[error("its host does not speak HTTP/1.1, or hung up")]
    Protocol,
    /// Another status than 200.
    #[error("its host answers with status {0}")]
    Status(u16),
    /// Over the bound.
    #[error("its host answers with more than {ANSWER_BYTES_MAX} bytes")]
    Long,
    /// From place to place.
    #[error("its host leads from place to place")]
    Redirects,
    /// Too slow.
    #[error("its host did not answer in time")]
    Late,
}

/// The file of extra certificates is none.
#[derive(Debug, thiserror::Error)]
#[error("{path}: it is no PEM file with certificates")]
pub struct RootsError {
    /// The file.
    pub path: PathBuf,
}

pub(crate) struct Http {
    tls: TlsConnector,
    resolve: Resolve,
    allow_private_hosts: bool,
    places: Places,
    time_max: Duration,
}

enum Answer {
    Body(Bytes),
    Elsewhere(Url),
}

impl Http {
    pub(crate) fn new(options: LnurlOptions) -> Result<Self, RootsError> {
        let roots = roots(options.extra_roots)?;
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            resolve: options.resolve,
            allow_private_hosts: options.allow_private_hosts,
            places: Places::new(options.places_max, options.places_per_host_max),
            time_max: options.time_max,
        })
    }

    /// The page at `url`, or at the place it leads to.
    pub(crate) async fn get(&self, url: Url) -> Result<Bytes, HttpError> {
        let mut url = url;
        for _ in 0..=REDIRECTS_MAX {
            let host = host_of(&url)?;
            let place = timeout(self.time_max, self.places.take(&host)).await;
            let _place = place.ok().flatten().ok_or(HttpError::Busy)?;
            let answer = timeout(self.time_max, self.ask(&host, &url)).await;
            match answer.map_err(|_| HttpError::Late)?? {
                Answer::Body(body) => return Ok(body),
                Answer::Elsewhere(next) => url = next,
            }
        }
        Err(HttpError::Redirects)
    }

    async fn ask(&self, host: &str, url: &Url) -> Result<Answer, HttpError> {
        let stream = self.connect(host, url).await?;
        let request = request(host, url)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| HttpError::Protocol)?;
        let exchange = async {
            let response = sender.send_request(request).await;
            read(url, response.map_err(|_| HttpError::Protocol)?).await
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // What was read before the host hung up is still handed over.
            _ = connection => exchange.await,
        }
    }

    async fn connect(&self, host: &str, url: &Url) -> Result<TlsStream<TcpStream>, HttpError> {
        let port = url.port_or_known_default().ok_or(HttpError::Url)?;
        let found = self.resolve.addresses(host, port).await;
        let found = found.map_err(|_| HttpError::Host)?;
        let addresses = allowed(&found, self.allow_private_hosts).ok_or(HttpError::Host)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpError::Url)?;
        for address in addresses {
            if let Ok(Ok(stream)) = timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
                let stream = self.tls.connect(name, stream).await;
                return stream.map_err(|_| HttpError::Connection);
            }
        }
        Err(HttpError::Connection)
    }
}

/// The host, if it is one that has a name and is asked over HTTPS.
fn host_of(url: &Url) -> Result<String, HttpError> {
    let is_plain = url.username().is_empty() && url.password().is_none();
    let is_short = url.as_str().len() <= URL_BYTES_MAX;
    match url.host() {
        Some(Host::Domain(host)) if url.scheme() == "https" && is_plain && is_short => {
            Ok(host.to_owned())
        }
        _ => Err(HttpError::Url),
    }
}

fn request(host: &str, url: &Url) -> Result<Request<Empty<Bytes>>, HttpError> {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, "dovetail")
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| HttpError::Url)
}

async fn read(url: &Url, response: Response<hyper::body::Incoming>) -> Result<Answer, HttpError> {
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        return next.map(Answer::Elsewhere).ok_or(HttpError::Url);
    }
    if status != StatusCode::OK {
        return Err(HttpError::Status(status.as_u16()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    match body.collect().await {
        Ok(body) => Ok(Answer::Body(body.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(HttpError::Long),
        Err(_) => Err(HttpError::Protocol),
    }
}

/// What the machine trusts, which its distribution keeps up to date, and what is given besides.
fn roots(extra: Option<PathBuf>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "some of this machine's certificates cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = extra {
        let refused = || RootsError { path: path.clone() };
        let read = CertificateDer::pem_file_iter(&path).map_err(|_| refused())?;
        let before = roots.len();
        for certificate in read {
            let certificate = certificate.map_err(|_| refused())?;
            roots.add(certificate).map_err(|_| refused())?;
        }
        if roots.len() == before {
            return Err(refused());
        }
    }
    if roots.is_empty() {
        tracing::warn!(
            "this machine trusts no certificates, so no Lightning address can be paid: install the package ca-certificates"
        );
    }
    Ok(roots)
}
