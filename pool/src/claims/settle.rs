//! From a share that passed the header check to an acknowledgement: the audit where it claims
//! inference, then one durable ledger entry. Money runs to its end: these futures are spawned on
//! the pool's task tracker, so that a connection that drops takes nothing with it.

use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use dovetail_commitment::{BatchRoot, HeaderHash, WorkerKey};
use dovetail_ledger::{
    BatchRecord, CommitRefusal, Committer, FailedAudit, InferenceSettlement, Ledger, LedgerError,
    MaturityWindow, ReplayedDigests, Share, ShareKind,
};
use dovetail_sv2::extension::codes::Code;
use dovetail_telemetry::{Event, Telemetry};
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, Work};
use tokio::time::timeout;

use super::audit::{AuditOutcome, Audited, Auditor, Failure};
use super::batch::check_claimable;
use super::claim::Claim;
use super::one_per_worker::OnePerWorker;
use super::receipts;
use crate::config::CreditConfig;
use crate::credit;
use crate::tasks::Tasks;

/// How long a claim waits for the one before it of the same worker.
const TURN_TIME_MAX: Duration = Duration::from_secs(120);
/// How long it may take from an audit's end until the share is durable.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a claim waits for one answer of the ledger. A connection that has silently died would not end
/// by itself, and the answers to all shares behind the claim wait with it.
const LEDGER_TIME_MAX: Duration = Duration::from_secs(20);

/// A share whose header hash met its target.
#[derive(Debug, Clone)]
pub(crate) struct ProvenShare {
    pub(crate) account: String,
    pub(crate) header_hash: HeaderHash,
    pub(crate) work: Work,
    /// What its hashes are worth.
    pub(crate) credit: Msat,
    pub(crate) is_block: bool,
    /// Whether its job was one in coinbase-only mode.
    pub(crate) is_coinbase_only: bool,
}

/// How a batch's claim ended, for the worker.
#[derive(Debug, Clone)]
pub(crate) struct BatchReport {
    pub(crate) root: BatchRoot,
    pub(crate) header_hash: HeaderHash,
    pub(crate) accepted: bool,
    pub(crate) step: u32,
    pub(crate) preimage: [u8; 32],
    /// What the audit found, or why it was not done; empty if the batch is accepted.
    pub(crate) code: &'static str,
    /// What the batch's tokens are credited with; 0 unless it is accepted.
    pub(crate) credit: Msat,
    /// What is held of the worker's credit for inference; `None` if the ledger did not say.
    pub(crate) held: Option<Msat>,
}

/// How a share ended.
#[derive(Debug, Clone)]
pub(crate) enum Settled {
    /// Durable, and credited.
    Accepted(Option<BatchReport>),
    /// Refused.
    Refused(SettleRefusal, Option<BatchReport>),
}

/// Why a share was not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettleRefusal {
    /// The header was submitted before.
    Duplicate,
    /// A reason of the extension.
    Code(Code),
}

impl SettleRefusal {
    /// The code of `SubmitShares.Error`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => stratum_core::mining_sv2::ERROR_CODE_SUBMIT_SHARES_DUPLICATE_SHARE,
            Self::Code(code) => code.as_str(),
        }
    }

    /// Whether no later share can claim the batch either.
    pub(crate) fn is_final_for_batch(self) -> bool {
        matches!(self, Self::Code(code) if code.is_final_for_batch())
    }
}

impl From<Code> for SettleRefusal {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

impl Settled {
    /// Refused before anything was found out about the batch.
    fn refused(refusal: impl Into<SettleRefusal>) -> Self {
        Self::Refused(refusal.into(), None)
    }
}

/// Settles shares.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) ledger: Ledger,
    pub(crate) committer: Committer,
    pub(crate) auditor: Auditor,
    pub(crate) one_per_worker: OnePerWorker,
    pub(crate) tasks: Tasks,
    pub(crate) telemetry: Telemetry,
    pub(crate) rates: CreditConfig,
    pub(crate) window: MaturityWindow,
    pub(crate) receipt_key: Keypair,
}

impl Settler {
    /// The same for the shares of another connection: those of one take turns with those of others.
    pub(crate) fn for_another_source(&self) -> Self {
        Self {
            committer: self.committer.for_another_source(),
            ..self.clone()
        }
    }

