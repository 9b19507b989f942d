//! From a share that passed the header check to an acknowledgement: the audit where it claims
//! inference, then the log. Money runs to its end: a share is in the log's queue before anybody waits
//! for it, and claims are spawned on the pool's task tracker, so that a connection that drops takes
//! nothing with it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use dovetail_commitment::WorkerKey;
use dovetail_ledger::{
    BatchRecord, BatchState, CommitRefusal, Committer, DrawnSample, InferenceSettlement, Ledger,
    LedgerError, MaturityWindow, Share, Undone,
};
use dovetail_sv2::extension::codes::Code;
use dovetail_telemetry::{Event, Telemetry};
use dovetail_units::time::unix_now;
use dovetail_units::{KeptCredit, Msat};
use dovetail_vrf::VrfPublicKey;
use tokio::time::timeout;

use super::audit::{AuditOutcome, Audited, Auditor};
use super::batch::check_claimable;
use super::claim::Claim;
use super::receipts;
pub(crate) use super::settled::{BatchReport, Drawn, ProvenShare, SettleRefusal, Settled};
use crate::accepted_shares::AcceptedShares;
use crate::one_each::OneEach;
use crate::tasks::Tasks;
use crate::validation::ReplayPace;

/// How long a claim waits for the one before it of the same worker. Together with a look at suspect batches, an audit (by
/// default) and some answers of the ledger it stays below what workers wait for an answer to a claim, ten minutes.
const TURN_TIME_MAX: Duration = Duration::from_secs(60);
/// Claims of one worker that may stand in line, the one under way included. An honest worker has one; a few more cover a
/// reconnection. As many registrations of batches.
pub(crate) const OF_A_WORKER_IN_LINE_MAX: usize = 4;
/// How long it may take, besides the audit, until the share is durable or the mismatch booked: some answers of the ledger.
/// Until then nothing of the worker matures.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a claim waits for one answer of the ledger. A connection that has silently died would not end
/// by itself, and the answers to all shares behind the claim wait with it.
const LEDGER_TIME_MAX: Duration = Duration::from_secs(20);

/// Settles shares.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) ledger: Ledger,
    pub(crate) committer: Committer,
    pub(crate) auditor: Auditor,
    pub(crate) one_per_worker: OneEach<WorkerKey>,
    pub(crate) tasks: Tasks,
    pub(crate) telemetry: Telemetry,
    pub(crate) accepted: Arc<AcceptedShares>,
    pub(crate) window: MaturityWindow,
    pub(crate) receipt_key: Keypair,
}

impl Settler {
    /// How fast replays are.
    pub(crate) fn pace(&self) -> &ReplayPace {
        self.auditor.pace()
    }

    /// What the proofs of samples are checked with.
    pub(crate) fn vrf_key(&self) -> VrfPublicKey {
        self.auditor.vrf_key()
    }

    /// Settles a share that claims nothing but its hash.
    pub(crate) async fn settle_hash(&self, share: ProvenShare) -> Settled {
        match self.committer.commit(entry(&share, None)).await {
            Ok(()) => {
                self.accepted.count(&share, &self.telemetry);
                Settled::Accepted(None)
            }
            Err(error) => Settled::refused(refusal(&error)),
        }
    }

