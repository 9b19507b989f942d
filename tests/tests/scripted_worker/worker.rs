//! A scripted worker on its mining connection: registration, tasks, transcripts, batches.

use std::collections::BTreeMap;

use dovetail_commitment::{BatchRoot, ModelId, TaskId, Transcript};
use dovetail_engine::Output;
use dovetail_miner::keys::WorkerKeys;
use dovetail_miner::pool_session::Channel;
use dovetail_sv2::extension::{
    AssignTask, Bytes, DeliverTranscript, DeliverTranscriptError, DeliverTranscriptSuccess,
    EXTENSION_TYPE, KeptCredit, RegisterBatch, RegisterBatchError, RegisterBatchSuccess,
    RegisterWorker, RegisterWorkerChallenge, RegisterWorkerError, RegisterWorkerProof,
    RegisterWorkerSuccess, StreamTokens, sign_registration,
};
use dovetail_sv2::messages::{
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, Str0255Owned, U256Owned,
};

use dovetail_vrf::VrfPublicKey;

use super::wire::{self, Wire};
use super::{Endpoints, TestBatch, Told, batch_of, transcript};

/// Slow enough that a share takes a thousand hashes.
const HASH_RATE: f32 = 1_000.0;
const EXTRANONCE_BYTES: u16 = 8;

/// A connection, a key, a channel.
pub(crate) struct ScriptedWorker {
    pub(super) endpoints: Endpoints,
    /// The connection, for everything that has no method here.
    pub(crate) wire: Wire,
    /// Who it says it is.
    pub(crate) keys: WorkerKeys,
    /// Its channel.
    pub(crate) channel: Channel,
    /// What the pool said that its proofs are checked with, once it is registered.
    pub(crate) vrf_key: Option<VrfPublicKey>,
    /// What each channel's successes come to.
    pub(super) told: BTreeMap<u32, Told>,
    /// Refusals that nobody asked about yet, by channel and number.
    pub(super) refused: BTreeMap<(u32, u32), String>,
    next_number: u32,
}

impl ScriptedWorker {
    /// A new worker that serves this model.
    pub(crate) async fn new(endpoints: &Endpoints, model: ModelId) -> Self {
        Self::with_keys(endpoints, WorkerKeys::generate(), model, 4).await
    }

    /// A worker with a key of before; it takes up to `max_tasks` tasks.
    pub(crate) async fn with_keys(
        endpoints: &Endpoints,
        keys: WorkerKeys,
        model: ModelId,
        max_tasks: u16,
    ) -> Self {
        let mut worker = Self::unregistered(endpoints, keys).await;
        let registration = RegisterWorker {
            worker_key: worker.keys.name,
            models: vec![model],
            max_tasks,
            keep_msat: KeptCredit::NONE,
        };
        worker.register_as(&registration).await;
        worker
    }

    /// Registers with this message.
    pub(crate) async fn register_as(&mut self, registration: &RegisterWorker) {
        let nonce = challenged(&mut self.wire, registration).await.unwrap();
        let proof = sign_registration(&self.keys.pair, &nonce, &self.wire.binding());
        self.vrf_key = Some(prove(&mut self.wire, &proof).await.unwrap());
    }

    /// A connection with the extension and a channel, which has proven no key.
    pub(crate) async fn unregistered(endpoints: &Endpoints, keys: WorkerKeys) -> Self {
        let mut wire = Wire::miner(&endpoints.mining).await;
        assert!(wire.negotiate(EXTENSION_TYPE).await);
        let channel = open_channel(&mut wire, &keys.name.to_string()).await;
        Self {
            endpoints: endpoints.clone(),
            wire,
            keys,
            channel,
            vrf_key: None,
            told: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_number: 1,
        }
    }

    /// Opens another channel in the name of this account; shares and jobs go there from now on.
    pub(crate) async fn open_channel_as(&mut self, identity: &str) {
        self.channel = open_channel(&mut self.wire, identity).await;
    }

    pub(super) fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    /// The next task that it is given.
    pub(crate) async fn task(&mut self) -> AssignTask {
        self.wire.receive().await
    }

    /// Streams tokens from the first position on.
    pub(crate) async fn stream(&mut self, task_id: TaskId, tokens: &[u32]) {
        for (chunk, first_position) in tokens.chunks(16).zip((0..).step_by(16)) {
            let message = StreamTokens {
                task_id,
                first_position,
                tokens: chunk.to_vec(),
            };
            self.wire.send(&message).await;
        }
    }

