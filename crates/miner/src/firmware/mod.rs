//! The Sv2 mining server for the miner's own firmware. Devices get the [`CurrentJob`], so they hash the very jobs that
//! carry batches.
//!
//! Each connection is a task that owns its channels. Shares are judged here and handed to their
//! job's owner; a connection that misbehaves or does not keep up ends alone.

mod channel;
mod connection;
mod lifecycle;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use dovetail_sv2::connection::PAYLOAD_BYTES_DEFAULT;
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, mining_flags};
use dovetail_sv2::{AuthorityKeys, PlaceLimits, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::current_job::CurrentJob;
use crate::stats;
use seen::{SeenBudget, SharesSeen};

/// What devices may do.
#[derive(Debug, Clone)]
pub struct FirmwareOptions {
    /// How many may be connected at once.
    pub connections_max: usize,
    /// How many channels one connection may open.
    pub channels_per_connection_max: usize,
    /// What vardiff steers each channel to. Difficulty exceeds what the upstream asks only where that is a flood.
    pub shares_per_minute: f32,
    /// The least hash rate that is assumed of a device, in h/s.
    pub min_hash_rate: f32,
    /// The least time between two jobs on one tip. A new tip waits only if another came a moment before.
    pub job_interval: Duration,
}

/// How long the certificate of one connection holds.
const CERTIFICATE_TIME: Duration = Duration::from_secs(3_600);
/// Frames that may wait for one connection. The longest burst is a job, a tip and a target for
/// each of its channels.
const OUTBOX_MAX: usize = 512;

/// Serves firmware until `shutdown`, and returns once every connection has ended.
pub async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    options: FirmwareOptions,
    current_job: Arc<CurrentJob>,
    shutdown: CancellationToken,
) {
    let server = Server {
        keys,
        certificate_validity: CERTIFICATE_TIME,
        policy: ServerPolicy {
            protocol: SetupProtocol::MiningProtocol,
            supported_flags: mining_flags::REQUIRES_STANDARD_JOBS
                | mining_flags::REQUIRES_VERSION_ROLLING,
            required_flags: 0,
            success_flags: |_| 0,
        },
        places: PlaceLimits::total(options.connections_max),
        outbox_max: OUTBOX_MAX,
        payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
    };
    let options = Arc::new(options);
    let budget = Arc::new(SeenBudget::new());
    let connections = TaskTracker::new();
    let serve = move |client| {
        let (options, current_job) = (options.clone(), current_job.clone());
        let seen = SharesSeen::new(budget.clone());
        async move {
            let stats = current_job.stats().clone();
            stats::count(&stats.connections);
            connection::serve(client, options, current_job, seen).await;
            stats::uncount(&stats.connections);
        }
    };
    server.run(listener, &connections, &shutdown, serve).await;
    connections.close();
    connections.wait().await;
}
