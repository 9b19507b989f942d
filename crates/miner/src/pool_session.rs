//! One connection to a pool's mining port, from the handshake to a registered worker with an open
//! extended channel, and then the messages that arrive on it as [`PoolEvent`]s.
//!
//! A session decides nothing: the program that opened it decides what to answer.

mod registration;

pub use registration::probe;

use dovetail_commitment::{BatchRoot, ModelId, TaskId};
use dovetail_sv2::connection::FrameReader;
use dovetail_sv2::extension::{
    self, AssignTask, BatchOutcome, CancelTask, DeliverTranscriptError, DeliverTranscriptSuccess,
    PayoutResult, RegisterBatchError, RegisterBatchSuccess, RequestBatchJobError,
    RequestBatchJobSuccess, RequestInvoice,
};
use dovetail_sv2::messages::{
    B032Owned, CloseChannel, NewExtendedMiningJob, SetCustomMiningJobError,
    SetCustomMiningJobSuccess, SetExtranoncePrefix, SetNewPrevHash, SetTarget, SubmitSharesError,
    SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::{
    AuthorityPublicKey, ConnectionError, DecodeError, EXTRANONCE_BYTES_MAX, Frame, Message, Outbox,
    OutboxError, setup,
};
use dovetail_units::KeptCredit;
use dovetail_vrf::VrfPublicKey;
use tokio_util::sync::CancellationToken;

use crate::job::{EXTRANONCE_BYTES, FoundShare, JobParts};
use crate::search::Hash256;

/// Where a pool is and who we are to it.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// host:port of the mining port.
    pub address: String,
    /// The key that the pool's certificate must be signed with. A worker proves its key to nobody whom it does not know.
    pub authority: AuthorityPublicKey,
    /// The models we serve.
    pub models: Vec<ModelId>,
    /// Tasks we take at once.
    pub max_tasks: u16,
    /// How much of our held credit we leave held although it could mature.
    pub keep: KeptCredit,
    /// What we tell the pool that the channel's hash rate is, in h/s.
    pub nominal_hash_rate: f32,
    /// Whether we declare jobs of our own. A pool without job declaration refuses us then.
    pub declares_jobs: bool,
}

impl PoolOptions {
    /// What this pool is remembered by: its key.
    pub fn name(&self) -> String {
        self.authority.to_string()
    }
}

/// Why a session ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The pool did not set the connection up.
    #[error(transparent)]
    Setup(#[from] setup::SetupError),
    /// The pool sent something malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// We could not send.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The pool does not speak the extension.
    #[error("the pool does not speak the inference extension")]
    NoExtension,
    /// The pool did not register us.
    #[error("the pool refused the registration: {0}")]
    NotRegistered(String),
    /// The pool opened no channel.
    #[error("the pool refused the channel: {0}")]
    NoChannel(String),
    /// The pool granted an extranonce that nothing can be done with.
    #[error(
        "the pool grants {0} bytes of extranonce, {EXTRANONCE_BYTES} to {EXTRANONCE_BYTES_MAX} are usable"
    )]
    Extranonce(usize),
    /// No hash is below 0.
    #[error("the pool asks for shares below a target of 0, which no hash is")]
    TargetZero,
    /// The pool closed our channel.
    #[error("the pool closed the channel: {0}")]
    ChannelClosed(String),
    /// The pool did not answer while the session was opened.
    #[error("the pool did not answer in time")]
    TimeOut,
}

/// Our extended channel as the pool last described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: u32,
    /// What a share must meet, little-endian.
    pub target: Hash256,
    /// The pool's part of the extranonce.
    pub extranonce_prefix: Vec<u8>,
    /// Bytes of the extranonce that we roll.
    pub extranonce_size: usize,
    /// The group that it is in.
    pub group_id: u32,
}

impl Channel {
    /// Bytes of the whole extranonce.
    pub fn full_extranonce_size(&self) -> usize {
        self.extranonce_prefix.len() + self.extranonce_size
    }

    /// Whether a message to this channel or group id is for us.
    fn is_addressed(&self, channel_id: u32) -> bool {
        channel_id == self.id || channel_id == self.group_id
    }

    /// The message that submits a header found on this channel.
    pub fn share(
        &self,
        sequence_number: u32,
        job_id: u32,
        found: &FoundShare,
    ) -> SubmitSharesExtended {
        SubmitSharesExtended {
            channel_id: self.id,
            sequence_number,
            job_id,
            nonce: found.nonce,
            ntime: found.ntime,
            version: found.version,
            extranonce: B032Owned::new(found.extranonce.clone())
                .expect("a channel with a longer extranonce is not opened"),
        }
    }
}

