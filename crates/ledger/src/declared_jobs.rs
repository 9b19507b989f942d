//! Declared jobs: what the job declarator accepted, for the pool to check a custom job against and
//! to rebuild the block from; and the tokens that were spent. The declarator and the pool may be
//! separate processes; this is where they meet, so either may restart. What stands here is trusted
//! only with the token's MAC over it, which the declarator makes and the pool checks.

use std::collections::{HashMap, HashSet};

use dovetail_commitment::BatchRoot;
use sqlx::Row;

use crate::tasks::{array, seconds};
use crate::{Ledger, LedgerError};
use dovetail_units::time::unix_now;

/// A transaction that was declared again gets its new date only once the old one is this old, so
/// that a template every few seconds does not rewrite thousands of rows.
const TRANSACTION_FRESH_S: u64 = 600;
/// Transactions go this long after they were last declared: longer than any token lives, and than
/// [`TRANSACTION_FRESH_S`] with it.
const TRANSACTION_LIFETIME_S: u64 = 7_200;
/// Spent tokens are remembered this long beyond their end, whatever the clocks of two machines say.
const SPENT_EXTRA_S: u64 = 3_600;

/// A declaration that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredJob {
    /// The token that `SetCustomMiningJob` shows; random, single use, with a MAC over the rest.
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
    /// The tip that it was checked on, in the byte order of the header.
    pub prev_hash: [u8; 32],
    /// The compact target of the block.
    pub nbits: u32,
    /// The ids of the other transactions, in block order.
    pub txids: Vec<[u8; 32]>,
    /// The same with witness.
    pub wtxids: Vec<[u8; 32]>,
    /// What the coinbase pays the pool.
    pub pool_value_sat: u64,
    /// When the token is void, in Unix seconds.
    pub expires_at_unix: u64,
}

