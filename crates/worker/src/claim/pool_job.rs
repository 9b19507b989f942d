//! A job that the pool builds for a batch: for a worker without a node (extension document,
//! section 5). The pool renews the job on every new tip by itself.

use dovetail_miner::current_job::BatchDisplay;
use dovetail_miner::local_search::search_here;
use dovetail_miner::pool_session::{BatchJob, PoolEvent};
use dovetail_miner::submitter::AcceptedJob;
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::extension::RequestBatchJob;
use dovetail_sv2::extension::codes::Code;

use tokio_util::task::AbortOnDropHandle;

use super::{ClaimError, Claimer};

/// A job that the pool takes shares on, and that devices work on.
pub(super) struct ClaimJob {
    pub(super) accepted: AcceptedJob,
    pub(super) display: BatchDisplay,
    /// The search on this machine, which ends with the claim.
    _search: Option<AbortOnDropHandle<()>>,
}

/// What the pool answers to a request for a job.
pub(super) enum Asked {
    Given(Box<ClaimJob>),
    /// It will never give one for this batch.
    Refused(String),
}

impl Claimer {
    /// Asks the pool for a job that carries the root, and gives it to devices.
    pub(super) async fn ask_for_job(&mut self, batch: &ReadyBatch) -> Result<Asked, ClaimError> {
        let request_id = self.submitter.number();
        let channel_id = self.channel.borrow().id;
        self.outbox.send(&RequestBatchJob {
            request_id,
            channel_id,
            root: batch.root,
        })?;
        let answer = self
            .answer(self.times.answer, |event| match event {
                PoolEvent::BatchJob(job) if job.root == batch.root => Some(Ok((**job).clone())),
                PoolEvent::BatchJobRefused {
                    request_id: id,
                    code,
                } if *id == request_id => Some(Err(code.clone())),
                _ => None,
            })
            .await?;
        match answer {
            Ok(job) => Ok(Asked::Given(Box::new(self.take_pool_job(job)?))),
            Err(code) if code == Code::Internal => Err(ClaimError::PoolFailed),
            Err(code) if is_final(&code) => Ok(Asked::Refused(code)),
            Err(code) => Err(ClaimError::JobRefused(code)),
        }
    }

    /// Gives devices a job of the pool that carries the batch which is being claimed.
    pub(super) fn take_pool_job(&mut self, job: BatchJob) -> Result<ClaimJob, ClaimError> {
        let BatchJob { root, parts } = job;
        let job_id = parts
            .upstream_job_id
            .ok_or(ClaimError::PoolsJob("it has no number"))?;
        let job = self.current_job.job(parts, self.offers.clone())?;
        let search = match self.search_here {
            true => search_here(&self.current_job, &job),
            false => None,
        };
        let accepted = AcceptedJob {
            id: job.id,
            job_id,
            root: Some(root),
            request: None,
            prev_hash: job.parts().prev_hash,
            channel: self.channel.borrow().clone(),
            solutions: None,
        };
        self.submitter.remember(accepted.clone());
        tracing::info!(%root, job_id, "the pool built the job; hashing it");
        Ok(ClaimJob {
            accepted,
            display: BatchDisplay::new(self.current_job.clone(), job),
            _search: search,
        })
    }
}

/// Whether a refusal with this code is for ever. A pool may have words that this worker does not know.
fn is_final(code: &str) -> bool {
    Code::parse(code).is_some_and(Code::is_final_for_batch)
}
