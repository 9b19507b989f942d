//! The audit as the pool runs it: commit, then sample, then replay exactly.
//!
//! The beacon is a hash chain whose tip is published at registration. A step's preimage is spent
//! before it is used, so that no restart can use it twice, and told only after the share is in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dovetail_audit::{Evidence, Finding, HashChain, Stake, WeighedLeaf, sample};
use dovetail_commitment::{HeaderHash, ModelId, WorkerKey, tagged_hash};
use dovetail_ledger::{BatchRecord, Ledger, LedgerError};
use tokio::time::timeout;

use crate::validation::Validators;

/// What an audit found, and with which step of the beacon.
#[derive(Debug, Clone)]
pub(crate) struct Audited {
    pub(crate) step: u32,
    pub(crate) preimage: [u8; 32],
    pub(crate) sample: Vec<usize>,
    pub(crate) outcome: AuditOutcome,
}

/// How the audit of a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    /// Every sampled transcript replayed to the same bits.
    Passed {
        /// How many were replayed.
        replayed: usize,
    },
    /// One did not, twice.
    Failed(Failure),
    /// The replay could not be done in time, or was not the same twice: earns nothing and costs
    /// nothing.
    Unavailable,
}

/// A mismatch that was found twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The transcript's place in the batch.
    pub(crate) index: usize,
    pub(crate) finding: Finding,
    /// The validators that found it, the first one's first.
    pub(crate) validators: [String; 2],
}

/// Runs audits away from the mining tasks.
#[derive(Clone)]
pub(crate) struct Auditor {
    ledger: Ledger,
    chain: Arc<HashChain>,
    validators: Validators,
    time_max: Duration,
}

impl Auditor {
    /// Goes on with the beacon that the ledger holds, or starts one. An audit that takes longer than
    /// `time_max` is given up.
    pub(crate) async fn start(
        ledger: Ledger,
        validators: Validators,
        time_max: Duration,
    ) -> anyhow::Result<Self> {
        let beacon = ledger.beacon().await.context("cannot read the beacon")?;
        let chain =
            tokio::task::spawn_blocking(move || HashChain::from_seed(beacon.seed, beacon.length))
                .await?;
        Ok(Self {
            ledger,
            chain: Arc::new(chain),
            validators,
            time_max,
        })
    }

    /// How long an audit takes at most.
    pub(crate) fn time_max(&self) -> Duration {
        self.time_max
    }

    /// The chain's tip, for workers to check revealed values against. Never a later value: one that is
    /// spent may choose the sample of an audit that is under way, and is no public one before it ends.
    pub(crate) fn tip(&self) -> [u8; 32] {
        self.chain.tip()
    }

    /// Samples `batch` with the share's hash and the next preimage, and has the sample replayed.
    ///
    /// # Errors
    /// [`LedgerError`] if no step could be spent; nothing was sampled then.
    pub(crate) async fn audit(
        &self,
        header_hash: HeaderHash,
        worker: &WorkerKey,
        batch: &BatchRecord,
    ) -> Result<Audited, LedgerError> {
        let evidence = evidence_of(batch).ok_or(LedgerError::Corrupt("batch"))?;
        let leaves = weighed(batch).ok_or(LedgerError::Corrupt("batch"))?;
        let stake = self.ledger.stake(*worker, batch.root).await?;
        let stake = stake.ok_or(LedgerError::Refused("the batch is not open"))?;
        let step = self.ledger.take_step().await?;
        let Some(preimage) = self.chain.preimage(step) else {
            // A chain of 2^20 steps lasts for years; its end is the operator's business.
            tracing::error!("the beacon's hash chain is used up: start a new one");
            return Err(LedgerError::Refused("the beacon is used up"));
        };
        let output = tagged_hash("dovetail/sampled", &[header_hash.as_bytes(), &preimage]);
        let indices = sample(&output, &leaves, Stake::new(stake));
        let outcome = timeout(self.time_max, self.replay(&evidence, &indices))
            .await
            .unwrap_or(AuditOutcome::Unavailable);
        Ok(Audited {
            step,
            preimage,
            sample: indices,
            outcome,
        })
    }

