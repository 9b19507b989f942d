//! `dovetail-lightning-sim`: a simulated Lightning network, one socket per wallet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use dovetail_lightning::simulator::{Fault, SimulatedWallet};
use dovetail_lightning::{server, simulator};
use dovetail_units::SplitMix64;

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
    /// At so many payments the first wallet does what real ones have been seen to do: it fails, holds, loses an answer, calls
    /// a payment failed that arrives. For tests.
    #[arg(long, default_value_t = 0)]
    faults: usize,
    /// Which faults these are.
    #[arg(long, default_value_t = 0)]
    faults_seed: u64,
}

/// How often something happens to payments that a fault has left on their way.
const STIR_INTERVAL: Duration = Duration::from_millis(200);

/// Has the wallet err at its next payments.
async fn err(wallet: SimulatedWallet, faults: usize, seed: u64) {
    let mut random = SplitMix64::new(seed);
    wallet.script((0..faults).map(|_| Fault::draw(&mut random)));
    let mut ticks = tokio::time::interval(STIR_INTERVAL);
    loop {
        ticks.tick().await;
        wallet.stir(&mut random);
    }
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
    if let Some(first) = wallets.first()
        && arguments.faults > 0
    {
        tracing::warn!(
            faults = arguments.faults,
            seed = arguments.faults_seed,
            "the first wallet errs"
        );
        let erring = err(first.clone(), arguments.faults, arguments.faults_seed);
        tokio::spawn(erring);
    }
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
