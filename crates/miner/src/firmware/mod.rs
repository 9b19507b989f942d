//! The Sv2 mining server for the miner's own firmware. Devices get the [`CurrentJob`], so they hash the very jobs that
//! carry batches.
//!
//! Each connection is a task that owns its channels. Shares are judged here and handed to their
//! job's owner; a connection that misbehaves or does not keep up ends alone.

mod channel;
mod connection;
mod lifecycle;

use std::sync::Arc;
use std::time::Duration;

use dovetail_sv2::{AuthorityKeys, Listener, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::current_job::CurrentJob;
use crate::stats;

/// What devices may do.
#[derive(Debug, Clone)]
pub struct FirmwareOptions {
    /// How many may be connected at once.
    pub connections_max: usize,
    /// How many channels one connection may open.
    pub channels_per_connection_max: usize,
    /// What vardiff steers each channel to. Difficulty never exceeds what the upstream asks.
    pub shares_per_minute: f32,
    /// The least hash rate that is assumed of a device, in h/s.
    pub min_hash_rate: f32,
    /// The least time between two jobs on one tip. A new tip never waits.
    pub job_interval: Duration,
}

/// How long the certificate of one connection holds.
const CERTIFICATE_TIME: Duration = Duration::from_secs(3_600);

/// Serves firmware until `shutdown`, and returns once every connection has ended.
pub async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    options: FirmwareOptions,
    current_job: Arc<CurrentJob>,
    shutdown: CancellationToken,
) {
    let listener = Listener::new(listener, options.connections_max);
    let (keys, options) = (Arc::new(keys), Arc::new(options));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = listener.next(&shutdown).await {
        let (keys, options, current_job) = (keys.clone(), options.clone(), current_job.clone());
        let token = shutdown.child_token();
        connections.spawn(async move {
            let stats = current_job.stats().clone();
            stats::count(&stats.connections);
            handshake(stream, &keys, &options, current_job, token).await;
            stats::uncount(&stats.connections);
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn handshake(
    stream: TcpStream,
    keys: &AuthorityKeys,
    options: &FirmwareOptions,
    current_job: Arc<CurrentJob>,
    token: CancellationToken,
) {
    let accepted = tokio::select! {
        () = token.cancelled() => return,
        accepted = accept(stream, keys, CERTIFICATE_TIME) => accepted,
    };
    match accepted {
        Ok((reader, writer)) => {
            Box::pin(connection::serve(
                reader,
                writer,
                options,
                current_job,
                token,
            ))
            .await;
        }
        Err(error) => tracing::debug!(%error, "a handshake failed"),
    }
}
