//! The worker from a task to its credited batch, against a pool and a job declarator that this test
//! plays, on templates of an embedded chain.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../miner/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use bitcoin::Amount;
use dovetail_audit::HashChain;
use dovetail_commitment::block::merkle_root;
use dovetail_commitment::coinbase::{find_commitment, parse_coinbase};
use dovetail_commitment::{
    Batch, BatchRoot, HeaderHash, ModelId, SamplingParams, StopSequences, TaskId, Transcript,
};
use dovetail_engine::{Model, tiny};
use dovetail_miner::search::{header_bytes, header_hash, meets};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    AssignTask, BatchOutcome, Bytes, DeliverTranscript, DeliverTranscriptSuccess, RegisterBatch,
    RegisterBatchSuccess, StreamTokens, find_claim,
};
use dovetail_sv2::messages::{
    DeclareMiningJob, PushSolution, SetCustomMiningJob, SetCustomMiningJobSuccess, Str0255Owned,
    SubmitSharesError, SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::SetupProtocol;
use dovetail_sv2::{AuthorityKeys, Message};
use dovetail_worker::config::Config;
use dovetail_worker::worker::Worker;
use stratum_core::channels_sv2::server::jobs::factory::JobFactory;
use support::declarator::{accept_declaration, declaration, payout_script};
use support::{Played, easy_target, listen};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const CHANNEL: u32 = 5;
const EXTRANONCE_PREFIX: [u8; 3] = [1, 2, 3];
const EXTRANONCE_SIZE: usize = 8;

/// Network targets, compact: one that no share of a test meets, and one that every share does.
const BLOCKS_NEVER: u32 = 0x1900_ffff;
const BLOCKS_ALWAYS: u32 = 0x207f_ffff;

/// A played pool, declarator and a running worker.
struct Fixture {
    folder: tempfile::TempDir,
    pool_listener: TcpListener,
    pool_keys: AuthorityKeys,
    declarator_listener: TcpListener,
    declarator_keys: AuthorityKeys,
    model_id: ModelId,
    stop: CancellationToken,
    worker: Option<tokio::task::JoinHandle<()>>,
}

impl Fixture {
    async fn start(bits: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pool_listener, pool_address, pool_keys) = listen().await;
        let (declarator_listener, declarator_address, declarator_keys) = listen().await;
        let bytes = tiny::generate(3);
        let model_id = Model::from_bytes(&bytes).unwrap().id();
        let model_path = folder.path().join("tiny.model");
        std::fs::write(&model_path, bytes).unwrap();
        let config = format!(
            "[worker]\nkey_file = {:?}\nmodels = [{model_path:?}]\n\
             [pool]\naddress = {pool_address:?}\nauthority_public_key = \"{}\"\n\
             [pool.job_declarator]\naddress = {declarator_address:?}\nauthority_public_key = \"{}\"\n\
             [templates]\nkind = \"embedded\"\nbits = {bits}\n",
            folder.path().join("worker.key"),
            pool_keys.public(),
            declarator_keys.public(),
        );
        let config: Config = toml::from_str(&config).unwrap();
        let stop = CancellationToken::new();
        let worker = Worker::start(config, &stop).await.unwrap();
        let run_until = stop.clone();
        let worker = tokio::spawn(async move {
            // It ends with an error where the test makes it leave its only pool.
            let _ = worker.run(run_until, |_, _| {}).await;
        });
        Self {
            folder,
            pool_listener,
            pool_keys,
            declarator_listener,
            declarator_keys,
            model_id,
            stop,
            worker: Some(worker),
        }
    }

    async fn register(&self) -> Played {
        let protocol = SetupProtocol::MiningProtocol;
        let mut pool = Played::accept(&self.pool_listener, &self.pool_keys, protocol).await;
        let (_, open) = pool.register(chain().tip()).await;
        let extranonce_size = u16::try_from(EXTRANONCE_SIZE).unwrap();
        pool.open_channel(&open, CHANNEL, easy_target(), extranonce_size)
            .await;
        pool
    }

    fn task(&self) -> AssignTask {
        AssignTask {
            task_id: TaskId::from_bytes([1; 32]),
            model_id: self.model_id,
            prompt: Bytes(b"hello".to_vec()),
            salt: [3; 32],
            sampling: SamplingParams {
                temperature_milli: 700,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 12,
            },
            stop: StopSequences::default(),
            seed: [4; 32],
            deadline_ms: 600_000,
        }
    }

    /// Gives a task and takes its tokens and transcript.
    async fn serve_task(&self, pool: &mut Played) -> Transcript {
        pool.send(&self.task()).await;
        let mut streamed = 0;
        loop {
            let frame = pool.reader.read().await.unwrap();
            if frame.message_type == StreamTokens::MESSAGE_TYPE {
                let (chunk, _) = frame.decode::<StreamTokens>().unwrap();
                assert_eq!(chunk.first_position, streamed);
                streamed += u32::try_from(chunk.tokens.len()).unwrap();
                continue;
            }
            let (delivered, _) = frame.decode::<DeliverTranscript>().unwrap();
            let transcript = Transcript::decode(&delivered.transcript.0).unwrap();
            assert_eq!(transcript.output_tokens, streamed);
            return transcript;
        }
    }

    async fn declarator(&self) -> Played {
        let protocol = SetupProtocol::JobDeclarationProtocol;
        Played::accept(&self.declarator_listener, &self.declarator_keys, protocol).await
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.worker.take().unwrap().await.unwrap();
        drop(self.folder);
    }
}

