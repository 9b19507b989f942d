//! The pool's jobs on our channel (Sv2 specification, sections 5.3.15 to 5.3.17). Plain ones become the base of what
//! devices hash, for as long as no batch waits for a share. Those that carry a batch go to whoever claims it.

use std::collections::VecDeque;
use std::sync::Arc;

use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::{find_commitment, parse_coinbase};
use dovetail_sv2::messages::{NewExtendedMiningJob, SetNewPrevHash, U256Owned};
use tokio::sync::mpsc;

use crate::current_job::{Base, CurrentJob};
use crate::job::{FoundShare, JobParts, SHARES_WAITING_MAX};
use crate::pool_session::{BatchJob, Channel};
use crate::search::Hash256;

/// Future jobs that are remembered until a block makes one of them current.
const FUTURE_JOBS_MAX: usize = 16;

/// The jobs of one session.
#[derive(Debug)]
pub struct PoolJobs {
    base: Base,
    future: VecDeque<NewExtendedMiningJob>,
    tip: Option<SetNewPrevHash>,
    /// Whether devices could hash a job of the pool on its newest tip.
    usable: bool,
    offers: mpsc::Sender<FoundShare>,
    shares: mpsc::Receiver<FoundShare>,
}

impl PoolJobs {
    /// No jobs yet.
    pub fn new(current_job: Arc<CurrentJob>) -> Self {
        let (offers, shares) = mpsc::channel(SHARES_WAITING_MAX);
        Self {
            base: Base::new(current_job),
            future: VecDeque::new(),
            tip: None,
            usable: false,
            offers,
            shares,
        }
    }

    /// The next share of a job of the pool. Cancellation-safe.
    pub async fn next_share(&mut self) -> Option<FoundShare> {
        self.shares.recv().await
    }

