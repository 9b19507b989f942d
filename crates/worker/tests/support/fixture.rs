//! The worker, with what it is configured to talk to.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dovetail_commitment::ModelId;
use dovetail_engine::{Model, tiny};
use dovetail_miner::pool_watch::Patience;
use dovetail_sv2::setup::SetupProtocol;
use dovetail_sv2::{AuthorityKeys, AuthorityPublicKey};
use dovetail_worker::claim::ClaimTimes;
use dovetail_worker::config::Config;
use dovetail_worker::worker::{NoPoolLeft, Worker};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::pool::session;
use super::{Played, listen};

/// The longest that a step of a test may take on a busy machine.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);
/// The network's target, compact: one that no share of a test meets, and one that every share does.
pub(crate) const BLOCKS_NEVER: u32 = 0x1900_ffff;
pub(crate) const BLOCKS_ALWAYS: u32 = 0x207f_ffff;

/// What a worker is configured with, besides its key, its model, and one pool with a declarator.
pub(crate) struct Setup {
    /// Lines of `[worker]`.
    pub(crate) worker: String,
    /// Whether there is a declarator, and a node for it. Without one the pool builds the jobs that carry batches.
    pub(crate) declares_jobs: bool,
    /// Lines of the pool's `[pool.job_declarator]`.
    pub(crate) declarator: String,
    /// Lines of `[templates]`.
    pub(crate) node: String,
    /// Whether there is a port for devices.
    pub(crate) devices: bool,
    /// More sections.
    pub(crate) more: String,
    /// How long the worker waits for the pool.
    pub(crate) claim_times: ClaimTimes,
    pub(crate) patience: Patience,
}

impl Setup {
    /// A worker that hashes on its own CPU, on an embedded chain with this target.
    pub(crate) fn alone(bits: u32) -> Self {
        Self {
            worker: String::new(),
            declares_jobs: true,
            declarator: String::new(),
            node: format!("kind = \"embedded\"\nbits = {bits}\n"),
            devices: false,
            more: String::new(),
            claim_times: ClaimTimes::default(),
            patience: Patience::default(),
        }
    }

    /// A worker whose devices hash. No share of theirs is a block.
    pub(crate) fn with_devices(between_batches: &str) -> Self {
        Self {
            worker: "search = false\n".to_owned(),
            declarator: format!("between_batches = {between_batches:?}\n"),
            devices: true,
            ..Self::alone(BLOCKS_NEVER)
        }
    }

    fn config(&self, folder: &Path, model: &Path, pool: &Server, declarator: &Server) -> Config {
        let key_file = folder.join("worker.key");
        let mut text = format!(
            "[worker]\nkey_file = {key_file:?}\nmodels = [{model:?}]\n{}[[pool]]\n{}",
            self.worker,
            pool.config(),
        );
        if self.declares_jobs {
            text += &format!(
                "[pool.job_declarator]\n{}{}[templates]\n{}",
                declarator.config(),
                self.declarator,
                self.node,
            );
        }
        if self.devices {
            let key_file = folder.join("downstream.key");
            text += &format!(
                "[downstream]\nlisten = \"127.0.0.1:0\"\nkey_file = {key_file:?}\njob_interval_ms = 0\nmin_hash_rate = 1000\n"
            );
        }
        text += "[page]\nlisten = \"127.0.0.1:0\"\n";
        text += &self.more;
        let config: Config = toml::from_str(&text).unwrap();
        config.validate().unwrap();
        config
    }
}

/// A port that a test serves.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) address: String,
    pub(crate) keys: AuthorityKeys,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let (listener, address, keys) = listen().await;
        Self {
            listener,
            address,
            keys,
        }
    }

    /// Where it is, as a configuration says it.
    pub(crate) fn config(&self) -> String {
        let (address, key) = (&self.address, self.keys.public());
        format!("address = {address:?}\nauthority_public_key = \"{key}\"\n")
    }
}

/// A running worker.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) model_id: ModelId,
    pub(crate) pool: Server,
    pub(crate) declarator: Server,
    firmware: Option<(SocketAddr, AuthorityPublicKey)>,
    page: SocketAddr,
    stop: CancellationToken,
    worker: JoinHandle<Result<(), NoPoolLeft>>,
}

impl Fixture {
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pool, declarator) = (Server::start().await, Server::start().await);
        let bytes = tiny::generate(3);
        let model_id = Model::from_bytes(&bytes).unwrap().id();
        let model = folder.path().join("tiny.model");
        std::fs::write(&model, bytes).unwrap();
        let config = setup.config(folder.path(), &model, &pool, &declarator);
        let stop = CancellationToken::new();
        let worker = Worker::start(config, &stop).await.unwrap();
        let worker = worker
            .with_claim_times(setup.claim_times)
            .with_patience(setup.patience);
        let (firmware, page) = (worker.firmware_port(), worker.page().unwrap());
        let until = stop.clone();
        Self {
            folder,
            model_id,
            pool,
            declarator,
            firmware,
            page,
            stop,
            worker: tokio::spawn(async move { worker.run(until, |_, _| {}).await }),
        }
    }

    /// The worker's next session at its first pool.
    pub(crate) async fn session(&self) -> Played {
        session(&self.pool).await
    }

    /// The worker's next connection to the declarator.
    pub(crate) async fn declarator(&self) -> Played {
        let server = &self.declarator;
        let protocol = SetupProtocol::JobDeclarationProtocol;
        let accepted = Played::accept(&server.listener, &server.keys, protocol);
        timeout(TIME_MAX, accepted).await.unwrap()
    }

    /// Where devices connect, and the key that they know the worker by.
    pub(crate) fn firmware(&self) -> (SocketAddr, AuthorityPublicKey) {
        self.firmware.unwrap()
    }

    /// What the worker's page says to programs.
    pub(crate) async fn status(&self) -> serde_json::Value {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.page).await.unwrap();
        let head = format!(
            "GET /status.json HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.page
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// Waits until the worker has left its only pool for good, and ends because of it. What it remembers of
    /// the pool.
    pub(crate) async fn no_pool_is_left(self) -> String {
        let ended = timeout(TIME_MAX, self.worker).await;
        let ended = ended.expect("the worker did not leave its pool");
        assert!(ended.unwrap().is_err());
        assert_bounded_memory();
        std::fs::read_to_string(self.folder.path().join("worker.left")).unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.worker.await.unwrap().unwrap();
        assert_bounded_memory();
    }
}

/// What all workers of a test program may take at their worst, with the pools that they are played: whatever a pool
/// does, none of them grows beyond it.
const MEMORY_MAX_KIB: u64 = 256 << 10;

/// The most memory that this process has had is within the bound.
fn assert_bounded_memory() {
    let kib = dovetail_console::peak_rss_bytes().unwrap() / 1024;
    assert!(kib < MEMORY_MAX_KIB, "{kib} KiB");
}