/// The pool's beacon.
fn chain() -> HashChain {
    HashChain::from_seed([1; 32], 16)
}

async fn accept_batch(pool: &mut Played, transcript: &Transcript) -> BatchRoot {
    pool.send(&DeliverTranscriptSuccess {
        task_id: transcript.task_id,
    })
    .await;
    let batch: RegisterBatch = pool.expect().await;
    let expected = Batch::new(vec![transcript.leaf()]).unwrap().root();
    assert_eq!(batch.root, expected);
    assert_eq!(batch.task_ids, vec![transcript.task_id]);
    pool.send(&RegisterBatchSuccess {
        request_id: batch.request_id,
    })
    .await;
    batch.root
}

/// Gives a token, takes the declaration and checks that it pays the pool and commits to the root.
async fn take_declaration(declarator: &mut Played, root: BatchRoot) -> DeclareMiningJob {
    let declared = declaration(declarator).await;
    assert_eq!(declared.mining_job_token.as_bytes(), [1, 2]);
    let coinbase = parse_coinbase(
        declared.coinbase_tx_prefix.as_bytes(),
        &[0; EXTRANONCE_PREFIX.len() + EXTRANONCE_SIZE],
        declared.coinbase_tx_suffix.as_bytes(),
    )
    .unwrap();
    assert_eq!(find_commitment(&coinbase.output).unwrap(), Some(root));
    assert_eq!(coinbase.output[0].script_pubkey, payout_script());
    assert!(coinbase.output[0].value > Amount::ZERO);
    accept_declaration(declarator, &declared).await;
    declared
}

/// Takes the custom job and a share on it, and checks the share against both as a pool does.
async fn take_share(
    pool: &mut Played,
    declared: &DeclareMiningJob,
    root: BatchRoot,
) -> (SubmitSharesExtended, [u8; 32]) {
    let custom: SetCustomMiningJob = pool.expect().await;
    assert_eq!(custom.token.as_bytes(), [3, 4]);
    let full_size = EXTRANONCE_PREFIX.len() + EXTRANONCE_SIZE;
    let job = JobFactory::new(true, None, None)
        .new_extended_job_from_custom_job(custom.clone(), EXTRANONCE_PREFIX.to_vec(), full_size)
        .unwrap();
    assert_eq!(
        job.get_coinbase_tx_prefix_with_bip141(),
        declared.coinbase_tx_prefix.as_bytes()
    );
    pool.send(&SetCustomMiningJobSuccess {
        channel_id: CHANNEL,
        request_id: custom.request_id,
        job_id: 77,
    })
    .await;
    let frame = pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!(share.job_id, 77);
    assert_eq!(find_claim(&fields), Ok(Some(root)));
    let extranonce = [&EXTRANONCE_PREFIX[..], share.extranonce.as_bytes()].concat();
    let coinbase = parse_coinbase(
        &job.get_coinbase_tx_prefix_without_bip141(),
        &extranonce,
        &job.get_coinbase_tx_suffix_without_bip141(),
    )
    .unwrap();
    let path: Vec<[u8; 32]> = custom.merkle_path.iter().map(U256Owned::to_array).collect();
    let txid = bitcoin::hashes::Hash::to_byte_array(coinbase.compute_txid());
    let header = header_bytes(
        share.version,
        custom.prev_hash.as_array(),
        &merkle_root(txid, &path),
        share.ntime,
        custom.nbits,
        share.nonce,
    );
    let hash = header_hash(&header);
    assert!(meets(&hash, &easy_target()));
    assert!(share.ntime >= custom.min_ntime);
    (share, hash)
}

async fn refuse_share(pool: &mut Played, share: &SubmitSharesExtended, code: &str) {
    pool.send(&SubmitSharesError {
        channel_id: CHANNEL,
        sequence_number: share.sequence_number,
        error_code: Str0255Owned::try_from(code).unwrap(),
    })
    .await;
}

