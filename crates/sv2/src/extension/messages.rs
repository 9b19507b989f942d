//! The messages of the extension, one struct each. A field's limit is part of its type, so a
//! value that was decoded or encoded keeps to the specification.

use dovetail_commitment::{
    BatchRoot, Constraint, EncodedPrompt, HeaderHash, ModelId, SamplingParams, StopSequences,
    TaskId, WorkerKey,
};
use dovetail_units::KeptCredit;
use dovetail_vrf::{VrfProof, VrfPublicKey};

use super::{EXTENSION_TYPE, INVOICE_BYTES_MAX, TRANSCRIPT_BYTES_MAX};
use crate::frame::{DecodeError, EncodeError, Message};
use crate::wire::{Bytes, Field, Fields, encode_error};

macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $number:literal $name:ident { $( $(#[$field_doc:meta])* $field:ident: $type:ty ),* $(,)? }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl Message for $name {
            const EXTENSION_TYPE: u16 = EXTENSION_TYPE;
            const MESSAGE_TYPE: u8 = $number;
            const CHANNEL_MSG: bool = false;

            fn read(payload: &mut [u8]) -> Result<(Self, usize), DecodeError> {
                let mut fields = Fields::new(Self::MESSAGE_TYPE, payload);
                let message = Self {
                    $( $field: Field::take(&mut fields, stringify!($field))?, )*
                };
                Ok((message, fields.taken()))
            }

            fn write(&self) -> Result<Vec<u8>, EncodeError> {
                let mut out = Vec::new();
                $(
                    self.$field
                        .put(&mut out, stringify!($field))
                        .map_err(|reason| encode_error(Self::MESSAGE_TYPE, reason))?;
                )*
                Ok(out)
            }
        }
    )*};
}

