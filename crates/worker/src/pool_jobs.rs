//! The pool's own jobs on our channel (Sv2 specification, sections 5.3.15 to 5.3.17), put on the
//! board as its base: what hashers do while no batch waits for a share.

use std::collections::VecDeque;
use std::sync::Arc;

use dovetail_sv2::messages::{NewExtendedMiningJob, SetNewPrevHash, U256Owned};
use tokio::sync::mpsc;

use crate::board::Board;
use crate::job::{FoundShare, JobParts, SHARES_WAITING_MAX};
use crate::search::Hash256;
use crate::session::Channel;

/// Future jobs that are remembered until a block makes one of them current.
const FUTURE_JOBS_MAX: usize = 16;

/// The jobs of one session.
#[derive(Debug)]
pub struct PoolJobs {
    board: Arc<Board>,
    future: VecDeque<NewExtendedMiningJob>,
    tip: Option<SetNewPrevHash>,
    offers: mpsc::Sender<FoundShare>,
    shares: mpsc::Receiver<FoundShare>,
}

impl PoolJobs {
    /// No jobs yet.
    pub fn new(board: Arc<Board>) -> Self {
        let (offers, shares) = mpsc::channel(SHARES_WAITING_MAX);
        Self {
            board,
            future: VecDeque::new(),
            tip: None,
            offers,
            shares,
        }
    }

    /// The next share of a job of the pool. Cancellation-safe.
    pub async fn next_share(&mut self) -> Option<FoundShare> {
        self.shares.recv().await
    }

    /// Takes a job: a future one waits for its tip, another is shown at once.
    pub fn on_job(&mut self, channel: &Channel, job: NewExtendedMiningJob) {
        match (job.min_ntime.as_ref().copied(), &self.tip) {
            (Some(min_ntime), Some(tip)) => {
                let min_ntime = min_ntime.max(tip.min_ntime);
                self.show(
                    channel,
                    &job,
                    tip.prev_hash.to_array(),
                    min_ntime,
                    tip.nbits,
                );
            }
            // Without a tip there is nothing to build on.
            (Some(_), None) => tracing::warn!("the pool sent a job before its tip"),
            (None, _) => {
                if self.future.len() == FUTURE_JOBS_MAX {
                    self.future.pop_front();
                }
                self.future.push_back(job);
            }
        }
    }

    /// Takes a tip: the job it names becomes current and all others invalid.
    pub fn on_tip(&mut self, channel: &Channel, tip: SetNewPrevHash) {
        let named = self
            .future
            .drain(..)
            .collect::<Vec<_>>()
            .into_iter()
            .find(|job| job.job_id == tip.job_id);
        match named {
            Some(job) => {
                let prev_hash = tip.prev_hash.to_array();
                self.show(channel, &job, prev_hash, tip.min_ntime, tip.nbits);
            }
            None => tracing::warn!("the pool named a job that it never sent"),
        }
        self.tip = Some(tip);
    }

    fn show(
        &self,
        channel: &Channel,
        job: &NewExtendedMiningJob,
        prev_hash: Hash256,
        min_ntime: u32,
        nbits: u32,
    ) {
        let parts = JobParts {
            upstream_job_id: Some(job.job_id),
            version: job.version,
            version_rolling: job.version_rolling_allowed,
            prev_hash,
            min_ntime,
            nbits,
            coinbase_prefix: job.coinbase_tx_prefix.to_owned_bytes(),
            coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
            merkle_path: job.merkle_path.iter().map(U256Owned::to_array).collect(),
            extranonce_prefix: channel.extranonce_prefix.clone(),
            extranonce_size: channel.extranonce_size,
            target: channel.target,
            // The pool publishes the blocks of its own jobs.
            blocks: None,
        };
        match self.board.job(parts, self.offers.clone()) {
            Ok(job) => self.board.set_base(job),
            Err(error) => tracing::error!(%error, "cannot hash the pool's job"),
        }
    }
}
