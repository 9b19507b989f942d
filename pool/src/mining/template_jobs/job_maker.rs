//! The jobs that the pool builds from its own templates: one per template and connection, shared
//! by all channels of the connection (their extranonces have equal size, specification 5.2.3), and others for
//! single channels.
//!
//! What is paid is a header space, so two jobs with the same one must have the same target. Each job has a salt in
//! its coinbase, and so a header space of its own.

use std::sync::Arc;

use bitcoin::TxOut;
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_templates::{Payout, WorkSnapshot};
use stratum_core::channels_sv2::chain_tip::ChainTip;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::channels_sv2::server::jobs::factory::JobFactory;

use crate::header_spaces::{JobSalts, SALT_BYTES};

/// Job ids of templates start here. Declared jobs are numbered from 1 by their own channel; the
/// two must not meet, since one channel carries both.
const FIRST_TEMPLATE_JOB_ID: u32 = 1 << 31;

/// Whether a job of a channel is one that was declared, and not the pool's own.
pub(crate) fn is_declared(job_id: u32) -> bool {
    job_id < FIRST_TEMPLATE_JOB_ID
}

/// When a job is to be mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once, with headers from this time on.
    AtOnce {
        /// Unix seconds.
        min_ntime: u32,
    },
    /// When a `SetNewPrevHash` names it.
    WithItsTip,
}

/// Builds template jobs for one connection.
#[derive(Debug)]
pub(crate) struct JobMaker {
    salts: Arc<JobSalts>,
    factory: JobFactory,
    next_job_id: u32,
    full_extranonce_size: usize,
    payout: Payout,
}

impl JobMaker {
    pub(crate) fn new(
        salts: Arc<JobSalts>,
        tag: &str,
        version_rolling: bool,
        full_extranonce_size: usize,
        payout: Payout,
    ) -> Self {
        Self {
            salts,
            factory: JobFactory::new(version_rolling, Some(tag.to_owned()), None),
            next_job_id: FIRST_TEMPLATE_JOB_ID,
            full_extranonce_size,
            payout,
        }
    }

    /// The job of `work`'s template, addressed to `channel_id`: one to be mined at once, from the time `start` on, or
    /// a future one, to be activated by a `SetNewPrevHash`.
    pub(crate) fn build(
        &mut self,
        work: &WorkSnapshot,
        channel_id: u32,
        start: Start,
    ) -> Result<ExtendedJob, String> {
        let outputs = self.rewards(work);
        self.build_paying(work, channel_id, start, outputs)
    }

    /// The job of `work`'s template for one channel, to be mined at once from the time `min_ntime` on, whose coinbase
    /// commits to `root` besides.
    pub(crate) fn build_for_batch(
        &mut self,
        work: &WorkSnapshot,
        channel_id: u32,
        root: BatchRoot,
        min_ntime: u32,
    ) -> Result<ExtendedJob, String> {
        let mut outputs = self.rewards(work);
        outputs.push(commitment_output(root));
        self.build_paying(work, channel_id, Start::AtOnce { min_ntime }, outputs)
    }

    fn build_paying(
        &mut self,
        work: &WorkSnapshot,
        channel_id: u32,
        start: Start,
        outputs: Vec<TxOut>,
    ) -> Result<ExtendedJob, String> {
        let mut template = work.template.clone();
        template.future_template = start == Start::WithItsTip;
        let height = template.coinbase_prefix.as_bytes();
        template.coinbase_prefix = salted(height, self.salts.next())
            .try_into()
            .map_err(|error| format!("{error:?}"))?;
        let tip = match start {
            Start::AtOnce { min_ntime } => Some(ChainTip::new(
                work.prev_hash.prev_hash.clone(),
                work.nbits(),
                min_ntime,
            )),
            Start::WithItsTip => None,
        };
        let built = self
            .factory
            .new_extended_job(
                channel_id,
                tip,
                Vec::new(),
                template.clone(),
                outputs.clone(),
                self.full_extranonce_size,
            )
            .map_err(|error| format!("{error:?}"))?;
        let mut message = built.get_job_message().clone();
        message.job_id = self.take_job_id();
        rebuilt(&built, template, outputs, message)
    }

