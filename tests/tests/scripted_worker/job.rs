//! Jobs and shares of a scripted worker: declared, set, hashed, claimed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bitcoin::{CompactTarget, Target, TxOut};
use dovetail_commitment::BatchRoot;
use dovetail_miner::coinbase::{JobCoinbase, job_outputs};
use dovetail_miner::declarator_client::{Declaration, Declarator, DeclaratorOptions, DeclareError};
use dovetail_miner::declared_jobs::custom_job;
use dovetail_miner::job::FoundShare;
use dovetail_miner::pool_session::Channel;
use dovetail_miner::search::{Found, SearchJob};
use dovetail_miner::template_job::min_ntime;
use dovetail_sv2::extension::{
    BatchOutcome, RequestBatchJob, RequestBatchJobError, RequestBatchJobSuccess, claim_tlv, codes,
};
use dovetail_sv2::messages::{
    NewExtendedMiningJob, SetCustomMiningJob, SetCustomMiningJobError, SetCustomMiningJobSuccess,
    SetTarget, SubmitSharesError, SubmitSharesExtended, SubmitSharesSuccess,
};
use dovetail_sv2::{Frame, Tlv};
use dovetail_templates::{TransactionData, WorkSnapshot};
use tokio::time::{sleep, timeout};

use super::worker::ScriptedWorker;
use super::{TIME_MAX, authority, wire};

/// How far the clock of a block runs ahead, so that its header still fits jobs of some time later.
const BLOCK_AHEAD_S: u32 = 600;
/// What declarator and pool say to a job on another tip than theirs.
const STALE_TIP: &str = "stale-chain-tip";
/// How long until it is tried again.
const TIP_PAUSE: Duration = Duration::from_millis(50);

/// A job that the declarator accepted, and what the pool is told of it.
pub(crate) struct Declared {
    /// The token that the pool takes.
    pub(crate) token: Vec<u8>,
    /// What the job is built on.
    pub(crate) work: Arc<WorkSnapshot>,
    /// Its coinbase.
    pub(crate) coinbase: JobCoinbase,
}

/// A job that the pool accepted.
pub(crate) struct Job {
    /// The pool's number.
    pub(crate) id: u32,
    pub(super) channel: Channel,
    pub(super) search: SearchJob,
}

/// A header that meets the channel's target.
#[derive(Clone)]
pub(crate) struct Share {
    /// The message that submits it.
    pub(crate) message: SubmitSharesExtended,
    /// Its hash, in internal byte order.
    pub(crate) hash: [u8; 32],
}

/// What the pool said to a share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It is credited for its hashes.
    Hashes,
    /// It is credited with the batch that it claimed.
    Credited(BatchOutcome),
    /// It is refused, with this code.
    Refused(String),
    /// The audit found something; its outcome names what.
    Caught(BatchOutcome),
}

impl Verdict {
    /// The code of a refusal that is not the audit's.
    pub(crate) fn refusal(self) -> String {
        match self {
            Self::Refused(code) => code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// What the audit found.
    pub(crate) fn caught(self) -> BatchOutcome {
        match self {
            Self::Caught(outcome) => outcome,
            other => panic!("not caught: {other:?}"),
        }
    }

    /// The outcome of a batch that was credited.
    pub(crate) fn credited(self) -> BatchOutcome {
        match self {
            Self::Credited(outcome) => outcome,
            other => panic!("not credited: {other:?}"),
        }
    }

    /// Whether only the chain or the target moved on, which says nothing of the claim.
    fn is_stale(&self) -> bool {
        let stale = ["stale-share", "invalid-job-id", "difficulty-too-low"];
        matches!(self, Self::Refused(code) if stale.contains(&code.as_str()))
    }
}

/// What a channel's successes come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The last one's number.
    pub(crate) last: u32,
    /// How many shares they are for.
    pub(crate) accepted: u32,
    /// Their difficulty.
    pub(crate) difficulty: u64,
}

impl Told {
    fn add(&mut self, success: &SubmitSharesSuccess) {
        assert!(success.last_sequence_number > self.last, "{success:?}");
        assert!(success.new_submits_accepted_count > 0, "{success:?}");
        self.last = success.last_sequence_number;
        self.accepted += success.new_submits_accepted_count;
        self.difficulty += success.new_shares_sum;
    }
}

impl ScriptedWorker {
    /// Declares a job whose outputs `change` has the last word on, under the identity of any worker;
    /// the code if it is refused.
    pub(crate) async fn declare_as(
        &mut self,
        identity: dovetail_commitment::WorkerKey,
        root: Option<&BatchRoot>,
        change: impl FnOnce(&mut Vec<TxOut>),
    ) -> Result<Declared, String> {
        let options = DeclaratorOptions {
            address: self.endpoints.declaration.clone(),
            authority: Some(authority()),
        };
        let mut declarator = Declarator::open(&options, identity).await.unwrap();
        let token = declarator.allocate().await.unwrap();
        let (work, data) = self.template().await;
        let mut outputs = job_outputs(&work.template, &token.outputs, root).unwrap();
        change(&mut outputs);
        let coinbase =
            JobCoinbase::new(&work.template, outputs, self.channel.full_extranonce_size()).unwrap();
        let declaration = Declaration {
            version: work.template.version,
            coinbase: &coinbase,
            transactions: &data.transactions,
            excess_data: &data.excess_data,
        };
        match declarator.declare(&token, &declaration).await {
            Ok(token) => Ok(Declared {
                token,
                work,
                coinbase,
            }),
            Err(DeclareError::Refused(code)) => Err(code),
            Err(other) => panic!("{other}"),
        }
    }

