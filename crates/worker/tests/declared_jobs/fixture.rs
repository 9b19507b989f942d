//! The worker, and the pool and the declarator that the tests play.

use std::time::Duration;

use dovetail_commitment::coinbase::{find_commitment, parse_coinbase};
use dovetail_commitment::{BatchRoot, ModelId, SamplingParams, StopSequences, TaskId};
use dovetail_engine::{Model, tiny};
use dovetail_sv2::AuthorityKeys;
use dovetail_sv2::extension::{
    AssignTask, Bytes, DeliverTranscript, DeliverTranscriptSuccess, RegisterBatch,
    RegisterBatchSuccess,
};
use dovetail_sv2::messages::{
    B064KOwned, DeclareMiningJob, NewExtendedMiningJob, Seq0255Owned, SetCustomMiningJob,
    SetCustomMiningJobSuccess, SetNewPrevHash, Sv2OptionOwned,
};
use dovetail_sv2::setup::SetupProtocol;
use dovetail_worker::config::Config;
use dovetail_worker::worker::Worker;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::device::Device;
use crate::support::{Played, easy_target, listen};

pub(crate) const CHANNEL: u32 = 5;
pub(crate) const EXTRANONCE_SIZE: u16 = 8;
pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);
/// The compact target of the worker's chain.
pub(crate) const BITS: u32 = 0x1900_ffff;
/// What the played pool's own jobs end with.
pub(crate) const POOLS: [u8; 4] = [0xaa; 4];

pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    model_id: ModelId,
    pool: (TcpListener, AuthorityKeys),
    pub(crate) declarator: (TcpListener, AuthorityKeys),
    firmware: (String, dovetail_sv2::AuthorityPublicKey),
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
}

impl Fixture {
    pub(crate) async fn start(between_batches: &str) -> Self {
        Self::start_beside(between_batches, "").await
    }

    /// With more pools behind the first one, as the configuration has them.
    pub(crate) async fn start_beside(between_batches: &str, more: &str) -> Self {
        // No share of a test is a block.
        let node = format!("kind = \"embedded\"\nbits = {BITS}\n");
        Self::start_on(between_batches, more, &node).await
    }

