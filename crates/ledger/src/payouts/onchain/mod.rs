//! Payouts on the chain, in batches. A batch is stored whole, with its first transaction signed, before a node hears of it;
//! a later transaction of it spends all that the earlier ones spend, so at most one of them can confirm. Migration 23 has the
//! rules as triggers; `docs/onchain.md` says what they mean.

mod booking;
pub(crate) mod rules;
mod steps;

use std::time::Duration;

use dovetail_units::Msat;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::tasks::array;
use crate::{Ledger, LedgerError};

pub use booking::BookedOutput;

/// A prepared attempt that no batch has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingOutput {
    /// The attempt.
    pub attempt: [u8; 32],
    /// Who is paid.
    pub payee: String,
    /// Its address, as it was when the payout began.
    pub address: String,
    /// What the payee gets.
    pub amount: Msat,
    /// What it may cost.
    pub fee_max: Msat,
    /// For how long it has waited.
    pub age: Duration,
    /// Whether it has waited for so long that it is given up.
    pub has_expired: bool,
}

/// An output of a batch to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOutput {
    /// The attempt that it pays.
    pub attempt: [u8; 32],
    /// The payee's script.
    pub script: Vec<u8>,
    /// What it gets.
    pub amount_sat: i64,
}

/// A signed transaction that no node has heard of.
#[derive(Clone, PartialEq, Eq)]
pub struct NewTransaction {
    /// Its name, as hashes are in blocks.
    pub txid: [u8; 32],
    /// All of it.
    pub raw: Vec<u8>,
    /// What it spends: txid and output number (little-endian) of each.
    pub inputs: Vec<[u8; 36]>,
    /// What it costs.
    pub fee_sat: i64,
    /// The chain's height.
    pub tip_height: u32,
}

named! {
    /// Where a batch stands.
    OnchainState, "batch" {
        /// One of its transactions may confirm.
        Open = "open",
        /// One has.
        Paid = "paid",
        /// So deep in the chain that nobody looks any more.
        Buried = "buried",
        /// None ever will: something else has spent what they spend.
        Failed = "failed",
    }
}

named! {
    /// Where a transaction stands.
    TransactionState, "transaction" {
        /// No node is known to have it.
        Prepared = "prepared",
        /// A node has taken it.
        Broadcast = "broadcast",
        /// A block has it.
        Confirmed = "confirmed",
    }
}

/// A transaction of a batch.
#[derive(Clone, PartialEq, Eq)]
pub struct OnchainTransaction {
    /// The first, second, .. of its batch.
    pub n: u32,
    /// Its name, as hashes are in blocks.
    pub txid: [u8; 32],
    /// All of it.
    pub raw: Vec<u8>,
    /// What it costs.
    pub fee_sat: i64,
    /// The chain's height when it was made.
    pub tip_height: u32,
    /// Where it stands.
    pub state: TransactionState,
    /// The block that has it, and its height.
    pub block: Option<([u8; 32], u32)>,
}

/// What a batch pays a payee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnchainOutput {
    /// The attempt.
    pub attempt: [u8; 32],
    /// The payout.
    pub payout: [u8; 32],
    /// The payee.
    pub payee: String,
    /// Its script.
    pub script: Vec<u8>,
    /// What it gets.
    pub amount: Msat,
    /// What was set aside for its part of the fee.
    pub fee_max: Msat,
}

/// A batch, with all that is known of it.
#[derive(Clone, PartialEq, Eq)]
pub struct OnchainBatch {
    /// Its number.
    pub number: i64,
    /// Where it stands.
    pub state: OnchainState,
    /// The chain's height when it was made: no block up to it has a transaction of it.
    pub since_height: u32,
    /// The height of the block in which something else spends what it spends.
    pub conflict_height: Option<u32>,
    /// What it pays, in the order of the outputs.
    pub outputs: Vec<OnchainOutput>,
    /// Its transactions, the newest last; never none.
    pub transactions: Vec<OnchainTransaction>,
}

impl OnchainBatch {
    /// The transaction that is to confirm: no other one has a higher fee.
    pub fn newest(&self) -> Option<&OnchainTransaction> {
        self.transactions.last()
    }
}

fn height(row: &PgRow, name: &str) -> Result<u32, LedgerError> {
    u32::try_from(row.try_get::<i32, _>(name)?).map_err(|_| LedgerError::Corrupt("batch"))
}

