//! `SetCustomMiningJob`: from a token to a job on the channel. A declared job comes from the ledger,
//! and counts because its token has the declarator's MAC over it; a job in coinbase-only mode comes
//! with its message, and is checked here.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use dovetail_commitment::coinbase::find_commitment;
use dovetail_jd::batches::{BatchRefusal, check_batch};
use dovetail_jd::coinbase::pool_value;
use dovetail_jd::token::{
    JobToken, TokenError, TokenKind, coinbase_only_content, declared_content,
};
use dovetail_jd::transactions::{BlockTransaction, merkle_path};
use dovetail_ledger::DeclaredJob;
use dovetail_templates::{WorkSnapshot, height_of};
use stratum_core::mining_sv2::{
    self, ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_CHANNEL_ID as BAD_CHANNEL,
    ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX as BAD_COINBASE,
    ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_OUTPUTS as BAD_OUTPUTS,
    ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MINING_JOB_TOKEN as BAD_TOKEN,
    ERROR_CODE_SET_CUSTOM_MINING_JOB_JOB_NOT_YET_VALIDATED as NOT_YET,
    ERROR_CODE_SET_CUSTOM_MINING_JOB_STALE_CHAIN_TIP as STALE, SetCustomMiningJobErrorOwned,
    SetCustomMiningJobOwned, SetCustomMiningJobSuccess,
};

use super::connection::{Connection, Ended};
use super::custom::{self, AcceptedJob, DeclaredBlock};
use super::open::code_text;

/// The declarator's node may hear of a block before ours: how long a job one block ahead waits for
/// ours to follow. It delays nobody but its own connection.
const TIP_WAIT_MAX: Duration = Duration::from_secs(1);
/// A block of the smallest transactions has a path of this length.
const PATH_MAX: usize = 14;

