//! A job on a template of the miner's own node that is built and not accepted yet, and the message that hands it to
//! the pool.

use std::sync::Arc;

use dovetail_commitment::BatchRoot;
use dovetail_sv2::messages::{B064KOwned, B0255Owned, SetCustomMiningJob};
use dovetail_templates::WorkSnapshot;
use dovetail_templates::block_publisher::BlockPublisher;
use tokio::sync::mpsc;

use super::JobError;
use crate::coinbase::{JobCoinbase, job_outputs};
use crate::current_job::CurrentJob;
use crate::job::{FoundShare, SharedJob};
use crate::pool_session::Channel;
use crate::template_job::{Terms, job_parts};

/// A job that is built and not accepted yet.
pub(super) struct Candidate {
    pub(super) job: SharedJob,
    pub(super) coinbase: Arc<JobCoinbase>,
    /// The declarator's outputs that it pays.
    pub(super) payout: Vec<u8>,
    /// Whether devices work on it.
    pub(super) on_display: bool,
    /// Shares that were found meanwhile.
    pub(super) kept: Vec<FoundShare>,
}

/// What a job is built from, besides the template.
pub(super) struct Plan<'a> {
    pub(super) work: &'a WorkSnapshot,
    pub(super) channel: &'a Channel,
    pub(super) root: Option<&'a BatchRoot>,
    /// The counted array of outputs that came with a token.
    pub(super) payout: &'a [u8],
}

impl Plan<'_> {
    /// The job, whose shares go to `offers`.
    ///
    /// # Errors
    /// A template, outputs or an extranonce that give no valid job.
    pub(super) fn build(
        &self,
        blocks: &BlockPublisher,
        current_job: &CurrentJob,
        offers: mpsc::Sender<FoundShare>,
    ) -> Result<Candidate, JobError> {
        let (work, channel) = (self.work, self.channel);
        let outputs = job_outputs(&work.template, self.payout, self.root)?;
        let size = channel.full_extranonce_size();
        let coinbase = JobCoinbase::salted(&work.template, outputs, size, rand::random())?;
        let terms = Terms {
            extranonce_prefix: &channel.extranonce_prefix,
            extranonce_size: channel.extranonce_size,
            target: channel.target,
        };
        let parts = job_parts(blocks, work, &coinbase, terms);
        Ok(Candidate {
            job: current_job.job(parts, offers)?,
            coinbase: Arc::new(coinbase),
            payout: self.payout.to_vec(),
            on_display: false,
            kept: Vec::new(),
        })
    }
}

/// The message that hands a declared job to the pool.
///
/// # Errors
/// A token or outputs that are too long for it.
pub fn custom_job(
    work: &WorkSnapshot,
    channel: &Channel,
    coinbase: &JobCoinbase,
    token: Vec<u8>,
    request_id: u32,
    min_ntime: u32,
) -> Result<SetCustomMiningJob, stratum_core::binary_sv2::Error> {
    Ok(SetCustomMiningJob {
        channel_id: channel.id,
        request_id,
        token: B0255Owned::new(token)?,
        version: work.template.version,
        prev_hash: work.prev_hash.prev_hash.clone(),
        min_ntime,
        nbits: work.prev_hash.n_bits,
        coinbase_tx_version: work.template.coinbase_tx_version,
        coinbase_prefix: B0255Owned::new(coinbase.script_prefix.clone())?,
        coinbase_tx_input_n_sequence: work.template.coinbase_tx_input_sequence,
        coinbase_tx_outputs: B064KOwned::new(coinbase.outputs.clone())?,
        coinbase_tx_locktime: work.template.coinbase_tx_locktime,
        merkle_path: work.template.merkle_path.clone(),
    })
}
