//! The way of one batch to its reward: register it, declare a job whose coinbase carries its root,
//! hash that job until a share is found, submit the share with the claim, and hear how it ended.
//! When a new block arrives before a share does, the job is declared again on the new template.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::{CompactTarget, Target};
use dovetail_sv2::extension::{BatchOutcome, RegisterBatch, codes};
use dovetail_sv2::messages::{
    B032Owned, B064KOwned, B0255Owned, PushSolution, SetCustomMiningJob, SubmitSolution, U256Owned,
};
use dovetail_sv2::{Outbox, OutboxError};
use dovetail_templates::{TemplateHandle, WorkSnapshot};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::coinbase::{BuildError, JobCoinbase, job_outputs};
use crate::declarator::{Declaration, Declarator, DeclaratorOptions, DeclareError};
use crate::keys::WorkerKeys;
use crate::search::{Found, Search, SearchJob};
use crate::session::{Channel, PoolEvent, share_frame};
use crate::transcripts::ReadyBatch;

/// Time for the pool to answer a registration or a custom job.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for the pool to audit a batch: a replay of up to 64 transcripts, twice where they differ.
const AUDIT_TIME_MAX: Duration = Duration::from_secs(180);
/// Time between the answer to a share and the outcome that explains it.
const OUTCOME_TIME_MAX: Duration = Duration::from_secs(30);

/// How a claim ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimEnd {
    /// The pool settled the batch, one way or the other.
    Settled {
        /// Whether it is credited.
        accepted: bool,
        /// Why not, if it is not.
        code: String,
        /// What lets us check the sample, if the pool sent it.
        outcome: Option<BatchOutcome>,
    },
    /// The pool will never pay for the batch.
    Refused(String),
}

/// Why a claim did not come to an end; the batch can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The job declarator failed or refused the job.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The template gives no valid coinbase.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The template source failed.
    #[error("the template source failed: {0}")]
    Templates(String),
    /// The pool connection is gone.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// A field of the template does not fit its message.
    #[error("the template does not fit the messages: {0}")]
    Fields(String),
    /// The pool refused the custom job.
    #[error("the pool refused the custom job: {0}")]
    JobRefused(String),
    /// The pool could not do its part this time.
    #[error("the pool failed; the batch is untouched")]
    PoolFailed,
    /// The pool did not answer.
    #[error("the pool did not answer in time")]
    TimeOut,
    /// The session is over.
    #[error("the session is over")]
    SessionOver,
}

/// What a claim needs besides the batch. It belongs to one session.
pub struct Claimer {
    /// Sends to the pool.
    pub outbox: Outbox,
    /// The channel as the session last saw it.
    pub channel: watch::Receiver<Channel>,
    /// What arrives from the pool.
    pub events: mpsc::Receiver<PoolEvent>,
    /// Where templates come from.
    pub templates: TemplateHandle,
    /// Where jobs are declared.
    pub declarator: DeclaratorOptions,
    /// Who we are.
    pub keys: WorkerKeys,
    connection: Option<Declarator>,
    numbers: Arc<AtomicU32>,
}

/// A job that the declarator and the pool both accepted.
struct DeclaredJob {
    job_id: u32,
    channel: Channel,
    work: Arc<WorkSnapshot>,
    coinbase: JobCoinbase,
    min_ntime: u32,
}

/// How the search on one job ended.
enum Searched {
    Found(Found),
    NewBlock,
}

impl Claimer {
    /// A claimer without a connection to the declarator; it is made when it is first needed.
    pub fn new(
        outbox: Outbox,
        channel: watch::Receiver<Channel>,
        events: mpsc::Receiver<PoolEvent>,
        templates: TemplateHandle,
        declarator: DeclaratorOptions,
        keys: WorkerKeys,
    ) -> Self {
        Self {
            outbox,
            channel,
            events,
            templates,
            declarator,
            keys,
            connection: None,
            numbers: Arc::new(AtomicU32::new(1)),
        }
    }

