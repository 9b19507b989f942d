//! Jobs on templates of our own between batches, against a pool, a declarator and a device that this test
//! plays: when devices get them, when they get the pool's instead, and what becomes of their shares.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::{Amount, ScriptBuf, TxOut};
use dovetail_commitment::ModelId;
use dovetail_engine::{Model, tiny};
use dovetail_sv2::AuthorityKeys;
use dovetail_sv2::extension::{
    RegisterWorker, RegisterWorkerChallenge, RegisterWorkerProof, RegisterWorkerSuccess, find_claim,
};
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B032Owned, B064KOwned, B0255Owned,
    DeclareMiningJob, DeclareMiningJobError, DeclareMiningJobSuccess, NewExtendedMiningJob,
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, Seq0255Owned, SetCustomMiningJob,
    SetCustomMiningJobSuccess, SetNewPrevHash, Str0255Owned, SubmitSharesExtended,
    SubmitSharesSuccess, Sv2OptionOwned, U256Owned,
};
use dovetail_sv2::setup::SetupProtocol;
use dovetail_worker::config::Config;
use dovetail_worker::search::{Search, SearchJob};
use dovetail_worker::worker::Worker;
use support::{Played, listen};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CHANNEL: u32 = 5;
const EXTRANONCE_SIZE: u16 = 8;
const TIME_MAX: Duration = Duration::from_secs(60);
/// What the played pool's own jobs end with.
const POOLS: [u8; 4] = [0xaa; 4];

/// A target that one header in 2^12 meets.
fn target() -> [u8; 32] {
    let mut target = [0xff; 32];
    target[31] = 0;
    target[30] = 0x0f;
    target
}

fn payout_script() -> ScriptBuf {
    ScriptBuf::from_bytes([vec![0x00, 0x14], vec![7; 20]].concat())
}

struct Scene {
    _folder: tempfile::TempDir,
    pool: (TcpListener, AuthorityKeys),
    declarator: (TcpListener, AuthorityKeys),
    firmware: (String, dovetail_sv2::AuthorityPublicKey),
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
}

impl Scene {
    async fn start(between_batches: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pool, pool_address, pool_keys) = listen().await;
        let (declarator, declarator_address, declarator_keys) = listen().await;
        let bytes = tiny::generate(3);
        let _: ModelId = Model::from_bytes(&bytes).unwrap().id();
        let model = folder.path().join("tiny.model");
        std::fs::write(&model, bytes).unwrap();
        let config = format!(
            "[worker]\nkey_file = {:?}\nmodels = [{model:?}]\nsearch = false\n\
             [pool]\naddress = {pool_address:?}\nauthority_public_key = \"{}\"\n\
             [pool.job_declarator]\naddress = {declarator_address:?}\nauthority_public_key = \"{}\"\n\
             between_batches = {between_batches:?}\n\
             [templates]\nkind = \"embedded\"\nbits = {}\n\
             [downstream]\nlisten = \"127.0.0.1:0\"\nkey_file = {:?}\njob_interval_ms = 0\n",
            folder.path().join("worker.key"),
            pool_keys.public(),
            declarator_keys.public(),
            // No share of a test is a block.
            0x1900_ffff_u32,
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
            pool: (pool, pool_keys),
            declarator: (declarator, declarator_keys),
            firmware: (address.to_string(), key),
            stop,
            worker: tokio::spawn(async move { worker.run(until, |_| {}).await.unwrap() }),
        }
    }

    /// The worker's next session.
    async fn pool(&self) -> Played {
        let protocol = SetupProtocol::MiningProtocol;
        let mut pool = Played::accept(&self.pool.0, &self.pool.1, protocol).await;
        pool.grant_extension().await;
        let _: RegisterWorker = pool.expect().await;
        pool.send(&RegisterWorkerChallenge { nonce: [8; 32] }).await;
        let _: RegisterWorkerProof = pool.expect().await;
        let beacon_tip = [3; 32];
        pool.send(&RegisterWorkerSuccess { beacon_tip }).await;
        let open: OpenExtendedMiningChannel = pool.expect().await;
        pool.send(&OpenExtendedMiningChannelSuccess {
            request_id: open.request_id,
            channel_id: CHANNEL,
            target: U256Owned::from(target()),
            extranonce_size: EXTRANONCE_SIZE,
            extranonce_prefix: B032Owned::new(vec![1, 2, 3]).unwrap(),
            group_channel_id: 0,
        })
        .await;
        pool
    }

    /// The worker's next connection to the declarator.
    async fn declarator(&self) -> Played {
        let protocol = SetupProtocol::JobDeclarationProtocol;
        let accepted = Played::accept(&self.declarator.0, &self.declarator.1, protocol);
        timeout(TIME_MAX, accepted).await.unwrap()
    }

    async fn device(&self) -> Device {
        Device::connect(&self.firmware).await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.worker.await.unwrap();
    }
}

