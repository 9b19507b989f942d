//! The audit as the pool runs it: commit, then sample, then replay exactly.
//!
//! The sample is drawn by a verifiable random function from the header of the batch's first admitted claim and the
//! batch's root, so a batch has one sample. What a replay finds is in the ledger before anything else is done about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_audit::{Evidence, Finding, Stake, WeighedLeaf, sample};
use dovetail_commitment::{BatchRoot, HeaderHash, ModelId};
use dovetail_ledger::{
    BatchRecord, DrawnSample, Ledger, LedgerError, ReplayedDigests, SuspectFinding, TaskRecord,
};
use dovetail_sv2::extension::sample_input;
use dovetail_vrf::{VrfProof, VrfPublicKey, VrfSecret};
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::validation::{Late, NotReplayed, ReplayPace, Replayed, ValidatorNames, Validators};

/// How often the ledger is asked to keep what a late replay found, should it be away: for an hour.
const KEEPING_TRIES: u32 = 360;
const KEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// How an audit ended, and with which sample.
#[derive(Debug, Clone)]
pub(crate) struct Audited {
    pub(crate) sample: DrawnSample,
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
    Failed(Box<Failure>),
    /// One did not, and nobody has replayed it a second time yet. The finding is kept.
    Suspect,
    /// The replay had no place in the queue, or no validator in time: earns nothing, costs nothing and counts for nothing.
    Crowded,
    /// The replay could not be done in time, or was not the same twice: earns nothing and costs nothing.
    Undone,
}

/// A mismatch that was found twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the first replay found.
    pub(crate) finding: SuspectFinding,
    /// The validators that found it, the first one's first.
    pub(crate) validators: [String; 2],
}

/// What a second replay says of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The same.
    Same(Box<Failure>),
    /// Something else: one of the two validators is broken, and nobody has lied.
    Different,
    /// Nothing yet.
    None,
}

/// A mismatch of the first replays, with the leaf's place.
struct Found {
    index: usize,
    finding: Finding,
    by: usize,
}

/// Why a part of a sample was not replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotDone {
    Crowded,
    Undone,
}

/// Runs audits away from the mining tasks.
#[derive(Clone)]
pub(crate) struct Auditor {
    ledger: Ledger,
    secret: VrfSecret,
    validators: Validators,
    /// For one replay.
    time_max: Duration,
    /// Second replays that were not awaited to their end: one for each suspect batch at most.
    confirming: Arc<Mutex<HashMap<BatchRoot, Late>>>,
}

impl Auditor {
    /// Draws samples with this secret. A replay that takes longer than `time_max`, or waits for longer, is given up.
    pub(crate) fn new(
        ledger: Ledger,
        secret: VrfSecret,
        validators: Validators,
        time_max: Duration,
    ) -> Self {
        Self {
            ledger,
            secret,
            validators,
            time_max,
            confirming: Arc::default(),
        }
    }

    /// How long one replay takes at most.
    pub(crate) fn replay_time_max(&self) -> Duration {
        self.time_max
    }

    /// How long an audit takes at most: the wait for a validator, a replay, and another one to confirm what it found.
    pub(crate) fn time_max(&self) -> Duration {
        self.time_max.saturating_mul(3)
    }

    fn confirming(&self) -> MutexGuard<'_, HashMap<BatchRoot, Late>> {
        self.confirming
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How fast replays are.
    pub(crate) fn pace(&self) -> &ReplayPace {
        self.validators.pace()
    }

    /// What the proofs are checked with.
    pub(crate) fn vrf_key(&self) -> VrfPublicKey {
        self.secret.public_key()
    }

    /// The proof of the sample that this header draws for this root.
    pub(crate) fn prove(&self, sample_header: &HeaderHash, root: &BatchRoot) -> VrfProof {
        self.secret.prove(&sample_input(sample_header, root))
    }

    /// Audits `batch` at the claim with this header, whose sample `sample_header` draws.
    ///
    /// # Errors
    /// [`LedgerError`] if it cannot be reached. What was found by then is kept, or lost with the whole claim.
    pub(crate) async fn audit(
        &self,
        header_hash: HeaderHash,
        sample_header: HeaderHash,
        batch: &BatchRecord,
    ) -> Result<Audited, LedgerError> {
        let evidence = evidence_of(batch).ok_or(LedgerError::Corrupt("batch"))?;
        let leaves = weighed(batch).ok_or(LedgerError::Corrupt("batch"))?;
        // At every claim: the least counts, so a later claim never has a smaller sample.
        let stake = self.ledger.stake(batch.worker, batch.root).await?;
        let stake = stake.ok_or(LedgerError::Refused("the batch is not open"))?;
        let input = sample_input(&sample_header, &batch.root);
        let (output, proof) = self.secret.evaluate(&input);
        let indices = sample(&output.seed(), &leaves, Stake::new(stake));
        let outcome = self
            .replay(header_hash, batch.root, &evidence, &indices)
            .await?;
        let sample = DrawnSample {
            header_hash: sample_header,
            proof,
            stake,
            indices,
        };
        Ok(Audited { sample, outcome })
    }