    /// Claims a batch.
    ///
    /// # Errors
    /// The batch can be claimed again, perhaps on another session.
    pub async fn claim(&mut self, batch: &ReadyBatch) -> Result<ClaimEnd, ClaimError> {
        // Whatever is left over from the claim before answers nothing of this one.
        while self.events.try_recv().is_ok() {}
        if let Some(code) = self.register(batch).await? {
            return refused(code);
        }
        loop {
            let job = self.declare(batch).await?;
            let found = match self.search(&job).await? {
                Searched::Found(found) => found,
                Searched::NewBlock => {
                    tracing::info!(root = %batch.root, "a new block came first; declaring the batch again");
                    continue;
                }
            };
            match self.submit(batch, &job, &found).await? {
                Some(end) => return Ok(end),
                None => {
                    tracing::info!(root = %batch.root, "the share was stale; declaring the batch again");
                }
            }
        }
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers the batch; the code if the pool refuses it.
    async fn register(&mut self, batch: &ReadyBatch) -> Result<Option<String>, ClaimError> {
        let request_id = self.number();
        self.outbox.send(&RegisterBatch {
            request_id,
            root: batch.root,
            task_ids: batch.task_ids.clone(),
        })?;
        self.answer(ANSWER_TIME_MAX, |event| match event {
            PoolEvent::BatchRegistered(id) if *id == request_id => Some(None),
            PoolEvent::BatchRefused(id, code) if *id == request_id => Some(Some(code.clone())),
            _ => None,
        })
        .await
    }

    /// Declares a job that carries the root on the newest work, and hands it to the pool.
    async fn declare(&mut self, batch: &ReadyBatch) -> Result<DeclaredJob, ClaimError> {
        let work = self.work().await?;
        let channel = self.channel.borrow().clone();
        let data = self
            .templates
            .transaction_data(work.template.template_id)
            .await
            .map_err(|error| ClaimError::Templates(error.to_string()))?;
        let declarator = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Declarator::open(&self.declarator, self.keys.name).await?),
        };
        let declared = async {
            let token = declarator.allocate().await?;
            let outputs = job_outputs(&work.template, &token.outputs, Some(&batch.root))?;
            let coinbase =
                JobCoinbase::new(&work.template, outputs, channel.full_extranonce_size())?;
            let declaration = Declaration {
                version: work.template.version,
                coinbase: &coinbase,
                transactions: &data.transactions,
                excess_data: &data.excess_data,
            };
            let job_token = declarator.declare(&token, &declaration).await?;
            Ok::<_, ClaimError>((coinbase, job_token))
        }
        .await;
        let (coinbase, job_token) = match declared {
            Ok(declared) => declared,
            Err(error) => {
                // After most errors the connection is of no use; a new one costs little.
                self.connection = None;
                return Err(error);
            }
        };
        tracing::info!(root = %batch.root, template = work.template.template_id, transactions = data.transactions.len(), "the job declarator accepted the job");
        let min_ntime = min_ntime(&work);
        let job_id = self
            .set_custom_job(&work, &channel, &coinbase, job_token, min_ntime)
            .await?;
        tracing::info!(root = %batch.root, job_id, "the pool accepted the job; hashing it");
        Ok(DeclaredJob {
            job_id,
            channel,
            work,
            coinbase,
            min_ntime,
        })
    }

    /// The newest work; waits for the first.
    async fn work(&mut self) -> Result<Arc<WorkSnapshot>, ClaimError> {
        let mut work = self.templates.subscribe();
        let work = work
            .wait_for(Option::is_some)
            .await
            .map_err(|_| ClaimError::Templates("it stopped".to_owned()))?;
        Ok(work.clone().expect("waited for some work"))
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

    async fn search(&mut self, job: &DeclaredJob) -> Result<Searched, ClaimError> {
        let mut search = Search::start(search_job(job));
        let mut work = self.templates.subscribe();
        loop {
            tokio::select! {
                found = search.found() => {
                    let (hashes, time) = search.effort();
                    tracing::info!(job_id = job.job_id, hashes, ms = time.as_millis() as u64, "found a share on the job");
                    return found.map(Searched::Found).ok_or(ClaimError::SessionOver);
                }
                changed = work.changed() => {
                    changed.map_err(|_| ClaimError::Templates("it stopped".to_owned()))?;
                    let newest = work.borrow_and_update().clone();
                    if newest.is_some_and(|w| w.prev_hash.prev_hash != job.work.prev_hash.prev_hash) {
                        return Ok(Searched::NewBlock);
                    }
                }
                // Nothing of interest can arrive now, but the queue must not fill.
                event = self.events.recv() => if event.is_none() {
                    return Err(ClaimError::SessionOver);
                },
            }
        }
    }

    /// Submits the share with its claim. `None`: the share was stale, the batch is untouched.
    async fn submit(
        &mut self,
        batch: &ReadyBatch,
        job: &DeclaredJob,
        found: &Found,
    ) -> Result<Option<ClaimEnd>, ClaimError> {
        let sequence_number = self.number();
        let version = job.work.template.version;
        let share = job
            .channel
            .share(sequence_number, job.job_id, version, found);
        self.outbox
            .try_send(share_frame(&share, Some(&batch.root))?)?;
        if Target::from_compact(CompactTarget::from_consensus(job.work.prev_hash.n_bits))
            >= Target::from_le_bytes(found.hash)
        {
            self.propagate(job, found).await;
        }
        // The outcome may come before or after the answer to the share.
        let mut outcome: Option<BatchOutcome> = None;
        let root = batch.root;
        let answer = self
            .answer(AUDIT_TIME_MAX, |event| match event {
                PoolEvent::SharesAccepted(last) if *last >= sequence_number => Some(None),
                PoolEvent::ShareRefused(number, code) if *number == sequence_number => {
                    Some(Some(code.clone()))
                }
                PoolEvent::Outcome(found) if found.root == root => {
                    outcome = Some(found.clone());
                    None
                }
                _ => None,
            })
            .await?;
        match answer {
            Some(code) if is_stale(&code) => Ok(None),
            Some(code) if code != codes::INFERENCE_MISMATCH => refused(code).map(Some),
            refusal => {
                if outcome.is_none() {
                    outcome = self.outcome(batch).await?;
                }
                Ok(Some(ClaimEnd::Settled {
                    accepted: refusal.is_none(),
                    code: refusal.unwrap_or_default(),
                    outcome,
                }))
            }
        }
    }

    /// The outcome of the batch, if the pool sends it in time. Settling does not depend on it.
    async fn outcome(&mut self, batch: &ReadyBatch) -> Result<Option<BatchOutcome>, ClaimError> {
        let outcome = self
            .answer(OUTCOME_TIME_MAX, |event| match event {
                PoolEvent::Outcome(found) if found.root == batch.root => Some(found.clone()),
                _ => None,
            })
            .await;
        match outcome {
            Err(ClaimError::TimeOut) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The share is a block: our own template source and the declarator propagate it as well as the
    /// pool. Failing to is no failure of the claim.
    async fn propagate(&mut self, job: &DeclaredJob, found: &Found) {
        let mut extranonce = job.channel.extranonce_prefix.clone();
        extranonce.extend_from_slice(&found.extranonce);
        tracing::info!(job_id = job.job_id, hash = %hex::encode(reversed(found.hash)), "the share is a block");
        let version = job.work.template.version;
        if let Ok(coinbase_tx) = B064KOwned::new(job.coinbase.with_witness(&extranonce)) {
            let solution = SubmitSolution {
                template_id: job.work.template.template_id,
                version,
                header_timestamp: found.ntime,
                header_nonce: found.nonce,
                coinbase_tx,
            };
            if let Err(error) = self.templates.submit_solution(solution).await {
                tracing::warn!(%error, "our template source did not take the block");
            }
        }
        let (Some(declarator), Ok(extranonce)) = (&mut self.connection, B032Owned::new(extranonce))
        else {
            return;
        };
        let solution = PushSolution {
            extranonce,
            prev_hash: job.work.prev_hash.prev_hash.clone(),
            nonce: found.nonce,
            ntime: found.ntime,
            nbits: job.work.prev_hash.n_bits,
            version,
        };
        if let Err(error) = declarator.push_solution(&solution).await {
            tracing::warn!(%error, "the job declarator did not take the block");
        }
    }

    /// Waits for the event that `pick` takes.
    async fn answer<T>(
        &mut self,
        time_max: Duration,
        mut pick: impl FnMut(&PoolEvent) -> Option<T>,
    ) -> Result<T, ClaimError> {
        let wait = async {
            loop {
                let event = self.events.recv().await.ok_or(ClaimError::SessionOver)?;
                if let Some(picked) = pick(&event) {
                    return Ok(picked);
                }
            }
        };
        timeout(time_max, wait)
            .await
            .map_err(|_| ClaimError::TimeOut)?
    }
}

fn reversed(mut hash: [u8; 32]) -> [u8; 32] {
    hash.reverse();
    hash
}

/// A refusal of the batch, unless its code says that the pool itself failed.
fn refused(code: String) -> Result<ClaimEnd, ClaimError> {
    if code == codes::INTERNAL {
        return Err(ClaimError::PoolFailed);
    }
    Ok(ClaimEnd::Refused(code))
}

/// Refusals that say nothing about the batch: the job was overtaken by a block.
fn is_stale(code: &str) -> bool {
    code == "stale-share" || code == "invalid-job-id"
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

/// The job as it is hashed.
fn search_job(job: &DeclaredJob) -> SearchJob {
    SearchJob {
        version: job.work.template.version,
        prev_hash: job.work.prev_hash.prev_hash.to_array(),
        min_ntime: job.min_ntime,
        nbits: job.work.prev_hash.n_bits,
        coinbase: job.coinbase.clone(),
        extranonce_prefix: job.channel.extranonce_prefix.clone(),
        extranonce_size: job.channel.extranonce_size,
        merkle_path: job
            .work
            .template
            .merkle_path
            .iter()
            .map(U256Owned::to_array)
            .collect(),
        target: job.channel.target,
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
        coinbase_prefix: work.template.coinbase_prefix.clone(),
        coinbase_tx_input_n_sequence: work.template.coinbase_tx_input_sequence,
        coinbase_tx_outputs: B064KOwned::new(coinbase.outputs.clone())?,
        coinbase_tx_locktime: work.template.coinbase_tx_locktime,
        merkle_path: work.template.merkle_path.clone(),
    })
}
