//! The way of one batch to its reward: register it, get a job whose coinbase carries its root, show
//! it to all hashers, submit the first share with the claim, and hear how it ended. When a new block
//! arrives before a share does, the job is built again on the new tip.
//!
//! With a node of our own we build and declare the job. It is hashed from the moment it is built:
//! shares that are found while the declarator and the pool still look at it are kept and sent once
//! they have accepted it. Without a node the pool builds it.

mod declaring;
mod pool_built;
mod searching;
mod shown;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dovetail_sv2::extension::{BatchOutcome, RegisterBatch, codes};
use dovetail_sv2::messages::{B032Owned, PushSolution};
use dovetail_sv2::{Outbox, OutboxError};
use dovetail_templates::TemplateHandle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::board::Board;
use crate::coinbase::BuildError;
use crate::declarator::{Declarator, DeclaratorOptions, DeclareError};
use crate::job::{ExtranonceTooSmall, FoundShare, SHARES_WAITING_MAX};
use crate::keys::WorkerKeys;
use crate::session::{Channel, PoolEvent, share_frame};
use crate::stats::Stats;
use crate::transcripts::ReadyBatch;

pub use declaring::{custom_job, min_ntime};
use pool_built::Asked;
use searching::Searched;
use shown::AcceptedJob;

/// Time for the pool to answer a registration or a custom job.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for the pool to audit a batch: a replay of up to 64 transcripts, twice where they differ.
const AUDIT_TIME_MAX: Duration = Duration::from_secs(180);
/// Time between the answer to a share and the outcome that explains it.
const OUTCOME_TIME_MAX: Duration = Duration::from_secs(30);

/// Accepted jobs whose shares are still passed on. Firmware is at most a job or two behind.
const ACCEPTED_MAX: usize = 8;

/// How a claim ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimEnd {
    /// The pool settled the batch, one way or the other.
    Settled {
        /// Whether it is credited.
        accepted: bool,
        /// Why not, if it is not.
        code: String,
        /// What lets us check the sample, if the pool sent it.
        outcome: Option<BatchOutcome>,
    },
    /// The pool will never pay for the batch.
    Refused(String),
}

/// Why a claim did not come to an end; the batch can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The job declarator failed or refused the job.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The template gives no valid coinbase.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The pool's extranonce cannot be shared.
    #[error(transparent)]
    Extranonce(#[from] ExtranonceTooSmall),
    /// The template source failed.
    #[error("the template source failed: {0}")]
    Templates(String),
    /// The pool connection is gone.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// A field of the template does not fit its message.
    #[error("the template does not fit the messages: {0}")]
    Fields(String),
    /// The pool refused the custom job.
    #[error("the pool refused the custom job: {0}")]
    JobRefused(String),
    /// The pool could not do its part this time.
    #[error("the pool failed; the batch is untouched")]
    PoolFailed,
    /// The pool did not answer.
    #[error("the pool did not answer in time")]
    TimeOut,
    /// The session is over.
    #[error("the session is over")]
    SessionOver,
}

/// Where our own jobs are built and declared.
#[derive(Debug, Clone)]
pub struct OwnNode {
    /// Where templates come from.
    pub templates: TemplateHandle,
    /// Where jobs are declared.
    pub declarator: DeclaratorOptions,
}

/// What a claim needs besides the batch. It belongs to one session.
pub struct Claimer {
    /// Sends to the pool.
    pub outbox: Outbox,
    /// The channel as the session last saw it.
    pub channel: watch::Receiver<Channel>,
    /// What arrives from the pool.
    pub events: mpsc::Receiver<PoolEvent>,
    /// Who we are.
    pub keys: WorkerKeys,
    /// Without one the pool builds the jobs.
    node: Option<OwnNode>,
    connection: Option<Declarator>,
    numbers: Arc<AtomicU32>,
    board: Arc<Board>,
    search_here: bool,
    offers: mpsc::Sender<FoundShare>,
    shares: mpsc::Receiver<FoundShare>,
    accepted: VecDeque<AcceptedJob>,
    /// Our number of the job that is being declared, and its shares so far.
    pending: Option<(u32, Vec<FoundShare>)>,
}

impl Claimer {
    /// A claimer that declares its jobs. The connection to the declarator is made when it is first
    /// needed. It searches its jobs on this machine.
    pub fn new(
        outbox: Outbox,
        channel: watch::Receiver<Channel>,
        events: mpsc::Receiver<PoolEvent>,
        templates: TemplateHandle,
        declarator: DeclaratorOptions,
        keys: WorkerKeys,
    ) -> Self {
        let node = OwnNode {
            templates,
            declarator,
        };
        let mut claimer = Self::without_node(outbox, channel, events, keys);
        claimer.node = Some(node);
        claimer
    }

