//! `dovetail-lightning-lnd`: LND as a wallet, behind the socket of `dovetail-lightning`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dovetail_lightning_bridge::Place;

/// LND as a wallet.
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dovetail_daemon::init_logging();
    match Arguments::parse().command {
        Command::Run(run) => {
            dovetail_lightning_bridge::lnd(run.rest, run.tls_cert, run.macaroon, run.place).await
        }
        Command::Ask { socket, request } => dovetail_lightning_bridge::ask(&socket, &request).await,
    }
}
