//! What a wallet with channels tells its operator.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a node and its money stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its public key.
    pub node_id: String,
    /// Where other nodes connect.
    pub addresses: Vec<String>,
    /// The block up to which it knows the chain.
    pub height: u32,
    /// When it last followed the chain; none since its start.
    pub synced_at_unix: Option<u64>,
    /// All that it has on the chain.
    pub onchain_sat: u64,
    /// What of it can be spent: confirmed, and not kept for closing channels.
    pub onchain_spendable_sat: u64,
    /// What is kept back so that a channel can be closed at any fee.
    pub onchain_reserve_sat: u64,
    /// What comes back from channels that were closed.
    pub closing_sat: u64,
    /// Its channels.
    pub channels: usize,
    /// Those that can be used now.
    pub channels_usable: usize,
    /// What can be paid now.
    pub can_send_msat: u64,
    /// What can be received now.
    pub can_receive_msat: u64,
    /// Payments on their way.
    pub attempts_pending: usize,
    /// Payments that only a person can decide.
    pub attempts_in_review: usize,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub channel: String,
    /// The other node's public key.
    pub node_id: String,
    /// The transaction output that holds it, `txid:index`, once there is one.
    pub funding: Option<String>,
    /// What it holds.
    pub capacity_sat: u64,
    /// What can be sent through it.
    pub can_send_msat: u64,
    /// What can be received through it.
    pub can_receive_msat: u64,
    /// Whether both nodes have seen its funding.
    pub is_ready: bool,
    /// Whether it is ready and the other node is connected.
    pub is_usable: bool,
    /// Whether this node opened it.
    pub is_ours: bool,
    /// What this node takes for each payment that it forwards through it.
    pub base_msat: u32,
    /// What it takes for each million.
    pub parts_per_million: u32,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Where it is.
    pub folder: PathBuf,
    /// Records of payments in it.
    pub attempts: usize,
    /// Channels in its list.
    pub channels: usize,
}
