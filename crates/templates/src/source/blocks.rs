//! Whole blocks and Bitcoin Core: its check of a block that is yet to be hashed, its submission of one that
//! was, and whether its chain has one. `bitcoin_core_sv2` has none of these, so this is a second IPC connection of our own. It
//! is opened when it is first needed, lives on a thread of its own (its types are not `Send`), and is
//! opened anew after an error.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::consensus::deserialize;
use bitcoin_capnp_types::capnp;
use bitcoin_capnp_types::capnp_rpc::{RpcSystem, rpc_twoparty_capnp, twoparty};
use bitcoin_capnp_types::init_capnp::init;
use bitcoin_capnp_types::mining_capnp::mining;
use bitcoin_capnp_types::proxy_capnp::{thread, thread_map};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::sync::CancellationToken;

use crate::block_door::{BlockDoor, BlockRequest, ChainCoinbase};
use crate::error::TemplateError;

/// Time for the node to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// What the node says of a block that it has, or has and does not build on: it knows it, which is
/// all that a submission wants.
const KNOWN: [&str; 3] = ["duplicate", "inconclusive", "duplicate-inconclusive"];
/// The code of `getblockheader` for a block that the node has never heard of.
const RPC_UNKNOWN_BLOCK: i64 = -5;
/// The code of `getblockhash` for a height that the chain does not have.
const RPC_OUT_OF_RANGE: i64 = -8;

/// Starts the node's thread and returns the door to it. The thread ends with `shutdown`; the node need not be there
/// yet.
pub(super) fn open(
    socket: PathBuf,
    shutdown: CancellationToken,
) -> Result<BlockDoor, TemplateError> {
    let (door, queue) = BlockDoor::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| TemplateError::Config(error.to_string()))?;
    std::thread::Builder::new()
        .name("bitcoin-core-blocks".into())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, serve(&socket, queue, &shutdown));
        })
        .map_err(|error| TemplateError::Config(error.to_string()))?;
    Ok(door)
}

async fn serve(
    socket: &Path,
    mut queue: mpsc::Receiver<BlockRequest>,
    shutdown: &CancellationToken,
) {
    let mut session: Option<Rc<Session>> = None;
    loop {
        let request = tokio::select! {
            () = shutdown.cancelled() => return,
            request = queue.recv() => request,
        };
        let Some(request) = request else { return };
        if session.as_ref().is_none_or(|session| session.lost.get()) {
            session = match timeout(CONNECT_TIME_MAX, Session::connect(socket)).await {
                Ok(Ok(session)) => Some(Rc::new(session)),
                failed => {
                    tracing::warn!(?failed, "no IPC connection to Bitcoin Core for blocks");
                    None
                }
            };
        }
        let Some(session) = session.clone() else {
            request.refuse();
            continue;
        };
        tokio::task::spawn_local(async move { session.answer(request).await });
    }
}