    /// Settles a share that claims a batch: checks the batch, audits it, commits both.
    pub(crate) async fn settle_claim(&self, share: ProvenShare, claim: Claim) -> Settled {
        let turn = timeout(TURN_TIME_MAX, self.one_per_worker.take(claim.worker)).await;
        let Ok(Some(_turn)) = turn else {
            return Settled::refused(Code::AuditUnavailable);
        };
        if let Err(code) = self.confirm_suspects_of(claim.worker).await {
            return Settled::refused(code);
        }
        let batch = match self.claimable(&claim).await {
            Ok(batch) => batch,
            Err(NotClaimable { code, ended }) => {
                let report = match ended {
                    Some(batch) => self.report_of_ended(&share, &batch).await,
                    None => None,
                };
                return Settled::Refused(code.into(), report);
            }
        };
        let audited = match self.audit(&share, &batch).await {
            Ok(audited) => audited,
            Err(code) => return Settled::refused(code),
        };
        let sample = audited.sample;
        match audited.outcome {
            AuditOutcome::Passed { replayed } => {
                self.credit(share, claim, batch, sample, replayed).await
            }
            AuditOutcome::Failed(failure) => {
                let booked = self
                    .book_mismatch(share.header_hash, &batch, &sample, &failure)
                    .await;
                let Ok(code) = booked else {
                    return Settled::refused(Code::Internal);
                };
                let told = Err(code.into());
                let report = self.report(&share, &batch, Some(&sample), told).await;
                Settled::Refused(Code::InferenceMismatch.into(), Some(report))
            }
            AuditOutcome::Suspect => {
                tracing::warn!(root = %claim.root, worker = %claim.worker, "a replay found a mismatch, and nobody has confirmed it yet; the pool goes on trying");
                self.record(&share, &claim, &sample, "suspect").await;
                self.untold(&share, &batch, Code::AuditUnavailable).await
            }
            AuditOutcome::Crowded => {
                tracing::warn!(root = %claim.root, worker = %claim.worker, "no validator has taken a sample in time; the batch may be claimed again");
                self.untold(&share, &batch, Code::AuditUnavailable).await
            }
            AuditOutcome::Undone => self.undone(&share, &claim, &batch, &sample).await,
        }
    }

    /// The audit of a claim. The first claim of a batch fixes its sample, before anything is replayed.
    async fn audit(&self, share: &ProvenShare, batch: &BatchRecord) -> Result<Audited, Code> {
        let internal = |error: LedgerError| {
            tracing::error!(%error, "the audit cannot reach the ledger");
            Code::Internal
        };
        let key = self.auditor.vrf_key();
        let fixed = self.ledger.fix_sample(batch.root, share.header_hash, key);
        let fixed = in_time(fixed).await.map_err(internal)?;
        let sample_header = fixed.ok_or(Code::BatchSpent)?;
        let audit = self.auditor.audit(share.header_hash, sample_header, batch);
        let longest = self.auditor.time_max().saturating_add(LEDGER_TIME_MAX);
        within(longest, audit).await.map_err(internal)
    }

    /// The replay could not be done. It may be tried again, but not for ever.
    async fn undone(
        &self,
        share: &ProvenShare,
        claim: &Claim,
        batch: &BatchRecord,
        sample: &DrawnSample,
    ) -> Settled {
        let code = Code::AuditUnavailable;
        self.record(share, claim, sample, code.as_str()).await;
        match in_time(self.ledger.count_undone(claim.root)).await {
            Ok(Undone::Open) => {
                tracing::warn!(root = %claim.root, worker = %claim.worker, "the audit could not be done; the batch may be claimed again");
                self.untold(share, batch, code).await
            }
            Ok(Undone::Over) => {
                tracing::warn!(root = %claim.root, worker = %claim.worker, "the audit could not be done once more; the batch is given up");
                let code = Code::BatchDead;
                let told = Err(code.as_str().into());
                let report = self.report(share, batch, Some(sample), told).await;
                Settled::Refused(code.into(), Some(report))
            }
            Err(error) => {
                tracing::error!(%error, "cannot count an audit that could not be done");
                Settled::refused(Code::Internal)
            }
        }
    }

    /// The batch has not ended, and nothing is told of its sample.
    async fn untold(&self, share: &ProvenShare, batch: &BatchRecord, code: Code) -> Settled {
        let told = Err(code.as_str().into());
        let report = self.report(share, batch, None, told).await;
        Settled::Refused(code.into(), Some(report))
    }