async fn nothing_more(pool: &mut Played) {
    let more = tokio::time::timeout(Duration::from_secs(3), pool.reader.read()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_task_becomes_tokens_a_transcript_a_declared_job_and_a_claiming_share() {
    let fixture = Fixture::start(BLOCKS_NEVER).await;
    let mut pool = fixture.register().await;
    let transcript = fixture.serve_task(&mut pool).await;
    let root = accept_batch(&mut pool, &transcript).await;
    let mut declarator = fixture.declarator().await;
    let declared = take_declaration(&mut declarator, root).await;
    let (share, hash) = take_share(&mut pool, &declared, root).await;
    // One success for the claim and a share behind it.
    pool.send(&SubmitSharesSuccess {
        channel_id: CHANNEL,
        last_sequence_number: share.sequence_number + 1,
        new_submits_accepted_count: 2,
        new_shares_sum: 2,
    })
    .await;
    pool.send(&BatchOutcome {
        root,
        header_hash: HeaderHash::from_bytes(hash),
        accepted: true,
        beacon_step: 0,
        preimage: chain().preimage(0).unwrap(),
        code: String::new(),
        credit_msat: 24_000,
        held_msat: 24_000,
    })
    .await;
    nothing_more(&mut pool).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_stale_share_leads_to_another_declaration_and_a_mismatch_to_none() {
    let fixture = Fixture::start(BLOCKS_NEVER).await;
    let mut pool = fixture.register().await;
    let transcript = fixture.serve_task(&mut pool).await;
    let root = accept_batch(&mut pool, &transcript).await;
    let mut declarator = fixture.declarator().await;
    let declared = take_declaration(&mut declarator, root).await;
    let (share, _) = take_share(&mut pool, &declared, root).await;
    refuse_share(&mut pool, &share, "stale-share").await;
    let declared = take_declaration(&mut declarator, root).await;
    let (share, hash) = take_share(&mut pool, &declared, root).await;
    refuse_share(&mut pool, &share, Code::InferenceMismatch.as_str()).await;
    pool.send(&BatchOutcome {
        root,
        header_hash: HeaderHash::from_bytes(hash),
        accepted: false,
        beacon_step: 0,
        preimage: chain().preimage(0).unwrap(),
        code: Code::InferenceMismatch.to_string(),
        credit_msat: 0,
        held_msat: 0,
    })
    .await;
    nothing_more(&mut pool).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_share_that_is_a_block_goes_to_the_declarator_and_to_the_template_source() {
    let fixture = Fixture::start(BLOCKS_ALWAYS).await;
    let mut pool = fixture.register().await;
    let transcript = fixture.serve_task(&mut pool).await;
    let root = accept_batch(&mut pool, &transcript).await;
    let mut declarator = fixture.declarator().await;
    let declared = take_declaration(&mut declarator, root).await;
    let (share, _) = take_share(&mut pool, &declared, root).await;
    let pushed: PushSolution = declarator.expect().await;
    assert_eq!((pushed.nonce, pushed.ntime), (share.nonce, share.ntime));
    assert!(pushed.extranonce.as_bytes().starts_with(&EXTRANONCE_PREFIX));
    // A block that the embedded chain took shows in the next declaration: it is one higher.
    refuse_share(&mut pool, &share, "stale-share").await;
    let next = take_declaration(&mut declarator, root).await;
    assert_ne!(
        next.coinbase_tx_prefix.as_bytes(),
        declared.coinbase_tx_prefix.as_bytes()
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_claim_that_was_cut_off_is_taken_up_on_the_next_session() {
    let fixture = Fixture::start(BLOCKS_NEVER).await;
    let mut pool = fixture.register().await;
    let transcript = fixture.serve_task(&mut pool).await;
    let root = accept_batch(&mut pool, &transcript).await;
    drop(pool);
    let mut pool = fixture.register().await;
    let again: RegisterBatch = pool.expect().await;
    assert_eq!(again.root, root);
    fixture.stop().await;
}

#[tokio::test]
async fn a_transcript_without_an_answer_is_delivered_again_on_the_next_session() {
    let fixture = Fixture::start(BLOCKS_NEVER).await;
    let mut pool = fixture.register().await;
    let transcript = fixture.serve_task(&mut pool).await;
    drop(pool);
    let mut pool = fixture.register().await;
    let again: DeliverTranscript = pool.expect().await;
    assert_eq!(again.transcript.0, transcript.encode());
    fixture.stop().await;
}

#[tokio::test]
async fn a_pool_that_breaks_its_beacon_is_left_for_good() {
    let fixture = Fixture::start(BLOCKS_NEVER).await;
    let mut pool = fixture.register().await;
    let transcript = fixture.serve_task(&mut pool).await;
    let root = accept_batch(&mut pool, &transcript).await;
    let mut declarator = fixture.declarator().await;
    let declared = take_declaration(&mut declarator, root).await;
    let (share, hash) = take_share(&mut pool, &declared, root).await;
    refuse_share(&mut pool, &share, Code::InferenceMismatch.as_str()).await;
    let chosen = BatchOutcome {
        root,
        header_hash: HeaderHash::from_bytes(hash),
        accepted: false,
        beacon_step: 0,
        preimage: [6; 32],
        code: "tokens".to_owned(),
        credit_msat: 0,
        held_msat: 0,
    };
    pool.send(&chosen).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while pool.reader.read().await.is_ok() {}
    });
    ended.await.unwrap();
    let back = tokio::time::timeout(Duration::from_secs(3), fixture.pool_listener.accept()).await;
    assert!(back.is_err(), "the worker went back");
    let kept = std::fs::read_to_string(fixture.folder.path().join("worker.beacons")).unwrap();
    assert!(kept.contains("does not follow"), "{kept}");
    fixture.stop().await;
}
