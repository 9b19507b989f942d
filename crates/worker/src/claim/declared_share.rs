//! The claim of a batch with shares of declared jobs, on templates of our own node.

use dovetail_miner::declared_jobs::ShareRequests;
use dovetail_miner::job::FoundShare;
use dovetail_miner::submitter::AcceptedJob;
use dovetail_miner::timer::at;
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::extension::codes::Code;
use tokio::time::Instant;

use super::{ClaimEnd, ClaimError, Claimer};

impl Claimer {
    /// Claims with a share of a job of ours, and with another while one is stale.
    pub(super) async fn claim_with_declared_jobs(
        &mut self,
        requests: &mut ShareRequests,
        batch: &ReadyBatch,
    ) -> Result<ClaimEnd, ClaimError> {
        loop {
            let Some((job, found)) = self.declared_share(requests, batch).await? else {
                return Ok(ClaimEnd::Refused(Code::BatchExpired.to_string()));
            };
            if let Some(end) = self.submit(batch, &job, &found).await? {
                return Ok(end);
            }
            tracing::info!(root = %batch.root, "the share was stale; another job for the batch");
        }
    }

    /// A share of a job that carries the batch; `None` if the batch expires first.
    async fn declared_share(
        &mut self,
        requests: &mut ShareRequests,
        batch: &ReadyBatch,
    ) -> Result<Option<(AcceptedJob, FoundShare)>, ClaimError> {
        let request = requests.want(batch.root);
        let expires = batch.expires().map(Instant::from_std);
        loop {
            tokio::select! {
                answer = requests.answer(request) => {
                    let share = answer.ok_or(ClaimError::SessionOver)??;
                    return Ok(Some(*share));
                }
                // Nothing of it is of interest now, but the queue must not fill.
                event = self.events.recv() => drop(event.ok_or(ClaimError::SessionOver)?),
                () = at(expires) => return Ok(None),
            }
        }
    }
}
