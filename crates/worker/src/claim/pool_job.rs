//! From a batch to a job that the pool builds: for a worker without a node (extension document,
//! section 5). The pool renews the job on every new tip by itself.

use dovetail_sv2::extension::{RequestBatchJob, codes};

use super::shown::{ClaimJob, Shown, search_here};
use super::{ANSWER_TIME_MAX, ClaimError, Claimer};
use crate::accepted::AcceptedJob;
use crate::session::{BatchJob, PoolEvent};
use crate::transcripts::ReadyBatch;

/// What the pool answers to a request for a job.
pub(super) enum Asked {
    Given(ClaimJob),
    /// It will never give one for this batch.
    Refused(String),
}

impl Claimer {
    /// Asks the pool for a job that carries the root, and shows it.
    pub(super) async fn ask_for_job(&mut self, batch: &ReadyBatch) -> Result<Asked, ClaimError> {
        let request_id = self.submitter.number();
        let channel_id = self.channel.borrow().id;
        self.outbox.send(&RequestBatchJob {
            request_id,
            channel_id,
            root: batch.root,
        })?;
        let answer = self
            .answer(ANSWER_TIME_MAX, |event| match event {
                PoolEvent::BatchJob(job) if job.root == batch.root => Some(Ok((**job).clone())),
                PoolEvent::BatchJobRefused {
                    request_id: id,
                    code,
                } if *id == request_id => Some(Err(code.clone())),
                _ => None,
            })
            .await?;
        match answer {
            Ok(job) => Ok(Asked::Given(self.take_pool_job(job)?)),
            Err(code) if code == codes::INTERNAL => Err(ClaimError::PoolFailed),
            Err(code) if codes::is_final_for_batch(&code) => Ok(Asked::Refused(code)),
            Err(code) => Err(ClaimError::JobRefused(code)),
        }
    }

    /// Shows a job of the pool that carries the batch which is being claimed.
    pub(super) fn take_pool_job(&mut self, job: BatchJob) -> Result<ClaimJob, ClaimError> {
        let BatchJob { root, parts } = job;
        let job_id = parts
            .upstream_job_id
            .ok_or(ClaimError::PoolsJob("it has no number"))?;
        let job = self.board.job(parts, self.offers.clone())?;
        let search = match self.search_here {
            true => search_here(&self.board, &job),
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
            shown: Shown::new(self.board.clone(), job),
            _search: search,
        })
    }
}
