//! Building a job on a template of our own: its coinbase, what hashers see of it, and the message that
//! hands it to the pool.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dovetail_commitment::BatchRoot;
use dovetail_sv2::messages::{B064KOwned, B0255Owned, SetCustomMiningJob};
use dovetail_templates::{TemplateHandle, WorkSnapshot};
use tokio::sync::mpsc;

use super::JobError;
use crate::board::Board;
use crate::coinbase::{JobCoinbase, job_outputs};
use crate::job::{BlockSink, FoundShare, JobParts, SharedJob};
use crate::session::Channel;

/// A job that is built and not accepted yet.
pub(super) struct Built {
    pub(super) job: SharedJob,
    pub(super) coinbase: Arc<JobCoinbase>,
    /// The declarator's outputs that it pays.
    pub(super) payout: Vec<u8>,
    pub(super) min_ntime: u32,
    /// Whether hashers work on it.
    pub(super) shown: bool,
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
        templates: &TemplateHandle,
        board: &Board,
        offers: mpsc::Sender<FoundShare>,
    ) -> Result<Built, JobError> {
        let (work, channel) = (self.work, self.channel);
        let outputs = job_outputs(&work.template, self.payout, self.root)?;
        let coinbase = JobCoinbase::new(&work.template, outputs, channel.full_extranonce_size())?;
        let min_ntime = min_ntime(work);
        let (coinbase_prefix, coinbase_suffix) = coinbase.stripped_parts();
        let parts = JobParts {
            upstream_job_id: None,
            version: work.template.version,
            // Custom jobs carry no such flag; pools allow it on extended channels.
            version_rolling: true,
            prev_hash: work.prev_hash(),
            min_ntime,
            nbits: work.nbits(),
            coinbase_prefix: coinbase_prefix.to_vec(),
            coinbase_suffix: coinbase_suffix.to_vec(),
            merkle_path: work.merkle_path(),
            extranonce_prefix: channel.extranonce_prefix.clone(),
            extranonce_size: channel.extranonce_size,
            target: channel.target,
            blocks: Some(BlockSink::new(
                templates.clone(),
                work.template_id(),
                &coinbase,
            )),
        };
        Ok(Built {
            job: board.job(parts, offers)?,
            coinbase: Arc::new(coinbase),
            payout: self.payout.to_vec(),
            min_ntime,
            shown: false,
            kept: Vec::new(),
        })
    }
}

/// The smallest time of a job's headers: the clock, unless the chain is ahead of it. The template's
/// own time would do for the block, but the pool compares with the time of *its* template source,
/// which may have heard of the block later than ours.
pub fn min_ntime(work: &WorkSnapshot) -> u32 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = u32::try_from(now).unwrap_or(u32::MAX);
    now.max(work.prev_hash.header_timestamp)
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
        coinbase_prefix: work.template.coinbase_prefix.clone(),
        coinbase_tx_input_n_sequence: work.template.coinbase_tx_input_sequence,
        coinbase_tx_outputs: B064KOwned::new(coinbase.outputs.clone())?,
        coinbase_tx_locktime: work.template.coinbase_tx_locktime,
        merkle_path: work.template.merkle_path.clone(),
    })
}
