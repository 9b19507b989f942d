//! Core Lightning and LND as wallets: a bridge is a process that answers on the socket of `dovetail-lightning` and asks a node
//! that its operator runs.
//!
//! A bridge has no keys. It keeps a record of each attempt to pay, synced before the node hears of it, which ties the payer's
//! name for the attempt to the payment hash under which the node keeps it ([`records`]). What became of a payment is the node's
//! word, asked anew ([`dispatch`]); what the words of each kind of node mean is in `cln` and `lnd`. `docs/lightning.md` says how
//! to run one.

mod backup;
mod bridge;
mod cln;
mod dispatch;
mod lnd;
mod node;
mod records;
mod storage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use dovetail_lightning::{Client, Request, server};

use bridge::Bridge;
use cln::CoreLightning;
use lnd::{Lnd, Rest};
use node::Node;
use records::Records;
use storage::Storage;

/// What every bridge is told.
#[derive(Debug, Args)]
pub struct Place {
    /// Where the records of payments are kept: a folder of this bridge's own.
    #[arg(long)]
    storage: PathBuf,
    /// The Unix socket for the pool or the worker.
    #[arg(long)]
    socket: PathBuf,
    /// For how long the node looks for routes of a payment, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    retry_for: u32,
}

/// Answers for the node of Core Lightning that listens at `rpc`, until the process is told to stop.
///
/// # Errors
/// If the node is away, or the storage or the socket cannot be used.
pub async fn core_lightning(rpc: PathBuf, place: Place) -> anyhow::Result<()> {
    serve(CoreLightning::new(rpc), place).await
}

/// Answers for the node of LND whose REST interface listens at `address` (host:port) with this certificate, until the process is
/// told to stop.
///
/// # Errors
/// If the node is away or refuses the macaroon, or the storage or the socket cannot be used.
pub async fn lnd(
    address: String,
    certificate: PathBuf,
    macaroon: PathBuf,
    place: Place,
) -> anyhow::Result<()> {
    serve(Lnd::new(Rest::new(address, certificate, macaroon)), place).await
}

/// Asks a running bridge one request, given as JSON, and prints the answer.
///
/// # Errors
/// If that is no request, or the bridge refuses.
pub async fn ask(socket: &Path, request: &str) -> anyhow::Result<()> {
    let request: Request =
        serde_json::from_str(request).context("that is no request of the protocol")?;
    println!("{}", Client::new(socket.to_owned()).raw(&request).await?);
    Ok(())
}

async fn serve<N: Node>(node: N, place: Place) -> anyhow::Result<()> {
    let shutdown = dovetail_daemon::shutdown_on_signal();
    let identity = node
        .identity()
        .await
        .context("cannot speak with the node")?;
    let storage = Storage::open(&place.storage, N::RAIL, &identity.node_id)
        .with_context(|| format!("the storage at {}", place.storage.display()))?;
    let records = Records::open(&storage.attempts()).context("the payment records")?;
    let retry_for = Duration::from_secs(place.retry_for.into());
    let bridge = Bridge::new(node, identity.network, records, retry_for);
    let listener = server::bind(&place.socket)
        .with_context(|| format!("cannot listen at {}", place.socket.display()))?;
    dovetail_daemon::announce_ready(serde_json::json!({
        "socket": place.socket,
        "node_id": identity.node_id,
        "network": identity.network.to_string(),
    }));
    server::serve(listener, Arc::new(bridge), shutdown).await;
    drop(storage);
    Ok(())
}