messages! {
    /// A worker names its key, the models it serves and how many tasks it takes at once.
    0x00 RegisterWorker {
        /// The BIP-340 key that transcripts and batches carry.
        worker_key: WorkerKey,
        /// The models it serves.
        models: Vec<ModelId>,
        /// Tasks it takes at once.
        max_tasks: u16,
        /// How much of its held credit it leaves held although that could mature.
        keep_msat: KeptCredit,
    }
    /// The pool's challenge to prove the key.
    0x01 RegisterWorkerChallenge {
        /// Random.
        nonce: [u8; 32],
    }
    /// The signature over the challenge; see [`super::sign_registration`].
    0x02 RegisterWorkerProof {
        /// BIP-340.
        signature: [u8; 64],
    }
    /// The worker may take tasks.
    0x03 RegisterWorkerSuccess {
        /// What the pool's proofs are checked with, on this connection.
        vrf_key: VrfPublicKey,
    }
    /// The registration is refused.
    0x04 RegisterWorkerError {
        /// One of [`super::codes`].
        code: String,
    }
    /// The pool gives a task.
    0x10 AssignTask {
        /// The task.
        task_id: TaskId,
        /// The model to run.
        model_id: ModelId,
        /// What to complete: tokens of the model, and the digest of the text that the pool made them of.
        prompt: EncodedPrompt,
        /// The salt of the prompt commitment.
        salt: [u8; 32],
        /// How to sample.
        sampling: SamplingParams,
        /// Where to stop.
        stop: StopSequences,
        /// The form that the output must have.
        constraint: Option<Constraint>,
        /// The seed of the sampling.
        seed: [u8; 32],
        /// When the result is worthless, from now.
        deadline_ms: u32,
    }
    /// The worker cannot do the task.
    0x11 AssignTaskError {
        /// The task.
        task_id: TaskId,
        /// One of [`super::codes`].
        code: String,
    }
    /// Tokens of a running task, in order.
    0x12 StreamTokens {
        /// The task.
        task_id: TaskId,
        /// The position of the first of them in the output.
        first_position: u32,
        /// The tokens.
        tokens: Vec<u32>,
    }
    /// The transcript of a finished task.
    0x13 DeliverTranscript {
        /// The task.
        task_id: TaskId,
        /// The encoded transcript.
        transcript: Bytes<TRANSCRIPT_BYTES_MAX>,
    }
    /// The transcript is the task's; it may go into a batch.
    0x14 DeliverTranscriptSuccess {
        /// The task.
        task_id: TaskId,
    }
    /// The transcript is refused.
    0x15 DeliverTranscriptError {
        /// The task.
        task_id: TaskId,
        /// One of [`super::codes`].
        code: String,
    }
    /// Nobody waits for the task any more.
    0x16 CancelTask {
        /// The task.
        task_id: TaskId,
    }
    /// The worker names the transcripts behind a batch root.
    0x20 RegisterBatch {
        /// Pairs the answer.
        request_id: u32,
        /// The root that the coinbase will carry.
        root: BatchRoot,
        /// The tasks, in the order of their leaves.
        task_ids: Vec<TaskId>,
    }
    /// The batch can be claimed.
    0x21 RegisterBatchSuccess {
        /// Of the request.
        request_id: u32,
    }
    /// The batch is refused.
    0x22 RegisterBatchError {
        /// Of the request.
        request_id: u32,
        /// One of [`super::codes`].
        code: String,
    }
    /// How the audit of a claimed batch ended, with what lets the worker check the sample.
    0x23 BatchOutcome {
        /// The batch.
        root: BatchRoot,
        /// The block hash of the share that claimed it.
        header_hash: HeaderHash,
        /// Whether the batch is credited.
        accepted: bool,
        /// The block hash of the share that fixed the batch's sample: that of its first admitted claim.
        sample_header: HeaderHash,
        /// Shows the output that draws the sample; [`VrfProof::NONE`] while the batch has not ended.
        proof: VrfProof,
        /// What the sample was drawn against: the least of the worker's credit for inference that was held at any claim
        /// of the batch, in msat; 0 while the batch has not ended.
        stake_msat: u64,
        /// Empty, or one of [`super::codes`].
        code: String,
        /// What the batch's tokens are credited with, in msat; 0 unless it is accepted.
        credit_msat: u64,
        /// All credit for inference of the worker that has not matured, this batch's included, in msat;
        /// [`super::MSAT_UNKNOWN`] where the pool cannot tell now.
        held_msat: u64,
    }
    /// The worker asks for a job of the pool's whose coinbase carries a registered batch.
    0x24 RequestBatchJob {
        /// Pairs the answer.
        request_id: u32,
        /// The extended channel that the job is for.
        channel_id: u32,
        /// The batch.
        root: BatchRoot,
    }
    /// The job is built; it follows as a `NewExtendedMiningJob`.
    0x25 RequestBatchJobSuccess {
        /// Of the request.
        request_id: u32,
        /// Of the job.
        job_id: u32,
    }
    /// There is no such job.
    0x26 RequestBatchJobError {
        /// Of the request.
        request_id: u32,
        /// One of [`super::codes`].
        code: String,
    }
    /// The pool wants to pay.
    0x30 RequestInvoice {
        /// The payout.
        payout_id: [u8; 32],
        /// What it is worth.
        amount_msat: u64,
    }
    /// An invoice for a payout.
    0x31 Invoice {
        /// The payout.
        payout_id: [u8; 32],
        /// The BOLT11 string.
        bolt11: Bytes<INVOICE_BYTES_MAX>,
        /// The worker's signature over the payment; see [`super::sign_invoice`].
        signature: [u8; 64],
    }
    /// The worker has no invoice to give.
    0x32 InvoiceError {
        /// The payout.
        payout_id: [u8; 32],
        /// One of [`super::codes`].
        code: String,
    }
    /// How the payout ended.
    0x33 PayoutResult {
        /// The payout.
        payout_id: [u8; 32],
        /// Whether the money has arrived; otherwise it is back on the balance.
        paid: bool,
    }
}
