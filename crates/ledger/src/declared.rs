//! Declared jobs: what the job declarator accepted, for the pool to check a custom job against and
//! to rebuild the block from. The declarator and the pool are separate processes; this is where
//! they meet, so either may restart.

use dovetail_commitment::BatchRoot;
use sqlx::Row;

use crate::tasks::{array, seconds};
use crate::{Ledger, LedgerError, unix_now};

/// A declaration that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredJob {
    /// The token that `SetCustomMiningJob` shows; random, single use.
    pub token: Vec<u8>,
    /// The account that declared it.
    pub identity: String,
    /// The batch that its coinbase commits to.
    pub batch_root: Option<BatchRoot>,
    /// The coinbase before the extranonce.
    pub coinbase_prefix: Vec<u8>,
    /// The coinbase behind the extranonce.
    pub coinbase_suffix: Vec<u8>,
    /// The block's version.
    pub version: u32,
    /// The ids of the other transactions, in block order.
    pub txids: Vec<[u8; 32]>,
    /// The other transactions, in block order, with witness.
    pub transactions: Vec<Vec<u8>>,
    /// What the coinbase pays the pool.
    pub pool_value_sat: u64,
    /// When the token is void, in Unix seconds.
    pub expires_at_unix: u64,
}

impl Ledger {
    /// Stores an accepted declaration, and drops those whose tokens are void.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] for a token that exists, [`LedgerError::Refused`] if its batch was
    /// not registered.
    pub async fn put_declared_job(&self, job: &DeclaredJob) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM declared_jobs WHERE expires_at <= $1")
            .bind(seconds(unix_now()))
            .execute(&self.pool)
            .await?;
        let txids: Vec<Vec<u8>> = job.txids.iter().map(|txid| txid.to_vec()).collect();
        sqlx::query(
            "INSERT INTO declared_jobs (token, identity, batch_root, coinbase_prefix,
                 coinbase_suffix, version, txids, transactions, pool_value_sat, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&job.token)
        .bind(&job.identity)
        .bind(job.batch_root.map(|root| root.to_bytes().to_vec()))
        .bind(&job.coinbase_prefix)
        .bind(&job.coinbase_suffix)
        .bind(i64::from(job.version))
        .bind(txids)
        .bind(&job.transactions)
        .bind(seconds(job.pool_value_sat))
        .bind(seconds(job.expires_at_unix))
        .execute(&self.pool)
        .await
        .map_err(LedgerError::from)
        .map_err(|error| {
            if error.broke("declared_jobs_pkey") {
                LedgerError::Conflict("the token names another job")
            } else if error.broke("declared_jobs_batch_root_fkey") {
                LedgerError::Refused("the job's batch was not registered")
            } else {
                error
            }
        })?;
        Ok(())
    }

    /// The declaration with this token, unless it is void or was used.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn declared_job(&self, token: &[u8]) -> Result<Option<DeclaredJob>, LedgerError> {
        let row = sqlx::query(
            "SELECT token, identity, batch_root, coinbase_prefix, coinbase_suffix, version, txids,
                    transactions, pool_value_sat, expires_at
             FROM declared_jobs WHERE token = $1 AND NOT used AND expires_at > $2",
        )
        .bind(token)
        .bind(seconds(unix_now()))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let corrupt = || LedgerError::Corrupt("declared job");
        let root: Option<Vec<u8>> = row.try_get("batch_root")?;
        let txids: Vec<Vec<u8>> = row.try_get("txids")?;
        Ok(Some(DeclaredJob {
            token: row.try_get("token")?,
            identity: row.try_get("identity")?,
            batch_root: root.map(array).transpose()?.map(BatchRoot::from_bytes),
            coinbase_prefix: row.try_get("coinbase_prefix")?,
            coinbase_suffix: row.try_get("coinbase_suffix")?,
            version: u32::try_from(row.try_get::<i64, _>("version")?).map_err(|_| corrupt())?,
            txids: txids.into_iter().map(array).collect::<Result<_, _>>()?,
            transactions: row.try_get("transactions")?,
            pool_value_sat: u64::try_from(row.try_get::<i64, _>("pool_value_sat")?)
                .map_err(|_| corrupt())?,
            expires_at_unix: u64::try_from(row.try_get::<i64, _>("expires_at")?)
                .map_err(|_| corrupt())?,
        }))
    }

    /// Spends the token; `false` if another took it first, or it is void.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn use_declared_job(&self, token: &[u8]) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "UPDATE declared_jobs SET used = true
             WHERE token = $1 AND NOT used AND expires_at > $2",
        )
        .bind(token)
        .bind(seconds(unix_now()))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
