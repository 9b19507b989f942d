//! Jobs on templates of the miner's own node: built, given to devices, declared to the job declarator and handed to
//! the pool, one after the other. Between batches they are plain; while a share for a batch is wanted they carry
//! its root. While no such job can be made, devices are given the pool's jobs.
//!
//! One task for the whole session owns all of it, the connection to the declarator too. Whoever claims a batch asks it
//! for shares ([`ShareRequests`]); it knows nothing of registrations and audits.

mod candidate;
mod declaration_rate;
mod declaration_step;
mod next_job;
mod task;
mod tips;

use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::BatchRoot;
use dovetail_sv2::OutboxError;
use dovetail_templates::block_publisher::BlockPublisher;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::coinbase::BuildError;
use crate::current_job::DeclaredDisplay;
use crate::declarator_client::{DeclaratorOptions, DeclareError};
use crate::job::{FoundShare, UnfitJob};
use crate::search::Hash256;
use crate::submitter::AcceptedJob;

pub use candidate::custom_job;
pub use task::Start;

/// Answers and tips of the pool that wait for the task. It asks for one thing at a time.
const NOTICES_MAX: usize = 64;
/// Answers to requests for shares that wait: one is asked for at a time.
const ANSWERS_MAX: usize = 4;

/// How jobs on own templates are made.
#[derive(Debug, Clone)]
pub struct DeclaredJobsOptions {
    /// Where templates come from, and blocks go.
    pub blocks: BlockPublisher,
    /// Where jobs are declared.
    pub declarator: DeclaratorOptions,
    /// Whether plain jobs are declared between batches.
    pub between_batches: bool,
    /// The least time between two jobs on one tip of which the second is only the better one.
    pub renew_interval: Duration,
    /// Whether jobs that carry a batch are searched on this machine as well.
    pub search_here: bool,
}

/// Why a job on an own template was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The job declarator failed or refused the job.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The template gives no valid coinbase.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No device could hash the job.
    #[error(transparent)]
    Unfit(#[from] UnfitJob),
    /// The template source failed.
    #[error("our template source failed: {0}")]
    Templates(String),
    /// The template is gone: our node has, or is about to have, a newer one.
    #[error("the template is gone")]
    TemplateGone,
    /// A field of the template does not fit its message.
    #[error("the template does not fit the messages: {0}")]
    Fields(String),
    /// The pool refused the job.
    #[error("the pool refused our job: {0}")]
    Refused(String),
    /// The pool did not answer.
    #[error("the pool did not answer our job in time")]
    TimeOut,
}

impl JobError {
    /// Whether the declarator or the pool looked at the job and refused it.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Declare(DeclareError::Refused(_)) | Self::Refused(_)
        )
    }

    /// Whether the job was refused because the chain went on: our node will hear of it, or the other one.
    fn is_stale(&self) -> bool {
        let stale = "stale-chain-tip";
        match self {
            Self::Declare(DeclareError::Refused(code)) | Self::Refused(code) => code == stale,
            Self::TemplateGone => true,
            _ => false,
        }
    }
}

/// What the task hears of the pool, in the order in which the pool said it.
#[derive(Debug)]
pub enum PoolNotice {
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
    /// The pool builds on this tip now.
    Tip(Hash256),
}

/// What is wanted of the task, besides plain jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing. `hash_on` says whether a job that carries a batch is still good for ordinary shares.
    Nothing { hash_on: bool },
    /// One share of a job that carries the batch. Each request is answered once.
    Share { root: BatchRoot, request: u64 },
}

/// The answer to a request for a share.
#[derive(Debug)]
pub(crate) struct ShareAnswer {
    request: u64,
    share: Result<Box<(AcceptedJob, FoundShare)>, JobError>,
}

/// Asks the task for shares of jobs that carry a batch.
#[derive(Debug)]
pub struct ShareRequests {
    demand: watch::Sender<Demand>,
    answers: mpsc::Receiver<ShareAnswer>,
    requests: u64,
}

impl ShareRequests {
    /// Wants a share of a job that carries the batch and was made for this request; takes back what was
    /// wanted before. The request's number.
    pub fn want(&mut self, root: BatchRoot) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.demand.send_replace(Demand::Share { root, request });
        request
    }

    /// Wants no share any more. `hash_on` says whether the job is still good for ordinary shares.
    pub fn rest(&mut self, hash_on: bool) {
        self.demand.send_replace(Demand::Nothing { hash_on });
    }

    /// The answer to a request; `None` if the session is over. Cancellation-safe.
    ///
    /// # Errors
    /// No job for the batch was accepted.
    pub async fn answer(
        &mut self,
        request: u64,
    ) -> Option<Result<Box<(AcceptedJob, FoundShare)>, JobError>> {
        loop {
            let answer = self.answers.recv().await?;
            if answer.request == request {
                return Some(answer.share);
            }
        }
    }
}

/// The task, as the session holds it.
#[derive(Debug)]
pub struct DeclaredJobs {
    /// It outlives the task: if that ends by itself, devices stay on what they have until the session is over.
    _display: Option<Arc<DeclaredDisplay>>,
    notices: mpsc::Sender<PoolNotice>,
    task: AbortOnDropHandle<Result<(), OutboxError>>,
}

impl DeclaredJobs {
    /// Starts the task, and gives what shares are asked for with.
    pub fn start(start: Start) -> (Self, ShareRequests) {
        let (demand, demand_now) = watch::channel(Demand::Nothing { hash_on: true });
        let (answer_sender, answers) = mpsc::channel(ANSWERS_MAX);
        let (notices, notices_receiver) = mpsc::channel(NOTICES_MAX);
        // Before the session hears of any job of the pool.
        let between_batches = start.options.between_batches;
        let display = || Arc::new(DeclaredDisplay::new(start.current_job.clone()));
        let display = between_batches.then(display);
        let task = start.task(display.clone(), demand_now, answer_sender, notices_receiver);
        let jobs = Self {
            _display: display,
            notices,
            task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        };
        let requests = ShareRequests {
            demand,
            answers,
            requests: 0,
        };
        (jobs, requests)
    }

    /// Hands on what the pool said. A task that does not keep up would wait for nothing.
    pub fn tell(&self, notice: PoolNotice) {
        if self.notices.try_send(notice).is_err() {
            tracing::warn!("dropped an answer of the pool to a job of our own");
        }
    }

    /// Waits for the task's end, which is not expected: `None` if it panicked. Cancellation-safe.
    ///
    /// # Errors
    /// The pool connection is gone.
    pub async fn ended(&mut self) -> Option<Result<(), OutboxError>> {
        (&mut self.task).await.ok()
    }

    /// Ends the task, and returns once nothing of it runs any more.
    pub async fn stop(self) {
        if !self.task.is_finished() {
            self.task.abort();
            // It was cancelled, or ended by itself just now.
            let _ = self.task.await;
        }
    }
}
