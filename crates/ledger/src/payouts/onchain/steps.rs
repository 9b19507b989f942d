//! The steps of a batch up to its end: stored, handed to a node, replaced.

use sqlx::PgConnection;

use super::{NewOutput, NewTransaction};
use crate::payouts::not_a_step;
use crate::{Ledger, LedgerError};

impl Ledger {
    /// Stores a batch with its first transaction; a node may hear of it once this has returned. Its attempts are dispatched:
    /// nothing but the chain ends them now.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if a batch is open, or an attempt does not wait for just this, or it would cost more than
    /// was set aside.
    pub async fn begin_batch(
        &self,
        outputs: &[NewOutput],
        transaction: &NewTransaction,
    ) -> Result<i64, LedgerError> {
        let mut database = self.begin().await?;
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO onchain_batches (since_height) VALUES ($1) RETURNING number",
        )
        .bind(signed(transaction.tip_height))
        .fetch_one(&mut *database)
        .await
        .map_err(|error| {
            let error = LedgerError::from(error);
            match error.broke("onchain_batches_one_open") {
                true => LedgerError::Refused("a batch is under way"),
                false => error,
            }
        })?;
        for (vout, output) in (0_i32..).zip(outputs) {
            sqlx::query(
                "INSERT INTO onchain_outputs (attempt, batch, vout, script, amount_sat) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(output.attempt.to_vec())
            .bind(number)
            .bind(vout)
            .bind(&output.script)
            .bind(output.amount_sat)
            .execute(&mut *database)
            .await
            .map_err(|error| not_a_step(error, "an attempt does not wait for this output"))?;
        }
        insert(&mut database, number, transaction).await?;
        sqlx::query(
            "UPDATE attempts SET state = 'dispatched', next_check_at = NULL
              WHERE id IN (SELECT attempt FROM onchain_outputs WHERE batch = $1)",
        )
        .bind(number)
        .execute(&mut *database)
        .await?;
        database.commit().await?;
        Ok(number)
    }

    /// Stores a transaction that replaces the newest of an open batch; a node may hear of it once this has returned.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it does not spend all that the earlier ones spend, costs more than was set aside, or the
    /// batch is not open.
    pub async fn add_transaction(
        &self,
        batch: i64,
        transaction: &NewTransaction,
    ) -> Result<(), LedgerError> {
        let mut database = self.begin().await?;
        sqlx::query("SELECT 1 FROM onchain_batches WHERE number = $1 FOR UPDATE")
            .bind(batch)
            .execute(&mut *database)
            .await?;
        insert(&mut database, batch, transaction).await?;
        database.commit().await?;
        Ok(())
    }

    /// A node has taken the transaction. Once more is harmless.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_broadcast(&self, txid: [u8; 32]) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE onchain_transactions SET state = 'broadcast' WHERE txid = $1 AND state = 'prepared'",
        )
        .bind(txid.to_vec())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The height of the block in which something else spends what an open batch spends; `None`: none does any more.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_conflict(&self, batch: i64, height: Option<u32>) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE onchain_batches SET conflict_height = $2 WHERE number = $1 AND state = 'open'",
        )
        .bind(batch)
        .bind(height.map(signed))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Why these payees wait although their money is set aside. Takes nothing from whatever else is known of them.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_waiting(&self, payees: &[String], class: &str) -> Result<(), LedgerError> {
        sqlx::query("UPDATE payees SET failure_class = $2 WHERE payee = ANY($1)")
            .bind(payees)
            .bind(class)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

async fn insert(
    connection: &mut PgConnection,
    batch: i64,
    transaction: &NewTransaction,
) -> Result<(), LedgerError> {
    let inputs: Vec<Vec<u8>> = transaction
        .inputs
        .iter()
        .map(|input| input.to_vec())
        .collect();
    sqlx::query(
        "INSERT INTO onchain_transactions (txid, batch, n, raw, inputs, fee_sat, tip_height)
         SELECT $1, $2, 1 + count(*), $3, $4, $5, $6 FROM onchain_transactions WHERE batch = $2",
    )
    .bind(transaction.txid.to_vec())
    .bind(batch)
    .bind(&transaction.raw)
    .bind(inputs)
    .bind(transaction.fee_sat)
    .bind(signed(transaction.tip_height))
    .execute(connection)
    .await
    .map_err(|error| not_a_step(error, "the transaction is not one of this batch"))?;
    Ok(())
}

/// Heights are far from the end of their type.
pub(super) fn signed(height: u32) -> i32 {
    i32::try_from(height).unwrap_or(i32::MAX)
}
