//! What a played pool says and hears, from the session's opening to a registered batch.

use dovetail_commitment::{
    Batch, BatchRoot, EncodedPrompt, ModelId, SamplingParams, StopSequences, TaskId, Transcript,
};
use dovetail_sv2::Frame;
use dovetail_sv2::extension::{
    AssignTask, AssignTaskError, DeliverTranscript, DeliverTranscriptSuccess, RegisterBatch,
    RegisterBatchSuccess, StreamTokens,
};
use dovetail_sv2::messages::{
    B064KOwned, NewExtendedMiningJob, Seq0255Owned, SetCustomMiningJob, SetCustomMiningJobSuccess,
    SetNewPrevHash, Sv2OptionOwned,
};
use dovetail_sv2::setup::SetupProtocol;
use dovetail_vrf::VrfSecret;
use tokio::time::timeout;

use super::fixture::{BLOCKS_NEVER, Server, TIME_MAX};
use super::{Fixture, Played, coinbase, easy_target};

pub(crate) const CHANNEL: u32 = 5;
/// The pool's part of the extranonce, and the bytes that are the worker's.
pub(crate) const EXTRANONCE_PREFIX: [u8; 3] = [1, 2, 3];
pub(crate) const EXTRANONCE_SIZE: u16 = 8;
/// What the played pool's own jobs end with.
pub(crate) const POOLS: [u8; 4] = [0xaa; 4];

/// What draws the pool's samples.
pub(crate) fn vrf_secret() -> VrfSecret {
    VrfSecret::from_bytes([1; 32]).unwrap()
}

/// The worker's next session at a pool.
pub(crate) async fn session(pool: &Server) -> Played {
    let opened = async {
        let protocol = SetupProtocol::MiningProtocol;
        let mut played = Played::accept(&pool.listener, &pool.keys, protocol).await;
        let (_, open) = played.register(vrf_secret().public_key()).await;
        played
            .open_channel(&open, CHANNEL, easy_target(), EXTRANONCE_SIZE)
            .await;
        played
    };
    timeout(TIME_MAX, opened).await.unwrap()
}

/// A short task.
pub(crate) fn task(model_id: ModelId, number: u8) -> AssignTask {
    AssignTask {
        task_id: TaskId::from_bytes([number; 32]),
        model_id,
        prompt: EncodedPrompt::new(b"hello", vec![256, 104, 101, 108, 108, 111]).unwrap(),
        salt: [3; 32],
        sampling: SamplingParams {
            temperature_milli: 700,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: 12,
        },
        stop: StopSequences::default(),
        constraint: None,
        seed: [4; 32],
        deadline_ms: 600_000,
    }
}

/// The next message of this type. Others on the way, such as shares, are passed over.
pub(crate) async fn next<M: dovetail_sv2::Message>(pool: &mut Played) -> M {
    let next = async {
        loop {
            let frame: Frame = pool.reader.read().await.unwrap();
            if frame.is::<M>() {
                return frame.decode::<M>().unwrap().0;
            }
        }
    };
    timeout(TIME_MAX, next).await.unwrap()
}

/// Waits until the worker has dealt with everything that it was sent: it refuses a task that nobody can do.
pub(crate) async fn settled(pool: &mut Played) {
    let task_id = TaskId::from_bytes([0xee; 32]);
    let nobodys = AssignTask {
        task_id,
        ..task(ModelId::from_bytes([0xee; 32]), 0)
    };
    pool.send(&nobodys).await;
    loop {
        let refused: AssignTaskError = next(pool).await;
        if refused.task_id == task_id {
            return;
        }
    }
}

/// Waits until the worker has hung up.
pub(crate) async fn hung_up(pool: &mut Played) {
    let ended = timeout(TIME_MAX, async {
        while pool.reader.read().await.is_ok() {}
    });
    ended.await.expect("the worker did not end the session");
}

