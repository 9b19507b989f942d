//! The ledger's refusals as codes of extension 0x4149.

use dovetail_ledger::BatchRefusal;
use dovetail_sv2::extension::codes;

/// The code of `RegisterBatch.Error`.
pub(crate) fn batch_code(refusal: &BatchRefusal) -> &'static str {
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
