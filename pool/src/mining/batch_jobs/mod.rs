//! Jobs that the pool builds for a worker without a node: its own template, with the root of the
//! worker's batch in the coinbase (`docs/extension-0x4149.md`, sections 3 and 5). They are ordinary
//! jobs of one channel in everything else.

mod allowance;
mod request;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dovetail_commitment::BatchRoot;

use allowance::Allowance;

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
            allowance: Allowance::full(now),
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

    /// The batch that waits for a share on this channel and is about to get another job.
    fn retargeted(&mut self, channel_id: u32, now: Instant) -> Option<BatchRoot> {
        let wanted = self.wanted.as_mut();
        let wanted = wanted.filter(|wanted| wanted.channel_id == channel_id)?;
        wanted.built_at = now;
        wanted.templates_since = 0;
        Some(wanted.root)
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
