//! The Sv2 mining port: who may connect, and one task for each who does.

mod acks;
mod batch_jobs;
mod blocks;
mod channel;
mod connection;
mod custom;
mod declared;
mod extension;
mod jobs;
mod open;
mod shares;
mod solved;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dovetail_sv2::{AuthorityKeys, Listener, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Accepts miners until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    let listener = Listener::new(listener, shared.config.mining.connections_max);
    let keys = Arc::new(keys);
    let next_id = AtomicU64::new(1);
    while let Some((stream, place)) = listener.next(&shutdown).await {
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        let (shared, keys, shutdown) = (Arc::clone(&shared), Arc::clone(&keys), shutdown.clone());
        shared.tracker.clone().spawn(async move {
            handshake(id, stream, &keys, shared, shutdown).await;
            drop(place);
        });
    }
}

async fn handshake(
    id: u64,
    stream: TcpStream,
    keys: &AuthorityKeys,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    let validity = Duration::from_secs(shared.config.mining.cert_validity_s);
    match accept(stream, keys, validity).await {
        Ok((reader, writer)) => {
            Box::pin(connection::serve(id, shared, reader, writer, shutdown)).await
        }
        Err(error) => tracing::debug!(id, %error, "a handshake failed"),
    }
}
