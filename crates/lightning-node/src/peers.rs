//! Connects again to the peers of our channels. LDK does so once a minute; a payment should not wait that long because a peer
//! had not noticed yet that the old connection is dead, and so refused the new one.

use std::sync::Arc;
use std::time::Duration;

use ldk_node::Node;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often peers that are away are tried.
const INTERVAL: Duration = Duration::from_secs(5);

/// Until `shutdown`.
pub(crate) async fn keep_connected(node: Arc<Node>, shutdown: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let peers = node.list_peers();
        let away = peers
            .into_iter()
            .filter(|peer| peer.is_persisted && !peer.is_connected);
        let mut tries = JoinSet::new();
        for peer in away {
            let node = Arc::clone(&node);
            // One that does not answer keeps nobody else waiting.
            tries.spawn_blocking(move || {
                if let Err(error) = node.connect(peer.node_id, peer.address, false) {
                    tracing::debug!(peer = %peer.node_id, %error, "a peer is away");
                }
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tries.join_all() => {}
        }
    }
}
