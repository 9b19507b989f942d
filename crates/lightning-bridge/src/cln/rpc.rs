//! Core Lightning's JSON-RPC over its Unix socket: one connection per question, an answer ends with an empty line.
//!
//! A crate of the project's own would bring types for all of its commands, which refuse values that a newer node may send, and
//! reads answers of any length. What is needed here are a dozen commands and bounds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::node::NodeError;

/// A list of some thousand channels has some MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The node ends each answer with this, and has it nowhere inside one.
const END: &[u8] = b"\n\n";

/// Where a node listens.
#[derive(Debug)]
pub(crate) struct Rpc {
    socket: PathBuf,
    asked: AtomicU64,
}

#[derive(Deserialize)]
struct Answer {
    id: Value,
    result: Option<Value>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

impl Rpc {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            asked: AtomicU64::new(0),
        }
    }

    /// Asks, and reads what is needed of the result.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
        time_max: Duration,
    ) -> Result<T, NodeError> {
        let result = timeout(time_max, self.exchange(method, params))
            .await
            .map_err(|_| NodeError::Unclear("none in time".to_owned()))??;
        serde_json::from_value(result)
            .map_err(|error| NodeError::Unclear(format!("{method} has another shape: {error}")))
    }

    async fn exchange(&self, method: &str, params: Value) -> Result<Value, NodeError> {
        let id = format!("dovetail:{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let question = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| NodeError::Away(error.to_string()))?;
        let unclear = |error: std::io::Error| NodeError::Unclear(error.to_string());
        let line = format!("{question}\n\n");
        stream.write_all(line.as_bytes()).await.map_err(unclear)?;
        let mut bytes = Vec::new();
        while !bytes.ends_with(END) {
            if bytes.len() >= ANSWER_BYTES_MAX {
                return Err(NodeError::Unclear("too long".to_owned()));
            }
            if stream.read_buf(&mut bytes).await.map_err(unclear)? == 0 {
                return Err(NodeError::Unclear("it ends too early".to_owned()));
            }
        }
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| NodeError::Unclear("no JSON-RPC".to_owned()))?;
        if answer.id != json!(id) {
            return Err(NodeError::Unclear("it is to another question".to_owned()));
        }
        match (answer.result, answer.error) {
            (Some(result), None) => Ok(result),
            (None, Some(error)) => Err(NodeError::Refused {
                code: error.code,
                message: shortened(error.message),
            }),
            _ => Err(NodeError::Unclear(
                "neither a result nor an error".to_owned(),
            )),
        }
    }
}

/// A node's words may quote what it was asked, at length.
fn shortened(mut message: String) -> String {
    const MESSAGE_CHARS_MAX: usize = 300;
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(end);
        message.push_str("..");
    }
    message
}
