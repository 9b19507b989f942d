//! The real parts of a scenario: Bitcoin Core on regtest, and two LDK nodes with a channel.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::{Daemon, interrupted, output};

/// The programs.
#[derive(Debug, Clone)]
pub struct RealParts {
    /// Bitcoin Core.
    pub core: CoreParts,
    /// `dovetail-lightning-node`.
    pub lightning_node: PathBuf,
}

/// The programs of Bitcoin Core.
#[derive(Debug, Clone)]
pub struct CoreParts {
    /// `bitcoin-node`, 31 or newer.
    pub bitcoin_node: PathBuf,
    /// `bitcoin-cli`.
    pub bitcoin_cli: PathBuf,
}

impl CoreParts {
    /// The programs that `cargo xtask test` names in the environment.
    ///
    /// # Errors
    /// Says how to run the test instead.
    pub fn from_environment() -> anyhow::Result<Self> {
        Ok(Self {
            bitcoin_node: crate::needed("DOVETAIL_BITCOIN_NODE")?,
            bitcoin_cli: crate::needed("DOVETAIL_BITCOIN_CLI")?,
        })
    }
}

const RPC_USER: &str = "dovetail";
const RPC_PASSWORD: &str = "regtest-only";
/// Coinbases can be spent after this many blocks.
const MATURITY: u32 = 100;
/// What the pool's channel to the worker holds.
const CHANNEL_SAT: u64 = 10_000_000;
/// How long a step may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);

/// A Bitcoin Core that runs.
pub struct BitcoinCore {
    daemon: Daemon,
    cli: PathBuf,
    data: PathBuf,
    rpc_port: u16,
}

impl BitcoinCore {
    /// Starts a node in `data` that serves IPC and RPC, with one block so that it has left initial
    /// block download.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(parts: &CoreParts, data: &Path, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        let rpc_port = free_port()?;
        let mut command = Command::new(&parts.bitcoin_node);
        command
            .args([
                "-regtest",
                "-ipcbind=unix",
                "-listen=0",
                "-server",
                "-printtoconsole=0",
            ])
            .arg(format!("-datadir={}", data.display()))
            .arg(format!("-rpcport={rpc_port}"))
            .arg(format!("-rpcuser={RPC_USER}"))
            .arg(format!("-rpcpassword={RPC_PASSWORD}"));
        let core = Self {
            daemon: Daemon::spawn("bitcoin-node", command, logs)?,
            cli: parts.bitcoin_cli.clone(),
            data: data.to_owned(),
            rpc_port,
        };
        wait("Bitcoin Core's RPC", || {
            Ok(core.rpc(&["getblockcount"]).is_ok())
        })?;
        Ok(core)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The IPC socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join("regtest").join("node.sock")
    }

    /// One RPC; returns its result as text.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn rpc(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = output(
            Command::new(&self.cli)
                .arg("-regtest")
                .arg(format!("-datadir={}", self.data.display()))
                .arg(format!("-rpcport={}", self.rpc_port))
                .arg(format!("-rpcuser={RPC_USER}"))
                .arg(format!("-rpcpassword={RPC_PASSWORD}"))
                .args(arguments),
        )?;
        Ok(said.trim().to_owned())
    }

    /// Mines blocks that pay `address`.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn mine(&self, blocks: u32, address: &str) -> anyhow::Result<()> {
        self.rpc(&["generatetoaddress", &blocks.to_string(), address])?;
        Ok(())
    }

    /// The regtest address of a script.
    ///
    /// # Errors
    /// If the script has none.
    pub fn address_of(&self, script: &str) -> anyhow::Result<String> {
        let said: Value = serde_json::from_str(&self.rpc(&["decodescript", script])?)?;
        said["address"]
            .as_str()
            .map(str::to_owned)
            .context("the script has no address")
    }

    /// The process, for its log and id.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// An LDK node that runs.
pub struct LightningNode {
    daemon: Daemon,
    program: PathBuf,
    socket: PathBuf,
    node_id: String,
    address: String,
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
        let mut command = Command::new(&parts.lightning_node);
        command
            .arg("run")
            .arg("--storage")
            .arg(dir.join(format!("lightning-{name}")))
            .arg("--socket")
            .arg(socket)
            .args(["--listen", &address])
            .args(["--bitcoind", &format!("127.0.0.1:{}", core.rpc_port)])
            .env("DOVETAIL_BITCOIND_USER", RPC_USER)
            .env("DOVETAIL_BITCOIND_PASSWORD", RPC_PASSWORD);
        for node_id in trusted {
            command.args(["--trust-0conf", node_id]);
        }
        let mut daemon = Daemon::spawn(&format!("lightning-{name}"), command, &dir.join("logs"))?;
        let ready = daemon.ready(STEP_TIME_MAX)?;
        Ok(Self {
            daemon,
            program: parts.lightning_node.clone(),
            socket: socket.to_owned(),
            node_id: ready["node_id"].as_str().context("no node id")?.to_owned(),
            address,
        })
    }

    /// The node's public key.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// One request of the wallet's protocol.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn ask(&self, request: &Value) -> anyhow::Result<Value> {
        let said = output(
            Command::new(&self.program)
                .args(["ask", "--socket"])
                .arg(&self.socket)
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

/// Funds the pool's node from the chain and opens a channel from it to the worker's.
///
/// # Errors
/// If a step does not come to its end in time.
pub fn connect(
    core: &BitcoinCore,
    pool: &LightningNode,
    worker: &LightningNode,
    mining_address: &str,
) -> anyhow::Result<()> {
    let address = pool.method("new_address")?;
    core.mine(1, address.as_str().context("no address")?)?;
    core.mine(MATURITY, mining_address)?;
    wait("the pool's node to see its coins", || {
        pool.method("sync")?;
        Ok(pool.method("onchain_balance")?.as_u64() > Some(CHANNEL_SAT))
    })?;
    pool.ask(&serde_json::json!({ "method": "open_channel", "params": {
        "node_id": worker.node_id, "address": worker.address,
        "amount_sat": CHANNEL_SAT, "push_msat": 1_000_000,
    }}))?;
    wait("the channel", || {
        let usable =
            |node: &LightningNode| Ok::<_, anyhow::Error>(node.method("usable_channels")? == 1);
        Ok(usable(pool)? && usable(worker)?)
    })
}

fn wait(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + STEP_TIME_MAX;
    while !done()? {
        if interrupted() {
            bail!("interrupted");
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", STEP_TIME_MAX.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