    /// Has the sample replayed, each model's part in one go, and a mismatch once more.
    async fn replay(&self, evidence: &[Arc<Evidence>], sample: &[usize]) -> AuditOutcome {
        let mut sampled = sample.iter().filter_map(|index| evidence.get(*index));
        if !sampled.all(|evidence| evidence.is_replayable()) {
            // Asked for before an update of this pool: nobody has lied.
            tracing::warn!("a task with a constraint for another guide cannot be replayed");
            return AuditOutcome::Unavailable;
        }
        let mut by_model: BTreeMap<ModelId, Vec<usize>> = BTreeMap::new();
        for &index in sample {
            let Some(evidence) = evidence.get(index) else {
                return AuditOutcome::Unavailable;
            };
            let model = evidence.transcript.model_id;
            by_model.entry(model).or_default().push(index);
        }
        for (model, indices) in by_model {
            let chosen = indices.iter().map(|index| Arc::clone(&evidence[*index]));
            let Some(first) = self.validators.replay(model, chosen.collect(), None).await else {
                return AuditOutcome::Unavailable;
            };
            let mut failed = first
                .verdicts
                .iter()
                .zip(&indices)
                .filter_map(|(verdict, index)| Some(((*verdict).err()?, *index)));
            let Some((finding, index)) = failed.next() else {
                continue;
            };
            let once_more = vec![Arc::clone(&evidence[index])];
            let again = self
                .validators
                .replay(model, once_more, Some(first.by))
                .await;
            let Some(again) = again else {
                return AuditOutcome::Unavailable;
            };
            if again.verdicts.as_slice() != [Err(finding)] {
                tracing::error!(
                    first = self.validators.name(first.by),
                    second = self.validators.name(again.by),
                    code = finding.mismatch.code(),
                    "two replays of a transcript differ: one of these validators is broken"
                );
                return AuditOutcome::Unavailable;
            }
            return AuditOutcome::Failed(Failure {
                index,
                finding,
                validators: [first.by, again.by].map(|by| self.validators.name(by).to_owned()),
            });
        }
        AuditOutcome::Passed {
            replayed: sample.len(),
        }
    }
}

/// What each transcript is worth: what its task is credited with. `None` if one is not there.
fn weighed(batch: &BatchRecord) -> Option<Vec<WeighedLeaf>> {
    let of_task = |task: &dovetail_ledger::TaskRecord| {
        Some(WeighedLeaf {
            leaf: task.transcript.as_ref()?.leaf(),
            value: task.price,
        })
    };
    batch.tasks.iter().map(of_task).collect()
}

/// What a replay needs of each transcript, in the order of the leaves; `None` if a task has lost its
/// prompt, transcript or tokens, as those of an open batch have not.
fn evidence_of(batch: &BatchRecord) -> Option<Vec<Arc<Evidence>>> {
    let of_task = |task: &dovetail_ledger::TaskRecord| {
        Some(Arc::new(Evidence {
            transcript: task.transcript.clone()?,
            salt: task.salt,
            prompt: task.prompt.clone()?,
            stop: task.stop.clone()?,
            constraint: task.constraint.clone(),
            output_tokens: task.output_tokens.clone()?,
        }))
    };
    batch.tasks.iter().map(of_task).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dovetail_commitment::{
        Constraint, FinishReason, Form, PromptCommitment, SamplingParams, StopSequences, TaskId,
        Transcript,
    };

    /// Evidence that decodes and that no model ever gave.
    pub(crate) fn evidence_without_meaning() -> Evidence {
        Evidence {
            transcript: Transcript {
                task_id: TaskId::from_bytes([1; 32]),
                worker_key: WorkerKey::from_bytes([2; 32]),
                model_id: ModelId::from_bytes([3; 32]),
                engine_version: 2,
                prompt_commitment: PromptCommitment::from_bytes([4; 32]),
                sampling: SamplingParams {
                    temperature_milli: 0,
                    top_k: 0,
                    top_p_milli: 1_000,
                    max_tokens: 8,
                },
                seed: [5; 32],
                output_tokens: 3,
                output_digest: [6; 32],
                trace_root: [7; 32],
                finish_reason: FinishReason::Stop,
            },
            salt: [8; 32],
            prompt: b"a prompt".to_vec(),
            stop: StopSequences::new(vec![b"\n\n".to_vec(), b"END".to_vec()]).unwrap(),
            constraint: Some(Constraint::new(Form::Regex("[a-z]+".to_owned())).unwrap()),
            output_tokens: vec![1, 2, 3],
        }
    }
}