    /// The batch, if this worker may claim it now. It will not expire while it is audited.
    async fn claimable(&self, claim: &Claim) -> Result<BatchRecord, NotClaimable> {
        let internal = |error: LedgerError| {
            tracing::error!(%error, "cannot read a batch");
            Code::Internal
        };
        let batch = in_time(self.ledger.batch(claim.root)).await;
        let batch = batch.map_err(internal)?;
        let batch = batch.ok_or(Code::BatchUnknown)?;
        if let Err(code) = check_claimable(&batch, claim.worker) {
            let is_told = matches!(code, Code::InferenceMismatch | Code::BatchDead);
            let ended = is_told.then_some(batch);
            return Err(NotClaimable { code, ended });
        }
        let longest = self.auditor.time_max().saturating_add(COMMIT_TIME_MAX);
        let until = unix_now().saturating_add(longest.as_secs());
        let keep = batch.tasks.iter().any(|task| task.expires_at_unix < until);
        if keep {
            let kept = in_time(self.ledger.keep_claimed(claim.root, until)).await;
            kept.map_err(internal)?;
        }
        Ok(batch)
    }

    async fn credit(
        &self,
        share: ProvenShare,
        claim: Claim,
        batch: BatchRecord,
        sample: DrawnSample,
        replayed: usize,
    ) -> Settled {
        // The values that the sample was drawn by.
        let mut values = batch.tasks.iter().map(|task| task.price);
        let Some(credit) = values.try_fold(Msat::ZERO, Msat::checked_add) else {
            tracing::error!(root = %claim.root, "the worth of a batch does not fit an amount");
            return Settled::refused(Code::Internal);
        };
        let Some(receipts) = receipts::sign(&claim, &batch, &self.receipt_key, self.vrf_key())
        else {
            tracing::error!(root = %claim.root, "a settled batch gave no receipts");
            return Settled::refused(Code::Internal);
        };
        let settlement = InferenceSettlement {
            root: claim.root,
            credit,
            sample: sample.clone(),
            receipts,
        };
        if let Err(error) = self.committer.commit(entry(&share, Some(settlement))).await {
            return Settled::refused(refusal(&error));
        }
        self.telemetry.emit(&Event::ShareAccepted {
            kind: "inference",
            worker: &share.account,
            shares: 1,
            work: share.work.to_u64(),
            credit_msat: share.credit.to_msat(),
            held: share.is_coinbase_only,
        });
        self.telemetry.emit(&Event::BatchSettled {
            root: &claim.root.to_string(),
            transcripts: batch.tasks.len(),
            replayed,
            credit_msat: credit,
        });
        self.tasks.settled(&batch);
        // Its first batch has made it known to the ledger.
        if claim.kept > KeptCredit::NONE {
            self.keep_credit(claim.worker, claim.kept).await;
        }
        // Another batch of this worker: earlier ones may have come to the end of their window.
        self.mature(Some(claim.worker)).await;
        let report = self.report(&share, &batch, Some(&sample), Ok(credit)).await;
        Settled::Accepted(Some(report))
    }

    /// Notes how much of its credit a worker leaves held. It is said again with each registration and each batch.
    pub(crate) async fn keep_credit(&self, worker: WorkerKey, kept: KeptCredit) {
        if let Err(error) = in_time(self.ledger.keep_credit(worker, kept)).await {
            tracing::warn!(%error, %worker, "cannot note how much credit a worker leaves held");
        }
    }

    /// Posts the held credit whose window is over, of one worker or of all.
    pub(crate) async fn mature(&self, worker: Option<WorkerKey>) {
        match in_time(self.ledger.mature_credits(self.window, worker)).await {
            Ok(matured) => {
                for matured in matured {
                    self.tasks.look_at_standing(matured.worker);
                    self.telemetry.emit(&Event::CreditMatured {
                        worker: &matured.worker.to_string(),
                        credits: matured.credits,
                        amount_msat: matured.amount,
                    });
                }
            }
            // It is looked for again before long.
            Err(error) => tracing::warn!(%error, "cannot post matured credit"),
        }
    }

