//! What a worker has behind it: the number of tasks that it is given at once follows this.

use dovetail_commitment::WorkerKey;
use dovetail_units::Msat;
use sqlx::Row;

use crate::{Ledger, LedgerError};

/// What a worker has shown, and what it has to lose. Of a worker that nobody knows, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Batches that were ever settled.
    pub batches: u64,
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
            "SELECT COALESCE((SELECT batches FROM trust WHERE worker = $1), 0) AS batches,
                    COALESCE((SELECT sum(amount_msat) FROM held_credits
                               WHERE worker = $1 AND state = 'held'), 0)::bigint AS held",
        )
        .bind(worker.to_bytes().to_vec())
        .fetch_one(&self.pool)
        .await?;
        let batches: i64 = row.try_get("batches")?;
        Ok(Standing {
            batches: u64::try_from(batches).map_err(|_| LedgerError::Corrupt("trust"))?,
            held: Msat::new(row.try_get("held")?),
        })
    }
}
