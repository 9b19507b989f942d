//! The custom jobs that a connection has accepted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dovetail_commitment::BatchRoot;
use dovetail_jd::transactions::BlockTransaction;

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
    /// What its coinbase pays the pool, in satoshi.
    pub(crate) pool_value_sat: u64,
    /// What the pool's own template paid when the job was accepted, in satoshi.
    pub(crate) reference_sat: u64,
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
    jobs: HashMap<(u32, u32), AcceptedJob>,
    order: VecDeque<(u32, u32)>,
}

impl AcceptedJobs {
    pub(crate) fn insert(&mut self, channel_id: u32, job_id: u32, job: AcceptedJob) {
        if self.order.len() >= JOBS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.jobs.remove(&oldest);
        }
        self.order.push_back((channel_id, job_id));
        self.jobs.insert((channel_id, job_id), job);
    }

    pub(crate) fn get(&self, channel_id: u32, job_id: u32) -> Option<&AcceptedJob> {
        self.jobs.get(&(channel_id, job_id))
    }
}
