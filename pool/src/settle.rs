//! From a share that passed the header check to an acknowledgement: the audit where it claims
//! inference, then one durable ledger entry. Money runs to its end: these futures are spawned on
//! the pool's task tracker, so that a connection that drops takes nothing with it.

use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use dovetail_audit::AuditOutcome;
use dovetail_commitment::receipt::{Receipt, ReceiptParts};
use dovetail_commitment::{Batch, BatchRoot, HeaderHash, WorkerKey};
use dovetail_ledger::{
    BatchRecord, BatchState, CommitRefusal, Committer, InferenceSettlement, Ledger, Msat, Share,
    ShareKind,
};
use dovetail_sv2::extension::codes;

use crate::audit::{Audited, Auditor};
use crate::config::CreditConfig;
use crate::credit;
use crate::dispatch::{Dispatcher, Phase};
use crate::events::Event;

/// How long an audit may take. A time-out earns nothing and costs nothing else.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(120);

/// A share whose header hash met its target.
#[derive(Debug, Clone)]
pub(crate) struct ProvenShare {
    pub(crate) account: String,
    pub(crate) header_hash: HeaderHash,
    pub(crate) work: u128,
    pub(crate) credit_msat: i64,
    pub(crate) is_block: bool,
}

/// What a share claims beside its hash, with all that the receipt has to show.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) root: BatchRoot,
    pub(crate) worker: WorkerKey,
    pub(crate) header: [u8; 80],
    /// The coinbase without its witness.
    pub(crate) coinbase: Vec<u8>,
    pub(crate) merkle_path: Vec<[u8; 32]>,
    pub(crate) share_target: [u8; 32],
}

/// How a batch's claim ended, for the worker.
#[derive(Debug, Clone)]
pub(crate) struct BatchReport {
    pub(crate) root: BatchRoot,
    pub(crate) header_hash: HeaderHash,
    pub(crate) accepted: bool,
    pub(crate) step: u32,
    pub(crate) preimage: [u8; 32],
    pub(crate) code: &'static str,
}

/// How a share ended.
#[derive(Debug, Clone)]
pub(crate) enum Settled {
    /// Durable, and credited.
    Accepted(Option<BatchReport>),
    /// Refused; the code is for `SubmitShares.Error`.
    Refused(&'static str, Option<BatchReport>),
}

/// Settles shares.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) ledger: Ledger,
    pub(crate) committer: Committer,
    pub(crate) auditor: Auditor,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) rates: CreditConfig,
    pub(crate) receipt_key: Keypair,
}

impl Settler {
    /// Settles a share that claims nothing but its hash.
    pub(crate) async fn settle_hash(&self, share: ProvenShare) -> Settled {
        match self.committer.commit(entry(&share, None)).await {
            Ok(()) => {
                accepted(&share, "hash");
                Settled::Accepted(None)
            }
            Err(refusal) => Settled::Refused(refusal_code(&refusal), None),
        }
    }

    /// Settles a share that claims a batch: checks the batch, audits it, commits both.
    pub(crate) async fn settle_claim(&self, share: ProvenShare, claim: Claim) -> Settled {
        let batch = match self.claimable(&claim).await {
            Ok(batch) => batch,
            Err(code) => return Settled::Refused(code, None),
        };
        let audit = self.auditor.audit(share.header_hash, &claim.worker, &batch);
        let audited = match tokio::time::timeout(AUDIT_TIMEOUT, audit).await {
            Ok(Ok(audited)) => audited,
            Ok(Err(error)) => {
                tracing::error!(%error, "the audit cannot reach the ledger");
                return Settled::Refused(codes::INTERNAL, None);
            }
            Err(_) => return Settled::Refused(codes::INTERNAL, None),
        };
        match &audited.outcome {
            AuditOutcome::Passed { replayed } => {
                let replayed = *replayed;
                self.credit(share, claim, batch, audited, replayed).await
            }
            AuditOutcome::Failed { index, mismatch } => {
                tracing::warn!(root = %claim.root, worker = %claim.worker, index, code = mismatch.code(), "the audit found a mismatch");
                self.reject(&share, &claim, &batch, &audited, mismatch.code())
                    .await
            }
            AuditOutcome::Unavailable => Settled::Refused(codes::INTERNAL, None),
        }
    }

