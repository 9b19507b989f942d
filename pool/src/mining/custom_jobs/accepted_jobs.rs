//! The custom jobs that a connection has accepted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dovetail_commitment::BatchRoot;
use dovetail_jd::transactions::BlockTransaction;

use crate::header_spaces::HeaderSpace;

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

/// The custom jobs of one connection, by `(channel, job)`.
#[derive(Debug, Default)]
pub(crate) struct AcceptedJobs {
    jobs: HashMap<(u32, u32), (HeaderSpace, AcceptedJob)>,
    order: VecDeque<(u32, u32)>,
}

impl AcceptedJobs {
    pub(crate) fn insert(
        &mut self,
        channel_id: u32,
        job_id: u32,
        space: HeaderSpace,
        job: AcceptedJob,
    ) {
        if self.order.len() >= JOBS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.jobs.remove(&oldest);
        }
        self.order.push_back((channel_id, job_id));
        self.jobs.insert((channel_id, job_id), (space, job));
    }

    pub(crate) fn get(&self, channel_id: u32, job_id: u32) -> Option<&AcceptedJob> {
        self.jobs.get(&(channel_id, job_id)).map(|(_, job)| job)
    }

    /// The channel's jobs with this header space.
    pub(crate) fn with_space(
        &self,
        channel_id: u32,
        space: HeaderSpace,
    ) -> impl Iterator<Item = u32> {
        let jobs = self.jobs.iter();
        jobs.filter(move |((channel, _), (of, _))| *channel == channel_id && *of == space)
            .map(|((_, job_id), _)| *job_id)
    }
}
