//! Jobs that the pool builds for a worker without a node: its own template, with the root of the
//! worker's batch in the coinbase (`docs/extension-0x4149.md`, sections 3 and 5). They are ordinary
//! jobs of one channel in everything else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::{BatchRoot, WorkerKey};
use dovetail_ledger::{BatchRecord, unix_now};
use dovetail_sv2::extension::{
    RequestBatchJob, RequestBatchJobError, RequestBatchJobSuccess, codes,
};
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;

use super::connection::{Connection, Ended};
use crate::settle::check_claimable;

/// How many jobs a worker may ask for at once, and how soon it may ask for one more. A batch needs
/// one job; what a worker computes in less time than this belongs into one batch.
const REQUESTS_BURST: u32 = 16;
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Jobs of one tip whose roots are remembered. The channel takes shares of fewer.
const JOBS_MAX: usize = 32;
/// On one tip the job is built again on a better template at most this often ..
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);
/// .. and at the latest after this many templates: the channel forgets a job that four times as many
/// others have followed.
const TEMPLATES_MAX: u32 = 16;

/// The batch that a worker wants to hash, and the jobs that carry its batches.
#[derive(Debug)]
pub(super) struct BatchJobs {
    wanted: Option<Wanted>,
    /// The jobs on the tip, oldest first: channel, job, root.
    jobs: VecDeque<(u32, u32, BatchRoot)>,
    allowance: Allowance,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    channel_id: u32,
    root: BatchRoot,
    expires_at_unix: u64,
    built_at: Instant,
    templates_since: u32,
}

impl BatchJobs {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            wanted: None,
            jobs: VecDeque::new(),
            allowance: Allowance {
                left: REQUESTS_BURST,
                counted_at: now,
            },
        }
    }

    /// The root that the job commits to, if it is one of these.
    pub(super) fn root_of(&self, channel_id: u32, job_id: u32) -> Option<BatchRoot> {
        self.jobs
            .iter()
            .find(|(channel, job, _)| (*channel, *job) == (channel_id, job_id))
            .map(|(_, _, root)| *root)
    }

    /// The batch is settled or can never be: no further job carries it.
    pub(super) fn drop_batch(&mut self, root: &BatchRoot) {
        self.wanted.take_if(|wanted| wanted.root == *root);
    }

    fn remember(&mut self, channel_id: u32, job_id: u32, root: BatchRoot) {
        if self.jobs.len() == JOBS_MAX {
            self.jobs.pop_front();
        }
        self.jobs.push_back((channel_id, job_id, root));
    }

    /// Takes note of a template. The batch that should have a job on it, and the channel of that job.
    fn due(&mut self, new_tip: bool, now: Instant, now_unix: u64) -> Option<(u32, BatchRoot)> {
        if new_tip {
            // All earlier jobs are stale with their tip.
            self.jobs.clear();
        }
        self.wanted
            .take_if(|wanted| wanted.expires_at_unix <= now_unix);
        let wanted = self.wanted.as_mut()?;
        wanted.templates_since += 1;
        let due = new_tip
            || wanted.templates_since >= TEMPLATES_MAX
            || now.duration_since(wanted.built_at) >= RENEWAL_INTERVAL;
        if !due {
            return None;
        }
        wanted.built_at = now;
        wanted.templates_since = 0;
        Some((wanted.channel_id, wanted.root))
    }
}

/// Requests that a worker may make now: it fills up with time.
#[derive(Debug)]
struct Allowance {
    left: u32,
    counted_at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < REQUESTS_BURST && now.duration_since(self.counted_at) >= REQUEST_INTERVAL
        {
            self.left += 1;
            self.counted_at += REQUEST_INTERVAL;
        }
        if self.left == REQUESTS_BURST {
            self.counted_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

impl Connection {
    pub(super) async fn on_request_batch_job(
        &mut self,
        message: &RequestBatchJob,
    ) -> Result<(), Ended> {
        let request_id = message.request_id;
        match self.batch_job(message).await {
            Ok(job) => {
                tracing::debug!(id = self.id, root = %message.root, job_id = job.get_job_id(), "built a job for a batch");
                self.send(&RequestBatchJobSuccess {
                    request_id,
                    job_id: job.get_job_id(),
                })?;
                self.send(&job.get_job_message().clone())
            }
            Err(code) => {
                tracing::info!(id = self.id, root = %message.root, code, "built no job for a batch");
                self.send(&RequestBatchJobError {
                    request_id,
                    code: code.to_owned(),
                })
            }
        }
    }

    /// The checks are those that a claim has to pass, so that nobody hashes for nothing; they are
    /// made again when the claim comes.
    async fn batch_job(
        &mut self,
        message: &RequestBatchJob,
    ) -> Result<Arc<ExtendedJob>, &'static str> {
        let worker = self.worker.ok_or(codes::NOT_REGISTERED)?;
        let RequestBatchJob {
            channel_id, root, ..
        } = *message;
        let channel = self
            .channels
            .get(&channel_id)
            .filter(|channel| channel.as_extended().is_some())
            .ok_or(codes::CHANNEL_UNKNOWN)?;
        if channel.account() != worker.to_string() {
            return Err(codes::BATCH_NOT_YOURS);
        }
        let now = Instant::now();
        if !self.batch_jobs.allowance.take(now) {
            return Err(codes::TOO_MANY_JOBS);
        }
        let batch = self
            .shared
            .settler
            .ledger
            .batch(root)
            .await
            .map_err(|error| {
                tracing::error!(%error, "cannot read a batch");
                codes::INTERNAL
            })?
            .ok_or(codes::BATCH_UNKNOWN)?;
        let expires_at_unix = claimable_until(&batch, worker)?;
        let job = self.build_batch_job(channel_id, root)?;
        self.batch_jobs.wanted = Some(Wanted {
            channel_id,
            root,
            expires_at_unix,
            built_at: now,
            templates_since: 0,
        });
        Ok(job)
    }

    /// Builds the job on the newest template and makes it the channel's.
    fn build_batch_job(
        &mut self,
        channel_id: u32,
        root: BatchRoot,
    ) -> Result<Arc<ExtendedJob>, &'static str> {
        // Without a template yet there is nothing to build on; there soon will be.
        let work = self.work.clone().ok_or(codes::INTERNAL)?;
        let fault = |error: String| {
            tracing::error!(error, "a template gives no job for a batch");
            codes::INTERNAL
        };
        let job = self
            .jobs
            .build_for_batch(&work, channel_id, root)
            .map_err(fault)?;
        let job = Arc::new(job);
        let channel = self
            .channels
            .get_mut(&channel_id)
            .ok_or(codes::CHANNEL_UNKNOWN)?;
        channel.install(&job).map_err(fault)?;
        self.batch_jobs.remember(channel_id, job.get_job_id(), root);
        Ok(job)
    }