/// One IPC connection.
pub(super) struct Session {
    pub(super) init: init::Client,
    pub(super) threads: thread_map::Client,
    pub(super) mining: mining::Client,
    /// Set by the first error: the next request opens another connection.
    lost: Rc<Cell<bool>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    pub(super) async fn connect(socket: &Path) -> Result<Self, capnp::Error> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| capnp::Error::disconnected(error.to_string()))?;
        let (reader, writer) = stream.into_split();
        let network = twoparty::VatNetwork::new(
            reader.compat(),
            writer.compat_write(),
            rpc_twoparty_capnp::Side::Client,
            capnp::message::ReaderOptions::default(),
        );
        let mut system = RpcSystem::new(Box::new(network), None);
        let init: init::Client = system.bootstrap(rpc_twoparty_capnp::Side::Server);
        let lost = Rc::new(Cell::new(false));
        let ending = Rc::clone(&lost);
        tokio::task::spawn_local(async move {
            let _ = system.await;
            ending.set(true);
        });
        let constructed = init.construct_request().send().promise.await?;
        let threads = constructed.get()?.get_thread_map()?;
        let mut request = init.make_mining_request();
        let thread = new_thread(&threads).await?;
        request.get().get_context()?.set_thread(thread);
        let mining = request.send().promise.await?.get()?.get_result()?;
        Ok(Self {
            init,
            threads,
            mining,
            lost,
        })
    }

    async fn answer(&self, request: BlockRequest) {
        // Whoever asked may have given up.
        match request {
            BlockRequest::Check(block, mut reply) => tokio::select! {
                // Dropping the call tells the node that nobody waits for it.
                () = reply.closed() => {}
                answer = self.check(&block) => drop(reply.send(self.answered(answer))),
            },
            BlockRequest::Submit(block, reply) => {
                drop(reply.send(self.answered(self.submit(&block).await)));
            }
            BlockRequest::IsInChain(block, reply) => {
                drop(reply.send(self.answered(self.is_in_chain(block).await)));
            }
            BlockRequest::Coinbase(height, reply) => {
                drop(reply.send(self.answered(self.coinbase_at(height).await)));
            }
        }
    }

    /// What the asker is told where the node did not answer.
    fn answered<T>(
        &self,
        answer: Result<Result<T, TemplateError>, capnp::Error>,
    ) -> Result<T, TemplateError> {
        answer.unwrap_or_else(|error| {
            if error.kind == capnp::ErrorKind::Unimplemented {
                return Err(TemplateError::Unsupported);
            }
            tracing::warn!(%error, "Bitcoin Core did not answer for a block");
            self.lost.set(true);
            Err(TemplateError::Unavailable)
        })
    }

    /// Asks by the node's own RPC interface, which it has over IPC since version 31.
    pub(super) async fn rpc(&self, question: &str) -> Result<String, capnp::Error> {
        let mut request = self.init.make_rpc_request();
        let thread = new_thread(&self.threads).await?;
        request.get().get_context()?.set_thread(thread);
        let rpc = request.send().promise.await?.get()?.get_result()?;
        let mut request = rpc.execute_rpc_request();
        let thread = new_thread(&self.threads).await?;
        request.get().get_context()?.set_thread(thread);
        request.get().set_request(question);
        request.get().set_uri("/");
        let response = request.send().promise.await?;
        Ok(response.get()?.get_result()?.to_string()?)
    }

    async fn is_in_chain(
        &self,
        block: BlockHash,
    ) -> Result<Result<bool, TemplateError>, capnp::Error> {
        let question =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"getblockheader","params":["{block}"]}}"#);
        let text = self.rpc(&question).await?;
        let known = is_in_chain(&text);
        known
            .map(Ok)
            .ok_or_else(|| capnp::Error::failed(format!("not understood: {text}")))
    }

    async fn coinbase_at(
        &self,
        height: u32,
    ) -> Result<Result<Option<ChainCoinbase>, TemplateError>, capnp::Error> {
        let hash = match self.call("getblockhash", json!([height])).await? {
            Ok(hash) => hash,
            Err(RPC_OUT_OF_RANGE) => return Ok(Ok(None)),
            Err(code) => return Ok(Err(refused(code))),
        };
        // A node that prunes its blocks refuses old ones.
        let block = match self.call("getblock", json!([hash, 1])).await? {
            Ok(block) => block,
            Err(code) => return Ok(Err(refused(code))),
        };
        let txid = &block["tx"][0];
        // With its block's hash, a node without an index of transactions finds it.
        let raw = self.call("getrawtransaction", json!([txid, false, hash]));
        let raw = match raw.await? {
            Ok(raw) => raw,
            Err(code) => return Ok(Err(refused(code))),
        };
        let coinbase = raw.as_str().and_then(|hex| hex::decode(hex).ok());
        let coinbase = coinbase.and_then(|bytes| deserialize(&bytes).ok());
        let block = hash.as_str().and_then(|hash| hash.parse().ok());
        let found = block
            .zip(coinbase)
            .map(|(block, coinbase)| ChainCoinbase { block, coinbase });
        found
            .map(|found| Ok(Some(found)))
            .ok_or_else(|| capnp::Error::failed(format!("block {height} was not understood")))
    }

    /// What the node's own RPC interface answers, or the code of its refusal.
    async fn call(&self, method: &str, params: Value) -> Result<Result<Value, i64>, capnp::Error> {
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let text = self.rpc(&question.to_string()).await?;
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        let answer = answer
            .ok_or_else(|| capnp::Error::failed(format!("the answer to {method} is no JSON")))?;
        Ok(match answer["error"]["code"].as_i64() {
            Some(code) => Err(code),
            None => Ok(answer["result"].clone()),
        })
    }

    async fn check(&self, block: &[u8]) -> Result<Result<(), TemplateError>, capnp::Error> {
        let mut request = self.mining.check_block_request();
        let thread = new_thread(&self.threads).await?;
        request.get().get_context()?.set_thread(thread);
        request.get().set_block(block);
        let mut options = request.get().get_options()?;
        options.set_check_merkle_root(true);
        options.set_check_pow(false);
        let response = request.send().promise.await?;
        let result = response.get()?;
        Ok(match result.get_result() {
            true => Ok(()),
            false => Err(TemplateError::Refused {
                reason: text(result.get_reason()?),
            }),
        })
    }

    async fn submit(&self, block: &[u8]) -> Result<Result<(), TemplateError>, capnp::Error> {
        let mut request = self.mining.submit_block_request();
        let thread = new_thread(&self.threads).await?;
        request.get().get_context()?.set_thread(thread);
        request.get().set_block(block);
        let response = request.send().promise.await?;
        let result = response.get()?;
        if result.get_result() {
            return Ok(Ok(()));
        }
        Ok(known_or_refused(&text(result.get_reason()?)))
    }
}

