//! `dovetail-lightning-sim`: a simulated Lightning network, one socket per wallet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use dovetail_lightning::{server, simulator};

/// A simulated Lightning network for first runs and tests.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A wallet and its Unix socket, as NAME=PATH; repeat for each wallet.
    #[arg(long = "socket", required = true, value_parser = named_path)]
    sockets: Vec<(String, PathBuf)>,
    /// What each wallet starts with.
    #[arg(long, default_value_t = 1_000_000_000)]
    balance_msat: u64,
    /// The network of its invoices: money that is simulated is never called real.
    #[arg(long, default_value = "regtest", value_parser = ["regtest"])]
    network: String,
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    dovetail_daemon::init_logging();
    tracing::info!(
        network = arguments.network,
        "simulating a Lightning network"
    );
    let shutdown = dovetail_daemon::shutdown_on_signal();
    let wallets = simulator::wallets(arguments.sockets.len(), arguments.balance_msat);
    let mut serving = Vec::new();
    for ((_, path), wallet) in arguments.sockets.iter().zip(wallets) {
        let listener =
            server::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        serving.push(tokio::spawn(server::serve(
            listener,
            Arc::new(wallet),
            shutdown.clone(),
        )));
    }
    let sockets: BTreeMap<_, _> = arguments.sockets.iter().cloned().collect();
    dovetail_daemon::announce_ready(serde_json::json!({ "sockets": sockets }));
    for task in serving {
        task.await?;
    }
    Ok(())
}