    /// On this node, as the configuration's section has it.
    pub(crate) async fn start_on(between_batches: &str, more: &str, node: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pool, pool_address, pool_keys) = listen().await;
        let (declarator, declarator_address, declarator_keys) = listen().await;
        let bytes = tiny::generate(3);
        let model_id = Model::from_bytes(&bytes).unwrap().id();
        let model = folder.path().join("tiny.model");
        std::fs::write(&model, bytes).unwrap();
        let config = format!(
            "[worker]\nkey_file = {:?}\nmodels = [{model:?}]\nsearch = false\n\
             [[pool]]\naddress = {pool_address:?}\nauthority_public_key = \"{}\"\n\
             [pool.job_declarator]\naddress = {declarator_address:?}\nauthority_public_key = \"{}\"\n\
             between_batches = {between_batches:?}\n{more}\
             [templates]\n{node}\
             [downstream]\nlisten = \"127.0.0.1:0\"\nkey_file = {:?}\njob_interval_ms = 0\n",
            folder.path().join("worker.key"),
            pool_keys.public(),
            declarator_keys.public(),
            folder.path().join("downstream.key"),
        );
        let config: Config = toml::from_str(&config).unwrap();
        config.validate().unwrap();
        let stop = CancellationToken::new();
        let worker = Worker::start(config, &stop).await.unwrap();
        let (address, key) = worker.firmware_port().unwrap();
        let until = stop.clone();
        Self {
            _folder: folder,
            model_id,
            pool: (pool, pool_keys),
            declarator: (declarator, declarator_keys),
            firmware: (address.to_string(), key),
            stop,
            worker: tokio::spawn(async move { worker.run(until, |_, _| {}).await.unwrap() }),
        }
    }

    /// The worker's next session.
    pub(crate) async fn pool(&self) -> Played {
        session(&self.pool.0, &self.pool.1).await
    }

    /// The worker's next connection to the declarator.
    pub(crate) async fn declarator(&self) -> Played {
        let protocol = SetupProtocol::JobDeclarationProtocol;
        let accepted = Played::accept(&self.declarator.0, &self.declarator.1, protocol);
        timeout(TIME_MAX, accepted).await.unwrap()
    }

    /// Has the worker finish a task and register its batch.
    pub(crate) async fn batch(&self, pool: &mut Played) -> BatchRoot {
        pool.send(&AssignTask {
            task_id: TaskId::from_bytes([1; 32]),
            model_id: self.model_id,
            prompt: Bytes(b"hello".to_vec()),
            salt: [3; 32],
            sampling: SamplingParams {
                temperature_milli: 700,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 4,
            },
            stop: StopSequences::default(),
            seed: [4; 32],
            deadline_ms: 600_000,
        })
        .await;
        let task_id = loop {
            let frame = pool.reader.read().await.unwrap();
            if frame.is::<DeliverTranscript>() {
                break frame.decode::<DeliverTranscript>().unwrap().0.task_id;
            }
        };
        pool.send(&DeliverTranscriptSuccess { task_id }).await;
        let batch: RegisterBatch = pool.expect().await;
        let request_id = batch.request_id;
        pool.send(&RegisterBatchSuccess { request_id }).await;
        batch.root
    }

    /// Takes the batch again, after its claim came to nothing.
    pub(crate) async fn batch_again(&self, pool: &mut Played, root: BatchRoot) {
        let batch: RegisterBatch = pool.expect().await;
        assert_eq!(batch.root, root);
        let request_id = batch.request_id;
        pool.send(&RegisterBatchSuccess { request_id }).await;
    }

    pub(crate) async fn device(&self) -> Device {
        Device::connect(&self.firmware).await
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.worker.await.unwrap();
    }
}

/// The worker's next session at a pool.
pub(crate) async fn session(listener: &TcpListener, keys: &AuthorityKeys) -> Played {
    let protocol = SetupProtocol::MiningProtocol;
    let mut pool = Played::accept(listener, keys, protocol).await;
    let (_, open) = pool.register([3; 32]).await;
    pool.open_channel(&open, CHANNEL, easy_target(), EXTRANONCE_SIZE)
        .await;
    pool
}

pub(crate) async fn accept_job(pool: &mut Played, job_id: u32) {
    let custom: SetCustomMiningJob = pool.expect().await;
    let success = SetCustomMiningJobSuccess {
        channel_id: CHANNEL,
        request_id: custom.request_id,
        job_id,
    };
    pool.send(&success).await;
}

/// The pool has a job of its own on this tip.
pub(crate) async fn pools_tip(pool: &mut Played, job_id: u32, prev_hash: [u8; 32]) {
    let job = NewExtendedMiningJob {
        channel_id: CHANNEL,
        job_id,
        min_ntime: Sv2OptionOwned::new(None),
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: Seq0255Owned::new(vec![]).unwrap(),
        coinbase_tx_prefix: B064KOwned::new(vec![1]).unwrap(),
        coinbase_tx_suffix: B064KOwned::new(POOLS.to_vec()).unwrap(),
    };
    pool.send(&job).await;
    let tip = SetNewPrevHash {
        channel_id: CHANNEL,
        job_id,
        prev_hash: prev_hash.into(),
        min_ntime: 1_700_000_000,
        nbits: 0x1900_ffff,
    };
    pool.send(&tip).await;
}

/// The batch that a declaration commits to.
pub(crate) fn committed(declared: &DeclareMiningJob) -> Option<BatchRoot> {
    let (prefix, suffix) = (&declared.coinbase_tx_prefix, &declared.coinbase_tx_suffix);
    let extranonce = [0; 3 + EXTRANONCE_SIZE as usize];
    let coinbase = parse_coinbase(prefix.as_bytes(), &extranonce, suffix.as_bytes()).unwrap();
    find_commitment(&coinbase.output).unwrap()
}