fn refused(code: i64) -> TemplateError {
    TemplateError::Refused {
        reason: format!("its RPC interface answered {code}"),
    }
}

/// What the node's word on a submitted block means.
pub(super) fn known_or_refused(reason: &str) -> Result<(), TemplateError> {
    match KNOWN.contains(&reason) {
        true => Ok(()),
        false => Err(TemplateError::Refused {
            reason: reason.to_owned(),
        }),
    }
}

/// A thread of the node's for one call: two calls on one thread would refuse each other.
pub(super) async fn new_thread(
    threads: &thread_map::Client,
) -> Result<thread::Client, capnp::Error> {
    let response = threads.make_thread_request().send().promise.await?;
    response.get()?.get_result()
}

fn text(reason: capnp::text::Reader<'_>) -> String {
    reason
        .to_string()
        .unwrap_or_else(|_| "no reason given".into())
}

/// What the node's answer for a block header says; `None` if it is no such answer.
fn is_in_chain(text: &str) -> Option<bool> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    if answer["error"]["code"].as_i64() == Some(RPC_UNKNOWN_BLOCK) {
        return Some(false);
    }
    // A block that another one has replaced has -1 of them.
    let confirmations = answer["result"]["confirmations"].as_i64()?;
    Some(confirmations > 0)
}

#[cfg(test)]
mod tests {
    use super::is_in_chain;

    #[test]
    fn the_nodes_answer_for_a_header_says_whether_its_chain_has_the_block() {
        let of =
            |confirmations: i64| format!(r#"{{"result":{{"confirmations":{confirmations}}}}}"#);
        assert_eq!(is_in_chain(&of(1)), Some(true));
        assert_eq!(is_in_chain(&of(900_000)), Some(true));
        assert_eq!(is_in_chain(&of(-1)), Some(false));
        let unknown = r#"{"error":{"code":-5,"message":"Block not found"}}"#;
        assert_eq!(is_in_chain(unknown), Some(false));
        for text in ["", "[]", r#"{"error":{"code":-28}}"#, r#"{"result":{}}"#] {
            assert_eq!(is_in_chain(text), None, "{text}");
        }
    }
}