impl Ledger {
    /// Attempts on the chain that wait for a batch, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn waiting_outputs(&self, limit: u32) -> Result<Vec<WaitingOutput>, LedgerError> {
        sqlx::query(
            "SELECT a.id, p.worker, a.destination, p.amount_msat, a.fee_max_msat, a.expires_at <= now() AS has_expired,
                    GREATEST(extract(epoch FROM now() - a.created_at), 0)::double precision AS age_s
               FROM attempts a JOIN payouts p ON p.id = a.payout
              WHERE a.rail = 'onchain' AND a.state = 'prepared'
                AND NOT EXISTS (SELECT 1 FROM onchain_outputs o WHERE o.attempt = a.id)
              ORDER BY a.created_at, a.id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| {
            Ok(WaitingOutput {
                attempt: array(row.try_get("id")?)?,
                payee: row.try_get("worker")?,
                address: row.try_get("destination")?,
                amount: Msat::new(row.try_get("amount_msat")?),
                fee_max: Msat::new(row.try_get("fee_max_msat")?),
                age: Duration::from_secs_f64(row.try_get("age_s")?),
                has_expired: row.try_get("has_expired")?,
            })
        })
        .collect()
    }

    /// The batch that is under way, if one is.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn open_batch(&self) -> Result<Option<OnchainBatch>, LedgerError> {
        Ok(self.batches(OnchainState::Open).await?.pop())
    }

    /// Batches that are paid and still looked at: the chain may change.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn paid_batches(&self) -> Result<Vec<OnchainBatch>, LedgerError> {
        self.batches(OnchainState::Paid).await
    }

    async fn batches(&self, state: OnchainState) -> Result<Vec<OnchainBatch>, LedgerError> {
        let mut connection = self.pool.acquire().await?;
        let numbers: Vec<i64> = sqlx::query_scalar(
            "SELECT number FROM onchain_batches WHERE state = $1 ORDER BY number",
        )
        .bind(state.name())
        .fetch_all(&mut *connection)
        .await?;
        let mut batches = Vec::with_capacity(numbers.len());
        for number in numbers {
            batches.push(batch(&mut connection, number, false).await?);
        }
        Ok(batches)
    }
}

/// The batch of this number; `locks` its row.
async fn batch(
    connection: &mut PgConnection,
    number: i64,
    locks: bool,
) -> Result<OnchainBatch, LedgerError> {
    let lock = if locks { "FOR UPDATE" } else { "" };
    let row = sqlx::query(AssertSqlSafe(format!(
        "SELECT state, since_height, conflict_height FROM onchain_batches WHERE number = $1 {lock}"
    )))
    .bind(number)
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(LedgerError::Refused("no such batch"))?;
    let outputs = sqlx::query(
        "SELECT o.attempt, a.payout, p.worker, o.script, p.amount_msat, a.fee_max_msat FROM onchain_outputs o
           JOIN attempts a ON a.id = o.attempt JOIN payouts p ON p.id = a.payout WHERE o.batch = $1 ORDER BY o.vout",
    )
    .bind(number)
    .fetch_all(&mut *connection)
    .await?;
    let transactions = sqlx::query(
        "SELECT n, txid, raw, fee_sat, tip_height, state, block, height FROM onchain_transactions
          WHERE batch = $1 ORDER BY n",
    )
    .bind(number)
    .fetch_all(connection)
    .await?;
    let conflict: Option<i32> = row.try_get("conflict_height")?;
    Ok(OnchainBatch {
        number,
        state: OnchainState::parse(row.try_get("state")?)?,
        since_height: height(&row, "since_height")?,
        conflict_height: conflict.and_then(|height| u32::try_from(height).ok()),
        outputs: outputs.iter().map(output_of).collect::<Result<_, _>>()?,
        transactions: transactions
            .iter()
            .map(transaction_of)
            .collect::<Result<_, _>>()?,
    })
}

fn output_of(row: &PgRow) -> Result<OnchainOutput, LedgerError> {
    Ok(OnchainOutput {
        attempt: array(row.try_get("attempt")?)?,
        payout: array(row.try_get("payout")?)?,
        payee: row.try_get("worker")?,
        script: row.try_get("script")?,
        amount: Msat::new(row.try_get("amount_msat")?),
        fee_max: Msat::new(row.try_get("fee_max_msat")?),
    })
}

fn transaction_of(row: &PgRow) -> Result<OnchainTransaction, LedgerError> {
    let block: Option<Vec<u8>> = row.try_get("block")?;
    let block = match block {
        Some(hash) => Some((array(hash)?, height(row, "height")?)),
        None => None,
    };
    Ok(OnchainTransaction {
        n: height(row, "n")?,
        txid: array(row.try_get("txid")?)?,
        raw: row.try_get("raw")?,
        fee_sat: row.try_get("fee_sat")?,
        tip_height: height(row, "tip_height")?,
        state: TransactionState::parse(row.try_get("state")?)?,
        block,
    })
}
