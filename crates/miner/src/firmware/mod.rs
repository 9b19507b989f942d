//! The Sv2 mining server for the miner's own firmware: what it hashes is what stands on the
//! [`Board`], so it hashes the very jobs that bear this worker's inference.
//!
//! Each connection is a task that owns its channels. Shares are judged here and handed to their
//! job's owner; a connection that misbehaves or does not keep up ends alone.

mod channel;
mod connection;
mod open;

use std::sync::Arc;
use std::time::Duration;

use dovetail_sv2::{AuthorityKeys, Listener, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::board::Board;
use crate::config::Downstream;
use crate::stats::Stats;

/// How long the certificate of one connection holds.
const CERTIFICATE_TIME: Duration = Duration::from_secs(3_600);

/// Serves firmware until `shutdown`, and returns once every connection has ended.
pub async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    config: Downstream,
    board: Arc<Board>,
    shutdown: CancellationToken,
) {
    let listener = Listener::new(listener, config.connections_max);
    let (keys, config) = (Arc::new(keys), Arc::new(config));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = listener.next(&shutdown).await {
        let (keys, config, board) = (keys.clone(), config.clone(), board.clone());
        let token = shutdown.child_token();
        connections.spawn(async move {
            let stats = board.stats().clone();
            Stats::count(&stats.connections);
            handshake(stream, &keys, &config, board, token).await;
            Stats::uncount(&stats.connections);
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn handshake(
    stream: TcpStream,
    keys: &AuthorityKeys,
    config: &Downstream,
    board: Arc<Board>,
    token: CancellationToken,
) {
    let accepted = tokio::select! {
        () = token.cancelled() => return,
        accepted = accept(stream, keys, CERTIFICATE_TIME) => accepted,
    };
    match accepted {
        Ok((reader, writer)) => {
            Box::pin(connection::serve(reader, writer, config, board, token)).await;
        }
        Err(error) => tracing::debug!(%error, "a handshake failed"),
    }
}
