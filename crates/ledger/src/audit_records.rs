//! The record of each worker key with the audit, which decides nothing: how much is replayed follows from what is held.
//! And how much its worker wants to leave held.

use dovetail_commitment::WorkerKey;
use dovetail_units::KeptCredit;
use sqlx::{PgConnection, Row};

use crate::{Ledger, LedgerError};

/// How a worker's batches fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditRecord {
    /// Batches that were ever settled.
    pub batches: u64,
    /// Mismatches that were ever proven.
    pub mismatches: u64,
}

impl Ledger {
    /// The worker's record; that of a new worker is all zeros.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn audit_record(&self, worker: &WorkerKey) -> Result<AuditRecord, LedgerError> {
        let row = sqlx::query("SELECT batches, mismatches FROM audit_records WHERE worker = $1")
            .bind(worker.to_bytes().to_vec())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else {
            return Ok(AuditRecord::default());
        };
        let count = |name: &str| -> Result<u64, LedgerError> {
            let value: i64 = row.try_get(name)?;
            u64::try_from(value).map_err(|_| LedgerError::Corrupt("audit record"))
        };
        Ok(AuditRecord {
            batches: count("batches")?,
            mismatches: count("mismatches")?,
        })
    }

    /// How much of this worker's credit stays held from now on although it could mature, for as long as the worker is
    /// heard of. Of a worker that never had a batch settled nothing is kept, so that keys, which are free, fill no table:
    /// to be told again once one is.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn keep_credit(
        &self,
        worker: WorkerKey,
        kept: KeptCredit,
    ) -> Result<(), LedgerError> {
        sqlx::query("UPDATE audit_records SET kept_msat = $2, kept_at = now() WHERE worker = $1")
            .bind(worker.to_bytes().to_vec())
            .bind(kept.msat().get())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// A batch was settled. Returns how many batches of the worker were by now: its number.
pub(crate) async fn settled(
    connection: &mut PgConnection,
    worker: &[u8],
) -> Result<i64, LedgerError> {
    Ok(sqlx::query_scalar(
        "INSERT INTO audit_records (worker, batches) VALUES ($1, 1)
         ON CONFLICT (worker) DO UPDATE SET batches = audit_records.batches + 1
         RETURNING batches",
    )
    .bind(worker)
    .fetch_one(connection)
    .await?)
}

/// A mismatch was proven.
pub(crate) async fn mismatched(
    connection: &mut PgConnection,
    worker: &WorkerKey,
) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO audit_records (worker, mismatches) VALUES ($1, 1)
         ON CONFLICT (worker) DO UPDATE SET mismatches = audit_records.mismatches + 1",
    )
    .bind(worker.to_bytes().to_vec())
    .execute(connection)
    .await?;
    Ok(())
}
