//! The audit's hash chain: where it stands, and what each step was used for.

use dovetail_commitment::{BatchRoot, HeaderHash};
use sqlx::{PgConnection, Row};

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

    /// Records what an audit sampled and that it could not be done; once more is harmless. One that passed
    /// is recorded with its share, one that failed by [`Ledger::fail_audit`].
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if the step was used for another audit.
    pub async fn record_audit(
        &self,
        header_hash: HeaderHash,
        root: BatchRoot,
        step: u32,
        sample: &[usize],
        verdict: &str,
    ) -> Result<(), LedgerError> {
        let audit = Audit {
            header_hash,
            root,
            step,
            sample,
            verdict,
        };
        let mut transaction = self.pool.begin().await?;
        audit.record(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The verdict of an audit that found nothing.
pub(crate) const PASSED: &str = "passed";

/// What one step of the beacon was used for.
pub(crate) struct Audit<'a> {
    pub(crate) header_hash: HeaderHash,
    pub(crate) root: BatchRoot,
    pub(crate) step: u32,
    pub(crate) sample: &'a [usize],
    pub(crate) verdict: &'a str,
}

impl Audit<'_> {
    /// # Errors
    /// [`LedgerError::Conflict`] if the step was used for another audit.
    pub(crate) async fn record(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let sample = self
            .sample
            .iter()
            .map(|index| i32::try_from(*index))
            .collect::<Result<Vec<i32>, _>>()
            .map_err(|_| LedgerError::Refused("a sampled index is out of range"))?;
        let inserted = sqlx::query(
            "INSERT INTO audits (header_hash, root, step, sample, verdict)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (step) DO NOTHING",
        )
        .bind(self.header_hash.to_bytes().to_vec())
        .bind(self.root.to_bytes().to_vec())
        .bind(i64::from(self.step))
        .bind(&sample)
        .bind(self.verdict)
        .execute(&mut *connection)
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(());
        }
        let same: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM audits WHERE step = $3 AND header_hash = $1
                            AND root = $2 AND sample = $4 AND verdict = $5)",
        )
        .bind(self.header_hash.to_bytes().to_vec())
        .bind(self.root.to_bytes().to_vec())
        .bind(i64::from(self.step))
        .bind(&sample)
        .bind(self.verdict)
        .fetch_one(connection)
        .await?;
        if same {
            Ok(())
        } else {
            Err(LedgerError::Conflict("the step was used for another audit"))
        }
    }
}
