//! LND's REST interface: HTTP/1.1 over TLS, one connection per question. The node's own certificate is the only one that is
//! trusted, byte for byte; the macaroon goes with each question. Both files are read anew each time, since LND replaces its
//! certificate before it expires.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;

use super::certificate;
use crate::node::NodeError;

/// A list of some thousand channels has some MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long it may take until the node can be asked.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);
/// A macaroon has some hundred bytes.
const MACAROON_BYTES_MAX: usize = 4_096;
const MACAROON: &str = "grpc-metadata-macaroon";

/// Where a node listens, and what it is known by and knows us by.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    /// host:port
    address: String,
    certificate: PathBuf,
    macaroon: PathBuf,
}

/// A stream's line, and what an error is.
#[derive(Deserialize)]
struct Line {
    result: Option<Value>,
    error: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Rest {
    pub(crate) fn new(address: String, certificate: PathBuf, macaroon: PathBuf) -> Self {
        Self {
            address,
            certificate,
            macaroon,
        }
    }

    /// Asks for a value.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        time_max: Duration,
    ) -> Result<T, NodeError> {
        read(self.call(Method::GET, path, None, time_max).await?)
    }

    /// Tells the node something.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        time_max: Duration,
    ) -> Result<T, NodeError> {
        read(self.call(Method::POST, path, Some(body), time_max).await?)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        time_max: Duration,
    ) -> Result<Value, NodeError> {
        let exchange = async {
            let mut stream = self.open(method, path, body).await?;
            let is_good = stream.is_good;
            let bytes = stream.rest().await?;
            match is_good {
                true => {
                    serde_json::from_slice(&bytes).map_err(|_| unclear("it is no JSON, or cut off"))
                }
                false => Err(refused(&bytes)),
            }
        };
        timeout(time_max, exchange)
            .await
            .map_err(|_| unclear("none in time"))?
    }

    /// Asks for a stream, and reads its lines until one of them is what is looked for. Then the stream is left: what the node
    /// does goes on.
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        time_max: Duration,
        is_it: impl Fn(&T) -> bool,
    ) -> Result<T, NodeError> {
        let exchange = async {
            let mut stream = self.open(method, path, body).await?;
            if !stream.is_good {
                return Err(refused(&stream.rest().await?));
            }
            loop {
                let line = stream.line().await?;
                let line: Line = serde_json::from_slice(&line)
                    .map_err(|_| unclear("a line of it is no JSON"))?;
                match (line.result, line.error) {
                    (Some(result), None) => {
                        let found = read(result)?;
                        if is_it(&found) {
                            return Ok(found);
                        }
                    }
                    (None, Some(status)) => return Err(status.refusal()),
                    _ => return Err(unclear("neither a result nor an error")),
                }
            }
        };
        timeout(time_max, exchange)
            .await
            .map_err(|_| unclear("none in time"))?
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Stream, NodeError> {
        let macaroon = read_macaroon(&self.macaroon).map_err(NodeError::Away)?;
        let connected = timeout(CONNECT_TIME_MAX, self.connect()).await;
        let connected = connected.map_err(|_| NodeError::Away("no connection in time".into()))?;
        let (mut sender, connection) = connected.map_err(NodeError::Away)?;
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(MACAROON, macaroon)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| NodeError::Away(error.to_string()))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| unclear(&error.to_string()))?;
        Ok(Stream {
            is_good: response.status().is_success(),
            response,
            buffer: Vec::new(),
            taken: 0,
            _connection: connection,
        })
    }

    async fn connect(
        &self,
    ) -> Result<(http1::SendRequest<Full<Bytes>>, AbortOnDropHandle<()>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let config = certificate::trust_only(&self.certificate)?;
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| text(&error))?;
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|error| text(&error))?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| text(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "LND's connection ended");
            }
        });
        Ok((sender, AbortOnDropHandle::new(task)))
    }
}

/// An answer that comes bit by bit.
struct Stream {
    is_good: bool,
    response: Response<Incoming>,
    buffer: Vec<u8>,
    taken: usize,
    _connection: AbortOnDropHandle<()>,
}

impl Stream {
    /// The next line. A stream that ends without one says nothing.
    async fn line(&mut self) -> Result<Vec<u8>, NodeError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                if !line.is_empty() {
                    return Ok(line);
                }
            } else if !self.more().await? {
                return match self.buffer.is_empty() {
                    true => Err(unclear("the stream ends before it says what is asked")),
                    false => Ok(std::mem::take(&mut self.buffer)),
                };
            }
        }
    }

    async fn rest(&mut self) -> Result<Vec<u8>, NodeError> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    async fn more(&mut self) -> Result<bool, NodeError> {
        let Some(frame) = self.response.body_mut().frame().await else {
            return Ok(false);
        };
        let frame = frame.map_err(|error| unclear(&error.to_string()))?;
        if let Some(bytes) = frame.data_ref() {
            self.taken += bytes.len();
            if self.taken > ANSWER_BYTES_MAX {
                return Err(unclear("too long"));
            }
            self.buffer.extend_from_slice(bytes);
        }
        Ok(true)
    }
}

impl Status {
    fn refusal(self) -> NodeError {
        const MESSAGE_CHARS_MAX: usize = 300;
        NodeError::Refused {
            code: self.code,
            message: self.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        }
    }
}

/// What an HTTP error says: of a stream inside `error`, else as it is.
fn refused(bytes: &[u8]) -> NodeError {
    #[derive(Deserialize)]
    struct Wrapped {
        error: Status,
    }
    if let Ok(Wrapped { error }) = serde_json::from_slice(bytes) {
        return error.refusal();
    }
    match serde_json::from_slice::<Status>(bytes) {
        Ok(status) => status.refusal(),
        Err(_) => unclear("an HTTP error without LND's words"),
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, NodeError> {
    serde_json::from_value(value).map_err(|error| unclear(&format!("of another shape: {error}")))
}

fn unclear(why: &str) -> NodeError {
    NodeError::Unclear(why.to_owned())
}

/// The macaroon as hex. Whoever has it can do with the node what it allows.
fn read_macaroon(file: &Path) -> Result<String, String> {
    if let Some(exposure) = dovetail_daemon::exposure(file) {
        return Err(exposure.to_string());
    }
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match bytes.len() {
        1..=MACAROON_BYTES_MAX => Ok(hex::encode(bytes)),
        _ => Err(format!("{} is no macaroon", file.display())),
    }
}