    /// The newest template of its own with its transactions; a node has them only as long as the tip
    /// stands.
    async fn template(&self) -> (Arc<WorkSnapshot>, TransactionData) {
        let templates = &self.endpoints.templates;
        let newest = async {
            loop {
                let work = templates.current().unwrap();
                match templates.transaction_data(work.template_id()).await {
                    Ok(data) => return (work, data),
                    Err(_) => sleep(TIP_PAUSE).await,
                }
            }
        };
        timeout(TIME_MAX, newest).await.expect("no template stands")
    }

    /// Declares a job that commits to `root`, or to nothing.
    pub(crate) async fn declare(&mut self, root: Option<&BatchRoot>) -> Result<Declared, String> {
        self.declare_as(self.keys.name, root, |_| ()).await
    }

    /// As [`ScriptedWorker::declare`], again while a tip has yet to reach the declarator or its own templates.
    pub(crate) async fn declare_soon(
        &mut self,
        root: Option<&BatchRoot>,
    ) -> Result<Declared, String> {
        let declared = async {
            loop {
                match self.declare(root).await {
                    Err(code) if code == STALE_TIP => sleep(TIP_PAUSE).await,
                    declared => return declared,
                }
            }
        };
        timeout(TIME_MAX, declared).await.expect("no tip in common")
    }

    /// Hands a declared job to the pool after `change`; the code if it is refused.
    pub(crate) async fn set_changed(
        &mut self,
        declared: &Declared,
        change: impl FnOnce(&mut SetCustomMiningJob),
    ) -> Result<Job, String> {
        let request_id = self.number();
        // Of now: a job may be set long after it was declared.
        let min_ntime = min_ntime(&self.endpoints.templates.current().unwrap());
        let mut message = custom_job(
            &declared.work,
            &self.channel,
            &declared.coinbase,
            declared.token.clone(),
            request_id,
            min_ntime,
        )
        .unwrap();
        change(&mut message);
        self.wire.send(&message).await;
        let id = self
            .wire
            .pick(|frame| {
                if frame.is::<SetCustomMiningJobSuccess>() {
                    return Some(Ok(wire::decoded::<SetCustomMiningJobSuccess>(frame).job_id));
                }
                frame.is::<SetCustomMiningJobError>().then(|| {
                    let error: SetCustomMiningJobError = wire::decoded(frame);
                    Err(error.error_code.as_utf8_or_hex())
                })
            })
            .await?;
        self.hear_targets();
        let work = &declared.work;
        let (prefix, suffix) = declared.coinbase.stripped_parts();
        Ok(Job {
            id,
            channel: self.channel.clone(),
            search: SearchJob {
                version: work.template.version,
                prev_hash: work.prev_hash(),
                min_ntime,
                nbits: work.nbits(),
                coinbase_prefix: [prefix, &self.channel.extranonce_prefix].concat(),
                coinbase_suffix: suffix.to_vec(),
                extranonce_size: self.channel.extranonce_size,
                merkle_path: work.merkle_path(),
                target: self.channel.target,
            },
        })
    }