    /// The tip of the beacon that samples are drawn with, for workers to check revealed values against.
    pub(crate) fn beacon_tip(&self) -> [u8; 32] {
        self.auditor.tip()
    }

    /// Settles a share that claims nothing but its hash.
    pub(crate) async fn settle_hash(&self, share: ProvenShare) -> Settled {
        match self.committer.commit(entry(&share, None)).await {
            Ok(()) => {
                accepted(&self.telemetry, &share, "hash");
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
        let batch = match self.claimable(&claim).await {
            Ok(batch) => batch,
            Err(code) => return Settled::refused(code),
        };
        let audit = self.auditor.audit(share.header_hash, &claim.worker, &batch);
        let longest = self.auditor.time_max().saturating_add(LEDGER_TIME_MAX);
        let audited = match within(longest, audit).await {
            Ok(audited) => audited,
            Err(error) => {
                tracing::error!(%error, "the audit cannot reach the ledger");
                return Settled::refused(Code::Internal);
            }
        };
        match &audited.outcome {
            AuditOutcome::Passed { replayed } => {
                let replayed = *replayed;
                self.credit(share, claim, batch, audited, replayed).await
            }
            AuditOutcome::Failed(failure) => {
                self.reject(&share, &claim, &batch, &audited, failure).await
            }
            AuditOutcome::Unavailable => {
                tracing::warn!(root = %claim.root, worker = %claim.worker, "the audit could not be done; the batch may be claimed again");
                self.record(&share, &claim, &audited, Code::AuditUnavailable.as_str())
                    .await;
                let code = Code::AuditUnavailable;
                let told = Err(code.as_str());
                let report = self.report(&share, &claim, &audited, told).await;
                Settled::Refused(code.into(), Some(report))
            }
        }
    }

    /// The batch, if this worker may claim it now. It will not expire while it is audited.
    async fn claimable(&self, claim: &Claim) -> Result<BatchRecord, Code> {
        let internal = |error: LedgerError| {
            tracing::error!(%error, "cannot read a batch");
            Code::Internal
        };
        let batch = in_time(self.ledger.batch(claim.root)).await;
        let batch = batch.map_err(internal)?;
        let batch = batch.ok_or(Code::BatchUnknown)?;
        check_claimable(&batch, claim.worker)?;
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
        audited: Audited,
        replayed: usize,
    ) -> Settled {
        let tokens: u64 = batch
            .tasks
            .iter()
            .filter_map(|task| task.transcript.as_ref())
            .map(|transcript| u64::from(transcript.output_tokens))
            .sum();
        let credit = credit::for_tokens(&self.rates, tokens);
        let Some(receipts) = receipts::sign(&claim, &batch, &self.receipt_key) else {
            tracing::error!(root = %claim.root, "a settled batch gave no receipts");
            return Settled::refused(Code::Internal);
        };
        let settlement = InferenceSettlement {
            root: claim.root,
            credit,
            beacon_step: audited.step,
            sample: audited.sample.clone(),
            receipts,
        };
        if let Err(error) = self.committer.commit(entry(&share, Some(settlement))).await {
            return Settled::refused(refusal(&error));
        }
        accepted(&self.telemetry, &share, "inference");
        self.telemetry.emit(&Event::BatchSettled {
            root: &claim.root.to_string(),
            transcripts: batch.tasks.len(),
            replayed,
            credit_msat: credit,
        });
        self.tasks.settled(&batch);
        // Another batch of this worker: earlier ones may have come to the end of their window.
        self.mature(Some(claim.worker)).await;
        let report = self.report(&share, &claim, &audited, Ok(credit)).await;
        Settled::Accepted(Some(report))
    }

    /// Books a proven mismatch: the batch has failed, its worker forfeits what is held for it.
    async fn reject(
        &self,
        share: &ProvenShare,
        claim: &Claim,
        batch: &BatchRecord,
        audited: &Audited,
        failure: &Failure,
    ) -> Settled {
        let Some(failed) = failed_audit(share, claim, batch, audited, failure) else {
            tracing::error!(root = %claim.root, "an audit failed on a transcript that is not there");
            return Settled::refused(Code::Internal);
        };
        let forfeited = match in_time(self.ledger.fail_audit(&failed)).await {
            Ok(forfeited) => forfeited.unwrap_or_default(),
            Err(error) => {
                // The batch stays open: claimed again, it is audited again, and found false again.
                tracing::error!(%error, "cannot record a mismatch");
                return Settled::refused(Code::Internal);
            }
        };
        let code = failed.mismatch;
        let forfeited_msat = forfeited.amount.get();
        tracing::warn!(root = %claim.root, worker = %claim.worker, index = failure.index, code, forfeited_msat, "the audit found a mismatch");
        self.telemetry.emit(&Event::AuditFailed {
            root: &claim.root.to_string(),
            worker: &claim.worker.to_string(),
            mismatch: code,
            forfeited_msat: forfeited.amount,
        });
        self.tasks.failed(batch);
        let code = failure.finding.mismatch.code();
        let report = self.report(share, claim, audited, Err(code)).await;
        Settled::Refused(Code::InferenceMismatch.into(), Some(report))
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

    /// What the worker is told of its batch: what its tokens are credited with, or why they are not.
    async fn report(
        &self,
        share: &ProvenShare,
        claim: &Claim,
        audited: &Audited,
        credited: Result<Msat, &'static str>,
    ) -> BatchReport {
        let held = match in_time(self.ledger.balance(&share.account)).await {
            Ok(balance) => Some(balance.held),
            Err(error) => {
                tracing::warn!(%error, "cannot tell a worker what is held for it");
                None
            }
        };
        BatchReport {
            root: claim.root,
            header_hash: share.header_hash,
            accepted: credited.is_ok(),
            step: audited.step,
            preimage: audited.preimage,
            code: credited.err().unwrap_or_default(),
            credit: credited.unwrap_or_default(),
            held,
        }
    }

    async fn record(&self, share: &ProvenShare, claim: &Claim, audited: &Audited, verdict: &str) {
        let recorded = self.ledger.record_audit(
            share.header_hash,
            claim.root,
            audited.step,
            &audited.sample,
            verdict,
        );
        if let Err(error) = in_time(recorded).await {
            tracing::error!(%error, "cannot record an audit");
        }
    }
}

/// What the ledger answers, if it does in time.
async fn in_time<T>(
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

/// What the ledger records of a mismatch: digests, never content.
fn failed_audit<'a>(
    share: &ProvenShare,
    claim: &Claim,
    batch: &'a BatchRecord,
    audited: &'a Audited,
    failure: &'a Failure,
) -> Option<FailedAudit<'a>> {
    let position = failure.finding.mismatch.position();
    let replayed = failure.finding.replayed;
    Some(FailedAudit {
        header_hash: share.header_hash,
        root: claim.root,
        worker: claim.worker,
        beacon_step: audited.step,
        sample: &audited.sample,
        index: failure.index,
        transcript: batch.tasks.get(failure.index)?.transcript.as_ref()?,
        mismatch: failure.finding.mismatch.code(),
        position: position.map(|position| u32::try_from(position).unwrap_or(u32::MAX)),
        replayed: replayed.map(|replayed| ReplayedDigests {
            tokens: replayed.tokens,
            output_digest: replayed.output_digest,
            trace_root: replayed.trace_root,
        }),
        engine_version: dovetail_engine::ENGINE_VERSION,
        validators: &failure.validators,
    })
}

fn entry(share: &ProvenShare, batch: Option<InferenceSettlement>) -> Share {
    Share {
        header_hash: share.header_hash,
        account: share.account.clone(),
        work: share.work,
        kind: if batch.is_some() {
            ShareKind::Inference
        } else {
            ShareKind::Hash
        },
        is_block: share.is_block,
        credit: share.credit,
        is_coinbase_only: share.is_coinbase_only,
        batch,
    }
}

fn accepted(telemetry: &Telemetry, share: &ProvenShare, kind: &str) {
    telemetry.emit(&Event::ShareAccepted {
        kind,
        worker: &share.account,
        work: share.work.to_u64(),
        credit_msat: share.credit,
        held: share.is_coinbase_only,
    });
}

/// Why the ledger refused a share.
fn refusal(refusal: &CommitRefusal) -> SettleRefusal {
    let code = match refusal {
        CommitRefusal::DuplicateShare => return SettleRefusal::Duplicate,
        CommitRefusal::BatchSpent => Code::BatchSpent,
        CommitRefusal::BatchUnknown => Code::BatchUnknown,
        CommitRefusal::TaskExpired => Code::BatchExpired,
        _ => Code::Internal,
    };
    code.into()
}
