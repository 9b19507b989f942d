//! Trust per worker key: how much of its work has passed audits since its last mismatch. The sampling
//! rate follows it.

use dovetail_commitment::WorkerKey;
use sqlx::{PgConnection, Row};

use crate::{Ledger, LedgerError};

/// What is known of a worker's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// Transcripts of settled batches since the last proven mismatch.
    pub transcripts: u64,
    /// Batches that were ever settled.
    pub batches: u64,
    /// Mismatches that were ever proven.
    pub mismatches: u64,
}

impl Ledger {
    /// The worker's trust; that of a new worker is all zeros.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn trust(&self, worker: &WorkerKey) -> Result<Trust, LedgerError> {
        let row =
            sqlx::query("SELECT transcripts, batches, mismatches FROM trust WHERE worker = $1")
                .bind(worker.to_bytes().to_vec())
                .fetch_optional(&self.pool)
                .await?;
        let Some(row) = row else {
            return Ok(Trust::default());
        };
        let count = |name: &str| -> Result<u64, LedgerError> {
            let value: i64 = row.try_get(name)?;
            u64::try_from(value).map_err(|_| LedgerError::Corrupt("trust"))
        };
        Ok(Trust {
            transcripts: count("transcripts")?,
            batches: count("batches")?,
            mismatches: count("mismatches")?,
        })
    }
}

/// A batch of this many transcripts was settled. Returns how many batches of the worker were by now.
pub(crate) async fn grow(
    connection: &mut PgConnection,
    worker: &[u8],
    transcripts: usize,
) -> Result<i64, LedgerError> {
    let transcripts =
        i64::try_from(transcripts).map_err(|_| LedgerError::Refused("a batch is too large"))?;
    Ok(sqlx::query_scalar(
        "INSERT INTO trust (worker, transcripts, batches) VALUES ($1, $2, 1)
         ON CONFLICT (worker) DO UPDATE SET transcripts = trust.transcripts + EXCLUDED.transcripts,
                                            batches = trust.batches + 1
         RETURNING batches",
    )
    .bind(worker)
    .bind(transcripts)
    .fetch_one(connection)
    .await?)
}

/// A mismatch was proven: the worker starts over.
pub(crate) async fn lose(
    connection: &mut PgConnection,
    worker: &WorkerKey,
) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO trust (worker, mismatches) VALUES ($1, 1)
         ON CONFLICT (worker) DO UPDATE SET transcripts = 0, mismatches = trust.mismatches + 1",
    )
    .bind(worker.to_bytes().to_vec())
    .execute(connection)
    .await?;
    Ok(())
}
