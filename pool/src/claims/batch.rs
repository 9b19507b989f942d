//! Whether a worker may claim a batch.

use dovetail_commitment::WorkerKey;
use dovetail_ledger::{BatchRecord, BatchRefusal, BatchState};
use dovetail_sv2::extension::codes;

/// Whether this worker may claim the batch; what is answered if not.
pub(super) fn check_claimable(batch: &BatchRecord, worker: WorkerKey) -> Result<(), &'static str> {
    if batch.worker != worker {
        return Err(codes::BATCH_NOT_YOURS);
    }
    match batch.state {
        BatchState::Open => {}
        BatchState::Settled => return Err(codes::BATCH_SPENT),
        BatchState::Failed => return Err(codes::INFERENCE_MISMATCH),
    }
    if batch.is_spent() {
        return Err(codes::BATCH_SPENT);
    }
    if batch.is_expired() {
        return Err(codes::BATCH_EXPIRED);
    }
    Ok(())
}

/// Until when (Unix seconds) this worker may claim the batch.
pub(crate) fn claimable_until(batch: &BatchRecord, worker: WorkerKey) -> Result<u64, &'static str> {
    check_claimable(batch, worker)?;
    let expiries = batch.tasks.iter().map(|task| task.expires_at_unix);
    expiries.min().ok_or(codes::BATCH_UNKNOWN)
}

/// Why the ledger did not register a batch, as the code of `RegisterBatch.Error`.
pub(crate) fn registration_code(refusal: &BatchRefusal) -> &'static str {
    match refusal {
        BatchRefusal::TaskUnknown => codes::TASK_UNKNOWN,
        BatchRefusal::TaskNotYours => codes::TASK_NOT_YOURS,
        BatchRefusal::Expired => codes::BATCH_EXPIRED,
        BatchRefusal::Spent => codes::BATCH_SPENT,
        BatchRefusal::Unfinished => codes::TASK_UNFINISHED,
        BatchRefusal::Size => codes::BATCH_MALFORMED,
        BatchRefusal::RootMismatch => codes::BATCH_ROOT_MISMATCH,
        _ => codes::INTERNAL,
    }
}