/// Gives a token, and takes the declaration.
async fn declaration(declarator: &mut Played) -> DeclareMiningJob {
    let allocate: AllocateMiningJobToken = declarator.expect().await;
    let payout = vec![TxOut {
        value: Amount::ZERO,
        script_pubkey: payout_script(),
    }];
    let token = AllocateMiningJobTokenSuccess {
        request_id: allocate.request_id,
        mining_job_token: B0255Owned::new(vec![1, 2]).unwrap(),
        coinbase_outputs: B064KOwned::new(serialize(&payout)).unwrap(),
    };
    declarator.send(&token).await;
    declarator.expect().await
}

async fn accept_declaration(declarator: &mut Played, declared: &DeclareMiningJob) {
    let success = DeclareMiningJobSuccess {
        request_id: declared.request_id,
        new_mining_job_token: B0255Owned::new(vec![3, 4]).unwrap(),
    };
    declarator.send(&success).await;
}

async fn refuse_declaration(declarator: &mut Played, declared: &DeclareMiningJob, code: &str) {
    let error = DeclareMiningJobError {
        request_id: declared.request_id,
        error_code: Str0255Owned::try_from(code).unwrap(),
        error_details: B064KOwned::new(Vec::new()).unwrap(),
    };
    declarator.send(&error).await;
}

async fn accept_job(pool: &mut Played, job_id: u32) {
    let custom: SetCustomMiningJob = pool.expect().await;
    let success = SetCustomMiningJobSuccess {
        channel_id: CHANNEL,
        request_id: custom.request_id,
        job_id,
    };
    pool.send(&success).await;
}

