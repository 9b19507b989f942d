//! What a worker has behind it: the number of tasks that it is given at once follows this.

use dovetail_commitment::WorkerKey;
use dovetail_units::Msat;
use sqlx::Row;

use crate::{Ledger, LedgerError};

/// What a worker has shown, and what it has to lose. Of a worker that nobody knows, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether a batch of it was ever settled.
    pub has_settled: bool,
    /// Credit that a mismatch would forfeit now.
    pub held: Msat,
}

impl Ledger {
    /// The worker's standing; that of a new worker is nothing.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn standing(&self, worker: &WorkerKey) -> Result<Standing, LedgerError> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM batches WHERE worker = $1 AND state = 'settled') AS has_settled,
                    COALESCE((SELECT sum(amount_msat) FROM held_credits
                               WHERE worker = $1 AND state = 'held'), 0)::bigint AS held",
        )
        .bind(worker.to_bytes().to_vec())
        .fetch_one(&self.pool)
        .await?;
        Ok(Standing {
            has_settled: row.try_get("has_settled")?,
            held: Msat::new(row.try_get("held")?),
        })
    }
}
