//! A client's connection to a pool's API, over TLS where the address says `https://`: who has to vouch for the pool, and what a
//! failure means to a person. Agents and workers share it.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

use crate::words;

/// Where a pool's API is, and who has to vouch for it: whom this machine trusts, or one authority that is named. What is wrong with
/// an address is told when it is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolAddress {
    /// With its scheme.
    url: String,
    /// The authority's certificates, as PEM.
    authority: Option<Arc<[u8]>>,
}

/// A file that was to name an authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} holds no certificates that can vouch for a pool (PEM)")]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The address cannot be used.
    #[error("{0}")]
    Address(String),
    /// Nobody answers there, in the transport's own words.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody answers, and it is not safe to go on, or not possible in this way.
    #[error(transparent)]
    Tls(#[from] TlsFault),
}

/// What is wrong between a client and a pool of which one speaks TLS, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The certificate's authority is unknown.
    #[error(
        "nobody who is trusted here has signed its certificate; if the pool has an authority of its own, name that one's file"
    )]
    UnknownAuthority,
    /// A certificate for somebody else.
    #[error("its certificate is for another name; use the host name that it is for")]
    OtherName,
    /// It was valid once.
    #[error("its certificate has expired; its operator has to renew it")]
    Expired,
    /// It will be valid.
    #[error("its certificate is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// A server's certificate must not be one that can sign others.
    #[error(
        "its certificate is marked as an authority's (CA:TRUE), which no server may show; its operator has to make another one"
    )]
    AuthorityAsServer,
    /// The certificate is wrong in another way, or the handshake failed, in rustls's words.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// `https://` where no TLS is spoken.
    #[error("no TLS is spoken there; the address of a pool without TLS begins with http://")]
    NotSpoken,
    /// `http://` where TLS is spoken.
    #[error("nothing but TLS is spoken there; write https:// in place of http://")]
    Needed,
    /// A server of something else than gRPC, or a proxy that is set up for HTTP/1.1 alone.
    #[error("TLS is spoken there, but without HTTP/2 (ALPN h2), which gRPC needs")]
    NoHttp2,
    /// Nobody is trusted.
    #[error(
        "this machine trusts no certificates; install the package ca-certificates, or name the file of an authority"
    )]
    NoRoots,
}

impl PoolAddress {
    /// An address such as `https://pool.example:50051`; without a scheme it is one of `http://`.
    pub fn new(url: &str) -> Self {
        let url = url.trim();
        let has_scheme = url.is_empty() || url.contains("://");
        Self {
            url: match has_scheme {
                true => url.to_owned(),
                false => format!("http://{url}"),
            },
            authority: None,
        }
    }

    /// The same address, and whose word counts for it where a file is named: see [`PoolAddress::with_authority`].
    ///
    /// # Errors
    /// [`AuthorityError`]: a file without certificates.
    pub fn vouched_for(url: &str, authority: Option<&Path>) -> Result<Self, AuthorityError> {
        let address = Self::new(url);
        match authority {
            Some(file) => address.with_authority(file),
            None => Ok(address),
        }
    }

    /// The same, vouched for by the certificates in this PEM file and by nobody else. They count over `https://` alone.
    ///
    /// # Errors
    /// [`AuthorityError`]: a file without certificates.
    pub fn with_authority(self, file: &Path) -> Result<Self, AuthorityError> {
        let pem = std::fs::read(file).map_err(|source| AuthorityError::Read {
            path: file.to_owned(),
            source,
        })?;
        if !holds_certificates(&pem) {
            return Err(AuthorityError::NoCertificates {
                path: file.to_owned(),
            });
        }
        Ok(Self {
            authority: Some(pem.into()),
            ..self
        })
    }

    /// As it is dialled.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether others on the way may read what is sent: no TLS, and not to this machine itself.
    pub fn is_readable_on_the_way(&self) -> bool {
        let Ok(uri) = self.url.parse::<Uri>() else {
            return false;
        };
        let host = uri.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = address
            .parse()
            .map_or(host == "localhost", |ip: IpAddr| ip.is_loopback());
        uri.scheme_str() != Some("https") && !is_loopback
    }