    /// What the worker is told of its batch: what its tokens are credited with, or why they are not. The sample only of a
    /// batch that has ended.
    async fn report(
        &self,
        share: &ProvenShare,
        batch: &BatchRecord,
        sample: Option<&DrawnSample>,
        credited: Result<Msat, Cow<'static, str>>,
    ) -> BatchReport {
        let held = match in_time(self.ledger.balance(&share.account)).await {
            Ok(balance) => Some(balance.held),
            Err(error) => {
                tracing::warn!(%error, "cannot tell a worker what is held for it");
                None
            }
        };
        let drawn = sample.map(|sample| Drawn {
            sample_header: sample.header_hash,
            proof: sample.proof,
            stake: sample.stake,
        });
        BatchReport {
            root: batch.root,
            header_hash: share.header_hash,
            accepted: credited.is_ok(),
            drawn,
            credit: *credited.as_ref().unwrap_or(&Msat::ZERO),
            code: credited.err().unwrap_or_default(),
            held,
        }
    }

    /// How a batch ended whose worker claims it once more: it may have missed it, or the pool found a mismatch without a
    /// claim.
    async fn report_of_ended(
        &self,
        share: &ProvenShare,
        batch: &BatchRecord,
    ) -> Option<BatchReport> {
        let header_hash = batch.sample_header?;
        // Under another key nobody can prove it any more.
        if batch.sample_key != Some(self.vrf_key().to_bytes()) {
            return None;
        }
        let sample = DrawnSample {
            header_hash,
            proof: self.auditor.prove(&header_hash, &batch.root),
            stake: batch.stake?,
            indices: Vec::new(),
        };
        let code: Cow<'static, str> = match batch.state {
            BatchState::Failed => batch.code.clone()?.into(),
            _ => Code::BatchDead.as_str().into(),
        };
        let report = self.report(share, batch, Some(&sample), Err(code));
        Some(report.await)
    }

    async fn record(
        &self,
        share: &ProvenShare,
        claim: &Claim,
        sample: &DrawnSample,
        verdict: &str,
    ) {
        let recorded = self
            .ledger
            .record_audit(share.header_hash, claim.root, sample, verdict);
        if let Err(error) = in_time(recorded).await {
            tracing::error!(%error, "cannot record an audit");
        }
    }
}

/// A batch that cannot be claimed.
struct NotClaimable {
    code: Code,
    /// The batch, where its sample is told.
    ended: Option<BatchRecord>,
}

impl From<Code> for NotClaimable {
    fn from(code: Code) -> Self {
        Self { code, ended: None }
    }
}

/// What the ledger answers, if it does in time.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    within(LEDGER_TIME_MAX, answer).await
}

async fn within<T>(
    time_max: Duration,
    answer: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let late = LedgerError::Refused("it did not answer in time");
    timeout(time_max, answer).await.unwrap_or(Err(late))
}

fn entry(share: &ProvenShare, batch: Option<InferenceSettlement>) -> Share {
    Share {
        header_hash: share.header_hash,
        height: share.height,
        account: share.account.clone(),
        work: share.work,
        is_block: share.is_block,
        credit: share.credit,
        weight: share.weight,
        reward_sat: share.reward_sat,
        is_coinbase_only: share.is_coinbase_only,
        batch,
        proof: share.proof.clone(),
    }
}

/// Why the ledger refused a share.
fn refusal(refusal: &CommitRefusal) -> SettleRefusal {
    let code = match refusal {
        CommitRefusal::DuplicateShare => return SettleRefusal::Duplicate,
        CommitRefusal::BatchSpent => Code::BatchSpent,
        CommitRefusal::BatchUnknown => Code::BatchUnknown,
        CommitRefusal::TaskExpired => Code::BatchExpired,
        CommitRefusal::WorkerSuspect => Code::AuditUnavailable,
        CommitRefusal::LogFull => Code::LogFull,
        _ => Code::Internal,
    };
    code.into()
}
