//! From a batch to a job that the declarator and the pool both accepted. Hashers get the job as soon
//! as it is built.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dovetail_sv2::messages::{B064KOwned, B0255Owned, SetCustomMiningJob};
use dovetail_templates::WorkSnapshot;
use tokio_util::task::AbortOnDropHandle;

use super::shown::{AcceptedJob, ClaimJob, Shown, search_here};
use super::{ANSWER_TIME_MAX, ClaimError, Claimer, OwnNode};
use crate::coinbase::{JobCoinbase, job_outputs};
use crate::declarator::{Declaration, Declarator, JobToken};
use crate::job::{BlockSink, JobParts};
use crate::session::{Channel, PoolEvent};
use crate::transcripts::ReadyBatch;

impl Claimer {
    /// Builds a job that carries the root on the newest work, shows it, declares it and hands it to
    /// the pool.
    pub(super) async fn declare(
        &mut self,
        node: &OwnNode,
        batch: &ReadyBatch,
    ) -> Result<ClaimJob, ClaimError> {
        let declared = self.declare_shown(node, batch).await;
        // Shares of a job that was not accepted are worth nothing.
        self.pending = None;
        declared
    }

    async fn declare_shown(
        &mut self,
        node: &OwnNode,
        batch: &ReadyBatch,
    ) -> Result<ClaimJob, ClaimError> {
        let work = newest_work(node).await?;
        let channel = self.channel.borrow().clone();
        let data = node
            .templates
            .transaction_data(work.template.template_id)
            .await
            .map_err(|error| ClaimError::Templates(error.to_string()))?;
        let mut declarator = match self.connection.take() {
            Some(connection) => connection,
            None => Declarator::open(&node.declarator, self.keys.name).await?,
        };
        // After an error the connection is dropped: a new one costs little.
        let token = declarator.allocate().await?;
        let outputs = job_outputs(&work.template, &token.outputs, Some(&batch.root))?;
        let coinbase = JobCoinbase::new(&work.template, outputs, channel.full_extranonce_size())?;
        let min_ntime = min_ntime(&work);
        let (shown, search) = self.show(node, &work, &channel, &coinbase, min_ntime)?;
        self.pending = Some((shown.job.id, Vec::new()));
        let declaration = Declaration {
            version: work.template.version,
            coinbase: &coinbase,
            transactions: &data.transactions,
            excess_data: &data.excess_data,
        };
        let job_token = self
            .declare_over(&mut declarator, &token, &declaration)
            .await?;
        self.connection = Some(declarator);
        tracing::info!(root = %batch.root, template = work.template.template_id, transactions = data.transactions.len(), "the job declarator accepted the job");
        let job_id = self
            .set_custom_job(&work, &channel, &coinbase, job_token, min_ntime)
            .await?;
        tracing::info!(root = %batch.root, job_id, "the pool accepted the job; hashing it");
        let accepted = AcceptedJob {
            id: shown.job.id,
            job_id,
            root: batch.root,
            prev_hash: work.prev_hash(),
            channel,
            work: Some(work),
        };
        self.remember(accepted.clone());
        let kept = self.pending.take().map_or(Vec::new(), |(_, kept)| kept);
        Ok(ClaimJob {
            accepted,
            shown,
            kept,
            _search: search,
        })
    }

    /// Puts the job on the board, and searches it here if that is wanted.
    fn show(
        &self,
        node: &OwnNode,
        work: &WorkSnapshot,
        channel: &Channel,
        coinbase: &JobCoinbase,
        min_ntime: u32,
    ) -> Result<(Shown, Option<AbortOnDropHandle<()>>), ClaimError> {
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
                node.templates.clone(),
                work.template_id(),
                coinbase,
            )),
        };
        let job = self.board.job(parts, self.offers.clone())?;
        let search = match self.search_here {
            true => search_here(&self.board, &job),
            false => None,
        };
        Ok((Shown::new(self.board.clone(), job), search))
    }

    /// Declares, and keeps the shares that are found meanwhile.
    async fn declare_over(
        &mut self,
        declarator: &mut Declarator,
        token: &JobToken,
        declaration: &Declaration<'_>,
    ) -> Result<Vec<u8>, ClaimError> {
        let declaring = declarator.declare(token, declaration);
        tokio::pin!(declaring);
        loop {
            tokio::select! {
                declared = &mut declaring => return Ok(declared?),
                Some(share) = self.shares.recv() => self.pass_on(share).await?,
            }
        }
    }

    async fn set_custom_job(
        &mut self,
        work: &WorkSnapshot,
        channel: &Channel,
        coinbase: &JobCoinbase,
        token: Vec<u8>,
        min_ntime: u32,
    ) -> Result<u32, ClaimError> {
        let request_id = self.number();
        let message = custom_job(work, channel, coinbase, token, request_id, min_ntime)
            .map_err(|error| ClaimError::Fields(error.to_string()))?;
        self.outbox.send(&message)?;
        self.answer(ANSWER_TIME_MAX, |event| match event {
            PoolEvent::JobAccepted {
                request_id: id,
                job_id,
            } if *id == request_id => Some(Ok(*job_id)),
            PoolEvent::JobRefused {
                request_id: id,
                code,
            } if *id == request_id => Some(Err(ClaimError::JobRefused(code.clone()))),
            _ => None,
        })
        .await?
    }
}

/// The newest work; waits for the first.
async fn newest_work(node: &OwnNode) -> Result<Arc<WorkSnapshot>, ClaimError> {
    let mut work = node.templates.subscribe();
    let work = work
        .wait_for(Option::is_some)
        .await
        .map_err(|_| ClaimError::Templates("it stopped".to_owned()))?;
    Ok(work.clone().expect("waited for some work"))
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