/// The pool has a job of its own on this tip.
async fn pools_tip(pool: &mut Played, job_id: u32, prev_hash: [u8; 32]) {
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

/// A device that opens a channel and looks at its jobs.
struct Device {
    played: Played,
    channel: OpenExtendedMiningChannelSuccess,
    future: Option<NewExtendedMiningJob>,
    tip: Option<SetNewPrevHash>,
}

impl Device {
    async fn connect((address, key): &(String, dovetail_sv2::AuthorityPublicKey)) -> Self {
        let (mut reader, mut writer) = dovetail_sv2::connect(address, Some(*key)).await.unwrap();
        let protocol = SetupProtocol::MiningProtocol;
        let request = dovetail_sv2::setup::request(protocol, 0, address, "test").unwrap();
        dovetail_sv2::setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        let mut played = Played { reader, writer };
        let open = OpenExtendedMiningChannel {
            request_id: 1,
            user_identity: Str0255Owned::try_from("device").unwrap(),
            nominal_hash_rate: 1_000.0,
            max_target: U256Owned::from([0xff; 32]),
            min_extranonce_size: 4,
        };
        played.send(&open).await;
        let channel = played.expect().await;
        Self {
            played,
            channel,
            future: None,
            tip: None,
        }
    }

    /// The next job that it is to hash.
    async fn job(&mut self) -> NewExtendedMiningJob {
        let next = async {
            loop {
                let frame = self.played.reader.read().await.unwrap();
                if frame.is::<NewExtendedMiningJob>() {
                    let (job, _) = frame.decode::<NewExtendedMiningJob>().unwrap();
                    match job.min_ntime.as_ref().is_some() {
                        true => return job,
                        false => self.future = Some(job),
                    }
                } else if frame.is::<SetNewPrevHash>() {
                    self.tip = Some(frame.decode().unwrap().0);
                    return self.future.take().unwrap();
                }
            }
        };
        timeout(TIME_MAX, next)
            .await
            .expect("the device got no job")
    }

    async fn our_job(&mut self) -> NewExtendedMiningJob {
        let job = self.job().await;
        let suffix = hex::encode(job.coinbase_tx_suffix.as_bytes());
        assert!(suffix.contains(&payout_script().to_hex_string()), "{job:?}");
        job
    }

    async fn pools_job(&mut self) {
        let job = self.job().await;
        assert_eq!(job.coinbase_tx_suffix.as_bytes(), POOLS, "{job:?}");
    }

    fn tip(&self) -> [u8; 32] {
        self.tip.as_ref().unwrap().prev_hash.to_array()
    }

    /// Finds a share that is worth the pool's while, and hands it in.
    async fn find_share(&mut self, job: &NewExtendedMiningJob) -> u32 {
        let tip = self.tip.as_ref().unwrap();
        let prefix = job.coinbase_tx_prefix.as_bytes();
        let mut search = Search::start(SearchJob {
            version: job.version,
            prev_hash: tip.prev_hash.to_array(),
            min_ntime: job.min_ntime.as_ref().copied().unwrap_or(tip.min_ntime),
            nbits: tip.nbits,
            coinbase_prefix: [prefix, self.channel.extranonce_prefix.as_bytes()].concat(),
            coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
            extranonce_size: usize::from(self.channel.extranonce_size),
            merkle_path: job.merkle_path.iter().map(U256Owned::to_array).collect(),
            target: target(),
        });
        let found = search.found().await.unwrap();
        let share = SubmitSharesExtended {
            channel_id: self.channel.channel_id,
            sequence_number: 1,
            job_id: job.job_id,
            nonce: found.nonce,
            ntime: found.ntime,
            version: job.version,
            extranonce: B032Owned::new(found.extranonce).unwrap(),
        };
        self.played.send(&share).await;
        let answer = self.played.reader.read().await.unwrap();
        assert!(answer.is::<SubmitSharesSuccess>(), "{answer:?}");
        found.nonce
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_job_is_hashed_at_once_and_its_shares_wait_until_it_is_accepted() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    let job = device.our_job().await;
    let nonce = device.find_share(&job).await;
    accept_declaration(&mut declarator, &declared).await;
    // The custom job is the first that the pool hears; the share comes with its number.
    accept_job(&mut pool, 77).await;
    let frame = pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!((share.job_id, share.nonce), (77, nonce));
    assert_eq!(find_claim(&fields), Ok(None));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_gives_devices_the_pools_job_until_one_of_ours_is_accepted() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    refuse_declaration(&mut declarator, &declared, "invalid-job").await;
    device.pools_job().await;
    // It is tried again on the same connection, and not shown before it is accepted.
    let declared = declaration(&mut declarator).await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 78).await;
    let job = device.our_job().await;
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 78);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_block_overtook_on_its_way_is_no_reason_to_leave_our_templates() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    refuse_declaration(&mut declarator, &declared, "stale-chain-tip").await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 79).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_refusal_again_on_the_same_tip_is_one() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    for _ in 0..2 {
        let declared = declaration(&mut declarator).await;
        device.our_job().await;
        pools_tip(&mut pool, 1, device.tip()).await;
        refuse_declaration(&mut declarator, &declared, "stale-chain-tip").await;
    }
    device.pools_job().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_our_node_has_not_is_followed_with_the_pools_job_but_not_at_once() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    device.our_job().await;
    let ours = device.tip();
    pools_tip(&mut pool, 1, ours).await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 80).await;
    let since = Instant::now();
    pools_tip(&mut pool, 2, [9; 32]).await;
    device.pools_job().await;
    assert_eq!(device.tip(), [9; 32]);
    assert!(since.elapsed() > Duration::from_secs(4), "{since:?}");
    // The block is undone: our job is good again.
    pools_tip(&mut pool, 3, ours).await;
    let mut job = device.job().await;
    if job.coinbase_tx_suffix.as_bytes() == POOLS {
        job = device.our_job().await;
    }
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 80);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declarator_that_hangs_costs_some_seconds_of_hashing_and_what_was_found_in_them_is_kept()
{
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    let job = device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    let nonce = device.find_share(&job).await;
    device.pools_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 82).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!((share.job_id, share.nonce), (82, nonce));
    device.our_job().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_a_job_is_pending_leaves_devices_on_it_until_the_next_has_one() {
    let scene = Scene::start("own-templates").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    let mut declarator = scene.declarator().await;
    declaration(&mut declarator).await;
    device.our_job().await;
    pools_tip(&mut pool, 1, device.tip()).await;
    drop(pool);
    let mut pool = scene.pool().await;
    // The declaration of the session before is not gone on with.
    assert!(declarator.reader.read().await.is_err());
    let mut declarator = scene.declarator().await;
    let declared = declaration(&mut declarator).await;
    // The job of the pool that is gone is not shown in between.
    let job = device.our_job().await;
    accept_declaration(&mut declarator, &declared).await;
    accept_job(&mut pool, 81).await;
    device.find_share(&job).await;
    let share: SubmitSharesExtended = pool.expect().await;
    assert_eq!(share.job_id, 81);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_may_want_the_pools_jobs_between_batches() {
    let scene = Scene::start("pool-jobs").await;
    let mut pool = scene.pool().await;
    let mut device = scene.device().await;
    pools_tip(&mut pool, 1, [1; 32]).await;
    device.pools_job().await;
    pools_tip(&mut pool, 2, [2; 32]).await;
    device.pools_job().await;
    assert_eq!(device.tip(), [2; 32]);
    let declared = timeout(Duration::from_secs(1), scene.declarator.0.accept()).await;
    assert!(declared.is_err(), "a job was declared between batches");
    scene.stop().await;
}
