//! `dovetail-lightning-cln`: Core Lightning as a wallet, behind the socket of `dovetail-lightning`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dovetail_lightning_bridge::Place;

/// Core Lightning as a wallet.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    place: Place,
    /// The node's own socket: `lightning-rpc` in the folder of its network.
    #[arg(long)]
    rpc: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dovetail_daemon::init_logging();
    match Arguments::parse().command {
        Command::Run(run) => dovetail_lightning_bridge::core_lightning(run.rpc, run.place).await,
        Command::Ask { socket, request } => dovetail_lightning_bridge::ask(&socket, &request).await,
    }
}
