//! The wait for a share of a job that the pool built for the batch.

use std::time::Duration;

use bitcoin::Target;
use dovetail_miner::job::FoundShare;
use dovetail_miner::pool_session::{Channel, PoolEvent};
use dovetail_miner::search::Hash256;
use dovetail_miner::submitter::AcceptedJob;
use dovetail_miner::timer::at;
use dovetail_serving::transcripts::ReadyBatch;
use tokio::sync::watch;
use tokio::time::Instant;

use super::pool_job::ClaimJob;
use super::{ClaimError, Claimer};

/// Time for the pool to renew the job that it built for us, once it has named a new tip.
const RENEWAL_TIME_MAX: Duration = Duration::from_secs(5);

/// How the search on one job ended.
pub(super) enum Searched {
    /// A share, and the job that it is of.
    Found(Box<(AcceptedJob, FoundShare)>),
    /// Nobody is to hash the job any more.
    Overtaken,
    /// The batch earns nothing any more.
    Expired,
}

impl Claimer {
    /// Waits for a share of the job. A job that the pool renews takes the place of the one before.
    pub(super) async fn search(
        &mut self,
        batch: &ReadyBatch,
        job: &mut ClaimJob,
    ) -> Result<Searched, ClaimError> {
        let expires = batch.expires().map(Instant::from_std);
        let mut renewal_until = None;
        loop {
            tokio::select! {
                // A share first: if it is a block, the new tip is of its own making.
                biased;
                share = self.shares.recv() => {
                    let share = share.ok_or(ClaimError::SessionOver)?;
                    if let Some(accepted) = self.claimable(&share, &job.accepted) {
                        return Ok(Searched::Found(Box::new((accepted, share))));
                    }
                    self.pass_on(&share)?;
                }
                event = self.events.recv() => match event.ok_or(ClaimError::SessionOver)? {
                    PoolEvent::BatchJob(newer) if newer.root == batch.root => {
                        *job = self.take_pool_job(*newer)?;
                        renewal_until = None;
                    }
                    PoolEvent::NewTip(tip)
                        if tip.prev_hash.to_array() != job.accepted.prev_hash =>
                    {
                        renewal_until = Some(Instant::now() + RENEWAL_TIME_MAX);
                    }
                    // Nothing else is of interest now, but the queue must not fill.
                    _ => {}
                },
                eased = eased(&mut self.channel, &job.accepted.channel) => {
                    eased?;
                    return Ok(Searched::Overtaken);
                }
                () = at(renewal_until) => return Ok(Searched::Overtaken),
                () = at(expires) => return Ok(Searched::Expired),
            }
        }
    }

    /// The job of a share, if a claim on it may be good: it carries the same batch on the same tip.
    fn claimable(&self, share: &FoundShare, current: &AcceptedJob) -> Option<AcceptedJob> {
        let same =
            |job: &&AcceptedJob| job.root == current.root && job.prev_hash == current.prev_hash;
        self.submitter.find(share.job_id).filter(same).cloned()
    }
}

/// Waits until the pool asks for at most half the work per share that it asked for when the job was
/// built. A job keeps its target; on one that is far too hard for our devices the claim would wait for
/// ever.
async fn eased(
    channel: &mut watch::Receiver<Channel>,
    built_for: &Channel,
) -> Result<(), ClaimError> {
    let work = |target: &Hash256| Target::from_le_bytes(*target).difficulty_float();
    let asked = work(&built_for.target);
    channel
        .wait_for(|now| 2.0 * work(&now.target) <= asked)
        .await
        .map(drop)
        .map_err(|_| ClaimError::SessionOver)
}
