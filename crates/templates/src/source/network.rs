//! Whether a source is of the network that it should be of: what a node says, and what a block's target shows.

use std::path::Path;
use std::time::Duration;

use bitcoin::{CompactTarget, Network, Target};

use super::node_info::{NodeInfo, node_info};
use crate::error::{TemplateError, Unreachable};

/// How often a node is asked what it is before the attempt to connect to it counts as failed, and the pause in between.
/// While it starts it may not answer.
const QUESTIONS_MAX: u32 = 3;
const QUESTION_PAUSE: Duration = Duration::from_millis(500);

/// Asks the node a few times: one that has just started may not answer the first.
pub(crate) async fn ask(socket: &Path) -> Result<NodeInfo, TemplateError> {
    for _ in 1..QUESTIONS_MAX {
        if let Ok(info) = node_info(socket.to_owned()).await {
            return Ok(info);
        }
        tokio::time::sleep(QUESTION_PAUSE).await;
    }
    node_info(socket.to_owned()).await
}

/// Asks the node behind this socket whether it is of this network. What it does not say is no reason to refuse it.
///
/// # Errors
/// [`TemplateError::WrongNetwork`]; [`TemplateError::Unreachable`] if it does not answer. Every node that gives templates
/// answers, so it is worth another attempt.
pub(super) async fn check_node(socket: &Path, configured: Network) -> Result<(), TemplateError> {
    let info = ask(socket).await.map_err(|error| {
        let place = socket.display().to_string();
        let reason = format!("the node does not say its network yet ({error})");
        TemplateError::from(Unreachable::other(&place, reason))
    })?;
    match info.network {
        Some(network) => compare(configured, network),
        // All that it said is that it is a test network.
        None if configured == Network::Bitcoin => {
            Err(wrong(configured, "the node is on a test network"))
        }
        None => Ok(()),
    }
}

/// Whether the network that a source says is the right one.
pub(super) fn compare(configured: Network, node: Network) -> Result<(), TemplateError> {
    match node == configured {
        true => Ok(()),
        false => Err(wrong(configured, &format!("the node is on {node}"))),
    }
}

fn wrong(configured: Network, node: &str) -> TemplateError {
    TemplateError::WrongNetwork {
        configured,
        node: node.to_owned(),
    }
}

/// The easiest target of each network's blocks.
fn target_max(network: Network) -> Target {
    match network {
        Network::Bitcoin | Network::Testnet | Network::Testnet4 => Target::MAX_ATTAINABLE_MAINNET,
        Network::Signet => Target::MAX_ATTAINABLE_SIGNET,
        Network::Regtest => Target::MAX_ATTAINABLE_REGTEST,
    }
}

/// Whether a block with this compact target can be of `network` at all. An easier block than the network allows cannot;
/// and one that is as hard as mainnet's easiest is not of a regtest, where blocks are to be had for the asking.
pub(super) fn compare_target(network: Network, nbits: u32) -> Result<(), TemplateError> {
    let target = Target::from_compact(CompactTarget::from_consensus(nbits));
    let is_too_easy = target > target_max(network);
    let is_too_hard = network == Network::Regtest && target < Target::MAX_ATTAINABLE_MAINNET;
    match is_too_easy || is_too_hard {
        false => Ok(()),
        true => Err(wrong(
            network,
            &format!("the template source's blocks have the target {nbits:08x}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_a_network_cannot_have_is_told() {
        for (network, nbits, fits) in [
            (Network::Bitcoin, 0x1e00_ffff, false),
            (Network::Testnet4, 0x1e00_ffff, false),
            (Network::Regtest, 0x1e00_ffff, true),
            (Network::Bitcoin, 0x1900_ffff, true),
            (Network::Regtest, 0x1900_ffff, false),
            (Network::Signet, 0x1e03_77ae, true),
            (Network::Signet, 0x207f_ffff, false),
        ] {
            let compared = compare_target(network, nbits);
            assert_eq!(compared.is_ok(), fits, "{network} {nbits:08x}");
        }
    }

    #[test]
    fn a_network_that_a_node_says_is_the_configured_one_or_wrong() {
        assert!(compare(Network::Signet, Network::Signet).is_ok());
        let wrong = compare(Network::Signet, Network::Regtest).unwrap_err();
        let words = "network = \"signet\" is configured, but the node is on regtest";
        assert_eq!(wrong.to_string(), words);
    }
}
