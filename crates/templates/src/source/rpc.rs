//! Whole blocks over a node's JSON-RPC: `submitblock`, which every Bitcoin Core has, on this machine or another. It
//! gives no templates and checks no block that is yet to be hashed.

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
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::blocks::known_or_refused;
use crate::block_door::{BlockDoor, BlockRequest};
use crate::error::{TemplateError, Unreachable};

/// Time for one call. The node checks a full block in about a second.
const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// An answer to what is asked here is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// `user:password`; a cookie has 75 bytes.
const COOKIE_BYTES_MAX: u64 = 1_024;
/// The node's codes for bytes that are no block, and for a node that is still starting.
const NOT_DECODED: i64 = -22;
const STARTING: i64 = -28;

/// Opens the door to a node's RPC. The node need not be there yet.
pub(super) fn open(
    address: String,
    cookie_file: PathBuf,
    shutdown: CancellationToken,
) -> BlockDoor {
    let (door, queue) = BlockDoor::new();
    let node = RpcNode {
        address,
        cookie_file,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = node.serve(queue) => {}
        }
    });
    door
}

/// Where the node listens, and what it knows us by.
struct RpcNode {
    address: String,
    cookie_file: PathBuf,
}

impl RpcNode {
    async fn serve(&self, mut queue: mpsc::Receiver<BlockRequest>) {
        while let Some(request) = queue.recv().await {
            match request {
                BlockRequest::Submit(block, reply) => {
                    // Whoever asked may have given up; the node has the block all the same.
                    let _ = reply.send(self.submit(&block).await);
                }
                other => other.refuse(),
            }
        }
    }

    async fn submit(&self, block: &[u8]) -> Result<(), TemplateError> {
        let question = json!({
            "jsonrpc": "1.0",
            "id": 1,
            "method": "submitblock",
            "params": [hex::encode(block)],
        });
        let answer = timeout(CALL_TIME_MAX, self.call(question.to_string()))
            .await
            .map_err(|_| TemplateError::TimeOut)??;
        verdict(&answer).map_err(|error| match error {
            Said::Refused(reason) => TemplateError::Refused { reason },
            Said::NotNow(reason) => self.unreachable(reason),
        })
    }

    async fn call(&self, question: String) -> Result<Value, TemplateError> {
        let cookie = read_cookie(&self.cookie_file).await?;
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|error| Unreachable::of(&self.address, &error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::post("/")
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", STANDARD.encode(cookie.trim())),
            )
            .body(Full::new(Bytes::from(question)))
            .map_err(|error| self.unreachable(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unreachable(error))?;
        if let StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN = response.status() {
            return Err(self
                .unreachable("it does not take what cookie_file holds, or not from this address"));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|error| self.unreachable(error))?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|_| self.unreachable("its answer is not JSON-RPC"))
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> TemplateError {
        Unreachable::other(&self.address, reason).into()
    }
}

/// Reads it anew each time: a node makes another one at each start.
async fn read_cookie(path: &Path) -> Result<String, TemplateError> {
    use tokio::io::AsyncReadExt;
    let place = path.display().to_string();
    let read = async {
        let mut cookie = String::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(COOKIE_BYTES_MAX)
            .read_to_string(&mut cookie)
            .await?;
        Ok(cookie)
    };
    read.await
        .map_err(|error: std::io::Error| Unreachable::other(&place, error).into())
}

/// Why a node has not taken a block.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Refused(String),
    NotNow(String),
}

/// What the answer to `submitblock` says.
fn verdict(answer: &Value) -> Result<(), Said> {
    let error = &answer["error"];
    if !error.is_null() {
        let message = error["message"]
            .as_str()
            .unwrap_or("an error without words");
        return Err(match error["code"].as_i64() {
            Some(NOT_DECODED) => Said::Refused(message.to_owned()),
            Some(STARTING) => Said::NotNow(format!("it is starting: {message}")),
            _ => Said::NotNow(message.to_owned()),
        });
    }
    match (&answer["result"], answer.get("result")) {
        (Value::Null, Some(_)) => Ok(()),
        (Value::String(reason), _) => {
            known_or_refused(reason).map_err(|_| Said::Refused(reason.clone()))
        }
        _ => Err(Said::NotNow("its answer is not understood".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_nodes_word_on_a_block_is_understood() {
        let said = |text: &str| verdict(&serde_json::from_str(text).unwrap());
        assert_eq!(said(r#"{"result":null,"error":null,"id":1}"#), Ok(()));
        for known in ["duplicate", "inconclusive", "duplicate-inconclusive"] {
            let answer = format!(r#"{{"result":"{known}","error":null}}"#);
            assert_eq!(said(&answer), Ok(()), "{known}");
        }
        let refused = said(r#"{"result":"high-hash","error":null}"#);
        assert_eq!(refused, Err(Said::Refused("high-hash".into())));
        let junk = said(r#"{"result":null,"error":{"code":-22,"message":"Block decode failed"}}"#);
        assert_eq!(junk, Err(Said::Refused("Block decode failed".into())));
        for later in [
            r#"{"result":null,"error":{"code":-28,"message":"Loading block index"}}"#,
            r#"{"error":{}}"#,
            "{}",
            r#"{"result":7}"#,
            "[]",
        ] {
            assert!(matches!(said(later), Err(Said::NotNow(_))), "{later}");
        }
    }

    /// A node that answers one call with these bytes; what it was asked comes back.
    async fn node(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"]}") && !asked.ends_with(b"}") {
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

    async fn submit(address: &str, cookie: &Path) -> Result<(), TemplateError> {
        let stop = CancellationToken::new();
        let door = open(address.to_owned(), cookie.to_owned(), stop.clone());
        let answer = door.submit(vec![1, 2, 3]).await;
        stop.cancel();
        answer
    }

    #[tokio::test]
    async fn a_block_goes_to_the_node_with_the_cookie_of_the_moment() {
        let cookie = cookie();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{\"result\":null,\"error\":null,\"id\":1}\n";
        let (address, served) = node(answer).await;
        submit(&address, cookie.path()).await.unwrap();
        let asked = served.await.unwrap();
        assert!(asked.contains("\"010203\""), "{asked}");
        // "__cookie__:secret"
        assert!(asked.contains("Basic X19jb29raWVfXzpzZWNyZXQ="), "{asked}");
    }

    #[tokio::test]
    async fn what_keeps_a_block_from_the_node_is_told_apart_and_no_password_is_told() {
        let cookie = cookie();
        let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let (address, _served) = node(answer).await;
        let refused = submit(&address, cookie.path())
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("cookie_file"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        let absent = submit(&address, Path::new("/no/cookie")).await;
        let absent = absent.unwrap_err().to_string();
        assert!(absent.contains("/no/cookie"), "{absent}");
        // An answer without end is not read to its end.
        let answer: &'static str = Box::leak(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
                "x".repeat(100_000)
            )
            .into_boxed_str(),
        );
        let (address, _served) = node(answer).await;
        submit(&address, cookie.path()).await.unwrap_err();
    }
}