impl Ledger {
    /// Stores an accepted declaration with its transactions, which are given by their ids with
    /// witness; and drops what is void.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] for a token that exists, [`LedgerError::Refused`] if its batch was
    /// not registered.
    pub async fn put_declared_job<T: AsRef<[u8]>>(
        &self,
        job: &DeclaredJob,
        transactions: &[([u8; 32], T)],
    ) -> Result<(), LedgerError> {
        self.put_declared_transactions(transactions).await?;
        sqlx::query("DELETE FROM declared_jobs WHERE expires_at <= $1")
            .bind(seconds(unix_now()))
            .execute(&self.pool)
            .await?;
        sqlx::query(
            "INSERT INTO declared_jobs (token, identity, batch_root, coinbase_prefix,
                 coinbase_suffix, version, prev_hash, nbits, txids, wtxids, pool_value_sat,
                 expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(&job.token)
        .bind(&job.identity)
        .bind(job.batch_root.map(|root| root.to_bytes().to_vec()))
        .bind(&job.coinbase_prefix)
        .bind(&job.coinbase_suffix)
        .bind(i64::from(job.version))
        .bind(job.prev_hash.to_vec())
        .bind(i64::from(job.nbits))
        .bind(lists(&job.txids))
        .bind(lists(&job.wtxids))
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

    /// Sends only what is not there yet: most of a template was in the last one.
    async fn put_declared_transactions<T: AsRef<[u8]>>(
        &self,
        transactions: &[([u8; 32], T)],
    ) -> Result<(), LedgerError> {
        let now = unix_now();
        sqlx::query("DELETE FROM declared_transactions WHERE declared_at < $1")
            .bind(seconds(now.saturating_sub(TRANSACTION_LIFETIME_S)))
            .execute(&self.pool)
            .await?;
        if transactions.is_empty() {
            return Ok(());
        }
        let ids: Vec<[u8; 32]> = transactions.iter().map(|(wtxid, _)| *wtxid).collect();
        let fresh: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT wtxid FROM declared_transactions
             WHERE wtxid = ANY($1) AND declared_at >= $2",
        )
        .bind(lists(&ids))
        .bind(seconds(now.saturating_sub(TRANSACTION_FRESH_S)))
        .fetch_all(&self.pool)
        .await?;
        let fresh: HashSet<Vec<u8>> = fresh.into_iter().collect();
        let mut rest: Vec<&([u8; 32], T)> = transactions
            .iter()
            .filter(|(wtxid, _)| !fresh.contains(wtxid.as_slice()))
            .collect();
        // One order for everybody: two declarations at once must not wait for each other's rows.
        rest.sort_unstable_by_key(|(wtxid, _)| *wtxid);
        rest.dedup_by_key(|(wtxid, _)| *wtxid);
        let (ids, raw): (Vec<Vec<u8>>, Vec<&[u8]>) = rest
            .iter()
            .map(|(wtxid, raw)| (wtxid.to_vec(), raw.as_ref()))
            .unzip();
        sqlx::query(
            "INSERT INTO declared_transactions (wtxid, raw, declared_at)
             SELECT given.wtxid, given.raw, $3
             FROM unnest($1::bytea[], $2::bytea[]) AS given (wtxid, raw)
             ON CONFLICT (wtxid) DO UPDATE SET declared_at = EXCLUDED.declared_at",
        )
        .bind(ids)
        .bind(raw)
        .bind(seconds(now))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The declaration with this token, unless it is void.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn declared_job(&self, token: &[u8]) -> Result<Option<DeclaredJob>, LedgerError> {
        let row = sqlx::query(
            "SELECT token, identity, batch_root, coinbase_prefix, coinbase_suffix, version,
                    prev_hash, nbits, txids, wtxids, pool_value_sat, expires_at
             FROM declared_jobs WHERE token = $1 AND expires_at > $2",
        )
        .bind(token)
        .bind(seconds(unix_now()))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let number = |column: &str| -> Result<u64, LedgerError> {
            u64::try_from(row.try_get::<i64, _>(column)?)
                .map_err(|_| LedgerError::Corrupt("declared job"))
        };
        let word = |column: &str| -> Result<u32, LedgerError> {
            u32::try_from(number(column)?).map_err(|_| LedgerError::Corrupt("declared job"))
        };
        let ids = |column: &str| -> Result<Vec<[u8; 32]>, LedgerError> {
            let ids: Vec<Vec<u8>> = row.try_get(column)?;
            ids.into_iter().map(array).collect()
        };
        let root: Option<Vec<u8>> = row.try_get("batch_root")?;
        Ok(Some(DeclaredJob {
            token: row.try_get("token")?,
            identity: row.try_get("identity")?,
            batch_root: root.map(array).transpose()?.map(BatchRoot::from_bytes),
            coinbase_prefix: row.try_get("coinbase_prefix")?,
            coinbase_suffix: row.try_get("coinbase_suffix")?,
            version: word("version")?,
            prev_hash: array(row.try_get("prev_hash")?)?,
            nbits: word("nbits")?,
            txids: ids("txids")?,
            wtxids: ids("wtxids")?,
            pool_value_sat: number("pool_value_sat")?,
            expires_at_unix: number("expires_at")?,
        }))
    }

    /// The transactions with these ids, by id; those that are not known are left out.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn declared_transactions(
        &self,
        wtxids: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], Vec<u8>>, LedgerError> {
        if wtxids.is_empty() {
            return Ok(HashMap::new());
        }
        sqlx::query("SELECT wtxid, raw FROM declared_transactions WHERE wtxid = ANY($1)")
            .bind(lists(wtxids))
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(|row| Ok((array(row.try_get("wtxid")?)?, row.try_get("raw")?)))
            .collect()
    }

    /// Spends the token with this random id; `false` if it was spent before.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn spend_job_token(
        &self,
        id: [u8; 16],
        expires_at_unix: u64,
    ) -> Result<bool, LedgerError> {
        sqlx::query("DELETE FROM spent_job_tokens WHERE expires_at < $1")
            .bind(seconds(unix_now().saturating_sub(SPENT_EXTRA_S)))
            .execute(&self.pool)
            .await?;
        let done = sqlx::query(
            "INSERT INTO spent_job_tokens (id, expires_at) VALUES ($1, $2)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id.to_vec())
        .bind(seconds(expires_at_unix))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

fn lists(ids: &[[u8; 32]]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.to_vec()).collect()
}