    /// Asks the pool for a job of its own that commits to `root`; the code if it builds none.
    pub(crate) async fn pool_job(&mut self, root: BatchRoot) -> Result<Job, String> {
        let request_id = self.number();
        let channel_id = self.channel.id;
        self.wire
            .send(&RequestBatchJob {
                request_id,
                channel_id,
                root,
            })
            .await;
        let id = self
            .wire
            .pick(|frame| {
                if frame.is::<RequestBatchJobSuccess>() {
                    return Some(Ok(wire::decoded::<RequestBatchJobSuccess>(frame).job_id));
                }
                let refused = frame.is::<RequestBatchJobError>();
                refused.then(|| Err(wire::decoded::<RequestBatchJobError>(frame).code))
            })
            .await?;
        let built = self.wire.pick(|frame| {
            let job = frame.is::<NewExtendedMiningJob>();
            let job: NewExtendedMiningJob = job.then(|| wire::decoded(frame))?;
            (job.job_id == id).then_some(job)
        });
        let built = built.await;
        Ok(self.given(&built))
    }

    /// Takes the targets that have come, for the jobs that come from now on.
    pub(super) fn hear_targets(&mut self) {
        for target in self.wire.arrived::<SetTarget>() {
            if target.channel_id == self.channel.id {
                self.channel.target = target.maximum_target.to_array();
            }
        }
    }

    /// A job that the pool gave, on the newest tip.
    pub(crate) fn given(&mut self, job: &NewExtendedMiningJob) -> Job {
        self.hear_targets();
        let work = self.endpoints.templates.current().unwrap();
        let prefix = job.coinbase_tx_prefix.as_bytes();
        let path = job.merkle_path.as_slice().iter();
        Job {
            id: job.job_id,
            channel: self.channel.clone(),
            search: SearchJob {
                version: job.version,
                prev_hash: work.prev_hash(),
                min_ntime: min_ntime(&work),
                nbits: work.nbits(),
                coinbase_prefix: [prefix, &self.channel.extranonce_prefix].concat(),
                coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
                extranonce_size: self.channel.extranonce_size,
                merkle_path: path.map(|node| *node.as_array()).collect(),
                target: self.channel.target,
            },
        }
    }

    /// Hands a declared job to the pool.
    pub(crate) async fn set(&mut self, declared: &Declared) -> Result<Job, String> {
        self.set_changed(declared, |_| ()).await
    }

    /// A job that commits to `root`, accepted by declarator and pool; again if a block came first.
    pub(crate) async fn job(&mut self, root: Option<&BatchRoot>) -> Job {
        loop {
            let declared = self.declare_soon(root).await.unwrap();
            match self.set(&declared).await {
                Ok(job) => return job,
                Err(code) if code == STALE_TIP => sleep(TIP_PAUSE).await,
                Err(code) => panic!("the pool refused the job: {code}"),
            }
        }
    }

    /// Searches a share, another one each time, that solves no block: a block by chance would make the
    /// job stale before a case is done with it. On Bitcoin Core's regtest every share may solve one.
    pub(crate) async fn hash(&mut self, job: &Job) -> Share {
        let target = Target::from_le_bytes(job.search.target);
        let block = Target::from_compact(CompactTarget::from_consensus(job.search.nbits));
        loop {
            let share = self.hash_to(job, job.search.target, 0).await;
            if block >= target || Target::from_le_bytes(share.hash) > block {
                return share;
            }
        }
    }

    /// Searches a share that solves a block. On Bitcoin Core's regtest a block is easier than a share.
    pub(crate) async fn hash_block(&mut self, job: &Job) -> Share {
        let bits = CompactTarget::from_consensus(job.search.nbits);
        let target = Target::from_compact(bits).min(Target::from_le_bytes(job.search.target));
        self.hash_to(job, target.to_le_bytes(), BLOCK_AHEAD_S).await
    }

    pub(super) async fn hash_to(&mut self, job: &Job, target: [u8; 32], ahead_s: u32) -> Share {
        let search = SearchJob {
            target,
            min_ntime: job.search.min_ntime.saturating_add(ahead_s),
            ..job.search.clone()
        };
        let first = u64::from(self.number()) << 32;
        let found: Found = tokio::task::spawn_blocking(move || {
            search.search(first, &AtomicBool::new(false), &AtomicU64::new(0))
        })
        .await
        .unwrap()
        .unwrap();
        let hash = found.hash;
        let found = FoundShare {
            job_id: job.id,
            upstream_job_id: None,
            extranonce: found.extranonce,
            ntime: found.ntime,
            nonce: found.nonce,
            version: job.search.version,
            hash,
            target: job.search.target,
            block: false,
        };
        Share {
            message: job.channel.share(self.number(), job.id, &found),
            hash,
        }
    }