    /// Whether the pool has given a job that devices can hash on its newest tip.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Takes a job: a future one waits for its tip, another becomes the base at once, unless it carries a
    /// batch: then it is returned.
    pub fn on_job(&mut self, channel: &Channel, job: NewExtendedMiningJob) -> Option<BatchJob> {
        match (job.min_ntime.as_ref().copied(), &self.tip) {
            (Some(min_ntime), Some(tip)) => {
                let min_ntime = min_ntime.max(tip.min_ntime);
                let prev_hash = tip.prev_hash.to_array();
                let parts = parts(channel, &job, prev_hash, min_ntime, tip.nbits);
                match commitment(&parts) {
                    Some(root) => {
                        self.usable = true;
                        return Some(BatchJob { root, parts });
                    }
                    None => self.set_base(parts),
                }
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
        None
    }

    /// Takes a tip: the job it names becomes current and all others invalid. If that job carries a
    /// batch, it is returned as well: with no other job on the tip, it is the base at the same time.
    pub fn on_tip(&mut self, channel: &Channel, tip: SetNewPrevHash) -> Option<BatchJob> {
        let named = self
            .future
            .drain(..)
            .collect::<Vec<_>>()
            .into_iter()
            .find(|job| job.job_id == tip.job_id);
        let mut batch = None;
        self.usable = false;
        match named {
            Some(job) => {
                let prev_hash = tip.prev_hash.to_array();
                let parts = parts(channel, &job, prev_hash, tip.min_ntime, tip.nbits);
                batch = commitment(&parts).map(|root| BatchJob {
                    root,
                    parts: parts.clone(),
                });
                self.set_base(parts);
            }
            None => tracing::warn!("the pool named a job that it never sent"),
        }
        self.tip = Some(tip);
        batch
    }

    /// Devices stay on what they have if the job is none.
    fn set_base(&mut self, parts: JobParts) {
        match self.base.offer(parts, self.offers.clone()) {
            Ok(()) => self.usable = true,
            Err(error) => tracing::warn!(%error, "refused a job of the pool"),
        }
    }
}

fn parts(
    channel: &Channel,
    job: &NewExtendedMiningJob,
    prev_hash: Hash256,
    min_ntime: u32,
    nbits: u32,
) -> JobParts {
    JobParts {
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
    }
}

/// The batch that the job's coinbase commits to. It is read from the coinbase itself: what the pool
/// says about a job is no reason to claim with it.
fn commitment(parts: &JobParts) -> Option<BatchRoot> {
    let extranonce = [
        &parts.extranonce_prefix[..],
        &vec![0; parts.extranonce_size],
    ]
    .concat();
    let coinbase =
        parse_coinbase(&parts.coinbase_prefix, &extranonce, &parts.coinbase_suffix).ok()?;
    find_commitment(&coinbase.output).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coinbase::{JobCoinbase, job_outputs};
    use bitcoin::{Amount, ScriptBuf, TxOut, consensus::serialize};
    use dovetail_sv2::messages::{B064KOwned, Seq0255Owned, Sv2OptionOwned};

    const ROOT: BatchRoot = BatchRoot::from_bytes([3; 32]);

    fn channel() -> Channel {
        Channel {
            id: 2,
            target: [0xff; 32],
            extranonce_prefix: vec![1; 4],
            extranonce_size: 12,
            group_id: 1,
        }
    }

    fn job(job_id: u32, root: Option<&BatchRoot>, min_ntime: Option<u32>) -> NewExtendedMiningJob {
        let payout = vec![TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }];
        let template = crate::coinbase::tests::template();
        let outputs = job_outputs(&template, &serialize(&payout), root).unwrap();
        let coinbase = JobCoinbase::new(&template, outputs, 16).unwrap();
        let (prefix, suffix) = coinbase.stripped_parts();
        NewExtendedMiningJob {
            channel_id: 2,
            job_id,
            min_ntime: Sv2OptionOwned::new(min_ntime),
            version: 0x2000_0000,
            version_rolling_allowed: true,
            merkle_path: Seq0255Owned::new(vec![]).unwrap(),
            coinbase_tx_prefix: B064KOwned::new(prefix.to_vec()).unwrap(),
            coinbase_tx_suffix: B064KOwned::new(suffix.to_vec()).unwrap(),
        }
    }

    fn tip(job_id: u32) -> SetNewPrevHash {
        SetNewPrevHash {
            channel_id: 1,
            job_id,
            prev_hash: [9; 32].into(),
            min_ntime: 100,
            nbits: 0x1900_ffff,
        }
    }

    fn base(current_job: &CurrentJob) -> u32 {
        let job = current_job.subscribe().borrow().clone().unwrap();
        job.parts().upstream_job_id.unwrap()
    }

    #[test]
    fn a_job_that_carries_a_batch_is_given_to_its_claim_and_is_not_the_base() {
        let current_job = Arc::new(CurrentJob::default());
        let mut jobs = PoolJobs::new(current_job.clone());
        assert!(jobs.on_job(&channel(), job(1, None, None)).is_none());
        assert!(jobs.on_tip(&channel(), tip(1)).is_none());
        let batch = jobs.on_job(&channel(), job(2, Some(&ROOT), Some(90)));
        let batch = batch.unwrap();
        assert_eq!((batch.root, batch.parts.min_ntime), (ROOT, 100));
        assert_eq!(base(&current_job), 1);
        assert!(jobs.on_job(&channel(), job(3, None, Some(100))).is_none());
        assert_eq!(base(&current_job), 3);
    }

    #[test]
    fn a_job_that_no_block_could_have_reaches_no_device() {
        let current_job = Arc::new(CurrentJob::default());
        let mut jobs = PoolJobs::new(current_job.clone());
        jobs.on_job(&channel(), job(1, None, None));
        jobs.on_tip(&channel(), tip(1));
        assert!(jobs.is_usable());
        let long = B064KOwned::new(vec![1; 65_500]).unwrap();
        let mut too_long = job(2, None, Some(90));
        too_long.coinbase_tx_prefix = long.clone();
        let mut trailing = job(3, None, Some(90));
        let suffix = [trailing.coinbase_tx_suffix.as_bytes(), &[0]].concat();
        trailing.coinbase_tx_suffix = B064KOwned::new(suffix).unwrap();
        for refused in [too_long, trailing] {
            assert!(jobs.on_job(&channel(), refused).is_none());
            assert_eq!(base(&current_job), 1);
            // What it gave before is still good.
            assert!(jobs.is_usable());
        }
        // On a new tip there is nothing else.
        let mut next = job(4, None, None);
        next.coinbase_tx_prefix = long;
        jobs.on_job(&channel(), next);
        jobs.on_tip(&channel(), tip(4));
        assert_eq!(base(&current_job), 1);
        assert!(!jobs.is_usable());
        jobs.on_job(&channel(), job(5, None, Some(100)));
        assert!(jobs.is_usable());
    }

    #[test]
    fn a_tip_that_names_a_job_with_a_batch_gives_both() {
        let current_job = Arc::new(CurrentJob::default());
        let mut jobs = PoolJobs::new(current_job.clone());
        assert!(jobs.on_job(&channel(), job(4, Some(&ROOT), None)).is_none());
        assert_eq!(jobs.on_tip(&channel(), tip(4)).unwrap().root, ROOT);
        assert_eq!(base(&current_job), 4);
    }
}
