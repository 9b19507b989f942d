//! From a batch to its reward on jobs of our own templates.

use tokio::time::Instant;

use dovetail_sv2::extension::codes;

use super::searching::at;
use super::{ClaimEnd, ClaimError, Claimer};
use crate::accepted::AcceptedJob;
use crate::job::FoundShare;
use crate::own::OwnJobs;
use crate::transcripts::ReadyBatch;

impl Claimer {
    /// Claims with a share of a job of ours, and with another while one is stale.
    pub(super) async fn claim_on_own(
        &mut self,
        own: &mut OwnJobs,
        batch: &ReadyBatch,
    ) -> Result<ClaimEnd, ClaimError> {
        loop {
            let Some((job, found)) = self.own_share(own, batch).await? else {
                return Ok(ClaimEnd::Refused(codes::BATCH_EXPIRED.to_owned()));
            };
            if let Some(end) = self.submit(batch, &job, &found).await? {
                return Ok(end);
            }
            tracing::info!(root = %batch.root, "the share was stale; another job for the batch");
        }
    }

    /// A share of a job that bears the batch; `None` if the batch expires first.
    async fn own_share(
        &mut self,
        own: &mut OwnJobs,
        batch: &ReadyBatch,
    ) -> Result<Option<(AcceptedJob, FoundShare)>, ClaimError> {
        let request = own.want(batch.root);
        let expires = batch.expires().map(Instant::from_std);
        loop {
            tokio::select! {
                answer = own.answer(request) => {
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
