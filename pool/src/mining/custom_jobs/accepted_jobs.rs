//! The custom jobs that a connection has accepted. Each has a number that is the connection's, since a job for the group
//! is one job on several channels, and each of them numbers its jobs by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dovetail_commitment::BatchRoot;
use dovetail_jd::transactions::BlockTransaction;

use crate::header_spaces::HeaderSpace;
use crate::mining::template_jobs::job_maker::is_declared;

/// How many custom jobs one connection keeps; older ones take no shares any more. A worker
/// needs one, and a second while it changes over.
const JOBS_MAX: usize = 16;

/// What a connection remembers of a custom job that it accepted.
#[derive(Debug, Clone)]
pub(crate) struct AcceptedJob {
    /// What a block of it needs besides the coinbase; `None` in coinbase-only mode, where only the
    /// miner knows the transactions.
    pub(crate) block: Option<Arc<DeclaredBlock>>,
    /// The batch that its coinbase commits to.
    pub(crate) batch_root: Option<BatchRoot>,
    /// What its coinbase pays the pool, as far as it is believed, in satoshi.
    pub(crate) pool_value_sat: u64,
}

impl AcceptedJob {
    /// Whether nobody but its miner can check it.
    pub(crate) fn is_coinbase_only(&self) -> bool {
        self.block.is_none()
    }
}

/// The transactions of a declared job.
#[derive(Debug)]
pub(crate) struct DeclaredBlock {
    /// In block order, without the coinbase.
    pub(crate) transactions: Vec<Arc<BlockTransaction>>,
    /// The merkle path of the coinbase over them.
    pub(crate) path: Vec<[u8; 32]>,
}

/// A job on one of its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelJob {
    /// The channel's own number for it.
    pub(crate) job_id: u32,
    pub(crate) space: HeaderSpace,
}

#[derive(Debug)]
struct Entry {
    /// The miner's number for it.
    job_id: u32,
    job: AcceptedJob,
    channels: BTreeMap<u32, ChannelJob>,
}

/// The custom jobs of one connection, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct AcceptedJobs {
    entries: VecDeque<Entry>,
    last_job_id: u32,
}

impl AcceptedJobs {
    /// The number of the next job.
    pub(crate) fn next_job_id(&mut self) -> u32 {
        let next = self.last_job_id.wrapping_add(1);
        // They start over once in two thousand million.
        self.last_job_id = if is_declared(next) { next } else { 1 };
        self.last_job_id
    }

    /// Keeps a job, in place of the oldest if there are too many.
    pub(crate) fn insert(
        &mut self,
        job_id: u32,
        job: AcceptedJob,
        channels: BTreeMap<u32, ChannelJob>,
    ) {
        if self.entries.len() >= JOBS_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            job_id,
            job,
            channels,
        });
    }

    /// A job by the miner's number for it, and the channel's.
    pub(crate) fn get(&self, channel_id: u32, job_id: u32) -> Option<(u32, &AcceptedJob)> {
        let entry = self.entries.iter().find(|entry| entry.job_id == job_id)?;
        let on_channel = entry.channels.get(&channel_id)?;
        Some((on_channel.job_id, &entry.job))
    }

    /// The job, if there is one, that has these header spaces on these channels, where `is_live` says so of each.
    pub(crate) fn same(
        &self,
        spaces: &BTreeMap<u32, HeaderSpace>,
        is_live: impl Fn(u32, u32) -> bool,
    ) -> Option<u32> {
        let has = |entry: &&Entry| {
            spaces.iter().all(|(channel_id, space)| {
                let on_channel = entry.channels.get(channel_id);
                on_channel
                    .is_some_and(|job| job.space == *space && is_live(*channel_id, job.job_id))
            })
        };
        self.entries.iter().find(has).map(|entry| entry.job_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(pool_value_sat: u64) -> AcceptedJob {
        AcceptedJob {
            block: None,
            batch_root: None,
            pool_value_sat,
        }
    }

    /// Channels by their number, the number of the job there, and its space.
    fn on<const N: usize>(channels: [(u32, u32, u8); N]) -> BTreeMap<u32, ChannelJob> {
        let job = |job_id, space| ChannelJob {
            job_id,
            space: HeaderSpace::from_byte(space),
        };
        channels
            .map(|(channel_id, job_id, space)| (channel_id, job(job_id, space)))
            .into()
    }

    #[test]
    fn a_job_of_the_group_is_found_on_each_of_its_channels_under_one_number() {
        let mut jobs = AcceptedJobs::default();
        let alone = jobs.next_job_id();
        jobs.insert(alone, job(1), on([(2, 1, 0)]));
        let both = jobs.next_job_id();
        jobs.insert(both, job(2), on([(2, 2, 1), (3, 1, 2)]));
        let found = |channel_id, job_id| {
            let found = jobs.get(channel_id, job_id);
            found.map(|(job_id, job)| (job_id, job.pool_value_sat))
        };
        assert_eq!(found(2, alone), Some((1, 1)));
        assert_eq!(found(3, alone), None);
        assert_eq!(found(2, both), Some((2, 2)));
        assert_eq!(found(3, both), Some((1, 2)));
        let spaces = |on: &[(u32, u8)]| {
            on.iter()
                .map(|(channel_id, space)| (*channel_id, HeaderSpace::from_byte(*space)))
                .collect()
        };
        let live = |_, _| true;
        assert_eq!(jobs.same(&spaces(&[(2, 1), (3, 2)]), live), Some(both));
        assert_eq!(jobs.same(&spaces(&[(3, 2)]), live), Some(both));
        assert_eq!(jobs.same(&spaces(&[(2, 1), (3, 1)]), live), None);
        assert_eq!(jobs.same(&spaces(&[(2, 1), (4, 2)]), live), None);
        let only_there = |channel_id, _| channel_id == 2;
        assert_eq!(jobs.same(&spaces(&[(2, 1), (3, 2)]), only_there), None);
    }

    #[test]
    fn the_oldest_jobs_are_forgotten_and_numbers_stay_declared_ones() {
        let mut jobs = AcceptedJobs::default();
        for _ in 0..=JOBS_MAX {
            let job_id = jobs.next_job_id();
            jobs.insert(job_id, job(0), on([(2, job_id, 0)]));
        }
        assert!(jobs.get(2, 1).is_none() && jobs.get(2, 2).is_some());
        jobs.last_job_id = (1 << 31) - 1;
        assert_eq!(jobs.next_job_id(), 1);
    }
}
