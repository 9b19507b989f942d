//! How a bridge reaches a played node, whatever kind it is.

use std::path::Path;
use std::process::Command;

use crate::network::Network;

/// A door to a node of the network.
pub(crate) trait Door: Sized + Send {
    /// Whether it knows offers of BOLT 12.
    const KNOWS_OFFERS: bool;

    /// Opens it for this node.
    async fn open(network: &Network, node: usize, dir: &Path) -> Self;

    /// The bridge's program, told where the door is.
    fn bridge(&self) -> Command;
}

/// A node's public key.
pub(crate) fn node_id(node: usize) -> String {
    format!("02{}", hex::encode([node as u8 + 1; 32]))
}
