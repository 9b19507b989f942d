//! The claim of one batch: register it, get a share of a job whose coinbase carries its root, submit the share with
//! the claim, and hear how it ended. When a new block arrives before a share does, the job is built again on the
//! new tip.
//!
//! With a node of our own, [`dovetail_miner::declared_jobs`] makes the jobs. Without one the pool builds them.

mod declared_share;
mod pool_job;
mod pool_share;
mod sent_claims;

use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::HeaderHash;
use dovetail_miner::current_job::CurrentJob;
use dovetail_miner::declared_jobs::{JobError, ShareRequests};
use dovetail_miner::job::{FoundShare, SHARES_WAITING_MAX, UnfitJob};
use dovetail_miner::open_shares::is_up_to;
use dovetail_miner::pool_session::{Channel, PoolEvent};
use dovetail_miner::share_numbers::ShareNumbers;
use dovetail_miner::submitter::{AcceptedJob, Submitter};
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{BatchOutcome, RegisterBatch};
use dovetail_sv2::{Outbox, OutboxError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::promises::BrokenPromise;
use pool_job::Asked;
use pool_share::Searched;
pub use sent_claims::{ClaimShares, SentClaim, SentClaims};

/// The least time between two requests for a job of the pool: it renews jobs by itself.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a pool may take.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTimes {
    /// To answer a registration, or a request for a job.
    pub answer: Duration,
    /// To audit a batch: a replay of up to 64 transcripts, and another one where they differ, behind a claim of ours that
    /// took as long.
    pub audit: Duration,
    /// From the answer to a share until the outcome that explains it.
    pub outcome: Duration,
}

impl Default for ClaimTimes {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            audit: Duration::from_secs(600),
            outcome: Duration::from_secs(30),
        }
    }
}

/// How a claim ended. Whether its batch is credited is what the session read in the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimEnd {
    /// The pool settled the batch, one way or the other, and its outcome says how.
    Settled {
        /// Whether it is credited.
        accepted: bool,
        /// Why not, if it is not.
        code: String,
    },
    /// The pool accepted the share, and never said how the audit ended.
    Unexplained,
    /// The pool broke its word.
    Broken(BrokenPromise),
    /// The pool will never pay for the batch.
    Refused(String),
}

/// What a pool answered to a share with a claim.
enum ShareAnswer {
    /// It credits the share.
    Accepted,
    /// It refuses the share, with this code.
    Refused(String),
    /// Nothing yet, but the outcome says that the batch is credited.
    Credited,
}