/// The code by which the worker refuses the task.
pub(crate) async fn refusal(pool: &mut Played, task: &AssignTask) -> String {
    pool.send(task).await;
    let refused: AssignTaskError = next(pool).await;
    assert_eq!(refused.task_id, task.task_id);
    refused.code
}

impl Fixture {
    /// Gives a task, and takes its tokens and its transcript.
    pub(crate) async fn transcript(&self, pool: &mut Played, number: u8) -> Transcript {
        pool.send(&task(self.model_id, number)).await;
        let mut streamed = 0;
        let delivered = async {
            loop {
                let frame = pool.reader.read().await.unwrap();
                if frame.is::<StreamTokens>() {
                    let (chunk, _) = frame.decode::<StreamTokens>().unwrap();
                    assert_eq!(chunk.first_position, streamed);
                    streamed += u32::try_from(chunk.tokens.len()).unwrap();
                } else if frame.is::<DeliverTranscript>() {
                    break frame.decode::<DeliverTranscript>().unwrap().0;
                }
            }
        };
        let delivered = timeout(TIME_MAX, delivered).await.unwrap();
        let transcript = Transcript::decode(&delivered.transcript.0).unwrap();
        assert_eq!(transcript.output_tokens, streamed);
        transcript
    }

    /// Has the worker finish a task and register its batch.
    pub(crate) async fn batch(&self, pool: &mut Played) -> BatchRoot {
        let transcript = self.transcript(pool, 1).await;
        accept_batch(pool, &transcript).await
    }
}

/// Accepts the transcript, and takes the batch that is made of it.
pub(crate) async fn accept_batch(pool: &mut Played, transcript: &Transcript) -> BatchRoot {
    let task_id = transcript.task_id;
    pool.send(&DeliverTranscriptSuccess { task_id }).await;
    let expected = Batch::new(vec![transcript.leaf()]).unwrap().root();
    let batch = batch_of(pool, expected).await;
    assert_eq!(batch.task_ids, vec![task_id]);
    expected
}

/// Takes the batch with this root, perhaps again.
pub(crate) async fn batch_of(pool: &mut Played, root: BatchRoot) -> RegisterBatch {
    let batch: RegisterBatch = next(pool).await;
    assert_eq!(batch.root, root);
    let request_id = batch.request_id;
    pool.send(&RegisterBatchSuccess { request_id }).await;
    batch
}

/// Gives the custom job that comes next this number.
pub(crate) async fn accept_job(pool: &mut Played, job_id: u32) {
    let custom: SetCustomMiningJob = pool.expect().await;
    let success = SetCustomMiningJobSuccess {
        channel_id: CHANNEL,
        request_id: custom.request_id,
        job_id,
    };
    pool.send(&success).await;
}

/// A future job of the pool.
pub(crate) fn job(job_id: u32) -> NewExtendedMiningJob {
    let extranonce_bytes = EXTRANONCE_PREFIX.len() + usize::from(EXTRANONCE_SIZE);
    let (prefix, suffix) = coinbase(&[1, 1], extranonce_bytes);
    assert!(suffix.ends_with(&POOLS));
    NewExtendedMiningJob {
        channel_id: CHANNEL,
        job_id,
        min_ntime: Sv2OptionOwned::new(None),
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: Seq0255Owned::new(vec![]).unwrap(),
        coinbase_tx_prefix: B064KOwned::new(prefix).unwrap(),
        coinbase_tx_suffix: B064KOwned::new(suffix).unwrap(),
    }
}

/// The tip that makes a job current.
pub(crate) fn tip(job_id: u32, prev_hash: [u8; 32]) -> SetNewPrevHash {
    SetNewPrevHash {
        channel_id: CHANNEL,
        job_id,
        prev_hash: prev_hash.into(),
        min_ntime: 1_700_000_000,
        nbits: BLOCKS_NEVER,
    }
}

/// The pool has a job of its own on this tip.
pub(crate) async fn pools_tip(pool: &mut Played, job_id: u32, prev_hash: [u8; 32]) {
    pool.send(&job(job_id)).await;
    pool.send(&tip(job_id, prev_hash)).await;
}
