//! What a success costs whom. It is booked once for each payment hash: that is what a payee can be paid once for.
//!
//! A success may come for an attempt that was called failed, after the money went back to the payee's balance, or after
//! another attempt has paid. The money has left all the same: the payee bears it as far as its balance goes, the pool the
//! rest.

use dovetail_units::Msat;
use sqlx::{PgConnection, Row};

use super::attempts::{locked, supersede};
use super::{Attempt, AttemptState, Money, PayoutState, not_a_step};
use crate::transfers::{self, Phase, Transfer, TransferId, transfer};
use crate::{Ledger, LedgerError};

/// The wallet's proof of a payment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// What was paid.
    pub payment_hash: [u8; 32],
    /// Its SHA-256 is the payment hash: only the payee had it.
    pub preimage: [u8; 32],
    /// What the route cost.
    pub fee: Msat,
}

/// What a success came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// The payout is paid, with what was set aside for it.
    Paid,
    /// The money had gone back, or another attempt has paid: this much came from the payee's balance, and the pool has
    /// lost the rest. Raise an alarm.
    Late {
        /// What the payee's balance had.
        from_balance: Msat,
        /// What it had not.
        loss: Msat,
    },
    /// It was booked before.
    Known,
}

impl Ledger {
    /// Books that the payee has the money, with what the route really cost, even if that is more than was set aside: the
    /// money has left. Once more is harmless.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the preimage is not that of the payment hash, or the hash not the attempt's;
    /// [`LedgerError::Conflict`] if another payout has paid that hash.
    pub async fn note_succeeded(
        &self,
        attempt: [u8; 32],
        proof: &Proof,
    ) -> Result<Success, LedgerError> {
        if proof.fee < Msat::ZERO {
            return Err(LedgerError::Refused("a fee is not negative"));
        }
        let mut transaction = self.begin().await?;
        let success = succeed(&mut transaction, attempt, proof).await?;
        transaction.commit().await?;
        Ok(success)
    }
}

pub(super) async fn succeed(
    connection: &mut PgConnection,
    attempt: [u8; 32],
    proof: &Proof,
) -> Result<Success, LedgerError> {
    let before = locked(connection, attempt).await?;
    if before
        .payment_hash
        .is_some_and(|hash| hash != proof.payment_hash)
    {
        return Err(LedgerError::Refused(
            "the proof is of another payment hash than the attempt's",
        ));
    }
    if before.state == AttemptState::Succeeded {
        return Ok(Success::Known);
    }
    let is_booked = booked_before(connection, &before, proof).await?;
    prove(connection, attempt, proof).await?;
    supersede(connection, before.payout, proof.payment_hash).await?;
    if is_booked {
        return Ok(Success::Known);
    }
    book(connection, before.payout, proof.fee, &proof.payment_hash).await
}

/// Moves the money of a payout that is proven to have arrived. `cause` names what is booked late: the same is booked once.
pub(super) async fn book(
    connection: &mut PgConnection,
    payout: [u8; 32],
    fee: Msat,
    cause: &[u8; 32],
) -> Result<Success, LedgerError> {
    let money = Money::lock(connection, payout).await?;
    let success = match money.state {
        PayoutState::Reserved => {
            settle(connection, &money, fee).await?;
            Success::Paid
        }
        PayoutState::Failed | PayoutState::Paid => {
            compensate(connection, &money, fee, cause).await?
        }
    };
    if money.state != PayoutState::Paid {
        sqlx::query("UPDATE payouts SET state = 'paid', fee_msat = $2 WHERE id = $1")
            .bind(money.payout.to_vec())
            .bind(fee.get())
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "UPDATE payees SET tries = 0, next_try_at = now(), failure_class = NULL WHERE payee = $1",
        )
        .bind(&money.payee)
        .execute(connection)
        .await?;
    }
    Ok(success)
}

