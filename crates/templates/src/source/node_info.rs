//! What a Bitcoin Core says of itself over IPC: its network, and how far it is with the chain. Asked at start and while
//! it gives no templates, each time over a connection of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::Network;
use bitcoin_capnp_types::capnp;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::blocks::{Session, new_thread};
use crate::error::TemplateError;

/// Time for the whole exchange.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// The question, as the node's command line would put it.
const QUESTION: &str = r#"{"jsonrpc":"2.0","id":1,"method":"getblockchaininfo","params":[]}"#;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeInfo {
    /// `None` where a node that cannot say it (older than 31) only says that it is a test network.
    pub(crate) network: Option<Network>,
    /// Until it has caught up with the chain it gives no templates.
    pub(crate) is_in_initial_block_download: bool,
    /// Blocks that it has, and headers that it knows of; where it says so.
    pub(crate) heights: Option<(u64, u64)>,
}

/// Asks the node behind this socket.
pub(crate) async fn node_info(socket: PathBuf) -> Result<NodeInfo, TemplateError> {
    let (reply, answer) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| TemplateError::Config(error.to_string()))?;
    std::thread::Builder::new()
        .name("bitcoin-core-info".into())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            // Inside the block: a timer is made in the context of its runtime.
            let asked = local.block_on(&runtime, async {
                timeout(ANSWER_TIME_MAX, ask(&socket)).await
            });
            let _ = reply.send(match asked {
                Ok(Ok(info)) => Ok(info),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "Bitcoin Core does not say what it is");
                    Err(TemplateError::Unavailable)
                }
                Err(_) => Err(TemplateError::TimeOut),
            });
        })
        .map_err(|error| TemplateError::Config(error.to_string()))?;
    answer.await.map_err(|_| TemplateError::Unavailable)?
}

async fn ask(socket: &Path) -> Result<NodeInfo, capnp::Error> {
    let session = Session::connect(socket).await?;
    match chain_info(&session).await {
        Err(error) if error.kind == capnp::ErrorKind::Unimplemented => mining_info(&session).await,
        answered => answered,
    }
}

async fn chain_info(session: &Session) -> Result<NodeInfo, capnp::Error> {
    let text = session.rpc(QUESTION).await?;
    parse(&text).ok_or_else(|| capnp::Error::failed(format!("not understood: {text}")))
}

/// The two questions that every version answers.
async fn mining_info(session: &Session) -> Result<NodeInfo, capnp::Error> {
    let mut request = session.mining.is_test_chain_request();
    let thread = new_thread(&session.threads).await?;
    request.get().get_context()?.set_thread(thread);
    let is_test = request.send().promise.await?.get()?.get_result();
    let mut request = session.mining.is_initial_block_download_request();
    let thread = new_thread(&session.threads).await?;
    request.get().get_context()?.set_thread(thread);
    let is_in_initial_block_download = request.send().promise.await?.get()?.get_result();
    Ok(NodeInfo {
        network: (!is_test).then_some(Network::Bitcoin),
        is_in_initial_block_download,
        heights: None,
    })
}

fn parse(text: &str) -> Option<NodeInfo> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    let result = &answer["result"];
    let network = Network::from_core_arg(result["chain"].as_str()?).ok()?;
    Some(NodeInfo {
        network: Some(network),
        is_in_initial_block_download: result["initialblockdownload"].as_bool()?,
        heights: result["blocks"].as_u64().zip(result["headers"].as_u64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_answer_is_understood_and_anything_else_is_not() {
        let text = r#"{"jsonrpc":"2.0","id":1,"result":{"chain":"signet","blocks":3,"headers":9,"initialblockdownload":true}}"#;
        let info = NodeInfo {
            network: Some(Network::Signet),
            is_in_initial_block_download: true,
            heights: Some((3, 9)),
        };
        assert_eq!(parse(text), Some(info));
        let main = parse(&text.replace("signet", "main")).unwrap();
        assert_eq!(main.network, Some(Network::Bitcoin));
        for text in [
            "",
            "[]",
            "{\"result\":null}",
            &text.replace("signet", "moon"),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
