//! Whether a worker may register a batch, or claim one.

use dovetail_commitment::{BatchRoot, ModelId, TaskId, WorkerKey};
use dovetail_ledger::{BatchRecord, BatchRefusal, BatchState, Ledger, TaskExtent};
use dovetail_sv2::extension::codes::Code;

use crate::validation::{BatchTooCostly, Extent, ReplayPace};

/// Whether this worker may claim the batch; what is answered if not.
pub(super) fn check_claimable(batch: &BatchRecord, worker: WorkerKey) -> Result<(), Code> {
    if batch.worker != worker {
        return Err(Code::BatchNotYours);
    }
    match batch.state {
        BatchState::Open => {}
        BatchState::Settled => return Err(Code::BatchSpent),
        BatchState::Failed => return Err(Code::InferenceMismatch),
        BatchState::Dead => return Err(Code::BatchDead),
    }
    if batch.is_spent() {
        return Err(Code::BatchSpent);
    }
    if batch.is_expired() {
        return Err(Code::BatchExpired);
    }
    Ok(())
}

/// Until when (Unix seconds) this worker may claim the batch.
pub(crate) fn claimable_until(batch: &BatchRecord, worker: WorkerKey) -> Result<u64, Code> {
    check_claimable(batch, worker)?;
    let expiries = batch.tasks.iter().map(|task| task.expires_at_unix);
    expiries.min().ok_or(Code::BatchUnknown)
}

/// Registers a batch, unless no audit could replay all of it in time. How much is replayed is known only at its claim, so
/// the bound is for all of it: with nothing at stake that is what is replayed.
///
/// # Errors
/// The code of `RegisterBatch.Error`.
pub(crate) async fn register(
    ledger: &Ledger,
    pace: &ReplayPace,
    worker: WorkerKey,
    root: BatchRoot,
    task_ids: &[TaskId],
) -> Result<(), Code> {
    let extents = ledger.extents_of_new_batch(worker, root, task_ids);
    let extents = extents.await.map_err(|error| {
        tracing::error!(%error, "cannot read what a batch would cost");
        Code::Internal
    })?;
    let extents: Vec<(ModelId, Extent)> = extents.into_iter().map(extent_of).collect();
    let checked = pace.check_batch(&extents);
    checked.map_err(|BatchTooCostly| Code::BatchTooCostly)?;
    let registered = ledger.register_batch(worker, root, task_ids).await;
    registered.map_err(|refusal| registration_code(&refusal))
}

pub(super) fn extent_of(task: TaskExtent) -> (ModelId, Extent) {
    let extent = Extent {
        input: task.input_tokens,
        output: task.output_tokens,
        constrained: task.constrained,
    };
    (task.model_id, extent)
}

/// Why the ledger did not register a batch, as the code of `RegisterBatch.Error`.
fn registration_code(refusal: &BatchRefusal) -> Code {
    match refusal {
        BatchRefusal::TaskUnknown => Code::TaskUnknown,
        BatchRefusal::TaskNotYours => Code::TaskNotYours,
        BatchRefusal::Expired => Code::BatchExpired,
        BatchRefusal::Spent => Code::BatchSpent,
        BatchRefusal::Unfinished => Code::TaskUnfinished,
        BatchRefusal::Size | BatchRefusal::TooLong => Code::BatchMalformed,
        BatchRefusal::TooManyOfTask | BatchRefusal::TooManyOfWorker => Code::TooManyBatches,
        BatchRefusal::RootMismatch => Code::BatchRootMismatch,
        _ => Code::Internal,
    }
}
