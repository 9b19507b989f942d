//! Whether a worker may claim a batch.

use dovetail_commitment::WorkerKey;
use dovetail_ledger::{BatchRecord, BatchRefusal, BatchState};
use dovetail_sv2::extension::codes::Code;

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

/// Why the ledger did not register a batch, as the code of `RegisterBatch.Error`.
pub(crate) fn registration_code(refusal: &BatchRefusal) -> Code {
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