impl Connection {
    pub(super) async fn on_set_custom_job(
        &mut self,
        message: SetCustomMiningJobOwned,
    ) -> Result<(), Ended> {
        let (channel_id, request_id) = (message.channel_id, message.request_id);
        self.catch_up(&message).await?;
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

    /// Takes new work that has come or is about to, if the job is for the block after ours, or we have
    /// only just started and have no work yet.
    async fn catch_up(&mut self, message: &SetCustomMiningJobOwned) -> Result<(), Ended> {
        let height = height_of(message.coinbase_prefix.as_bytes());
        let ours = self.work.as_ref().map(|work| work.height());
        let is_next = ours.is_none_or(|ours| height == ours.checked_add(1));
        if height.is_none() || !is_next {
            return Ok(());
        }
        let mut newest = self.shared.templates.subscribe();
        let followed = newest.wait_for(|work| {
            work.as_ref()
                .is_some_and(|work| Some(work.height()) == height)
        });
        let work = match tokio::time::timeout(TIP_WAIT_MAX, followed).await {
            Ok(Ok(work)) => work.clone(),
            _ => None,
        };
        work.map_or(Ok(()), |work| self.on_work(work))
    }

    async fn accept_custom_job(
        &mut self,
        mut message: SetCustomMiningJobOwned,
    ) -> Result<u32, &'static str> {
        if !self.flags.requires_work_selection {
            return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_JD_NOT_SUPPORTED);
        }
        let channel_id = message.channel_id;
        let channel = self.channels.get(&channel_id).ok_or(BAD_CHANNEL)?;
        let extended = channel.as_extended().ok_or(BAD_CHANNEL)?;
        let extranonce_size = extended.get_full_extranonce_size();
        let (account, tip) = (
            channel.account().to_owned(),
            extended.get_chain_tip().cloned(),
        );
        let work = self.work.clone().ok_or(STALE)?;
        let token = JobToken::parse(message.token.as_bytes())
            .map_err(|error| bad_token(&account, error))?;
        custom::check_header(&message, &work, unix_now())?;
        let coinbase = custom::coinbase_of(&message, extranonce_size)?;
        let job = match token.kind {
            TokenKind::Declared => {
                let declared = self.declared(&token, &account).await?;
                custom::check_declared(&message, &coinbase, &declared, extranonce_size)?;
                self.declared_job(declared, &work).await?
            }
            TokenKind::CoinbaseOnly => {
                self.check_coinbase_only_token(&token, &account)?;
                self.coinbase_only_job(&message, &coinbase, &account, &work)
                    .await?
            }
        };
        self.spend_token(&token).await?;
        // A least time that differs from the channel's would end its other jobs; where the channel
        // already takes earlier times, the job needs no own.
        if let Some(tip) = tip
            && tip.prev_hash() == message.prev_hash
            && tip.min_ntime() <= message.min_ntime
        {
            message.min_ntime = tip.min_ntime();
        }
        let channel = self.channels.get_mut(&channel_id).ok_or(BAD_CHANNEL)?;
        let job_id = channel.install_custom(message).map_err(|error| {
            tracing::error!(error, "a checked job did not fit its channel");
            BAD_COINBASE
        })?;
        self.accepted.insert(channel_id, job_id, job);
        Ok(job_id)
    }

    /// The declaration behind a token, if it is this account's and as the declarator accepted it.
    async fn declared(&self, token: &JobToken, account: &str) -> Result<DeclaredJob, &'static str> {
        let shared = &self.shared;
        let declared = shared
            .ledger
            .declared_job(&token.to_bytes())
            .await
            .map_err(|error| not_yet(&error))?
            .ok_or(BAD_TOKEN)?;
        let content = declared_content(&declared, &shared.config.mining.payout_script);
        shared
            .token_key
            .verify(token, account, &content, unix_now().into())
            .map_err(|error| bad_token(account, error))?;
        Ok(declared)
    }

    /// A declared job with its transactions: those in memory, and the rest from the ledger.
    async fn declared_job(
        &self,
        declared: DeclaredJob,
        work: &WorkSnapshot,
    ) -> Result<AcceptedJob, &'static str> {
        let store = &self.shared.transactions;
        let mut found: Vec<Option<Arc<BlockTransaction>>> =
            declared.wtxids.iter().map(|id| store.get(id)).collect();
        let missing: Vec<[u8; 32]> = declared
            .wtxids
            .iter()
            .zip(&found)
            .filter(|(_, known)| known.is_none())
            .map(|(wtxid, _)| *wtxid)
            .collect();
        let ledger = &self.shared.ledger;
        let mut read = ledger
            .declared_transactions(&missing)
            .await
            .map_err(|error| not_yet(&error))?;
        for (wtxid, place) in declared.wtxids.iter().zip(&mut found) {
            if let Some(raw) = read.remove(wtxid) {
                // The ids are under the MAC, and the bytes have to have them.
                *place = BlockTransaction::parse(raw)
                    .filter(|transaction| transaction.wtxid == *wtxid)
                    .map(|transaction| store.keep(transaction));
            }
        }
        let transactions: Option<Vec<Arc<BlockTransaction>>> = found.into_iter().collect();
        let transactions = transactions.ok_or_else(|| {
            tracing::error!("the ledger lacks transactions of a declared job");
            NOT_YET
        })?;
        Ok(AcceptedJob {
            block: Some(Arc::new(DeclaredBlock {
                path: merkle_path(&declared.txids),
                transactions,
            })),
            batch_root: declared.batch_root,
            pool_value_sat: declared.pool_value_sat,
            reference_sat: work.coinbase_value_remaining_sat(),
        })
    }

    fn check_coinbase_only_token(
        &self,
        token: &JobToken,
        account: &str,
    ) -> Result<(), &'static str> {
        let shared = &self.shared;
        if !shared.config.job_declarator.coinbase_only {
            return Err(BAD_TOKEN);
        }
        let content = coinbase_only_content(&shared.config.mining.payout_script);
        shared
            .token_key
            .verify(token, account, &content, unix_now().into())
            .map_err(|error| bad_token(account, error))
    }

    /// A job that nobody has seen before. Its transactions stay the miner's secret, so what it may
    /// claim in fees is capped; more than the pool's own template pays earns nothing anyway.
    async fn coinbase_only_job(
        &self,
        message: &SetCustomMiningJobOwned,
        coinbase: &Transaction,
        account: &str,
        work: &WorkSnapshot,
    ) -> Result<AcceptedJob, &'static str> {
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
        let pool_value_sat = pool_value(&coinbase.output, &config.mining.payout_script)
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
            pool_value_sat,
            reference_sat,
        })
    }

    /// A token is good once.
    async fn spend_token(&self, token: &JobToken) -> Result<(), &'static str> {
        let ledger = &self.shared.ledger;
        let spent = ledger
            .spend_job_token(token.id, token.expires_at_unix)
            .await
            .map_err(|error| not_yet(&error))?;
        spent.then_some(()).ok_or(BAD_TOKEN)
    }
}

fn bad_token(account: &str, error: TokenError) -> &'static str {
    tracing::info!(account, %error, "a job's token was not taken");
    BAD_TOKEN
}

/// The ledger is away: the miner may try the same job again.
fn not_yet(error: &dovetail_ledger::LedgerError) -> &'static str {
    tracing::error!(%error, "a declared job cannot be checked");
    NOT_YET
}

fn unix_now() -> u32 {
    // Headers have 32 bits for the time.
    u32::try_from(dovetail_ledger::unix_now()).unwrap_or(u32::MAX)
}
