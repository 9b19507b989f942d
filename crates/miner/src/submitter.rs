//! Submits shares of jobs that the pool accepted beside its own ones: to the pool and, if a share is a block, to the job
//! declarator.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dovetail_commitment::BatchRoot;
use dovetail_sv2::messages::{B032Owned, PushSolution};
use dovetail_sv2::{Outbox, OutboxError};
use dovetail_templates::WorkSnapshot;

use crate::job::FoundShare;
use crate::pool_session::{Channel, share_frame};
use crate::search::Hash256;
use crate::stats::{self, Stats};

/// Jobs whose shares are still passed on. Firmware is at most a job or two behind.
const ACCEPTED_MAX: usize = 8;

/// What is needed to submit a share of a job.
#[derive(Debug, Clone)]
pub struct AcceptedJob {
    /// Our number.
    pub id: u32,
    /// The pool's.
    pub job_id: u32,
    /// The batch that it carries.
    pub root: Option<BatchRoot>,
    /// The request for a share that it was made for, where it was made for one.
    pub request: Option<u64>,
    /// The tip that it builds on, internal byte order.
    pub prev_hash: Hash256,
    /// The channel as it was when the job was built.
    pub channel: Channel,
    /// Where a block of it goes besides the pool; the pool itself publishes a block of its own template.
    pub solutions: Option<Solutions>,
}

/// Where the declarator of a job takes its blocks.
#[derive(Debug, Clone)]
pub struct Solutions {
    /// Our template.
    pub work: Arc<WorkSnapshot>,
    /// The connection that the job was declared on; it may be gone.
    pub declarator: Outbox,
}

/// Submits shares of accepted jobs.
#[derive(Debug)]
pub struct Submitter {
    outbox: Outbox,
    numbers: Arc<AtomicU32>,
    stats: Arc<Stats>,
    accepted: VecDeque<AcceptedJob>,
}

impl Submitter {
    /// `numbers` counts the requests and shares of the whole session.
    pub fn new(outbox: Outbox, numbers: Arc<AtomicU32>, stats: Arc<Stats>) -> Self {
        Self {
            outbox,
            numbers,
            stats,
            accepted: VecDeque::new(),
        }
    }

    /// Sends to the pool.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// A number for a request or a share.
    pub fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes shares of this job from now on.
    pub fn remember(&mut self, job: AcceptedJob) {
        if self.accepted.len() == ACCEPTED_MAX {
            self.accepted.pop_front();
        }
        self.accepted.push_back(job);
    }

    /// The job with our number, if shares of it are passed on.
    pub fn find(&self, id: u32) -> Option<&AcceptedJob> {
        self.accepted.iter().find(|job| job.id == id)
    }

    /// Submits a share of its job, with the claim of a batch or without; its sequence number.
    ///
    /// # Errors
    /// The pool connection is gone.
    pub fn submit(
        &self,
        job: &AcceptedJob,
        share: &FoundShare,
        claim: Option<&BatchRoot>,
    ) -> Result<u32, OutboxError> {
        let sequence_number = self.number();
        let message = job.channel.share(sequence_number, job.job_id, share);
        let frame = share_frame(&message, claim)?;
        // Before it is sent: the answer must find it.
        self.stats
            .open_shares
            .submitted(sequence_number, &share.target);
        self.outbox.try_send(frame)?;
        if share.block {
            push_solution(job, share);
        }
        Ok(sequence_number)
    }

    /// Submits a share that claims nothing, if its job was accepted.
    ///
    /// # Errors
    /// The pool connection is gone.
    pub fn pass_on(&self, share: &FoundShare) -> Result<(), OutboxError> {
        match self.find(share.job_id) {
            Some(job) => self.submit(job, share, None).map(drop),
            None => {
                stats::count(&self.stats.shares_lost);
                Ok(())
            }
        }
    }
}

/// The share is a block: our own template source has it already, and the declarator propagates it as well
/// as the pool. Failing to is no failure of the share.
fn push_solution(job: &AcceptedJob, found: &FoundShare) {
    let Some(Solutions { work, declarator }) = &job.solutions else {
        return;
    };
    let extranonce = [&job.channel.extranonce_prefix[..], &found.extranonce].concat();
    let Ok(extranonce) = B032Owned::new(extranonce) else {
        return;
    };
    let pushed = declarator.send(&PushSolution {
        extranonce,
        prev_hash: work.prev_hash.prev_hash.clone(),
        nonce: found.nonce,
        ntime: found.ntime,
        nbits: work.prev_hash.n_bits,
        version: found.version,
    });
    if let Err(error) = pushed {
        tracing::warn!(%error, "the job declarator did not take the block");
    }
}
