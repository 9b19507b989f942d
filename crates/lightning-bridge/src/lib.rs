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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use dovetail_lightning::{Client, Request, server};
use serde::de::DeserializeOwned;

use bridge::Bridge;
use cln::CoreLightning;
use lnd::{Lnd, Rest};
use node::Node;
use records::Records;
use storage::Storage;

/// What every bridge is told.
#[derive(Debug, Args)]
struct Place {
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

/// Core Lightning as a wallet.
#[derive(Debug, Args)]
struct CoreLightningRun {
    #[command(flatten)]
    place: Place,
    /// The node's own socket: `lightning-rpc` in the folder of its network.
    #[arg(long)]
    rpc: PathBuf,
}

/// LND as a wallet.
#[derive(Debug, Args)]
struct LndRun {
    #[command(flatten)]
    place: Place,
    /// Where LND's REST interface listens, host:port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    rest: String,
    /// LND's own certificate, `tls.cert`: no other is trusted.
    #[arg(long)]
    tls_cert: PathBuf,
    /// The file of the macaroon, which only this user may read.
    #[arg(long)]
    macaroon: PathBuf,
}

#[derive(Debug, Parser)]
#[command(version)]
struct Program<Run: Args> {
    #[command(subcommand)]
    command: Command<Run>,
}

#[derive(Debug, Subcommand)]
enum Command<Run: Args> {
    /// Run the bridge.
    Run(Run),
    /// Ask a running bridge one request of the socket's protocol, given as JSON.
    Ask {
        /// The bridge's socket.
        #[arg(long)]
        socket: PathBuf,
        /// For example '{"method":"balance"}'.
        request: String,
    },
}

/// The program `dovetail-lightning-cln`.
///
/// # Errors
/// If the node is away, or the storage or the socket cannot be used.
pub async fn core_lightning() -> anyhow::Result<()> {
    let Some(run) = arguments::<CoreLightningRun>().await? else {
        return Ok(());
    };
    serve(CoreLightning::new(run.rpc), run.place).await
}

/// The program `dovetail-lightning-lnd`.
///
/// # Errors
/// If the node is away, or the storage or the socket cannot be used.
pub async fn lnd() -> anyhow::Result<()> {
    let Some(run) = arguments::<LndRun>().await? else {
        return Ok(());
    };
    let rest = Rest::new(run.rest, run.tls_cert, run.macaroon);
    serve(Lnd::new(rest), run.place).await
}

/// What to run; `None` where only a question was to be asked.
async fn arguments<Run: Args>() -> anyhow::Result<Option<Run>> {
    dovetail_daemon::init_logging();
    match Program::<Run>::parse().command {
        Command::Run(run) => Ok(Some(run)),
        Command::Ask { socket, request } => {
            let request: Request =
                parsed(&request).context("that is no request of the protocol")?;
            println!("{}", Client::new(socket).raw(&request).await?);
            Ok(None)
        }
    }
}

fn parsed<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text)
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