    /// Has the sample replayed, the models side by side, and a mismatch once more.
    async fn replay(
        &self,
        header_hash: HeaderHash,
        root: BatchRoot,
        evidence: &[Arc<Evidence>],
        sample: &[usize],
    ) -> Result<AuditOutcome, LedgerError> {
        // Made before an update of this pool, so nobody has lied. All of the batch is looked at: what no sample can show to
        // be a lie is not paid by luck, nor does it hide another one.
        if !evidence.iter().all(|evidence| evidence.is_replayable()) {
            tracing::warn!(
                "a transcript of the release before cannot be replayed; its batch earns nothing"
            );
            return Ok(AuditOutcome::Undone);
        }
        let by_model = by_model(evidence, sample);
        let mut replays = Vec::with_capacity(by_model.len());
        for (model, indices) in &by_model {
            let found_at = FoundAt {
                root,
                header_hash,
                indices: indices.clone(),
            };
            replays.push(self.first_mismatch(*model, evidence, found_at));
        }
        let replayed = join_all(replays).await;
        // A mismatch counts, whatever became of the other models.
        let found = replayed
            .iter()
            .filter_map(|of_model| of_model.as_ref().ok());
        let Some(found) = found.flatten().min_by_key(|found| found.index) else {
            return Ok(if replayed.iter().all(Result::is_ok) {
                let replayed = sample.len();
                AuditOutcome::Passed { replayed }
            } else if replayed
                .iter()
                .any(|of_model| matches!(of_model, Err(NotDone::Undone)))
            {
                // Whatever became of the others: they may have waited for just this one.
                AuditOutcome::Undone
            } else {
                AuditOutcome::Crowded
            });
        };
        let finding = finding(header_hash, found, self.validators.names());
        // Before anything else: it must outlive this claim.
        self.ledger.keep_finding(root, &finding).await?;
        match self.confirm(root, &finding, &evidence[found.index]).await {
            Confirmation::Same(failure) => Ok(AuditOutcome::Failed(failure)),
            Confirmation::None => Ok(AuditOutcome::Suspect),
            Confirmation::Different => {
                self.ledger.drop_finding(root, &finding).await?;
                Ok(AuditOutcome::Undone)
            }
        }
    }

    /// Has the part of a sample replayed that is of one model: the first transcript of it that did not give the same.
    async fn first_mismatch(
        &self,
        model: ModelId,
        evidence: &[Arc<Evidence>],
        found_at: FoundAt,
    ) -> Result<Option<Found>, NotDone> {
        let chosen = found_at.indices.iter();
        let chosen = chosen.map(|index| Arc::clone(&evidence[*index])).collect();
        let replayed = self.validators.replay(model, chosen, self.time_max).await;
        match replayed {
            Ok(replayed) => Ok(found_at.first_of(&replayed)),
            Err(NotReplayed::Crowded) => Err(NotDone::Crowded),
            Err(NotReplayed::Failed) => Err(NotDone::Undone),
            Err(NotReplayed::Late(late)) => {
                // Else a lie beside something long is free: whoever lies has the replay run out of time, and claims again.
                let names = self.validators.names().clone();
                tokio::spawn(keep_late(self.ledger.clone(), names, late, found_at));
                Err(NotDone::Undone)
            }
        }
    }

    /// Has what a finding is about replayed once more, ahead of everything that waits, by another validator. What takes longer
    /// than an answer may goes on, and the next one who asks has its verdict: begun anew each time, something that takes too
    /// long would keep the validators from all else.
    pub(crate) async fn confirm(
        &self,
        root: BatchRoot,
        finding: &SuspectFinding,
        evidence: &Arc<Evidence>,
    ) -> Confirmation {
        let model = evidence.transcript.model_id;
        let under_way = self.confirming().remove(&root);
        let begin = || {
            let evidence = Arc::clone(evidence);
            self.validators.confirm(model, evidence, &finding.validator)
        };
        let mut again = Awaited {
            auditor: self,
            root,
            late: Some(under_way.unwrap_or_else(begin)),
        };
        let Ok(Some(again)) = timeout(self.time_max, again.verdicts()).await else {
            return Confirmation::None;
        };
        let names = self.validators.names();
        let second = names.get(again.by).to_owned();
        let agrees = match again.verdicts.as_slice() {
            [Err(found)] => {
                let found = Found {
                    index: finding.index,
                    finding: *found,
                    by: again.by,
                };
                let again = self::finding(finding.header_hash, &found, names);
                let of_first = SuspectFinding {
                    validator: second.clone(),
                    ..finding.clone()
                };
                again == of_first
            }
            _ => false,
        };
        if agrees {
            return Confirmation::Same(Box::new(Failure {
                finding: finding.clone(),
                validators: [finding.validator.clone(), second],
            }));
        }
        tracing::error!(
            first = finding.validator,
            second,
            code = finding.mismatch,
            "two replays of a transcript differ: one of these validators is broken"
        );
        Confirmation::Different
    }
}

