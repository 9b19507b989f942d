//! Jobs in coinbase-only mode: nobody has seen them before, and only their miner knows their transactions.

use bitcoin::Transaction;
use dovetail_commitment::coinbase::find_commitment;
use dovetail_jd::batches::{BatchRefusal, check_batch};
use dovetail_jd::token::{JobToken, coinbase_only_content};
use dovetail_templates::{WorkSnapshot, height_of};
use stratum_core::mining_sv2::{self, SetCustomMiningJobOwned};

use super::accepted_jobs::AcceptedJob;
use super::codes::{BAD_OUTPUTS, BAD_TOKEN};
use super::not_yet;
use crate::mining::connection::Connection;
use crate::mining::fields::StandardCode;

/// A block of the smallest transactions has a path of this length.
const PATH_MAX: usize = 14;

impl Connection {
    pub(super) fn check_coinbase_only_token(
        &self,
        token: &JobToken,
        account: &str,
    ) -> Result<(), StandardCode> {
        let shared = &self.shared;
        if !shared.config.job_declarator.coinbase_only {
            return Err(BAD_TOKEN);
        }
        let content = coinbase_only_content(&shared.payout);
        self.check_token(token, account, &content)
    }

    /// A job that nobody has seen before. Its transactions stay the miner's secret, so what it may
    /// claim in fees is capped; more than the pool's own template pays earns nothing anyway.
    pub(super) async fn coinbase_only_job(
        &self,
        message: &SetCustomMiningJobOwned,
        coinbase: &Transaction,
        account: &str,
        work: &WorkSnapshot,
    ) -> Result<AcceptedJob, StandardCode> {
        let config = &self.shared.config;
        if height_of(message.coinbase_prefix.as_bytes()) != Some(work.height()) {
            return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_PREFIX);
        }
        if message.merkle_path.as_slice().len() > PATH_MAX {
            return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MERKLE_PATH);
        }
        let lock = message.coinbase_tx_locktime;
        let is_final = coinbase
            .input
            .iter()
            .all(|input| !input.sequence.enables_absolute_lock_time());
        if !is_final && lock >= work.height() {
            return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_LOCKTIME);
        }
        let reference_sat = work.coinbase_value_remaining_sat();
        let most = reference_sat.saturating_add(config.job_declarator.coinbase_only_fees_max_sat);
        let pool_value_sat = self
            .shared
            .payout
            .taken(&coinbase.output, work.height())
            .filter(|value| *value <= most)
            .ok_or(BAD_OUTPUTS)?;
        let batch_root = find_commitment(&coinbase.output).map_err(|_| BAD_OUTPUTS)?;
        if let Some(root) = batch_root {
            match check_batch(&self.shared.ledger, root, account).await {
                Ok(()) => {}
                Err(BatchRefusal::Ledger(error)) => return Err(not_yet(&error)),
                Err(refusal) => {
                    tracing::info!(%root, account, %refusal, "a job commits to a batch it may not");
                    return Err(BAD_OUTPUTS);
                }
            }
        }
        Ok(AcceptedJob {
            block: None,
            batch_root,
            // Fees that nobody has seen are not believed, not even once the pool's own template has as many.
            pool_value_sat: pool_value_sat.min(reference_sat),
        })
    }
}
