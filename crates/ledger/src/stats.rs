//! Balances, found blocks, and counts for people and tests.

use dovetail_commitment::HeaderHash;
use sqlx::Row;

use crate::transfers::worker_account;
use crate::{Ledger, LedgerError};
use dovetail_units::{Msat, ShareCredit};

/// What a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// What can be paid out.
    pub available: Msat,
    /// What is on its way out.
    pub pending: Msat,
    /// What is credited for inference and has not matured; a mismatch forfeits it.
    pub held: Msat,
    /// What is credited for hashes in coinbase-only mode and waits for the account's next block; it becomes void if the
    /// chain does not show that block.
    pub held_for_blocks: Msat,
    /// What hashes have earned since they were last credited, rounded down.
    pub unsettled: Msat,
}

/// Counts over the whole ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Shares of both kinds.
    pub shares: u64,
    /// Shares that settled a batch.
    pub inference_shares: u64,
    /// Transcripts that audits replayed.
    pub transcripts_replayed: u64,
    /// Blocks found: solved, and known to the node.
    pub blocks: u64,
    /// Payouts that arrived.
    pub payouts: u64,
    /// What they came to.
    pub paid: Msat,
}

impl Ledger {
    /// The names of accounts that have earned, the newest accounts first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn newest_workers(&self, limit: u32) -> Result<Vec<String>, LedgerError> {
        let rows = sqlx::query(
            "SELECT substr(name, 8) AS worker FROM accounts
             WHERE starts_with(name, 'worker:') AND credits_posted > 0 ORDER BY id DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok(row.try_get::<String, _>("worker")?))
            .collect()
    }

    /// The worker's balance; zero for one that never earned.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn balance(&self, worker: &str) -> Result<Balance, LedgerError> {
        let row = sqlx::query(
            "WITH sums AS (
                 SELECT COALESCE(sum(amount_msat), 0)::bigint AS held_for_blocks,
                        COALESCE(sum(amount_msat) FILTER (WHERE state = 'followed'), 0)::bigint AS followed
                   FROM coinbase_only_credits WHERE account = $2 AND state IN ('open', 'followed'))
             SELECT COALESCE(credits_posted - debits_posted - debits_pending, 0) AS available,
                    COALESCE(debits_pending, 0) AS pending,
                    COALESCE(credits_pending, 0) - followed AS held, held_for_blocks,
                    COALESCE(div(unsettled, $3::text::numeric), 0)::bigint AS unsettled
               FROM sums LEFT JOIN accounts ON name = $1 LEFT JOIN hash_credits ON account = id",
        )
        .bind(worker_account(worker))
        .bind(worker)
        .bind(ShareCredit::PER_MSAT.to_string())
        .fetch_one(&self.pool)
        .await?;
        Ok(Balance {
            available: Msat::new(row.try_get("available")?),
            pending: Msat::new(row.try_get("pending")?),
            held: Msat::new(row.try_get("held")?),
            held_for_blocks: Msat::new(row.try_get("held_for_blocks")?),
            unsettled: Msat::new(row.try_get("unsettled")?),
        })
    }

    /// Records a solved block, of which it is not known yet what the node says; `false` if it was recorded
    /// before, by whatever connection and process.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn record_block(
        &self,
        header_hash: HeaderHash,
        height: u32,
        account: &str,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "INSERT INTO blocks (header_hash, height, account, result)
             VALUES ($1, $2, $3, COALESCE(
                 (SELECT CASE state WHEN 'posted' THEN 'seen' WHEN 'voided' THEN 'not seen'
                                    WHEN 'carried' THEN 'unknown' END
                    FROM coinbase_only_credits WHERE block = $1), 'solved'))
             ON CONFLICT (header_hash) DO NOTHING",
        )
        .bind(header_hash.to_bytes().to_vec())
        .bind(i64::from(height))
        .bind(account)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes what is known of a recorded block; `false` if it is known already whether the chain has it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_submission(
        &self,
        header_hash: HeaderHash,
        result: &str,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "UPDATE blocks SET result = $2
             WHERE header_hash = $1 AND result NOT IN ('accepted', 'seen', 'not seen')",
        )
        .bind(header_hash.to_bytes().to_vec())
        .bind(result)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Counts everything.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn stats(&self) -> Result<Stats, LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT COALESCE(sum(shares), 0)::bigint FROM hash_credits) AS shares,
                    (SELECT COALESCE(sum(inference_shares), 0)::bigint FROM hash_credits) AS inference_shares,
                    (SELECT COALESCE(sum(cardinality(sample)), 0)::bigint FROM audits) AS replayed,
                    (SELECT count(*) FROM blocks WHERE result IN ('accepted', 'seen')) AS blocks,
                    (SELECT count(*) FROM payouts WHERE state = 'paid') AS payouts,
                    (SELECT COALESCE(sum(amount_msat), 0)::bigint FROM payouts WHERE state = 'paid') AS paid",
        )
        .fetch_one(&self.pool)
        .await?;
        let count = |name: &str| -> Result<u64, LedgerError> {
            let value: i64 = row.try_get(name)?;
            u64::try_from(value).map_err(|_| LedgerError::Corrupt("count"))
        };
        Ok(Stats {
            shares: count("shares")?,
            inference_shares: count("inference_shares")?,
            transcripts_replayed: count("replayed")?,
            blocks: count("blocks")?,
            payouts: count("payouts")?,
            paid: Msat::new(row.try_get("paid")?),
        })
    }
}
