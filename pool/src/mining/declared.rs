//! `SetCustomMiningJob`: from a declaration in the ledger to a job on the channel.

use std::sync::Arc;

use dovetail_commitment::coinbase::parse_coinbase;
use dovetail_ledger::DeclaredJob;
use stratum_core::mining_sv2::{
    self, SetCustomMiningJobErrorOwned, SetCustomMiningJobOwned, SetCustomMiningJobSuccess,
};

use super::connection::{Connection, Ended};
use super::custom::{self, AcceptedJob};
use super::open::code_text;
use super::shares::commitment_of;

/// The longest token we hand out or look up.
const TOKEN_BYTES_MAX: usize = 64;

impl Connection {
    pub(super) async fn on_set_custom_job(
        &mut self,
        message: SetCustomMiningJobOwned,
    ) -> Result<(), Ended> {
        let (channel_id, request_id) = (message.channel_id, message.request_id);
        match self.accept_custom_job(message).await {
            Ok(job_id) => {
                tracing::info!(id = self.id, channel_id, job_id, "declared job accepted");
                self.send(&SetCustomMiningJobSuccess {
                    channel_id,
                    request_id,
                    job_id,
                })
            }
            Err(code) => {
                tracing::info!(id = self.id, channel_id, code, "declared job refused");
                self.send(&SetCustomMiningJobErrorOwned {
                    channel_id,
                    request_id,
                    error_code: code_text(code)?,
                })
            }
        }
    }

    async fn accept_custom_job(
        &mut self,
        mut message: SetCustomMiningJobOwned,
    ) -> Result<u32, &'static str> {
        use mining_sv2::{
            ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_CHANNEL_ID as BAD_CHANNEL,
            ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX as BAD_COINBASE,
            ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MINING_JOB_TOKEN as BAD_TOKEN,
            ERROR_CODE_SET_CUSTOM_MINING_JOB_JD_NOT_SUPPORTED as NO_WORK_SELECTION,
            ERROR_CODE_SET_CUSTOM_MINING_JOB_STALE_CHAIN_TIP as STALE,
        };
        if !self.flags.requires_work_selection {
            return Err(NO_WORK_SELECTION);
        }
        let channel_id = message.channel_id;
        let channel = self.channels.get(&channel_id).ok_or(BAD_CHANNEL)?;
        let full_extranonce_size = channel
            .as_extended()
            .ok_or(BAD_CHANNEL)?
            .get_full_extranonce_size();
        let work = self.work.clone().ok_or(STALE)?;
        let token = message.token.as_bytes();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BAD_TOKEN);
        }
        let declared = self.declared(token).await?;
        custom::check(&message, &declared, channel.account(), &work)?;
        let batch_root = self.committed(&declared, full_extranonce_size)?;
        if !self.spend_token(token).await? {
            return Err(BAD_TOKEN);
        }
        let channel = self.channels.get_mut(&channel_id).ok_or(BAD_CHANNEL)?;
        // A least time beyond the channel's would become the channel's, and then the pool's own next
        // job would not fit it; where the channel takes earlier times, the job needs no own.
        if let Some(tip) = channel.as_extended().and_then(|of| of.get_chain_tip())
            && tip.prev_hash() == message.prev_hash
            && tip.min_ntime() <= message.min_ntime
        {
            message.min_ntime = tip.min_ntime();
        }
        let job_id = channel.install_custom(message).map_err(|_| BAD_COINBASE)?;
        let same = channel
            .live_job(job_id)
            .is_some_and(|job| custom::same_coinbase(job, &declared, full_extranonce_size));
        if !same {
            // The job stays on the channel, where it earns as little as its coinbase pays: nothing.
            // It was never confirmed, so an honest miner never hashes it.
            self.channels.remove(&channel_id);
            return Err(BAD_COINBASE);
        }
        self.accepted.insert(
            channel_id,
            job_id,
            AcceptedJob {
                declared: Arc::new(declared),
                batch_root,
                reference_sat: work.template.coinbase_tx_value_remaining,
            },
        );
        Ok(job_id)
    }

    async fn declared(&self, token: &[u8]) -> Result<DeclaredJob, &'static str> {
        match self.shared.settler.ledger.declared_job(token).await {
            Ok(Some(declared)) => Ok(declared),
            Ok(None) => Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MINING_JOB_TOKEN),
            Err(error) => {
                tracing::error!(%error, "cannot read a declared job");
                Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_JOB_NOT_YET_VALIDATED)
            }
        }
    }

    async fn spend_token(&self, token: &[u8]) -> Result<bool, &'static str> {
        self.shared
            .settler
            .ledger
            .use_declared_job(token)
            .await
            .map_err(|error| {
                tracing::error!(%error, "cannot spend a declared job's token");
                mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_JOB_NOT_YET_VALIDATED
            })
    }

    /// The batch that the declared coinbase commits to: read from the coinbase itself and equal to
    /// what the declarator stored, or the job is refused.
    fn committed(
        &self,
        declared: &DeclaredJob,
        full_extranonce_size: usize,
    ) -> Result<Option<dovetail_commitment::BatchRoot>, &'static str> {
        let coinbase = parse_coinbase(
            &declared.coinbase_prefix,
            &vec![0; full_extranonce_size],
            &declared.coinbase_suffix,
        )
        .map_err(|_| mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX)?;
        let root = commitment_of(&coinbase);
        if root != declared.batch_root {
            return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX);
        }
        Ok(root)
    }
}