/// Whether another attempt of the payout has paid this hash.
async fn booked_before(
    connection: &mut PgConnection,
    attempt: &Attempt,
    proof: &Proof,
) -> Result<bool, LedgerError> {
    let paid_by: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT payout FROM attempts WHERE payment_hash = $1 AND state = 'succeeded' AND id <> $2 LIMIT 1",
    )
    .bind(proof.payment_hash.to_vec())
    .bind(attempt.id.to_vec())
    .fetch_optional(connection)
    .await?;
    match paid_by {
        Some(payout) if payout != attempt.payout => Err(LedgerError::Conflict(
            "another payout has paid this payment hash",
        )),
        other => Ok(other.is_some()),
    }
}

async fn prove(
    connection: &mut PgConnection,
    attempt: [u8; 32],
    proof: &Proof,
) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE attempts SET state = 'succeeded', payment_hash = $2, preimage = $3, fee_msat = $4,
                ended_at = COALESCE(ended_at, now()), next_check_at = NULL WHERE id = $1",
    )
    .bind(attempt.to_vec())
    .bind(proof.payment_hash.to_vec())
    .bind(proof.preimage.to_vec())
    .bind(proof.fee.get())
    .execute(connection)
    .await
    .map_err(|error| {
        let error = not_a_step(error, "the attempt cannot succeed");
        if error.broke("attempts_have_a_proof") {
            LedgerError::Refused("the preimage is not that of the payment hash: nothing is proven")
        } else {
            error
        }
    })?;
    Ok(())
}

/// Moves what was set aside.
async fn settle(
    connection: &mut PgConnection,
    money: &Money,
    fee: Msat,
) -> Result<(), LedgerError> {
    let [amount, reserved_fee] = money.parts();
    let paid = Transfer {
        id: TransferId::of("payout-paid", &money.payout),
        phase: Phase::Post(amount.id),
        ..amount
    };
    let unused = Transfer {
        id: TransferId::of("payout-fee-void", &money.payout),
        phase: Phase::Void(reserved_fee.id),
        ..reserved_fee
    };
    // What a payee bears was set aside; a wallet that has spent more has spent the pool's.
    let borne = fee.min(money.fee_max);
    let actual = Transfer {
        id: TransferId::of("payout-fee-paid", &money.payout),
        phase: Phase::Posted,
        debit: money.fee_account(),
        credit: money.rail.account(),
        amount: borne,
        reason: "payout fee",
    };
    let over = Transfer {
        id: TransferId::of("payout-fee-over", &money.payout),
        debit: money.rail.fees(),
        amount: Msat::new(fee.get() - borne.get()),
        ..actual
    };
    for part in [paid, unused, actual, over] {
        transfer(connection, &part).await?;
    }
    Ok(())
}

/// Books a payment for which nothing is set aside any more. Its fee is the pool's.
async fn compensate(
    connection: &mut PgConnection,
    money: &Money,
    fee: Msat,
    cause: &[u8; 32],
) -> Result<Success, LedgerError> {
    let row = sqlx::query(
        "SELECT credits_posted - debits_posted - debits_pending AS available FROM accounts
          WHERE name = $1 FOR NO KEY UPDATE",
    )
    .bind(&money.worker)
    .fetch_optional(&mut *connection)
    .await?;
    let available = row.map_or(Ok(0), |row| row.try_get("available"))?;
    let from_balance = money.amount.min(Msat::new(available)).max(Msat::ZERO);
    let loss = Msat::new(money.amount.get() - from_balance.get());
    let part = |purpose: &str, debit, amount, reason| Transfer {
        id: TransferId::of(purpose, cause),
        phase: Phase::Posted,
        debit,
        credit: money.rail.account(),
        amount,
        reason,
    };
    for late in [
        part("late", &money.worker, from_balance, "late payout"),
        part("late-loss", transfers::POOL_LOSS, loss, "late payout"),
        part("late-fee", money.rail.fees(), fee, "payout fee"),
    ] {
        transfer(connection, &late).await?;
    }
    Ok(Success::Late { from_balance, loss })
}