/// A second replay that is waited for. Unless it has come to an end, whoever asks next goes on waiting for the same one, also
/// if this one is no longer polled.
struct Awaited<'a> {
    auditor: &'a Auditor,
    root: BatchRoot,
    late: Option<Late>,
}

impl Awaited<'_> {
    async fn verdicts(&mut self) -> Option<Replayed> {
        let replayed = self.late.as_mut()?.verdicts().await;
        self.late = None;
        replayed
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(late) = self.late.take() {
            self.auditor.confirming().insert(self.root, late);
        }
    }
}

/// At which claim a part of a sample is replayed, and which leaves it consists of.
struct FoundAt {
    root: BatchRoot,
    header_hash: HeaderHash,
    indices: Vec<usize>,
}

impl FoundAt {
    fn first_of(&self, replayed: &Replayed) -> Option<Found> {
        let mut verdicts = replayed.verdicts.iter().zip(&self.indices);
        verdicts.find_map(|(verdict, index)| {
            let finding = (*verdict).err()?;
            Some(Found {
                index: *index,
                finding,
                by: replayed.by,
            })
        })
    }
}

/// Keeps what a replay finds that was given up: it is true all the same, and nothing of the worker is settled before it is
/// confirmed. Of a batch that has ended by then nothing is kept, nor if the pool stops before.
async fn keep_late(ledger: Ledger, names: ValidatorNames, mut late: Late, found_at: FoundAt) {
    let Some(replayed) = late.verdicts().await else {
        return;
    };
    let Some(found) = found_at.first_of(&replayed) else {
        return;
    };
    let finding = finding(found_at.header_hash, &found, &names);
    tracing::warn!(root = %found_at.root, "a replay found a mismatch after its time was over; it is kept");
    for _ in 0..KEEPING_TRIES {
        match ledger.keep_finding(found_at.root, &finding).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(%error, root = %found_at.root, "cannot keep what a late replay found");
            }
        }
        sleep(KEEPING_INTERVAL).await;
    }
}

/// What the ledger keeps of a mismatch: digests, never content.
fn finding(header_hash: HeaderHash, found: &Found, names: &ValidatorNames) -> SuspectFinding {
    let mismatch = found.finding.mismatch;
    let position = mismatch.position();
    SuspectFinding {
        header_hash,
        index: found.index,
        mismatch: mismatch.code().to_owned(),
        position: position.map(|position| u32::try_from(position).unwrap_or(u32::MAX)),
        replayed: found.finding.replayed.map(|replayed| ReplayedDigests {
            tokens: replayed.tokens,
            output_digest: replayed.output_digest,
            trace_root: replayed.trace_root,
        }),
        validator: names.get(found.by).to_owned(),
    }
}

/// The places of the sample, by the models of their transcripts.
fn by_model(evidence: &[Arc<Evidence>], sample: &[usize]) -> BTreeMap<ModelId, Vec<usize>> {
    let mut by_model: BTreeMap<ModelId, Vec<usize>> = BTreeMap::new();
    for &index in sample {
        let model = evidence[index].transcript.model_id;
        by_model.entry(model).or_default().push(index);
    }
    by_model
}

/// What each transcript is worth: what its task is credited with. `None` if one is not there.
fn weighed(batch: &BatchRecord) -> Option<Vec<WeighedLeaf>> {
    let of_task = |task: &TaskRecord| {
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
    batch.tasks.iter().map(evidence_of_task).collect()
}

/// The same of one task.
pub(super) fn evidence_of_task(task: &TaskRecord) -> Option<Arc<Evidence>> {
    Some(Arc::new(Evidence {
        transcript: task.transcript.clone()?,
        salt: task.salt?,
        prompt: task.prompt.clone()?,
        stop: task.stop.clone()?,
        constraint: task.constraint.clone(),
        output_tokens: task.output_tokens.clone()?,
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dovetail_commitment::{
        Constraint, EncodedPrompt, FinishReason, Form, PromptCommitment, SamplingParams,
        StopSequences, TaskId, Transcript, WorkerKey,
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
            prompt: EncodedPrompt::new(b"a prompt", vec![256, 97]).unwrap(),
            stop: StopSequences::new(vec![b"\n\n".to_vec(), b"END".to_vec()]).unwrap(),
            constraint: Some(Constraint::new(Form::Regex("[a-z]+".to_owned())).unwrap()),
            output_tokens: vec![1, 2, 3],
        }
    }
}
