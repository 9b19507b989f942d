//! The end of a batch: what it costs whom. It is booked in one transaction for all of its payees.

use std::time::Duration;

use dovetail_units::Msat;
use sqlx::{AssertSqlSafe, PgConnection};

use super::steps::signed;
use super::{OnchainBatch, OnchainState, batch};
use crate::payouts::attempts::locked;
use crate::payouts::success::{Success, book};
use crate::payouts::{AttemptState, not_a_step};
use crate::{Ledger, LedgerError};

/// A payee that a batch has paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedOutput {
    /// The payout.
    pub payout: [u8; 32],
    /// The payee.
    pub payee: String,
    /// What it got.
    pub amount: Msat,
    /// Its part of what the transaction cost.
    pub fee: Msat,
    /// What that came to.
    pub success: Success,
}

impl Ledger {
    /// Books that a block has this transaction of an open batch, deep enough: its payees have their money. The fee is divided
    /// over them, `shares` in the order of the outputs. Once more books nothing.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the transaction is not one of the batch, the shares are not its fee, or the batch has
    /// failed.
    pub async fn confirm_batch(
        &self,
        number: i64,
        txid: [u8; 32],
        block: ([u8; 32], u32),
        shares: &[Msat],
    ) -> Result<Vec<BookedOutput>, LedgerError> {
        let mut database = self.begin().await?;
        let found = batch(&mut database, number, true).await?;
        if matches!(found.state, OnchainState::Paid | OnchainState::Buried) {
            return Ok(Vec::new());
        }
        check_shares(&found, txid, shares)?;
        confirm(&mut database, txid, block).await?;
        let mut booked = Vec::with_capacity(found.outputs.len());
        for (output, &fee) in found.outputs.iter().zip(shares) {
            // A batch's attempts end with it alone, so the state is known; the lock is what orders this with others.
            let before = locked(&mut database, output.attempt).await?;
            if before.state == AttemptState::Succeeded {
                return Err(LedgerError::Corrupt("batch"));
            }
            sqlx::query(
                "UPDATE attempts SET state = 'succeeded', txid = $2, fee_msat = $3,
                        ended_at = COALESCE(ended_at, now()), next_check_at = NULL WHERE id = $1",
            )
            .bind(output.attempt.to_vec())
            .bind(txid.to_vec())
            .bind(fee.get())
            .execute(&mut *database)
            .await
            .map_err(|error| not_a_step(error, "the attempt cannot succeed"))?;
            let success = book(&mut database, output.payout, fee, &output.attempt).await?;
            booked.push(BookedOutput {
                payout: output.payout,
                payee: output.payee.clone(),
                amount: output.amount,
                fee,
                success,
            });
        }
        end(&mut database, number, OnchainState::Paid).await?;
        database.commit().await?;
        Ok(booked)
    }

    /// The chain has the transaction of a paid batch in another block than it had.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not the transaction that has paid.
    pub async fn note_moved(
        &self,
        txid: [u8; 32],
        (block, height): ([u8; 32], u32),
    ) -> Result<(), LedgerError> {
        let moved = sqlx::query(
            "UPDATE onchain_transactions SET block = $2, height = $3 WHERE txid = $1 AND state = 'confirmed'",
        )
        .bind(txid.to_vec())
        .bind(block.to_vec())
        .bind(signed(height))
        .execute(&self.pool)
        .await?;
        match moved.rows_affected() {
            1 => Ok(()),
            _ => Err(LedgerError::Refused("that transaction has paid nothing")),
        }
    }

    /// paid -> buried: nobody looks at the batch any more.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not paid.
    pub async fn note_buried(&self, number: i64) -> Result<(), LedgerError> {
        end(
            &mut *self.pool.acquire().await?,
            number,
            OnchainState::Buried,
        )
        .await
    }

    /// open -> failed: none of its transactions can ever confirm. Its attempts have failed, and are tried again.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not open, or no conflict was noted.
    pub async fn fail_batch(
        &self,
        number: i64,
        class: &str,
        backoff: Duration,
    ) -> Result<(), LedgerError> {
        let mut database = self.begin().await?;
        let found = batch(&mut database, number, true).await?;
        // First the payouts, as everywhere.
        for output in &found.outputs {
            locked(&mut database, output.attempt).await?;
        }
        end(&mut database, number, OnchainState::Failed).await?;
        for output in &found.outputs {
            sqlx::query(
                "UPDATE attempts SET state = 'failed', failure_class = $2, ended_at = now(), next_check_at = NULL
                  WHERE id = $1",
            )
            .bind(output.attempt.to_vec())
            .bind(class)
            .execute(&mut *database)
            .await?;
            crate::payouts::attempts::put_off(&mut database, &output.payee, class, backoff).await?;
        }
        database.commit().await?;
        Ok(())
    }
}

fn check_shares(batch: &OnchainBatch, txid: [u8; 32], shares: &[Msat]) -> Result<(), LedgerError> {
    let is_it = |transaction: &&super::OnchainTransaction| transaction.txid == txid;
    let transaction = batch.transactions.iter().find(is_it);
    let transaction = transaction.ok_or(LedgerError::Refused(
        "the transaction is not one of the batch",
    ))?;
    let sum = shares
        .iter()
        .try_fold(0_i64, |sum, share| sum.checked_add(share.get()));
    let is_fee = shares.len() == batch.outputs.len()
        && shares.iter().all(|share| *share >= Msat::ZERO)
        && sum.is_some()
        && sum == transaction.fee_sat.checked_mul(1_000);
    match is_fee {
        true => Ok(()),
        false => Err(LedgerError::Refused(
            "the parts of the fee do not add up to it",
        )),
    }
}

async fn confirm(
    connection: &mut PgConnection,
    txid: [u8; 32],
    (block, height): ([u8; 32], u32),
) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE onchain_transactions SET state = 'confirmed', block = $2, height = $3 WHERE txid = $1",
    )
    .bind(txid.to_vec())
    .bind(block.to_vec())
    .bind(signed(height))
    .execute(connection)
    .await?;
    Ok(())
}

async fn end(
    connection: &mut PgConnection,
    number: i64,
    state: OnchainState,
) -> Result<(), LedgerError> {
    let end = AssertSqlSafe(format!(
        "UPDATE onchain_batches SET state = '{}' WHERE number = $1",
        state.name()
    ));
    sqlx::query(end)
        .bind(number)
        .execute(connection)
        .await
        .map_err(|error| not_a_step(error, "the batch is not in a state from which it ends so"))?;
    Ok(())
}
