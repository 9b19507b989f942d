//! The contract of wallets on two real nodes of Core Lightning with Bitcoin Core, where somebody has them. No registry carries
//! Core Lightning, so the suite leaves this out; run it with `DOVETAIL_CORE_LIGHTNING` set to a folder in which it was built, and
//! `DOVETAIL_BITCOIN_NODE` and `DOVETAIL_BITCOIN_CLI`.

#![allow(clippy::unwrap_used)]

#[path = "../bridges/bridge.rs"]
mod bridge;
#[path = "../../../../tests/tests/wallet_contract/contract.rs"]
mod contract;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dovetail_lightning::{Client, Hash32, Request};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::PAYOUT_ADDRESS;
use dovetail_tests::{free_port, needed};

use bridge::Bridge;
use contract::{Contract, Pair};

/// How long a payment may take to end.
const TIME_MAX: Duration = Duration::from_secs(60);
const AMOUNT_MSAT: u64 = 100_000;
const CLTV_MAX: u16 = 432;
/// More than any of the wallets has.
const TOO_MUCH_MSAT: u64 = 1_000_000_000_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Core Lightning, which no registry carries"]
async fn bridges_to_core_lightning_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Real::start(dir.path()).await;
    Contract::new(pair).await.hold().await;
}

/// A node that runs.
struct Lightningd {
    daemon: Daemon,
    rpc: PathBuf,
    address: String,
}

impl Lightningd {
    fn start(name: &str, core: &BitcoinCore, dir: &Path) -> Self {
        let programs = needed("DOVETAIL_CORE_LIGHTNING").unwrap();
        let folder = dir.join(format!("cln-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let credentials = core.rpc_credentials();
        let (user, password) = credentials.split_once(':').unwrap();
        let rpc = core.rpc_address();
        let (_, port) = rpc.rsplit_once(':').unwrap();
        let mut command = Command::new(programs.join("lightningd").join("lightningd"));
        command
            .arg("--network=regtest")
            .arg(format!("--lightning-dir={}", folder.display()))
            .arg(format!(
                "--bitcoin-cli={}",
                needed("DOVETAIL_BITCOIN_CLI").unwrap().display()
            ))
            .arg("--bitcoin-rpcconnect=127.0.0.1")
            .arg(format!("--bitcoin-rpcport={port}"))
            .arg(format!("--bitcoin-rpcuser={user}"))
            .arg(format!("--bitcoin-rpcpassword={password}"))
            .arg(format!("--addr={address}"))
            .args(["--developer", "--dev-fast-gossip", "--dev-bitcoind-poll=1"]);
        let rpc = folder.join("regtest").join("lightning-rpc");
        let daemon = Daemon::spawn(&format!("lightningd-{name}"), command, &dir.join("logs"));
        let node = Self {
            daemon: daemon.unwrap(),
            rpc,
            address,
        };
        wait_for("lightningd", || UnixStream::connect(&node.rpc).is_ok());
        node
    }

    fn bridge(&self, name: &str, dir: &Path) -> Bridge {
        let rpc = self.rpc.clone();
        Bridge::start(dir, name, 10, move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail-lightning-cln"));
            command.args(["run", "--rpc"]).arg(&rpc);
            command
        })
    }
}

struct Real {
    payer: Bridge,
    payee: Bridge,
    payee_node: Lightningd,
    _payer_node: Lightningd,
    core: BitcoinCore,
}

impl Real {
    async fn start(dir: &Path) -> Self {
        let parts = CoreParts::from_environment().unwrap();
        let core = BitcoinCore::start(&parts, &dir.join("core"), &dir.join("logs")).unwrap();
        core.mine(1, PAYOUT_ADDRESS).unwrap();
        let payer_node = Lightningd::start("payer", &core, dir);
        let payee_node = Lightningd::start("payee", &core, dir);
        let pair = Self {
            payer: payer_node.bridge("payer", dir),
            payee: payee_node.bridge("payee", dir),
            payee_node,
            _payer_node: payer_node,
            core,
        };
        pair.connect().await;
        pair
    }

    /// Opens a channel as an operator would.
    async fn connect(&self) {
        let (payer, payee) = (self.payer(), self.payee());
        let address = payer.raw(&Request::NewAddress).await.unwrap();
        self.core.mine(1, address.as_str().unwrap()).unwrap();
        self.core.mine(100, PAYOUT_ADDRESS).unwrap();
        until(async || payer.raw(&Request::OnchainBalance).await.unwrap() != 0).await;
        let open = Request::OpenChannel {
            node_id: payee.get_info().await.unwrap().node_id,
            address: self.payee_node.address.clone(),
            amount_sat: 10_000_000,
            push_msat: 1_000_000_000,
        };
        payer.raw(&open).await.unwrap();
        self.core.mine(6, PAYOUT_ADDRESS).unwrap();
        for wallet in [payer, payee] {
            until(async || wallet.raw(&Request::UsableChannels).await.unwrap() == 1).await;
        }
    }
}

impl Pair for Real {
    fn payer(&self) -> &Client {
        &self.payer.client
    }

    fn payee(&self) -> &Client {
        &self.payee.client
    }

    fn freeze(&mut self) {
        self.payee_node.daemon.signal("STOP");
    }

    async fn thaw(&mut self, _payment_hash: Hash32) {
        self.payer.kill();
        self.payer.start_again();
        let state = self.payer.client.raw(&Request::NodeState).await.unwrap();
        assert_eq!(state["attempts_pending"], 1);
        self.payee_node.daemon.signal("CONT");
    }
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + TIME_MAX;
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + TIME_MAX;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it does not come to be");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