/// What arrives on a session.
#[derive(Debug, Clone)]
pub enum PoolEvent {
    /// A task for us.
    Task(AssignTask),
    /// Nobody waits for the task.
    Cancelled(TaskId),
    /// The transcript may go into a batch.
    TranscriptAccepted(TaskId),
    /// The transcript is worthless, with the reason.
    TranscriptRefused(TaskId, String),
    /// The batch of this request can be claimed.
    BatchRegistered(u32),
    /// The batch of this request cannot, with the reason.
    BatchRefused(u32, String),
    /// A job of the pool that carries a batch.
    BatchJob(Box<BatchJob>),
    /// The pool builds no job for the batch of a request.
    BatchJobRefused {
        /// Of the request.
        request_id: u32,
        /// Why.
        code: String,
    },
    /// The custom job of a request has this job id.
    JobAccepted {
        /// Of the request.
        request_id: u32,
        /// For the shares.
        job_id: u32,
    },
    /// The custom job of a request is refused.
    JobRefused {
        /// Of the request.
        request_id: u32,
        /// Why.
        code: String,
    },
    /// Shares up to a sequence number are credited.
    SharesAccepted {
        /// The sequence number.
        last: u32,
        /// How many they are.
        count: u32,
        /// Their difficulty, summed.
        difficulty: u64,
    },
    /// The share with this sequence number is refused, with the reason.
    ShareRefused(u32, String),
    /// How the audit of a batch ended.
    Outcome(BatchOutcome),
    /// The pool wants to pay.
    InvoiceWanted(RequestInvoice),
    /// A payout ended.
    Payout(PayoutResult),
    /// The channel has another target or extranonce prefix; see [`PoolSession::channel`].
    ChannelChanged,
    /// A job of the pool's own, for this channel or its group.
    NewJob(Box<NewExtendedMiningJob>),
    /// A new tip, which makes one of the pool's future jobs current.
    NewTip(SetNewPrevHash),
    /// Something that no worker has a use for.
    Other,
}

/// A job of the pool whose coinbase commits to a batch.
#[derive(Debug, Clone)]
pub struct BatchJob {
    /// The batch.
    pub root: BatchRoot,
    /// The job.
    pub parts: JobParts,
}

/// An open session. Reading is cancellation-safe.
#[derive(Debug)]
pub struct PoolSession {
    reader: FrameReader,
    outbox: Outbox,
    connection: CancellationToken,
    channel: Channel,
    vrf_key: VrfPublicKey,
    models: Vec<ModelId>,
}

impl PoolSession {
    /// The channel as it is now.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// What the pool's proofs are checked with on this session, as it said at registration: before any share of it.
    pub fn vrf_key(&self) -> VrfPublicKey {
        self.vrf_key
    }

    /// The models that the pool knows this session for.
    pub fn models(&self) -> &[ModelId] {
        &self.models
    }

    /// A handle to send with.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Queues a message.
    ///
    /// # Errors
    /// The connection is gone, or the message breaks a limit.
    pub fn send<M: Message>(&self, message: &M) -> Result<(), OutboxError> {
        self.outbox.send(message)
    }

