//! LDK nodes as the wallets of a scenario, and the channel between them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::bitcoin_core::{BitcoinCore, CoreParts, RPC_PASSWORD, RPC_USER};
use crate::free_port;
use crate::process::{Daemon, STEP_TIME_MAX, output, wait};

/// The programs of a scenario on Bitcoin Core and LDK.
#[derive(Debug, Clone)]
pub struct RealParts {
    /// Bitcoin Core.
    pub core: CoreParts,
    /// `dovetail-lightning-node`.
    pub lightning_node: PathBuf,
}

/// Coinbases can be spent after this many blocks.
const MATURITY: u32 = 100;
/// What the pool's channel to the worker holds.
const CHANNEL_SAT: u64 = 10_000_000;

/// An LDK node that runs.
pub struct LightningNode {
    daemon: Daemon,
    launch: Launch,
    node_id: String,
}

/// How a node is started, the first time and again.
struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    logs: PathBuf,
    storage: PathBuf,
    socket: PathBuf,
    address: String,
}

impl Launch {
    fn spawn(&self) -> anyhow::Result<Daemon> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("DOVETAIL_BITCOIND_USER", RPC_USER)
            .env("DOVETAIL_BITCOIND_PASSWORD", RPC_PASSWORD);
        Daemon::spawn(&self.name, command, &self.logs)
    }
}

impl LightningNode {
    /// Starts a node under `dir`; channels of the nodes in `trusted` count at once.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        name: &str,
        parts: &RealParts,
        core: &BitcoinCore,
        dir: &Path,
        socket: &Path,
        trusted: &[&str],
    ) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let storage = dir.join(format!("lightning-{name}"));
        let mut arguments: Vec<OsString> = vec![
            "run".into(),
            "--storage".into(),
            storage.clone().into(),
            "--socket".into(),
            socket.into(),
            "--listen".into(),
            address.clone().into(),
            "--bitcoind".into(),
            core.rpc_address().into(),
        ];
        for node_id in trusted {
            arguments.extend(["--trust-0conf".into(), node_id.into()]);
        }
        let launch = Launch {
            name: format!("lightning-{name}"),
            program: parts.lightning_node.clone(),
            arguments,
            logs: dir.join("logs"),
            storage,
            socket: socket.to_owned(),
            address,
        };
        let mut daemon = launch.spawn()?;
        let ready = daemon.ready(STEP_TIME_MAX)?;
        Ok(Self {
            daemon,
            launch,
            node_id: ready["node_id"].as_str().context("no node id")?.to_owned(),
        })
    }

    /// Starts it again on what it left, after [`Daemon::kill`] or [`Daemon::stop`].
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.daemon = self.launch.spawn()?;
        self.daemon.ready(STEP_TIME_MAX)?;
        Ok(())
    }

    /// Where it keeps its seed, its channels and its records.
    pub fn storage(&self) -> &Path {
        &self.launch.storage
    }

    /// The node's public key.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// Where other nodes connect.
    pub fn address(&self) -> &str {
        &self.launch.address
    }

    /// Its wallet's socket.
    pub fn socket(&self) -> &Path {
        &self.launch.socket
    }

    /// One request of the wallet's protocol.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn ask(&self, request: &Value) -> anyhow::Result<Value> {
        let said = output(
            Command::new(&self.launch.program)
                .args(["ask", "--socket"])
                .arg(&self.launch.socket)
                .arg(request.to_string()),
        )?;
        Ok(serde_json::from_str(said.trim())?)
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn method(&self, name: &str) -> anyhow::Result<Value> {
        self.ask(&serde_json::json!({ "method": name }))
    }
}

/// Funds the pool's node from the chain and opens a channel from it to the worker's, which gets `push_msat` of it.
///
/// # Errors
/// If a step does not come to its end in time.
pub fn connect(
    core: &BitcoinCore,
    pool: &LightningNode,
    worker: &LightningNode,
    mining_address: &str,
    push_msat: u64,
) -> anyhow::Result<()> {
    let address = pool.method("new_address")?;
    core.mine(1, address.as_str().context("no address")?)?;
    core.mine(MATURITY, mining_address)?;
    wait("the pool's node to see its coins", || {
        pool.method("sync")?;
        Ok(pool.method("onchain_balance")?.as_u64() > Some(CHANNEL_SAT))
    })?;
    pool.ask(&serde_json::json!({ "method": "open_channel", "params": {
        "node_id": worker.node_id, "address": worker.launch.address,
        "amount_sat": CHANNEL_SAT, "push_msat": push_msat,
    }}))?;
    wait_for_channel(pool, worker)
}

/// Waits until both nodes can use their channel.
///
/// # Errors
/// If that takes too long.
pub fn wait_for_channel(one: &LightningNode, other: &LightningNode) -> anyhow::Result<()> {
    wait("the channel", || {
        let usable =
            |node: &LightningNode| Ok::<_, anyhow::Error>(node.method("usable_channels")? == 1);
        Ok(usable(one)? && usable(other)?)
    })
}
