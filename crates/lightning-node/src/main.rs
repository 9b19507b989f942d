//! `dovetail-lightning-node`: a Lightning wallet on LDK, behind the socket of `dovetail-lightning`.
//!
//! The node's keys live in this process alone. It keeps a durable record of every attempt that it was asked to make, written
//! before LDK hears of it, and dispatches none twice.

mod dispatch;
mod failures;
mod operator;
mod peers;
mod records;
mod recovery;
#[cfg(test)]
mod test_folder;
mod wallet;
mod watch;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use dovetail_lightning::{Client, Request, server};
use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::config::Config;
use ldk_node::io::sqlite_store::{KV_TABLE_NAME, SQLITE_DB_FILE_NAME, SqliteStore};
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::{Builder, Node};

use crate::records::Records;
use crate::recovery::decide_open_attempts;
use crate::wallet::LdkWallet;
use crate::watch::{Watch, WatchedStore};

/// A Lightning wallet on LDK.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node.
    Run(Run),
    /// Ask a running node one request of the socket's protocol, given as JSON.
    Ask {
        /// The node's socket.
        #[arg(long)]
        socket: PathBuf,
        /// For example '{"method":"balance"}'.
        request: String,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Where the seed, the channels and the payment records are kept.
    #[arg(long)]
    storage: PathBuf,
    /// The Unix socket for the pool or the worker.
    #[arg(long)]
    socket: PathBuf,
    /// Where other Lightning nodes connect.
    #[arg(long)]
    listen: String,
    /// The network.
    #[arg(long, default_value = "regtest")]
    network: Network,
    /// Bitcoin Core's RPC, host:port.
    #[arg(long)]
    bitcoind: String,
    /// Bitcoin Core's RPC user.
    #[arg(long, env = "DOVETAIL_BITCOIND_USER")]
    bitcoind_user: String,
    /// Bitcoin Core's RPC password: from the environment, since arguments can be seen by others.
    #[arg(long, env = "DOVETAIL_BITCOIND_PASSWORD", hide_env_values = true)]
    bitcoind_password: String,
    /// A peer whose channels count before they confirm; may be repeated.
    #[arg(long)]
    trust_0conf: Vec<PublicKey>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dovetail_daemon::init_logging();
    match Arguments::parse().command {
        Command::Run(run) => serve(run).await,
        Command::Ask { socket, request } => {
            let request: Request =
                serde_json::from_str(&request).context("that is no request of the protocol")?;
            println!("{}", Client::new(socket).raw(&request).await?);
            Ok(())
        }
    }
}

async fn serve(run: Run) -> anyhow::Result<()> {
    let shutdown = dovetail_daemon::shutdown_on_signal();
    let watch = Arc::new(Watch::default());
    let mut records =
        Records::open(&run.storage.join("attempts")).context("the payment records")?;
    let (node, store) = build(&run, &watch)?;
    let starting = Arc::clone(&node);
    let wallet = tokio::task::spawn_blocking(move || {
        decide_open_attempts(&mut records, &starting, &*store)
            .context("cannot find out what became of the payments that were under way")?;
        starting
            .start()
            .map_err(|error| anyhow!("the node did not start: {error}"))?;
        let wallet = LdkWallet::new(starting, records, watch);
        wallet
            .catch_up()
            .context("cannot record what LDK kept from before the start")?;
        anyhow::Ok(wallet)
    })
    .await??;
    let listener = server::bind(&run.socket)
        .with_context(|| format!("cannot listen at {}", run.socket.display()))?;
    let events = tokio::spawn(wallet.clone().follow_events(shutdown.clone()));
    let peers = tokio::spawn(peers::keep_connected(Arc::clone(&node), shutdown.clone()));
    dovetail_daemon::announce_ready(serde_json::json!({
        "socket": run.socket,
        "node_id": node.node_id().to_string(),
        "listen": run.listen,
    }));
    server::serve(listener, Arc::new(wallet), shutdown).await;
    events.await?;
    peers.await?;
    tokio::task::spawn_blocking(move || node.stop())
        .await?
        .map_err(|error| anyhow!("the node did not stop in order: {error}"))
}

/// The node, not started, and its store.
fn build(run: &Run, watch: &Arc<Watch>) -> anyhow::Result<(Arc<Node>, Arc<SqliteStore>)> {
    let (host, port) = run
        .bitcoind
        .rsplit_once(':')
        .context("--bitcoind must be host:port")?;
    let listen =
        SocketAddress::from_str(&run.listen).map_err(|error| anyhow!("--listen: {error}"))?;
    let mut builder = Builder::from_config(Config {
        trusted_peers_0conf: run.trust_0conf.clone(),
        ..Config::default()
    });
    builder
        .set_network(run.network)
        .set_storage_dir_path(run.storage.to_string_lossy().into_owned())
        .set_listening_addresses(vec![listen])
        .map_err(|error| anyhow!("--listen: {error}"))?
        .set_chain_source_bitcoind_rpc(
            host.to_owned(),
            port.parse().context("--bitcoind: the port")?,
            run.bitcoind_user.clone(),
            run.bitcoind_password.clone(),
        );
    std::fs::create_dir_all(&run.storage)?;
    let store = SqliteStore::new(
        run.storage.clone(),
        Some(SQLITE_DB_FILE_NAME.to_owned()),
        Some(KV_TABLE_NAME.to_owned()),
    )
    .map_err(|error| anyhow!("the node's store: {error}"))?;
    let store = Arc::new(store);
    let watched = WatchedStore::new(Arc::clone(&store), Arc::clone(watch));
    let node = builder
        .build_with_store(Arc::new(watched))
        .map_err(|error| anyhow!("the node cannot be built: {error}"))?;
    Ok((Arc::new(node), store))
}
