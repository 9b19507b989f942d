//! The audit's hash chain: where it stands, and what each step was used for.

use dovetail_commitment::{BatchRoot, HeaderHash, WorkerKey};
use sqlx::Row;

use crate::{Ledger, LedgerError};

/// How many audits one chain serves. Building it takes a fraction of a second at start.
const CHAIN_LEN: u32 = 1 << 20;

/// The seed and length of the chain. No `Debug`: the seed is the pool's secret.
#[derive(Clone)]
pub struct Beacon {
    /// The chain's secret.
    pub seed: [u8; 32],
    /// How many steps it has.
    pub length: u32,
}

impl Ledger {
    /// The pool's chain; made from the operating system's randomness when there is none yet.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn beacon(&self) -> Result<Beacon, LedgerError> {
        // gen_random_uuid() draws from the same strong source as pgcrypto; two make 244 random
        // bits, hashed to 32 bytes.
        sqlx::query(
            "INSERT INTO beacon (seed, length, next_step)
             VALUES (sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea), $1, 0)
             ON CONFLICT (only_one) DO NOTHING",
        )
        .bind(i64::from(CHAIN_LEN))
        .execute(&self.pool)
        .await?;
        let row = sqlx::query("SELECT seed, length FROM beacon")
            .fetch_one(&self.pool)
            .await?;
        let seed: Vec<u8> = row.try_get("seed")?;
        let length: i64 = row.try_get("length")?;
        Ok(Beacon {
            seed: seed
                .try_into()
                .map_err(|_| LedgerError::Corrupt("beacon"))?,
            length: u32::try_from(length).map_err(|_| LedgerError::Corrupt("beacon"))?,
        })
    }

    /// Takes the next step. It is spent before the caller uses it, so no restart uses it again.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn take_step(&self) -> Result<u32, LedgerError> {
        let step: i64 = sqlx::query_scalar(
            "UPDATE beacon SET next_step = next_step + 1 RETURNING next_step - 1",
        )
        .fetch_one(&self.pool)
        .await?;
        u32::try_from(step).map_err(|_| LedgerError::Corrupt("beacon"))
    }

    /// Records what an audit sampled and found. Digests and verdicts only, never content.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn record_audit(
        &self,
        header_hash: HeaderHash,
        root: BatchRoot,
        step: u32,
        sample: &[usize],
        verdict: &str,
    ) -> Result<(), LedgerError> {
        let sample: Vec<i32> = sample
            .iter()
            .map(|index| i32::try_from(*index).unwrap_or(i32::MAX))
            .collect();
        sqlx::query(
            "INSERT INTO audits (header_hash, root, step, sample, verdict)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(header_hash.to_bytes().to_vec())
        .bind(root.to_bytes().to_vec())
        .bind(i64::from(step))
        .bind(sample)
        .bind(verdict)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many of the worker's transcripts were settled; zero once any batch of its failed.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn audited_transcripts(&self, worker: &WorkerKey) -> Result<u64, LedgerError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM batches WHERE worker = $1 AND state = 'failed')
                    THEN 0
                    ELSE COALESCE((SELECT sum(array_length(task_ids, 1)) FROM batches
                                   WHERE worker = $1 AND state = 'settled'), 0) END::bigint",
        )
        .bind(worker.to_bytes().to_vec())
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
