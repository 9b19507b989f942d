//! The certificate that the agents' port shows, and its renewal: whoever renews it puts other files in place, by whatever means,
//! and from then on new connections see the new one. A pair that does not fit together changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use dovetail_daemon::Secret;
use dovetail_units::time::unix_now;
use tokio::sync::watch;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig,
};
use tokio_util::sync::CancellationToken;

/// How often the files are read again: it costs next to nothing, and nobody waits long for a renewal.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// A pair that cannot be used is told of from the second look on, since the two files are not replaced at one moment ..
const LOOKS_BEFORE_WARNING: u64 = 2;
/// .. and again after an hour.
const LOOKS_BETWEEN_WARNINGS: u64 = 360;
/// How often a certificate is told of that is about to end: daily.
const LOOKS_BETWEEN_REMINDERS: u64 = 8_640;
/// It is, if so much of its time is left: two weeks of three months. Renewal is due after two thirds of it.
const LAST_PART: u64 = 6;
/// What is spoken inside: gRPC and clients that can, HTTP/2; all others, HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where a certificate and its key lie, both as PEM.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The port's own certificate, and after it those that signed it.
    pub(crate) certificate: PathBuf,
    pub(crate) key: Secret,
}

/// What the port shows now. Clones see renewals.
#[derive(Debug, Clone)]
pub(crate) struct Shown(watch::Receiver<Arc<ServerConfig>>);

/// The task that looks whether the files have changed.
#[derive(Debug)]
pub(crate) struct Renewal {
    files: TlsFiles,
    interval: Duration,
    /// What is shown.
    pair: Pair,
    shown: watch::Sender<Arc<ServerConfig>>,
    refused: Refused,
    looks: u64,
}

/// What could not be used, and how many looks have found it so.
#[derive(Debug, Default)]
struct Refused {
    reason: String,
    looks: u64,
}

/// A certificate and its key.
#[derive(Debug)]
struct Pair {
    /// Of both files.
    digests: [sha256::Hash; 2],
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
}

/// In seconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    from: u64,
    to: u64,
}

impl TlsFiles {
    /// Reads both. An error is a sentence that names the key of the configuration, the file and what is wrong with it.
    ///
    /// Nothing of the key is ever told, not even where it is no PEM.
    fn read(&self) -> Result<Pair, String> {
        let file = self.certificate.display();
        let wrong = |what: &str| format!("api.tls_certificate: {file}: {what}");
        let chain_pem = std::fs::read(&self.certificate).map_err(|e| wrong(&e.to_string()))?;
        let key_pem = self.key.read().map_err(|e| format!("api.tls_key: {e}"))?;
        let digests = [chain_pem.as_slice(), key_pem.as_bytes()].map(sha256::Hash::hash);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("it is no PEM file with certificates"))?;
        let Some(own) = chain.first() else {
            return Err(wrong("there is no certificate in it (PEM)"));
        };
        let validity = Validity::of(own);
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(
            |_| "api.tls_key: there is no private key in it (PEM, without a passphrase)",
        )?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    wrong("its first certificate is not the one of api.tls_key")
                }
                // Of the certificate, or of a kind of key that is not known: no word of the key itself.
                other => wrong(&other.to_string()),
            })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Pair {
            digests,
            config: Arc::new(config),
            validity,
        })
    }
}

impl Pair {
    /// A line in the log if it has ended or is about to, or has not begun.
    fn remind(&self, file: &Path) {
        let Some(validity) = self.validity else {
            return;
        };
        let file = file.display();
        match validity.left(unix_now()) {
            Left::Enough => {}
            Left::Little { days } => tracing::warn!(
                "api.tls_certificate: {file} ends in {days} days and has not been renewed yet"
            ),
            Left::Nothing => tracing::warn!(
                "api.tls_certificate: {file} HAS ENDED: clients refuse to connect until it is renewed"
            ),
            Left::NotBegun => {
                tracing::warn!("api.tls_certificate: {file} is not valid yet; is the clock right?");
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Enough,
    Little { days: u64 },
    Nothing,
    NotBegun,
}

impl Validity {
    /// What rustls says of times at which no certificate is valid.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let judged = |seconds| {
            let algorithms = ring::default_provider()
                .signature_verification_algorithms
                .all;
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let roots = RootCertStore::empty();
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], time, algorithms)
        };
        let Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) = judged(0)
        else {
            return None;
        };
        let Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) =
            judged(u64::MAX)
        else {
            return None;
        };
        Some(Self {
            from: not_before.as_secs(),
            to: not_after.as_secs(),
        })
    }

    fn left(self, now: u64) -> Left {
        let whole = self.to.saturating_sub(self.from);
        match self.to.checked_sub(now) {
            None => Left::Nothing,
            Some(_) if now < self.from => Left::NotBegun,
            Some(left) if left < whole / LAST_PART => Left::Little {
                days: left / 86_400,
            },
            Some(_) => Left::Enough,
        }
    }
}

impl Shown {
    /// What a handshake that begins now shows.
    pub(super) fn now(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow())
    }
}

impl Renewal {
    /// Reads the files for the first time, and says in the log if the certificate ends soon.
    ///
    /// # Errors
    /// A sentence that names the key of the configuration, the file and what is wrong with it.
    pub(crate) fn new(files: TlsFiles) -> Result<Self, String> {
        Self::looking_every(files, LOOK_INTERVAL)
    }

    fn looking_every(files: TlsFiles, interval: Duration) -> Result<Self, String> {
        let pair = files.read()?;
        pair.remind(&files.certificate);
        Ok(Self {
            shown: watch::channel(Arc::clone(&pair.config)).0,
            files,
            interval,
            pair,
            refused: Refused::default(),
            looks: 0,
        })
    }

    /// What handshakes show.
    pub(crate) fn shown(&self) -> Shown {
        Shown(self.shown.subscribe())
    }

    /// Follows the files until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            let files = self.files.clone();
            // A folder of another machine may not answer.
            match tokio::task::spawn_blocking(move || files.read()).await {
                Ok(read) => self.take(read),
                Err(error) => {
                    tracing::error!(%error, "cannot look whether api.tls_certificate has changed")
                }
            }
        }
    }

    /// What a look has found.
    fn take(&mut self, read: Result<Pair, String>) {
        let file = self.files.certificate.display();
        self.looks += 1;
        match read {
            Ok(pair) if pair.digests == self.pair.digests => {
                self.refused = Refused::default();
                if self.looks.is_multiple_of(LOOKS_BETWEEN_REMINDERS) {
                    self.pair.remind(&self.files.certificate);
                }
            }
            Ok(pair) => {
                self.refused = Refused::default();
                self.shown.send_replace(Arc::clone(&pair.config));
                self.pair = pair;
                tracing::info!(
                    "api.tls_certificate: {file} has changed; new connections see the new one"
                );
                self.pair.remind(&self.files.certificate);
            }
            Err(reason) if self.refused.is_worth_telling(&reason) => {
                tracing::warn!("{reason}; the port goes on with the certificate that it has")
            }
            Err(_) => {}
        }
    }
}

impl Refused {
    /// Whether it is said now, for this reason.
    fn is_worth_telling(&mut self, reason: &str) -> bool {
        if self.reason != reason {
            *self = Self {
                reason: reason.to_owned(),
                looks: 0,
            };
        }
        self.looks += 1;
        self.looks >= LOOKS_BEFORE_WARNING
            && (self.looks - LOOKS_BEFORE_WARNING).is_multiple_of(LOOKS_BETWEEN_WARNINGS)
    }
}

#[cfg(test)]
pub(super) mod tests;
