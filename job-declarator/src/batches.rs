//! Whether a job may carry a commitment: only to transcripts of the very worker that declares it,
//! finished, unspent and in time. Asked when a job is declared, and again by the pool for jobs that
//! nobody declared.

use dovetail_commitment::BatchRoot;
use dovetail_ledger::{BatchState, Ledger, LedgerError};

/// Why a job may not carry a commitment, in order of precedence.
#[derive(Debug, thiserror::Error)]
pub enum BatchRefusal {
    /// Nobody registered it.
    #[error("no such batch was registered")]
    Unknown,
    /// It is another worker's.
    #[error("the batch belongs to another worker")]
    NotYours,
    /// Its root was spent, or its audit found a mismatch.
    #[error("the batch was spent")]
    Spent,
    /// One of its tasks has run out of time or ended otherwise.
    #[error("a task of the batch is not finished or has expired")]
    Expired,
    /// Worth a retry.
    #[error("the batch could not be looked up")]
    Ledger(#[from] LedgerError),
}

/// Checks that `account` may commit to the batch with this root now.
///
/// # Errors
/// The first reason that holds, in the order of [`BatchRefusal`].
pub async fn check_batch(
    ledger: &Ledger,
    root: BatchRoot,
    account: &str,
) -> Result<(), BatchRefusal> {
    let batch = ledger
        .batch_without_contents(root)
        .await?
        .ok_or(BatchRefusal::Unknown)?;
    if batch.worker.to_string() != account {
        return Err(BatchRefusal::NotYours);
    }
    if batch.state != BatchState::Open {
        return Err(BatchRefusal::Spent);
    }
    if batch.is_expired() {
        return Err(BatchRefusal::Expired);
    }
    Ok(())
}