    /// Connects, and shakes hands if it is over TLS, each within `time_max`; `tune` sets what else an endpoint has.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(
        &self,
        time_max: Duration,
        tune: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel, DialError> {
        let endpoint = self.endpoint()?.connect_timeout(time_max);
        let endpoint = tune(endpoint);
        let endpoint = match endpoint.uri().scheme_str() {
            Some("https") => {
                let tls = self.tls().timeout(time_max);
                endpoint.tls_config(tls).map_err(|error| failed(&error))?
            }
            _ => endpoint,
        };
        endpoint.connect().await.map_err(|error| failed(&error))
    }

    fn endpoint(&self) -> Result<Endpoint, DialError> {
        let wrong = |reason: &str| DialError::Address(reason.to_owned());
        match self.url.split_once("://") {
            None => return Err(wrong("it is empty")),
            Some(("http" | "https", "")) => return Err(wrong("it names no host")),
            Some(("http" | "https", _)) => {}
            Some(_) => return Err(wrong("it is neither an http:// nor an https:// address")),
        }
        Endpoint::from_shared(self.url.clone()).map_err(|error| wrong(&words_of(&error)))
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new();
        match &self.authority {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        }
    }
}

impl From<&str> for PoolAddress {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<&String> for PoolAddress {
    fn from(url: &String) -> Self {
        Self::new(url)
    }
}

impl From<String> for PoolAddress {
    fn from(url: String) -> Self {
        Self::new(&url)
    }
}

impl From<&Self> for PoolAddress {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl TlsFault {
    /// What was wrong with the connection that a call failed with, where it was this.
    pub fn of_status(status: &Status) -> Option<Self> {
        status.source().and_then(Self::of)
    }

    /// The same of any error of the transport.
    fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let found = if let Some(error) = error.downcast_ref::<rustls::Error>() {
            Self::of_rustls(error)
        } else if let Some(error) = error.downcast_ref::<h2::Error>() {
            let needs_tls = error.reason() == Some(h2::Reason::INADEQUATE_SECURITY);
            (needs_tls && error.is_go_away() && error.is_remote()).then_some(Self::Needed)
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            // Its `source` is that of what it holds.
            error.get_ref().and_then(|inner| Self::of(inner))
        } else {
            // Tonic's own words for these two; their type is private.
            match error.to_string().as_str() {
                "HTTP/2 was not negotiated." => Some(Self::NoHttp2),
                "no native certs found" => Some(Self::NoRoots),
                _ => None,
            }
        };
        found.or_else(|| error.source().and_then(Self::of))
    }

    fn of_rustls(error: &rustls::Error) -> Option<Self> {
        use CertificateError as Wrong;
        Some(match error {
            rustls::Error::InvalidMessage(_) => Self::NotSpoken,
            rustls::Error::InvalidCertificate(wrong) => match wrong {
                Wrong::UnknownIssuer => Self::UnknownAuthority,
                Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => Self::OtherName,
                Wrong::Expired | Wrong::ExpiredContext { .. } => Self::Expired,
                Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => Self::NotYetValid,
                // What webpki calls it; rustls has no word of its own.
                Wrong::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                    Self::AuthorityAsServer
                }
                _ => Self::Handshake(words::message(&error.to_string())),
            },
            _ => Self::Handshake(words::message(&error.to_string())),
        })
    }
}

fn holds_certificates(pem: &[u8]) -> bool {
    let mut roots = RootCertStore::empty();
    let all_are = CertificateDer::pem_slice_iter(pem)
        .all(|certificate| certificate.is_ok_and(|found| roots.add(found).is_ok()));
    all_are && !roots.is_empty()
}

fn failed(error: &(dyn Error + 'static)) -> DialError {
    match TlsFault::of(error) {
        Some(fault) => fault.into(),
        None => DialError::Unreachable(words_of(error)),
    }
}

/// The words at the bottom of a chain of errors: "Connection refused", not "transport error".
fn words_of(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    words::message(&innermost.to_string())
}

#[cfg(test)]
mod tests;