    /// A claimer whose jobs the pool builds. It searches them on this machine.
    pub fn without_node(
        outbox: Outbox,
        channel: watch::Receiver<Channel>,
        events: mpsc::Receiver<PoolEvent>,
        keys: WorkerKeys,
    ) -> Self {
        let (offers, shares) = mpsc::channel(SHARES_WAITING_MAX);
        Self {
            outbox,
            channel,
            events,
            keys,
            node: None,
            connection: None,
            numbers: Arc::new(AtomicU32::new(1)),
            board: Arc::default(),
            search_here: true,
            offers,
            shares,
            accepted: VecDeque::new(),
            pending: None,
        }
    }

    /// Shows its jobs on this board, where others hash them too. `search_here` says whether they
    /// are searched on this machine besides.
    #[must_use]
    pub fn on_board(mut self, board: Arc<Board>, search_here: bool) -> Self {
        self.board = board;
        self.search_here = search_here;
        self
    }

    /// The counter of request and sequence numbers of this session.
    pub fn numbers(&self) -> Arc<AtomicU32> {
        self.numbers.clone()
    }

    /// Claims a batch.
    ///
    /// # Errors
    /// The batch can be claimed again, perhaps on another session.
    pub async fn claim(&mut self, batch: &ReadyBatch) -> Result<ClaimEnd, ClaimError> {
        // Whatever is left over from the claim before answers nothing of this one.
        while self.events.try_recv().is_ok() {}
        if let Some(code) = self.register(batch).await? {
            return refused(code);
        }
        loop {
            let mut job = match self.node.clone() {
                Some(node) => self.declare(&node, batch).await?,
                None => match self.ask_for_job(batch).await? {
                    Asked::Given(job) => job,
                    Asked::Refused(code) => return Ok(ClaimEnd::Refused(code)),
                },
            };
            let (accepted, found) = match self.search(batch, &mut job).await? {
                Searched::Found(found) => *found,
                Searched::Overtaken => {
                    tracing::info!(root = %batch.root, "a new tip or target came first; another job for the batch");
                    continue;
                }
                Searched::Expired => {
                    // Without a claim its shares are as good as others.
                    job.shown.release();
                    return Ok(ClaimEnd::Refused(codes::BATCH_EXPIRED.to_owned()));
                }
            };
            match self.submit(batch, &accepted, &found).await? {
                Some(end) => {
                    if matches!(end, ClaimEnd::Settled { accepted: true, .. }) {
                        job.shown.release();
                    }
                    return Ok(end);
                }
                None => {
                    tracing::info!(root = %batch.root, "the share was stale; another job for the batch");
                }
            }
        }
    }

    /// The next share of a job whose claim is settled; for [`Claimer::pass_on`]. Cancellation-safe.
    pub async fn next_share(&mut self) -> Option<FoundShare> {
        self.shares.recv().await
    }

    /// Submits a share that claims nothing, if its job was accepted; keeps it if its job may yet be.
    ///
    /// # Errors
    /// The pool connection is gone.
    pub async fn pass_on(&mut self, share: FoundShare) -> Result<(), OutboxError> {
        if let Some((id, kept)) = &mut self.pending
            && *id == share.job_id
        {
            if kept.len() < SHARES_WAITING_MAX {
                kept.push(share);
            } else {
                Stats::count(&self.board.stats().shares_lost);
            }
            return Ok(());
        }
        let Some(job) = self.accepted.iter().find(|job| job.id == share.job_id) else {
            Stats::count(&self.board.stats().shares_lost);
            return Ok(());
        };
        let job = job.clone();
        let number = self.number();
        let message = job.channel.share(number, job.job_id, &share);
        self.outbox.send(&message)?;
        if share.block {
            self.push_solution(&job, &share).await;
        }
        Ok(())
    }

