//! The audit as the pool runs it: commit, then sample, then replay exactly.
//!
//! The beacon is a hash chain whose tip is published at registration. A step's preimage is spent
//! before it is used, so that no restart can use it twice, and told only after the share is in.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use dovetail_audit::{AuditOutcome, Evidence, HashChain, audit_batch, sample, sample_size};
use dovetail_commitment::{HeaderHash, ModelId, WorkerKey};
use dovetail_engine::{Model, Runtime};
use dovetail_ledger::{BatchRecord, Ledger, LedgerError};
use tokio::sync::Semaphore;

/// The models that the pool can replay, by id.
#[derive(Clone, Default)]
pub(crate) struct Models(Arc<HashMap<ModelId, Arc<Model>>>);

impl Models {
    /// Loads every file.
    pub(crate) fn load(paths: &[impl AsRef<Path>]) -> anyhow::Result<Self> {
        let mut models = HashMap::new();
        for path in paths {
            let path = path.as_ref();
            let model = Model::load(path)
                .with_context(|| format!("cannot load the model {}", path.display()))?;
            tracing::info!(model = %model.id(), name = model.name(), "model loaded");
            models.insert(model.id(), Arc::new(model));
        }
        Ok(Self(Arc::new(models)))
    }

    pub(crate) fn get(&self, id: &ModelId) -> Option<Arc<Model>> {
        self.0.get(id).cloned()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.0.values()
    }
}

/// What an audit found, and with which step of the beacon.
#[derive(Debug, Clone)]
pub(crate) struct Audited {
    pub(crate) step: u32,
    pub(crate) preimage: [u8; 32],
    pub(crate) sample: Vec<usize>,
    pub(crate) outcome: AuditOutcome,
}

/// Runs audits, a bounded number at a time, away from the mining tasks.
#[derive(Clone)]
pub(crate) struct Auditor {
    ledger: Ledger,
    models: Models,
    chain: Arc<HashChain>,
    replays: Arc<Semaphore>,
    runtime: Arc<Runtime>,
}

impl Auditor {
    /// Goes on with the beacon that the ledger holds, or starts one.
    pub(crate) async fn start(
        ledger: Ledger,
        models: Models,
        replays_max: usize,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let beacon = ledger.beacon().await.context("cannot read the beacon")?;
        let chain =
            tokio::task::spawn_blocking(move || HashChain::from_seed(beacon.seed, beacon.length))
                .await?;
        Ok(Self {
            ledger,
            models,
            chain: Arc::new(chain),
            replays: Arc::new(Semaphore::new(replays_max.max(1))),
            runtime: Arc::new(Runtime::new(threads)?),
        })
    }

    /// The newest value that is spent, for workers to check the next ones against: the chain's tip
    /// before the first step.
    pub(crate) async fn newest(&self) -> Result<[u8; 32], LedgerError> {
        let next = self.ledger.next_step().await?;
        let spent = next
            .checked_sub(1)
            .and_then(|step| self.chain.preimage(step));
        Ok(spent.unwrap_or_else(|| self.chain.tip()))
    }

    /// Samples `batch` with the share's hash and the next preimage, and replays the sample.
    pub(crate) async fn audit(
        &self,
        header_hash: HeaderHash,
        worker: &WorkerKey,
        batch: &BatchRecord,
    ) -> Result<Audited, LedgerError> {
        let evidence = evidence_of(batch);
        let trusted = self.ledger.audited_transcripts(worker).await?;
        let step = self.ledger.take_step().await?;
        let Some(preimage) = self.chain.preimage(step) else {
            // A chain of 2^20 steps lasts for years; its end is the operator's business.
            tracing::error!("the beacon's hash chain is used up: start a new one");
            return Ok(unavailable(step));
        };
        let count = sample_size(trusted, evidence.len());
        let indices = sample(&header_hash, &preimage, evidence.len(), count);
        let Ok(_permit) = Arc::clone(&self.replays).acquire_owned().await else {
            return Ok(unavailable(step));
        };
        let models = self.models.clone();
        let chosen = indices.clone();
        let runtime = Arc::clone(&self.runtime);
        let outcome = tokio::task::spawn_blocking(move || {
            audit_batch(&runtime, &|id: &ModelId| models.get(id), &evidence, &chosen)
        })
        .await
        .unwrap_or_else(|_| unavailable(step).outcome);
        Ok(Audited {
            step,
            preimage,
            sample: indices,
            outcome,
        })
    }
}

fn unavailable(step: u32) -> Audited {
    Audited {
        step,
        preimage: [0; 32],
        sample: Vec::new(),
        outcome: AuditOutcome::Unavailable,
    }
}

/// What a replay needs of each transcript. A task without prompt, transcript or tokens cannot be
/// audited; it is left out, which makes the leaf count differ and the batch fail.
fn evidence_of(batch: &BatchRecord) -> Vec<Evidence> {
    batch
        .tasks
        .iter()
        .filter_map(|task| {
            Some(Evidence {
                transcript: task.transcript.clone()?,
                salt: task.salt,
                prompt: task.prompt.clone()?,
                stop: task.stop.clone()?,
                output_tokens: task.output_tokens.clone()?,
            })
        })
        .collect()
}