/// Why a claim has not ended; the batch can be claimed again.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// No job on a template of our own node was accepted.
    #[error(transparent)]
    Job(#[from] JobError),
    /// No device could hash the job.
    #[error(transparent)]
    Unfit(#[from] UnfitJob),
    /// The pool connection is gone.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The pool's job cannot be used.
    #[error("the pool's job cannot be used: {0}")]
    PoolsJob(&'static str),
    /// The pool builds no job for the batch now.
    #[error("the pool builds no job for the batch: {0}")]
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

/// What a claim needs besides the batch. It belongs to one session.
pub struct Claimer {
    /// Sends to the pool.
    outbox: Outbox,
    /// The channel as the session last saw it.
    channel: watch::Receiver<Channel>,
    /// What arrives from the pool.
    events: mpsc::Receiver<PoolEvent>,
    /// Asks for shares of declared jobs; without it the pool builds the jobs that carry batches.
    declared: Option<ShareRequests>,
    current_job: Arc<CurrentJob>,
    search_here: bool,
    submitter: Submitter,
    sent: SentClaims,
    times: ClaimTimes,
    offers: mpsc::Sender<FoundShare>,
    shares: mpsc::Receiver<FoundShare>,
}

impl Claimer {
    /// A claimer whose jobs the pool builds. Devices get them through `current_job`; `search_here`
    /// says whether they are searched on this machine besides. `numbers` counts the requests and shares
    /// of the session; `sent` remembers its claims.
    pub fn new(
        outbox: Outbox,
        channel: watch::Receiver<Channel>,
        events: mpsc::Receiver<PoolEvent>,
        current_job: Arc<CurrentJob>,
        search_here: bool,
        numbers: Arc<ShareNumbers>,
        sent: SentClaims,
    ) -> Self {
        let (offers, shares) = mpsc::channel(SHARES_WAITING_MAX);
        let submitter = Submitter::new(outbox.clone(), numbers, current_job.stats().clone());
        Self {
            outbox,
            channel,
            events,
            declared: None,
            current_job,
            search_here,
            submitter,
            sent,
            times: ClaimTimes::default(),
            offers,
            shares,
        }
    }

    /// Waits this long for the pool.
    #[must_use]
    pub fn with_times(mut self, times: ClaimTimes) -> Self {
        self.times = times;
        self
    }

    /// Claims with shares of declared jobs.
    #[must_use]
    pub(crate) fn with_declared_jobs(mut self, requests: ShareRequests) -> Self {
        self.declared = Some(requests);
        self
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
        match self.declared.take() {
            Some(mut requests) => {
                let claimed = self.claim_with_declared_jobs(&mut requests, batch).await;
                // What is settled or expired leaves a job whose shares are as good as others.
                let hash_on = match &claimed {
                    Ok(ClaimEnd::Settled { accepted, .. }) => *accepted,
                    Ok(ClaimEnd::Unexplained) => true,
                    Ok(ClaimEnd::Refused(code)) => *code == Code::BatchExpired,
                    Ok(ClaimEnd::Broken(_)) | Err(_) => false,
                };
                requests.rest(hash_on);
                self.declared = Some(requests);
                claimed
            }
            None => self.claim_with_pool_jobs(batch).await,
        }
    }

    /// With jobs that the pool builds.
    async fn claim_with_pool_jobs(&mut self, batch: &ReadyBatch) -> Result<ClaimEnd, ClaimError> {
        let mut not_before = Instant::now();
        loop {
            self.pause(not_before).await?;
            not_before = Instant::now() + REQUEST_INTERVAL;
            let mut job = match self.ask_for_job(batch).await? {
                Asked::Given(job) => job,
                Asked::Refused(code) => return Ok(ClaimEnd::Refused(code)),
            };
            let (accepted, found) = match self.search(batch, &mut job).await? {
                Searched::Found(found) => *found,
                Searched::Overtaken => {
                    tracing::info!(root = %batch.root, "a new tip or target came first; another job for the batch");
                    continue;
                }
                Searched::Expired => {
                    // Without a claim its shares are as good as others.
                    job.display.settle();
                    return Ok(ClaimEnd::Refused(Code::BatchExpired.to_string()));
                }
            };
            match self.submit(batch, &accepted, &found).await? {
                Some(end) => {
                    let accepted = matches!(end, ClaimEnd::Settled { accepted: true, .. });
                    if accepted || end == ClaimEnd::Unexplained {
                        job.display.settle();
                    }
                    return Ok(end);
                }
                None => {
                    tracing::info!(root = %batch.root, "the share was stale; another job for the batch");
                }
            }
        }
    }

    /// The next share of a job that the pool built and whose claim is settled; for [`Claimer::pass_on`].
    /// Cancellation-safe.
    pub async fn next_share(&mut self) -> Option<FoundShare> {
        self.shares.recv().await
    }

    /// Submits a share that claims nothing, if its job was accepted.
    ///
    /// # Errors
    /// The pool connection is gone.
    pub fn pass_on(&self, share: &FoundShare) -> Result<(), OutboxError> {
        self.submitter.pass_on(share)
    }

    /// Registers the batch; the code if the pool refuses it.
    async fn register(&mut self, batch: &ReadyBatch) -> Result<Option<String>, ClaimError> {
        let request_id = self.submitter.number();
        self.outbox.send(&RegisterBatch {
            request_id,
            root: batch.root,
            task_ids: batch.task_ids.clone(),
        })?;
        self.answer(self.times.answer, |event| match event {
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
        // Before it is sent: the outcome must find it.
        self.sent.add(batch, found);
        let number = self.submitter.submit(job, found, Some(&batch.root))?;
        tracing::info!(root = %batch.root, job_id = job.job_id, "submitted a share with the claim");
        let header_hash = HeaderHash::from_bytes(found.hash);
        let mut outcome = None;
        let answer = self
            .share_answer(batch, header_hash, number, &mut outcome)
            .await?;
        match answer {
            ShareAnswer::Credited => Ok(Some(settled(true, String::new()))),
            ShareAnswer::Accepted => {
                let outcome = self.outcome(batch, header_hash, outcome).await?;
                Ok(Some(match outcome {
                    Some(outcome) if outcome.accepted => settled(true, String::new()),
                    Some(_) => ClaimEnd::Broken(BrokenPromise::Contradiction),
                    None => ClaimEnd::Unexplained,
                }))
            }
            ShareAnswer::Refused(code) if code == Code::InferenceMismatch => {
                let outcome = self.outcome(batch, header_hash, outcome).await?;
                Ok(Some(match outcome {
                    Some(outcome) if is_mismatch(&outcome) => settled(false, outcome.code),
                    Some(_) => ClaimEnd::Broken(BrokenPromise::Contradiction),
                    None => ClaimEnd::Broken(BrokenPromise::Kept),
                }))
            }
            ShareAnswer::Refused(code) => {
                // The outcome of an audit that could not be done is still to come.
                if code != Code::AuditUnavailable && code != Code::BatchDead {
                    self.sent.withdraw(&batch.root, &header_hash);
                }
                match is_stale(&code) {
                    true => Ok(None),
                    false => refused(code).map(Some),
                }
            }
        }
    }

    /// Waits for the answer to the share with this number, and keeps the outcome if that comes first.
    async fn share_answer(
        &mut self,
        batch: &ReadyBatch,
        header_hash: HeaderHash,
        number: u32,
        outcome: &mut Option<BatchOutcome>,
    ) -> Result<ShareAnswer, ClaimError> {
        // A success with a later number may be for this one too, or for one that another task of ours sent
        // before it: the outcome tells.
        let mut acknowledged_later = false;
        let root = batch.root;
        let answer = self
            .answer(self.times.audit, |event| match event {
                PoolEvent::SharesAccepted { last, .. } if *last == number => {
                    Some(ShareAnswer::Accepted)
                }
                PoolEvent::SharesAccepted { last, .. } => {
                    acknowledged_later |= is_up_to(number, *last);
                    None
                }
                PoolEvent::ShareRefused(refused, code) if *refused == number => {
                    Some(ShareAnswer::Refused(code.clone()))
                }
                // Whichever of its shares the pool credits the batch with.
                PoolEvent::Outcome(found) if found.root == root && found.accepted => {
                    Some(ShareAnswer::Credited)
                }
                PoolEvent::Outcome(found) if found.header_hash == header_hash => {
                    *outcome = Some(found.clone());
                    None
                }
                _ => None,
            })
            .await;
        match answer {
            Err(ClaimError::TimeOut) if acknowledged_later => Ok(ShareAnswer::Accepted),
            answer => answer,
        }
    }

    /// The outcome of the claim: the one that is there already, or the one that comes in time.
    async fn outcome(
        &mut self,
        batch: &ReadyBatch,
        header_hash: HeaderHash,
        known: Option<BatchOutcome>,
    ) -> Result<Option<BatchOutcome>, ClaimError> {
        if known.is_some() {
            return Ok(known);
        }
        let outcome = self
            .answer(self.times.outcome, |event| match event {
                PoolEvent::Outcome(found)
                    if found.root == batch.root && found.header_hash == header_hash =>
                {
                    Some(found.clone())
                }
                _ => None,
            })
            .await;
        match outcome {
            Err(ClaimError::TimeOut) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Waits until this time. What the pool says meanwhile is of no interest.
    async fn pause(&mut self, until: Instant) -> Result<(), ClaimError> {
        let time = until.saturating_duration_since(Instant::now());
        match self.answer(time, |_| None).await {
            Err(ClaimError::TimeOut) => Ok(()),
            ended => ended,
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
                    Some(share) = self.shares.recv() => self.pass_on(&share)?,
                }
            }
        };
        timeout(time_max, wait)
            .await
            .map_err(|_| ClaimError::TimeOut)?
    }
}

fn settled(accepted: bool, code: String) -> ClaimEnd {
    ClaimEnd::Settled { accepted, code }
}

/// Whether the outcome says that a replay gave something else.
pub(crate) fn is_mismatch(outcome: &BatchOutcome) -> bool {
    let undone = Code::parse(&outcome.code);
    let undone = matches!(
        undone,
        Some(Code::AuditUnavailable | Code::BatchDead | Code::Internal)
    );
    !outcome.accepted && !undone
}

/// A refusal of the batch, unless its code says that the pool could not do its part.
fn refused(code: String) -> Result<ClaimEnd, ClaimError> {
    if code == Code::Internal || code == Code::AuditUnavailable {
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
