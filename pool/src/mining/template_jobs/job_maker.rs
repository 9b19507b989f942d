//! The jobs that the pool builds from its own templates: one per template and connection, shared
//! by all channels of the connection (their extranonces have equal size, specification 5.2.3).

use bitcoin::{Amount, ScriptBuf, TxOut};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_templates::WorkSnapshot;
use stratum_core::binary_sv2::Sv2OptionOwned;
use stratum_core::channels_sv2::chain_tip::ChainTip;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::channels_sv2::server::jobs::factory::JobFactory;

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
    factory: JobFactory,
    next_job_id: u32,
    full_extranonce_size: usize,
    payout_script: ScriptBuf,
}

impl JobMaker {
    pub(crate) fn new(
        tag: &str,
        version_rolling: bool,
        full_extranonce_size: usize,
        payout_script: ScriptBuf,
    ) -> Self {
        Self {
            factory: JobFactory::new(version_rolling, Some(tag.to_owned()), None),
            next_job_id: FIRST_TEMPLATE_JOB_ID,
            full_extranonce_size,
            payout_script,
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
        let outputs = vec![self.reward(work.template.coinbase_tx_value_remaining)];
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
        let outputs = vec![
            self.reward(work.template.coinbase_tx_value_remaining),
            commitment_output(root),
        ];
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

    /// The same job for a channel that opens later, as a future job.
    pub(crate) fn as_future(
        &self,
        job: &ExtendedJob,
        channel_id: u32,
    ) -> Result<ExtendedJob, String> {
        use stratum_core::channels_sv2::server::jobs::JobOrigin;
        let JobOrigin::NewTemplate(template) = job.get_origin() else {
            return Err("only template jobs are shared".into());
        };
        let mut template = template.clone();
        template.future_template = true;
        let mut message = job.get_job_message().clone();
        message.channel_id = channel_id;
        message.min_ntime = Sv2OptionOwned::new(None);
        let outputs = vec![self.reward(template.coinbase_tx_value_remaining)];
        rebuilt(job, template, outputs, message)
    }

    fn reward(&self, value_sat: u64) -> TxOut {
        TxOut {
            value: Amount::from_sat(value_sat),
            script_pubkey: self.payout_script.clone(),
        }
    }

    fn take_job_id(&mut self) -> u32 {
        let job_id = self.next_job_id;
        self.next_job_id = job_id.checked_add(1).unwrap_or(FIRST_TEMPLATE_JOB_ID);
        job_id
    }
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