    fn remember(&mut self, job: AcceptedJob) {
        if self.accepted.len() == ACCEPTED_MAX {
            self.accepted.pop_front();
        }
        self.accepted.push_back(job);
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers the batch; the code if the pool refuses it.
    async fn register(&mut self, batch: &ReadyBatch) -> Result<Option<String>, ClaimError> {
        let request_id = self.number();
        self.outbox.send(&RegisterBatch {
            request_id,
            root: batch.root,
            task_ids: batch.task_ids.clone(),
        })?;
        self.answer(ANSWER_TIME_MAX, |event| match event {
            PoolEvent::BatchRegistered(id) if *id == request_id => Some(None),
            PoolEvent::BatchRefused(id, code) if *id == request_id => Some(Some(code.clone())),
            _ => None,
        })
        .await
    }

    /// Submits the share with its claim. `None`: the share was stale, the batch is untouched.
    async fn submit(
        &mut self,
        batch: &ReadyBatch,
        job: &AcceptedJob,
        found: &FoundShare,
    ) -> Result<Option<ClaimEnd>, ClaimError> {
        let sequence_number = self.number();
        let share = job.channel.share(sequence_number, job.job_id, found);
        self.outbox
            .try_send(share_frame(&share, Some(&batch.root))?)?;
        tracing::info!(root = %batch.root, job_id = job.job_id, "submitted a share with the claim");
        if found.block {
            self.push_solution(job, found).await;
        }
        // The outcome may come before or after the answer to the share. A success with a later number may
        // be for this one too, or for one that another task of ours sent before it: the outcome tells.
        let mut outcome: Option<BatchOutcome> = None;
        let root = batch.root;
        let answer = self
            .answer(AUDIT_TIME_MAX, |event| match event {
                PoolEvent::SharesAccepted { last, .. } if *last == sequence_number => Some(None),
                PoolEvent::ShareRefused(number, code) if *number == sequence_number => {
                    Some(Some(code.clone()))
                }
                PoolEvent::Outcome(found) if found.root == root => {
                    outcome = Some(found.clone());
                    found.accepted.then_some(None)
                }
                _ => None,
            })
            .await?;
        match answer {
            Some(code) if is_stale(&code) => Ok(None),
            Some(code) if code != codes::INFERENCE_MISMATCH => refused(code).map(Some),
            refusal => {
                if outcome.is_none() {
                    outcome = self.outcome(batch).await?;
                }
                Ok(Some(ClaimEnd::Settled {
                    accepted: refusal.is_none(),
                    code: refusal.unwrap_or_default(),
                    outcome,
                }))
            }
        }
    }

    /// The outcome of the batch, if the pool sends it in time. Settling does not depend on it.
    async fn outcome(&mut self, batch: &ReadyBatch) -> Result<Option<BatchOutcome>, ClaimError> {
        let outcome = self
            .answer(OUTCOME_TIME_MAX, |event| match event {
                PoolEvent::Outcome(found) if found.root == batch.root => Some(found.clone()),
                _ => None,
            })
            .await;
        match outcome {
            Err(ClaimError::TimeOut) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The share is a block: our own template source has it already, and the declarator propagates
    /// it as well as the pool. Failing to is no failure of the claim.
    async fn push_solution(&mut self, job: &AcceptedJob, found: &FoundShare) {
        let mut extranonce = job.channel.extranonce_prefix.clone();
        extranonce.extend_from_slice(&found.extranonce);
        // A block of the pool's own template is the pool's affair.
        let (Some(work), Some(declarator), Ok(extranonce)) =
            (&job.work, &mut self.connection, B032Owned::new(extranonce))
        else {
            return;
        };
        let solution = PushSolution {
            extranonce,
            prev_hash: work.prev_hash.prev_hash.clone(),
            nonce: found.nonce,
            ntime: found.ntime,
            nbits: work.prev_hash.n_bits,
            version: found.version,
        };
        if let Err(error) = declarator.push_solution(&solution).await {
            tracing::warn!(%error, "the job declarator did not take the block");
        }
    }

    /// Waits for the event that `pick` takes. Shares go their way meanwhile.
    async fn answer<T>(
        &mut self,
        time_max: Duration,
        mut pick: impl FnMut(&PoolEvent) -> Option<T>,
    ) -> Result<T, ClaimError> {
        let wait = async {
            loop {
                tokio::select! {
                    event = self.events.recv() => {
                        let event = event.ok_or(ClaimError::SessionOver)?;
                        if let Some(picked) = pick(&event) {
                            return Ok(picked);
                        }
                    }
                    Some(share) = self.shares.recv() => self.pass_on(share).await?,
                }
            }
        };
        timeout(time_max, wait)
            .await
            .map_err(|_| ClaimError::TimeOut)?
    }
}

/// A refusal of the batch, unless its code says that the pool could not do its part.
fn refused(code: String) -> Result<ClaimEnd, ClaimError> {
    if code == codes::INTERNAL || code == codes::AUDIT_UNAVAILABLE {
        return Err(ClaimError::PoolFailed);
    }
    Ok(ClaimEnd::Refused(code))
}

/// Refusals that say nothing about the batch: the job was overtaken by a block, or the target by a
/// harder one that crossed the job on the wire.
fn is_stale(code: &str) -> bool {
    matches!(
        code,
        "stale-share" | "invalid-job-id" | "difficulty-too-low"
    )
}
