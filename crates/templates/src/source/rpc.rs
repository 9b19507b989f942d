//! Whole blocks over a node's JSON-RPC: `submitblock`, which every Bitcoin Core has, on this machine or another. It
//! gives no templates and checks no block that is yet to be hashed.

use std::path::PathBuf;
use std::time::Duration;

use dovetail_bitcoin_rpc::{CallBounds, Credentials, RpcClient, RpcError};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blocks::known_or_refused;
use crate::block_door::{BlockDoor, BlockRequest};
use crate::error::{TemplateError, Unreachable};

/// The node checks a full block in about a second, and its answer is a few hundred bytes.
const BOUNDS: CallBounds = CallBounds {
    time_max: Duration::from_secs(20),
    answer_bytes_max: 64 * 1024,
};
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
    let node = RpcNode(RpcClient::new(
        address,
        Credentials::CookieFile(cookie_file),
    ));
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = node.serve(queue) => {}
        }
    });
    door
}

struct RpcNode(RpcClient);

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
        let params = json!([hex::encode(block)]);
        let said = self.0.call("submitblock", params, BOUNDS).await;
        verdict(self.0.address(), said)
    }
}

/// What the answer to `submitblock` says.
fn verdict(place: &str, said: Result<Value, RpcError>) -> Result<(), TemplateError> {
    let not_now = |reason: String| TemplateError::from(Unreachable::other(place, reason));
    match said {
        Ok(Value::Null) => Ok(()),
        Ok(Value::String(reason)) => {
            known_or_refused(&reason).map_err(|_| TemplateError::Refused { reason })
        }
        Ok(_) => Err(not_now("its answer is not understood".to_owned())),
        Err(RpcError::Refused { code, message }) => Err(match code {
            NOT_DECODED => TemplateError::Refused { reason: message },
            STARTING => not_now(format!("it is starting: {message}")),
            _ => not_now(message),
        }),
        Err(RpcError::TimeOut(_)) => Err(TemplateError::TimeOut),
        Err(RpcError::Unreachable { place: at, source }) if at == place => {
            Err(Unreachable::of(place, &source).into())
        }
        // The cookie file.
        Err(RpcError::Unreachable { place: at, source }) => {
            Err(Unreachable::other(&at, source).into())
        }
        Err(RpcError::Unusable { reason, .. }) => Err(not_now(reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn refused(code: i64, message: &str) -> Result<Value, RpcError> {
        Err(RpcError::Refused {
            code,
            message: message.to_owned(),
        })
    }

    #[test]
    fn the_nodes_word_on_a_block_is_understood() {
        let said = |answer| verdict("node", answer);
        said(Ok(Value::Null)).unwrap();
        for known in ["duplicate", "inconclusive", "duplicate-inconclusive"] {
            said(Ok(json!(known))).unwrap();
        }
        for (answer, word) in [
            (Ok(json!("high-hash")), "high-hash"),
            (
                refused(NOT_DECODED, "Block decode failed"),
                "Block decode failed",
            ),
        ] {
            let judged = said(answer);
            assert!(
                matches!(&judged, Err(TemplateError::Refused { reason }) if reason == word),
                "{judged:?}"
            );
        }
        for later in [
            refused(STARTING, "Loading block index"),
            refused(0, "an error without words"),
            Ok(json!(7)),
        ] {
            let judged = said(later);
            assert!(
                matches!(judged, Err(TemplateError::Unreachable(_))),
                "{judged:?}"
            );
        }
        let late = said(Err(RpcError::TimeOut("node".to_owned())));
        assert!(matches!(late, Err(TemplateError::TimeOut)), "{late:?}");
    }

    #[tokio::test]
    async fn a_cookie_that_is_not_there_is_named() {
        let stop = CancellationToken::new();
        let cookie = Path::new("/no/cookie").to_owned();
        let door = open("127.0.0.1:1".to_owned(), cookie, stop.clone());
        let absent = door.submit(vec![1, 2, 3]).await.unwrap_err().to_string();
        stop.cancel();
        assert!(absent.contains("/no/cookie"), "{absent}");
    }
}
