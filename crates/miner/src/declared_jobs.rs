//! Jobs on templates of our own: built from our node's template, shown to hashers, declared and handed to
//! the pool, one after the other. Between batches they are plain; while a claim wants a share they bear its
//! batch. Where none comes about, hashers are given the pool's jobs until one does.
//!
//! One task for the whole session owns all of it, the connection to the declarator too. Claims ask it
//! for shares ([`OwnJobs`]); it knows nothing of registrations and audits.

mod build;
mod duty;
mod pace;
mod steps;
mod task;
mod tips;

use std::time::Duration;

use dovetail_commitment::BatchRoot;
use dovetail_sv2::OutboxError;
use dovetail_templates::TemplateHandle;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::accepted::AcceptedJob;
use crate::coinbase::BuildError;
use crate::declarator::{DeclaratorOptions, DeclareError};
use crate::job::{ExtranonceTooSmall, FoundShare};
use crate::search::Hash256;

pub use build::{custom_job, min_ntime};
pub(crate) use task::Start;

/// Answers and tips of the pool that wait for the task. It asks for one thing at a time.
const EVENTS_MAX: usize = 64;
/// Answers to claims that wait: one is asked for at a time.
const NEWS_MAX: usize = 4;

/// How jobs on our own templates are made.
#[derive(Debug, Clone)]
pub struct OwnOptions {
    /// Where templates come from.
    pub templates: TemplateHandle,
    /// Where jobs are declared.
    pub declarator: DeclaratorOptions,
    /// Whether plain jobs are declared between batches.
    pub between_batches: bool,
    /// The least time between two jobs on one tip of which the second is only the better one.
    pub renew_interval: Duration,
    /// Whether jobs that bear a batch are searched on this machine as well.
    pub search_here: bool,
}

/// Why a job on our own template came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
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
pub(crate) enum OwnEvent {
    /// The custom job of a request has this job id.
    JobAccepted { request_id: u32, job_id: u32 },
    /// The custom job of a request is refused.
    JobRefused { request_id: u32, code: String },
    /// The pool builds on this tip now.
    Tip(Hash256),
}

/// What is wanted of the task, besides plain jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing. `hash_on` says whether a job that bears a batch is still good for ordinary shares.
    Nothing { hash_on: bool },
    /// One share of a job that bears the batch. Each request is answered once.
    Share { root: BatchRoot, request: u64 },
}

/// The answer to a request for a share.
#[derive(Debug)]
pub(crate) struct News {
    request: u64,
    share: Result<Box<(AcceptedJob, FoundShare)>, JobError>,
}

/// The side of a claim.
#[derive(Debug)]
pub(crate) struct OwnJobs {
    wanted: watch::Sender<Wanted>,
    news: mpsc::Receiver<News>,
    requests: u64,
}

impl OwnJobs {
    /// Wants a share of a job that bears the batch and was made for this request; takes back what was
    /// wanted before. The request's number.
    pub(crate) fn want(&mut self, root: BatchRoot) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.wanted.send_replace(Wanted::Share { root, request });
        request
    }

    /// Wants no share any more. `hash_on` says whether the job is still good for ordinary shares.
    pub(crate) fn rest(&mut self, hash_on: bool) {
        self.wanted.send_replace(Wanted::Nothing { hash_on });
    }

    /// The answer to a request; `None` if the session is over. Cancellation-safe.
    pub(crate) async fn answer(
        &mut self,
        request: u64,
    ) -> Option<Result<Box<(AcceptedJob, FoundShare)>, JobError>> {
        loop {
            let news = self.news.recv().await?;
            if news.request == request {
                return Some(news.share);
            }
        }
    }
}

/// The side of the session.
pub(crate) struct OwnTask {
    events: mpsc::Sender<OwnEvent>,
    task: AbortOnDropHandle<Result<(), OutboxError>>,
}

impl OwnTask {
    /// Starts the task, and gives what a claim speaks to it with.
    pub(crate) fn start(start: Start) -> (Self, OwnJobs) {
        let (wanted, wanted_now) = watch::channel(Wanted::Nothing { hash_on: true });
        let (news_sender, news) = mpsc::channel(NEWS_MAX);
        let (events, events_receiver) = mpsc::channel(EVENTS_MAX);
        let task = start.task(wanted_now, news_sender, events_receiver);
        let task = Self {
            events,
            task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        };
        let jobs = OwnJobs {
            wanted,
            news,
            requests: 0,
        };
        (task, jobs)
    }

    /// Hands an event on. A task that does not keep up would wait for nothing.
    pub(crate) fn tell(&self, event: OwnEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("dropped an answer of the pool to a job of our own");
        }
    }

    /// Waits for the task's end, which is not expected: `None` if it panicked. Cancellation-safe.
    pub(crate) async fn ended(&mut self) -> Option<Result<(), OutboxError>> {
        (&mut self.task).await.ok()
    }

    /// Ends the task, and returns once nothing of it runs any more.
    pub(crate) async fn stop(self) {
        if !self.task.is_finished() {
            self.task.abort();
            // It was cancelled, or ended by itself just now.
            let _ = self.task.await;
        }
    }
}