    /// The batch, if this worker may claim it now.
    async fn claimable(&self, claim: &Claim) -> Result<BatchRecord, &'static str> {
        let batch = self
            .ledger
            .batch(claim.root)
            .await
            .map_err(|error| {
                tracing::error!(%error, "cannot read a batch");
                codes::INTERNAL
            })?
            .ok_or(codes::BATCH_UNKNOWN)?;
        if batch.worker != claim.worker {
            return Err(codes::BATCH_NOT_YOURS);
        }
        match batch.state {
            BatchState::Open => {}
            BatchState::Settled => return Err(codes::BATCH_SPENT),
            BatchState::Failed => return Err(codes::INFERENCE_MISMATCH),
        }
        if batch.is_expired() {
            return Err(codes::BATCH_EXPIRED);
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
        let credit_msat = credit::for_tokens(&self.rates, tokens);
        let Some(receipts) = self.receipts(&claim, &batch) else {
            tracing::error!(root = %claim.root, "a settled batch gave no receipts");
            return Settled::Refused(codes::INTERNAL, None);
        };
        let settlement = InferenceSettlement {
            root: claim.root,
            credit: Msat::new(credit_msat),
            beacon_step: audited.step,
            sample: audited.sample.clone(),
            receipts,
        };
        if let Err(refusal) = self.committer.commit(entry(&share, Some(settlement))).await {
            return Settled::Refused(refusal_code(&refusal), None);
        }
        self.record(&share, &claim, &audited, "passed").await;
        accepted(&share, "inference");
        Event::BatchSettled {
            root: &claim.root.to_string(),
            transcripts: batch.tasks.len(),
            replayed,
            credit_msat,
        }
        .emit();
        for task in &batch.tasks {
            self.dispatcher.finish(&task.id, Phase::Settled, None);
        }
        Settled::Accepted(Some(report(&share, &claim, &audited, true, "")))
    }

    async fn reject(
        &self,
        share: &ProvenShare,
        claim: &Claim,
        batch: &BatchRecord,
        audited: &Audited,
        detail: &'static str,
    ) -> Settled {
        self.record(share, claim, audited, detail).await;
        if let Err(error) = self.ledger.fail_batch(claim.root, detail).await {
            tracing::error!(%error, "cannot mark a batch failed");
        }
        for task in &batch.tasks {
            self.dispatcher
                .finish(&task.id, Phase::Failed, Some(codes::INFERENCE_MISMATCH));
        }
        Settled::Refused(
            codes::INFERENCE_MISMATCH,
            Some(report(share, claim, audited, false, detail)),
        )
    }

    async fn record(&self, share: &ProvenShare, claim: &Claim, audited: &Audited, verdict: &str) {
        let recorded = self
            .ledger
            .record_audit(
                share.header_hash,
                claim.root,
                audited.step,
                &audited.sample,
                verdict,
            )
            .await;
        if let Err(error) = recorded {
            tracing::error!(%error, "cannot record an audit");
        }
    }

    /// One signed receipt per task, as JSON.
    fn receipts(
        &self,
        claim: &Claim,
        batch: &BatchRecord,
    ) -> Option<Vec<(dovetail_commitment::TaskId, String)>> {
        let leaves = batch
            .tasks
            .iter()
            .map(|task| task.transcript.as_ref().map(|transcript| transcript.leaf()))
            .collect::<Option<Vec<_>>>()?;
        let tree = Batch::new(leaves).ok()?;
        if tree.root() != claim.root {
            return None;
        }
        batch
            .tasks
            .iter()
            .enumerate()
            .map(|(index, task)| {
                let receipt = Receipt::sign(
                    ReceiptParts {
                        transcript: task.transcript.clone()?,
                        leaf_proof: tree.proof(index)?,
                        coinbase: claim.coinbase.clone(),
                        merkle_path: claim.merkle_path.clone(),
                        header: claim.header,
                        share_target: claim.share_target,
                        issued_at_unix: unix_now(),
                    },
                    &self.receipt_key,
                );
                Some((task.id, serde_json::to_string_pretty(&receipt).ok()?))
            })
            .collect()
    }
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
        credit: Msat::new(share.credit_msat),
        batch,
    }
}

fn report(
    share: &ProvenShare,
    claim: &Claim,
    audited: &Audited,
    accepted: bool,
    code: &'static str,
) -> BatchReport {
    BatchReport {
        root: claim.root,
        header_hash: share.header_hash,
        accepted,
        step: audited.step,
        preimage: audited.preimage,
        code,
    }
}

fn accepted(share: &ProvenShare, kind: &str) {
    Event::ShareAccepted {
        kind,
        worker: &share.account,
        work: u64::try_from(share.work).unwrap_or(u64::MAX),
        credit_msat: share.credit_msat,
    }
    .emit();
}

/// The Sv2 code for a share that the ledger refused.
fn refusal_code(refusal: &CommitRefusal) -> &'static str {
    match refusal {
        CommitRefusal::DuplicateShare => {
            stratum_core::mining_sv2::ERROR_CODE_SUBMIT_SHARES_DUPLICATE_SHARE
        }
        CommitRefusal::BatchSpent => codes::BATCH_SPENT,
        CommitRefusal::BatchUnknown => codes::BATCH_UNKNOWN,
        CommitRefusal::TaskExpired => codes::BATCH_EXPIRED,
        _ => codes::INTERNAL,
    }
}

fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