    /// Submits a share, with the claim of a batch if there is one.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn submit(
        &self,
        share: &SubmitSharesExtended,
        claim: Option<&BatchRoot>,
    ) -> Result<(), OutboxError> {
        self.outbox.try_send(share_frame(share, claim)?)
    }

    /// The next event. Cancellation-safe.
    ///
    /// # Errors
    /// The session is over.
    pub async fn next(&mut self) -> Result<PoolEvent, SessionError> {
        let frame = tokio::select! {
            frame = self.reader.read() => frame?,
            () = self.connection.cancelled() => return Err(ConnectionError::Closed.into()),
        };
        if frame.extension_type == extension::EXTENSION_TYPE {
            return Ok(extension_event(&frame)?);
        }
        if frame.extension_type != 0 {
            return Ok(PoolEvent::Other);
        }
        self.mining_event(&frame)
    }

    fn mining_event(&mut self, frame: &Frame) -> Result<PoolEvent, SessionError> {
        use PoolEvent as Event;
        Ok(match frame.message_type {
            SubmitSharesSuccess::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SubmitSharesSuccess>()?;
                Event::SharesAccepted {
                    last: message.last_sequence_number,
                    count: message.new_submits_accepted_count,
                    difficulty: message.new_shares_sum,
                }
            }
            SubmitSharesError::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SubmitSharesError>()?;
                let code = message.error_code.as_utf8_or_hex();
                Event::ShareRefused(message.sequence_number, code)
            }
            SetCustomMiningJobSuccess::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SetCustomMiningJobSuccess>()?;
                Event::JobAccepted {
                    request_id: message.request_id,
                    job_id: message.job_id,
                }
            }
            SetCustomMiningJobError::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SetCustomMiningJobError>()?;
                Event::JobRefused {
                    request_id: message.request_id,
                    code: message.error_code.as_utf8_or_hex(),
                }
            }
            NewExtendedMiningJob::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<NewExtendedMiningJob>()?;
                match self.channel.is_addressed(message.channel_id) {
                    true => Event::NewJob(Box::new(message)),
                    false => Event::Other,
                }
            }
            SetNewPrevHash::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SetNewPrevHash>()?;
                match self.channel.is_addressed(message.channel_id) {
                    true => Event::NewTip(message),
                    false => Event::Other,
                }
            }
            SetTarget::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SetTarget>()?;
                self.channel.target = target(&message.maximum_target)?;
                Event::ChannelChanged
            }
            SetExtranoncePrefix::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<SetExtranoncePrefix>()?;
                self.channel.extranonce_prefix = message.extranonce_prefix.to_owned_bytes();
                Event::ChannelChanged
            }
            CloseChannel::MESSAGE_TYPE => {
                let (message, _) = frame.decode::<CloseChannel>()?;
                let reason = message.reason_code.as_utf8_or_hex();
                return Err(SessionError::ChannelClosed(reason));
            }
            _ => Event::Other,
        })
    }
}

impl Drop for PoolSession {
    fn drop(&mut self) {
        self.connection.cancel();
    }
}

/// A target that some hash meets.
fn target(told: &U256Owned) -> Result<Hash256, SessionError> {
    match told.to_array() {
        [0, zeros @ ..] if zeros == [0; 31] => Err(SessionError::TargetZero),
        target => Ok(target),
    }
}

/// The frame that submits a share, with the claim of a batch if there is one.
///
/// # Errors
/// None in practice: both have fixed sizes.
pub fn share_frame(
    share: &SubmitSharesExtended,
    claim: Option<&BatchRoot>,
) -> Result<Frame, OutboxError> {
    Ok(match claim {
        Some(root) => Frame::with_tlv(share, &extension::claim_tlv(root))?,
        None => Frame::new(share)?,
    })
}

fn extension_event(frame: &Frame) -> Result<PoolEvent, DecodeError> {
    use PoolEvent as Event;
    Ok(match frame.message_type {
        AssignTask::MESSAGE_TYPE => Event::Task(frame.decode()?.0),
        CancelTask::MESSAGE_TYPE => Event::Cancelled(frame.decode::<CancelTask>()?.0.task_id),
        DeliverTranscriptSuccess::MESSAGE_TYPE => {
            Event::TranscriptAccepted(frame.decode::<DeliverTranscriptSuccess>()?.0.task_id)
        }
        DeliverTranscriptError::MESSAGE_TYPE => {
            let (message, _) = frame.decode::<DeliverTranscriptError>()?;
            Event::TranscriptRefused(message.task_id, message.code)
        }
        RegisterBatchSuccess::MESSAGE_TYPE => {
            Event::BatchRegistered(frame.decode::<RegisterBatchSuccess>()?.0.request_id)
        }
        RegisterBatchError::MESSAGE_TYPE => {
            let (message, _) = frame.decode::<RegisterBatchError>()?;
            Event::BatchRefused(message.request_id, message.code)
        }
        // The job itself follows.
        RequestBatchJobSuccess::MESSAGE_TYPE => {
            frame.decode::<RequestBatchJobSuccess>()?;
            Event::Other
        }
        RequestBatchJobError::MESSAGE_TYPE => {
            let (message, _) = frame.decode::<RequestBatchJobError>()?;
            Event::BatchJobRefused {
                request_id: message.request_id,
                code: message.code,
            }
        }
        BatchOutcome::MESSAGE_TYPE => Event::Outcome(frame.decode()?.0),
        RequestInvoice::MESSAGE_TYPE => Event::InvoiceWanted(frame.decode()?.0),
        PayoutResult::MESSAGE_TYPE => Event::Payout(frame.decode()?.0),
        _ => Event::Other,
    })
}