    /// Delivers bytes as a task's transcript; the code if they are refused.
    pub(crate) async fn deliver_bytes(
        &mut self,
        task_id: TaskId,
        bytes: Vec<u8>,
    ) -> Result<(), String> {
        let message = DeliverTranscript {
            task_id,
            transcript: Bytes(bytes),
        };
        self.wire.send(&message).await;
        self.wire
            .pick(|frame| {
                if frame.is::<DeliverTranscriptSuccess>() {
                    return Some(Ok(()));
                }
                frame
                    .is::<DeliverTranscriptError>()
                    .then(|| Err(wire::decoded::<DeliverTranscriptError>(frame).code))
            })
            .await
    }

    /// Streams the tokens and delivers the transcript; the code if it is refused.
    pub(crate) async fn deliver(
        &mut self,
        tokens: &[u32],
        transcript: &Transcript,
    ) -> Result<(), String> {
        self.stream(transcript.task_id, tokens).await;
        self.deliver_bytes(transcript.task_id, transcript.encode())
            .await
    }

    /// Delivers what it says is the task's output; the code if it is refused.
    pub(crate) async fn deliver_output(
        &mut self,
        task: &AssignTask,
        output: &Output,
    ) -> Result<Transcript, String> {
        let transcript = transcript(self.keys.name, task, output);
        self.deliver(&output.tokens, &transcript).await?;
        Ok(transcript)
    }

    /// Delivers what it says is the task's output, and registers a batch of it alone.
    pub(crate) async fn batch_output(&mut self, task: &AssignTask, output: &Output) -> TestBatch {
        let transcript = self.deliver_output(task, output).await.unwrap();
        let batch = batch_of(&[transcript]);
        self.register_batch(&batch).await.unwrap();
        batch
    }

    /// Names the tasks behind a root; the code if they are refused.
    pub(crate) async fn register(
        &mut self,
        root: BatchRoot,
        tasks: &[TaskId],
    ) -> Result<(), String> {
        let request_id = self.number();
        let message = RegisterBatch {
            request_id,
            root,
            task_ids: tasks.to_vec(),
        };
        self.wire.send(&message).await;
        self.wire
            .pick(|frame| {
                if frame.is::<RegisterBatchSuccess>() {
                    return Some(Ok(()));
                }
                frame
                    .is::<RegisterBatchError>()
                    .then(|| Err(wire::decoded::<RegisterBatchError>(frame).code))
            })
            .await
    }

    /// Registers an honest batch.
    pub(crate) async fn register_batch(&mut self, batch: &TestBatch) -> Result<(), String> {
        self.register(batch.root, &batch.tasks).await
    }
}

/// Asks to be registered; the nonce to sign, or the code of a refusal.
pub(crate) async fn challenge(
    wire: &mut Wire,
    keys: &WorkerKeys,
    model: ModelId,
    max_tasks: u16,
) -> Result<[u8; 32], String> {
    let registration = RegisterWorker {
        worker_key: keys.name,
        models: vec![model],
        max_tasks,
        keep_msat: KeptCredit::NONE,
    };
    challenged(wire, &registration).await
}

async fn challenged(wire: &mut Wire, registration: &RegisterWorker) -> Result<[u8; 32], String> {
    wire.send(registration).await;
    wire.pick(|frame| {
        if frame.is::<RegisterWorkerChallenge>() {
            return Some(Ok(wire::decoded::<RegisterWorkerChallenge>(frame).nonce));
        }
        refused(frame)
    })
    .await
}

/// Proves a key; what the pool's proofs are checked with, or the code of a refusal.
pub(crate) async fn prove(
    wire: &mut Wire,
    proof: &RegisterWorkerProof,
) -> Result<VrfPublicKey, String> {
    wire.send(proof).await;
    wire.pick(|frame| {
        if frame.is::<RegisterWorkerSuccess>() {
            return Some(Ok(wire::decoded::<RegisterWorkerSuccess>(frame).vrf_key));
        }
        refused(frame)
    })
    .await
}

fn refused<T>(frame: &dovetail_sv2::Frame) -> Option<Result<T, String>> {
    frame
        .is::<RegisterWorkerError>()
        .then(|| Err(wire::decoded::<RegisterWorkerError>(frame).code))
}

async fn open_channel(wire: &mut Wire, identity: &str) -> Channel {
    let message = OpenExtendedMiningChannel {
        request_id: 1,
        user_identity: Str0255Owned::try_from(identity).unwrap(),
        nominal_hash_rate: HASH_RATE,
        max_target: U256Owned::from([0xff; 32]),
        min_extranonce_size: EXTRANONCE_BYTES,
    };
    wire.send(&message).await;
    let success: OpenExtendedMiningChannelSuccess = wire.receive().await;
    Channel {
        id: success.channel_id,
        target: success.target.to_array(),
        extranonce_prefix: success.extranonce_prefix.to_owned_bytes(),
        extranonce_size: usize::from(success.extranonce_size),
        group_id: success.group_channel_id,
    }
}
