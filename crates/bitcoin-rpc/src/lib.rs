//! JSON-RPC to a Bitcoin node, as Bitcoin Core serves it: one call, one connection, bounded in time and size. It knows no
//! method: what is asked, and what an answer means, is the caller's affair.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// `user:password`; a cookie has 75 bytes.
const COOKIE_BYTES_MAX: u64 = 1_024;

/// How the node knows its caller.
#[derive(Clone)]
pub enum Credentials {
    /// The node's own `.cookie`, or any file with `user:password`. It is read for each call: a node makes another one at each
    /// start.
    CookieFile(PathBuf),
    /// `user:password`.
    UserPassword(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// What one call may take.
#[derive(Debug, Clone, Copy)]
pub struct CallBounds {
    /// How long the node may take to answer.
    pub time_max: Duration,
    /// How long its answer may be.
    pub answer_bytes_max: usize,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nothing can be connected to, or the cookie file cannot be read. Worth a retry.
    #[error("{place} cannot be reached: {source}")]
    Unreachable {
        /// The address or the file.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// What answers there cannot be spoken with, or does not let us in.
    #[error("{place} cannot be used: {reason}")]
    Unusable {
        /// The address.
        place: String,
        /// Why.
        reason: String,
    },
    /// It did not answer in time. It may have done what it was asked.
    #[error("{0} did not answer in time")]
    TimeOut(String),
    /// The node says no. Its codes are those of Bitcoin Core's `rpc/protocol.h`.
    #[error("the node says: {message} (code {code})")]
    Refused {
        /// Which error.
        code: i64,
        /// The node's words.
        message: String,
    },
}

/// A node's RPC. Clones are the same one; the node need not be there yet.
#[derive(Debug, Clone)]
pub struct RpcClient {
    address: String,
    credentials: Credentials,
}

impl RpcClient {
    /// The RPC at `address`, `host:port`.
    pub fn new(address: String, credentials: Credentials) -> Self {
        Self {
            address,
            credentials,
        }
    }

    /// Where the node listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One call; returns its `result`.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn call(
        &self,
        method: &str,
        params: Value,
        bounds: CallBounds,
    ) -> Result<Value, RpcError> {
        let question = json!({ "jsonrpc": "1.0", "id": 1, "method": method, "params": params });
        let call = self.ask(question.to_string(), bounds.answer_bytes_max);
        let answer = timeout(bounds.time_max, call)
            .await
            .map_err(|_| RpcError::TimeOut(self.address.clone()))??;
        self.result_of(answer)
    }

    fn result_of(&self, mut answer: Value) -> Result<Value, RpcError> {
        let error = &answer["error"];
        if !error.is_null() {
            let message = error["message"].as_str();
            return Err(RpcError::Refused {
                code: error["code"].as_i64().unwrap_or_default(),
                message: message.unwrap_or("an error without words").to_owned(),
            });
        }
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(self.unusable("its answer is not understood")),
        }
    }

    async fn ask(&self, question: String, answer_bytes_max: usize) -> Result<Value, RpcError> {
        let user_password = match &self.credentials {
            Credentials::CookieFile(path) => read_cookie(path).await?,
            Credentials::UserPassword(text) => text.clone(),
        };
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.map_err(|source| RpcError::Unreachable {
            place: self.address.clone(),
            source,
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unusable(error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::post("/")
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", STANDARD.encode(user_password.trim())),
            )
            .body(Full::new(Bytes::from(question)))
            .map_err(|error| self.unusable(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unusable(error))?;
        if let StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN = response.status() {
            let reason = match &self.credentials {
                Credentials::CookieFile(_) => {
                    "it does not take what cookie_file holds, or not from this address"
                }
                Credentials::UserPassword(_) => {
                    "it does not take this user and password, or not from this address"
                }
            };
            return Err(self.unusable(reason));
        }
        let body = Limited::new(response.into_body(), answer_bytes_max);
        let body = body.collect().await.map_err(|error| self.unusable(error))?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|_| self.unusable("its answer is not JSON-RPC"))
    }

    fn unusable(&self, reason: impl fmt::Display) -> RpcError {
        RpcError::Unusable {
            place: self.address.clone(),
            reason: reason.to_string(),
        }
    }
}

async fn read_cookie(path: &Path) -> Result<String, RpcError> {
    use tokio::io::AsyncReadExt;
    let read = async {
        let mut cookie = String::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(COOKIE_BYTES_MAX)
            .read_to_string(&mut cookie)
            .await?;
        Ok(cookie)
    };
    read.await.map_err(|source| RpcError::Unreachable {
        place: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A node that answers one call with these bytes; what it was asked comes back.
    async fn node(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"}") {
                let mut part = [0; 4_096];
                let read = stream.read(&mut part).await.unwrap();
                asked.extend_from_slice(&part[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (address, served)
    }

    fn cookie() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"__cookie__:secret\n").unwrap();
        file
    }

    async fn call(address: &str, cookie: &Path) -> Result<Value, RpcError> {
        let credentials = Credentials::CookieFile(cookie.to_owned());
        let bounds = CallBounds {
            time_max: Duration::from_secs(5),
            answer_bytes_max: 64 * 1024,
        };
        RpcClient::new(address.to_owned(), credentials)
            .call("submitblock", json!(["010203"]), bounds)
            .await
    }

    #[test]
    fn results_errors_and_nonsense_are_told_apart() {
        let client = RpcClient::new("node".into(), Credentials::UserPassword("a:b".into()));
        let said = |text: &str| client.result_of(serde_json::from_str(text).unwrap());
        assert_eq!(
            said(r#"{"result":null,"error":null,"id":1}"#).unwrap(),
            Value::Null
        );
        assert_eq!(said(r#"{"result":7}"#).unwrap(), json!(7));
        let junk = said(r#"{"result":null,"error":{"code":-22,"message":"Block decode failed"}}"#);
        assert!(
            matches!(&junk, Err(RpcError::Refused { code: -22, message }) if message == "Block decode failed"),
            "{junk:?}"
        );
        assert!(matches!(
            said(r#"{"error":{}}"#),
            Err(RpcError::Refused { code: 0, .. })
        ));
        for nonsense in ["{}", "[]", "7", r#"{"error":null}"#] {
            assert!(
                matches!(said(nonsense), Err(RpcError::Unusable { .. })),
                "{nonsense}"
            );
        }
    }

    #[tokio::test]
    async fn a_call_carries_the_cookie_of_the_moment() {
        let cookie = cookie();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{\"result\":null,\"error\":null,\"id\":1}\n";
        let (address, served) = node(answer).await;
        assert_eq!(call(&address, cookie.path()).await.unwrap(), Value::Null);
        let asked = served.await.unwrap();
        assert!(asked.contains("\"010203\""), "{asked}");
        // "__cookie__:secret"
        assert!(asked.contains("Basic X19jb29raWVfXzpzZWNyZXQ="), "{asked}");
    }

    #[tokio::test]
    async fn no_password_is_told_and_no_answer_without_end_is_read() {
        let cookie = cookie();
        let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let (address, _served) = node(answer).await;
        let refused = call(&address, cookie.path()).await.unwrap_err().to_string();
        assert!(refused.contains("cookie_file"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        let absent = call(&address, Path::new("/no/cookie")).await.unwrap_err();
        assert!(absent.to_string().contains("/no/cookie"), "{absent}");
        let answer: &'static str = Box::leak(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
                "x".repeat(100_000)
            )
            .into_boxed_str(),
        );
        let (address, _served) = node(answer).await;
        call(&address, cookie.path()).await.unwrap_err();
        let credentials = Credentials::UserPassword("user:secret".into());
        let shown = format!("{:?}", RpcClient::new(address, credentials));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