    /// Whether a coinbase script up to the extranonce has the form of the pool's own jobs: no other job may take the
    /// header space of one.
    pub(crate) fn is_own_form(&self, script: &[u8]) -> bool {
        let Ok(mut end) = self.factory.op_pushbytes_pool_miner_tag() else {
            return false;
        };
        end.extend(u8::try_from(self.full_extranonce_size));
        let before = script.strip_suffix(&end[..]);
        let salt = before.and_then(|before| before.split_last_chunk::<{ SALT_BYTES + 1 }>());
        salt.is_some_and(|(_, salt)| usize::from(salt[0]) == SALT_BYTES)
    }

    /// What the block of this work pays: a job keeps the script of its height and the payout list of its time, whatever
    /// comes later.
    fn rewards(&self, work: &WorkSnapshot) -> Vec<TxOut> {
        let value_sat = work.template.coinbase_tx_value_remaining;
        self.payout.outputs(work.height(), value_sat)
    }

    fn take_job_id(&mut self) -> u32 {
        let job_id = self.next_job_id;
        self.next_job_id = job_id.checked_add(1).unwrap_or(FIRST_TEMPLATE_JOB_ID);
        job_id
    }
}

/// A template's part of the coinbase script with a salt behind it, which is pushed.
fn salted(prefix: &[u8], salt: [u8; SALT_BYTES]) -> Vec<u8> {
    let push = u8::try_from(SALT_BYTES).expect("a salt is a few bytes");
    [prefix, &[push], &salt].concat()
}

fn rebuilt(
    job: &ExtendedJob,
    template: stratum_core::template_distribution_sv2::NewTemplateOwned,
    rewards: Vec<TxOut>,
    message: stratum_core::mining_sv2::NewExtendedMiningJobOwned,
) -> Result<ExtendedJob, String> {
    ExtendedJob::from_template(
        template,
        Vec::new(),
        rewards,
        job.get_coinbase_tx_prefix_with_bip141(),
        job.get_coinbase_tx_suffix_with_bip141(),
        message,
    )
    .map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::work;

    const EXTRANONCE_BYTES: usize = 16;
    /// Of a coinbase without its witness, what stands before the script: version, count of inputs, outpoint, length.
    const BEFORE_SCRIPT: usize = 4 + 1 + 36 + 1;

    fn maker(salts: &Arc<JobSalts>) -> JobMaker {
        let payout = Payout::one(bitcoin::ScriptBuf::from_bytes(vec![0x51]));
        JobMaker::new(
            Arc::clone(salts),
            "Dovetail",
            true,
            EXTRANONCE_BYTES,
            payout,
        )
    }

    /// The coinbase script of a job up to the extranonce.
    fn script(job: &ExtendedJob) -> Vec<u8> {
        job.get_coinbase_tx_prefix_without_bip141()[BEFORE_SCRIPT..].to_vec()
    }

    #[tokio::test]
    async fn every_job_of_the_pool_has_a_header_space_of_its_own() {
        let (work, salts) = (work(0x1e00_ffff).await, Arc::default());
        let root = BatchRoot::from_bytes([3; 32]);
        let mut scripts = std::collections::BTreeSet::new();
        // The same template on two connections, for all channels, for one, and twice for a batch.
        for _ in 0..2 {
            let mut maker = maker(&salts);
            let min_ntime = work.min_ntime();
            for start in [Start::WithItsTip, Start::AtOnce { min_ntime }] {
                for channel_id in [1, 2] {
                    let job = maker.build(&work, channel_id, start).unwrap();
                    scripts.insert(script(&job));
                }
            }
            for _ in 0..2 {
                let job = maker.build_for_batch(&work, 2, root, min_ntime).unwrap();
                scripts.insert(script(&job));
            }
        }
        assert_eq!(scripts.len(), 12);
        let maker = maker(&salts);
        assert!(scripts.iter().all(|script| maker.is_own_form(script)));
    }

    #[tokio::test]
    async fn jobs_that_miners_build_have_another_form() {
        let (work, salts) = (work(0x1e00_ffff).await, Arc::default());
        let maker = maker(&salts);
        let height = work.template.coinbase_prefix.as_bytes();
        // As other Sv2 software builds them, and a worker.
        let tagged = [height, b"\x0eSv2/Dovetail//", &[EXTRANONCE_BYTES as u8]].concat();
        for theirs in [
            tagged,
            height.to_vec(),
            salted(height, [1; SALT_BYTES]),
            Vec::new(),
        ] {
            assert!(!maker.is_own_form(&theirs), "{theirs:?}");
        }
    }
}