    /// Sends a share with these fields and nothing else.
    pub(crate) async fn send_share(&mut self, share: &Share, fields: &[Tlv]) {
        let mut frame = Frame::new(&share.message).unwrap();
        for field in fields {
            dovetail_sv2::tlv::append_tlv(&mut frame.payload, field).unwrap();
        }
        self.wire.send_frame(&frame).await;
    }

    /// Waits for what the pool says to a share that claimed `root`, or nothing.
    pub(crate) async fn verdict(&mut self, share: &Share, root: Option<&BatchRoot>) -> Verdict {
        let answer = self.answer(&share.message).await;
        match (answer, root) {
            (Ok(()), None) => Verdict::Hashes,
            (Ok(()), Some(_)) => Verdict::Credited(self.outcome(share).await),
            (Err(code), Some(_)) if code == codes::Code::InferenceMismatch => {
                Verdict::Caught(self.outcome(share).await)
            }
            (Err(code), _) => Verdict::Refused(code),
        }
    }

    /// What the pool says to a share. A success is for all shares of the channel up to its number that
    /// were not refused before; answers to other shares are kept.
    async fn answer(&mut self, share: &SubmitSharesExtended) -> Result<(), String> {
        let key = (share.channel_id, share.sequence_number);
        loop {
            if let Some(code) = self.refused.remove(&key) {
                return Err(code);
            }
            let told = self.acknowledged(share.channel_id);
            if told.last >= share.sequence_number {
                return Ok(());
            }
            let answer = self.wire.pick(|frame| {
                if frame.is::<SubmitSharesSuccess>() {
                    return Some(Ok(wire::decoded::<SubmitSharesSuccess>(frame)));
                }
                let refused = frame.is::<SubmitSharesError>();
                refused.then(|| Err(wire::decoded::<SubmitSharesError>(frame)))
            });
            match answer.await {
                Ok(success) => self
                    .told
                    .entry(success.channel_id)
                    .or_default()
                    .add(&success),
                Err(error) => {
                    let key = (error.channel_id, error.sequence_number);
                    self.refused.insert(key, error.error_code.as_utf8_or_hex());
                }
            }
        }
    }

    /// What the successes that were read so far come to, of this channel.
    pub(crate) fn acknowledged(&self, channel_id: u32) -> Told {
        self.told.get(&channel_id).copied().unwrap_or_default()
    }

    async fn outcome(&mut self, share: &Share) -> BatchOutcome {
        let outcome = self.wire.pick(|frame| {
            let outcome: BatchOutcome = frame.is::<BatchOutcome>().then(|| wire::decoded(frame))?;
            (outcome.header_hash.to_bytes() == share.hash).then_some(outcome)
        });
        outcome.await
    }

    /// Submits a share and hears what becomes of it. One that was submitted before goes under a new number:
    /// numbers only rise.
    pub(crate) async fn submit(&mut self, share: &Share, root: Option<&BatchRoot>) -> Verdict {
        let mut share = share.clone();
        if self.acknowledged(share.message.channel_id).last >= share.message.sequence_number {
            share.message.sequence_number = self.number();
        }
        let claim: Vec<Tlv> = root.map(claim_tlv).into_iter().collect();
        self.send_share(&share, &claim).await;
        self.verdict(&share, root).await
    }

    /// Searches another share on this job and submits it.
    pub(crate) async fn submit_new(&mut self, job: &Job, root: Option<&BatchRoot>) -> Verdict {
        let share = self.hash(job).await;
        self.submit(&share, root).await
    }

    /// The whole way of a registered batch: a job that commits to it, a share on it, the claim.
    pub(crate) async fn claim(&mut self, root: &BatchRoot) -> Verdict {
        loop {
            let job = self.job(Some(root)).await;
            let verdict = self.submit_new(&job, Some(root)).await;
            if !verdict.is_stale() {
                return verdict;
            }
        }
    }
}
