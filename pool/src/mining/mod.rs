//! The Sv2 mining port: who may connect, and one task for each who does.

mod batch_jobs;
mod channels;
mod connection;
mod custom_jobs;
mod extension;
mod fields;
mod shares;
mod template_jobs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dovetail_sv2::connection::PAYLOAD_BYTES_DEFAULT;
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, mining_flags};
use dovetail_sv2::{AuthorityKeys, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// How many frames may wait for one miner. The longest burst of a healthy one is a job and a tip
/// for each of its channels.
const OUTBOX_MAX: usize = 1_024;
/// What miners may ask for.
const POLICY: ServerPolicy = ServerPolicy {
    protocol: SetupProtocol::MiningProtocol,
    supported_flags: mining_flags::REQUIRES_STANDARD_JOBS
        | mining_flags::REQUIRES_WORK_SELECTION
        | mining_flags::REQUIRES_VERSION_ROLLING,
    required_flags: 0,
    success_flags,
};

/// What the pool insists on towards a miner with these flags. Whoever sends custom jobs sends them on extended channels,
/// so it is refused standard ones (5.3.1).
fn success_flags(client_flags: u32) -> u32 {
    match client_flags & mining_flags::REQUIRES_WORK_SELECTION {
        0 => 0,
        _ => mining_flags::REQUIRES_EXTENDED_CHANNELS,
    }
}

/// Accepts miners until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    let config = &shared.config.mining;
    let server = Server {
        keys,
        certificate_validity: Duration::from_secs(config.cert_validity_s),
        policy: POLICY,
        places: config.places(),
        outbox_max: OUTBOX_MAX,
        payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
    };
    let connections = shared.tracker.clone();
    let next_id = Arc::new(AtomicU64::new(1));
    let serve = move |client| {
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        connection::serve(id, Arc::clone(&shared), client)
    };
    server.run(listener, &connections, &shutdown, serve).await;
}