    /// After new work has reached all channels: the batch that waits for a share gets a job on it.
    pub(super) fn renew_batch_job(&mut self, new_tip: bool) -> Result<(), Ended> {
        let due = self.batch_jobs.due(new_tip, Instant::now(), unix_now());
        let Some((channel_id, root)) = due else {
            return Ok(());
        };
        let channel = self.channels.get(&channel_id);
        if channel.is_none_or(|channel| channel.as_extended().is_none()) {
            self.batch_jobs.drop_batch(&root);
            return Ok(());
        }
        let job = self
            .build_batch_job(channel_id, root)
            .map_err(|_| Ended::Fault("a template gives no job for a batch"))?;
        self.send(&job.get_job_message().clone())
    }
}

/// Until when (Unix seconds) this worker may claim the batch.
fn claimable_until(batch: &BatchRecord, worker: WorkerKey) -> Result<u64, &'static str> {
    check_claimable(batch, worker)?;
    let expiries = batch.tasks.iter().map(|task| task.expires_at_unix);
    expiries.min().ok_or(codes::BATCH_UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: BatchRoot = BatchRoot::from_bytes([1; 32]);

    fn wanting(now: Instant) -> BatchJobs {
        let mut jobs = BatchJobs::new(now);
        jobs.wanted = Some(Wanted {
            channel_id: 2,
            root: ROOT,
            expires_at_unix: 1_000,
            built_at: now,
            templates_since: 0,
        });
        jobs
    }

    #[test]
    fn a_new_tip_brings_the_batch_again_until_it_is_settled_or_expires() {
        let now = Instant::now();
        let mut jobs = wanting(now);
        jobs.remember(2, 7, ROOT);
        assert_eq!(jobs.root_of(2, 7), Some(ROOT));
        assert_eq!(jobs.due(true, now, 999), Some((2, ROOT)));
        assert_eq!(jobs.root_of(2, 7), None);
        assert_eq!(jobs.due(true, now, 1_000), None);
        let mut jobs = wanting(now);
        jobs.drop_batch(&BatchRoot::from_bytes([2; 32]));
        assert_eq!(jobs.due(true, now, 0), Some((2, ROOT)));
        jobs.drop_batch(&ROOT);
        assert_eq!(jobs.due(true, now, 0), None);
    }

    #[test]
    fn better_templates_renew_the_job_only_now_and_then() {
        let now = Instant::now();
        let mut jobs = wanting(now);
        let built = (0..80).filter(|_| jobs.due(false, now, 0).is_some());
        assert_eq!(built.count(), 5);
        assert!(jobs.due(false, now + RENEWAL_INTERVAL, 0).is_some());
        assert!(jobs.due(false, now + RENEWAL_INTERVAL, 0).is_none());
    }

    #[test]
    fn a_worker_that_asks_without_end_gets_a_job_a_second() {
        let start = Instant::now();
        let mut allowance = BatchJobs::new(start).allowance;
        let taken = (0..1_000).filter(|_| allowance.take(start));
        assert_eq!(taken.count() as u32, REQUESTS_BURST);
        assert!(allowance.take(start + REQUEST_INTERVAL));
        assert!(!allowance.take(start + REQUEST_INTERVAL));
        let later = start + 1_000 * REQUEST_INTERVAL;
        let taken = (0..1_000).filter(|_| allowance.take(later));
        assert_eq!(taken.count() as u32, REQUESTS_BURST);
    }

    #[test]
    fn roots_of_a_tip_are_remembered_up_to_a_bound() {
        let mut jobs = wanting(Instant::now());
        for job in 0..1_000 {
            jobs.remember(2, job, ROOT);
        }
        assert_eq!(jobs.jobs.len(), JOBS_MAX);
        assert_eq!(jobs.root_of(2, 999), Some(ROOT));
        assert_eq!(jobs.root_of(3, 999), None);
    }
}
