//! Payouts: requested -> reserved -> sent -> paid | failed. Money is set aside, with its fee, before
//! the wallet hears of the payment; a payment hash is reserved once, ever; only a proven failure
//! gives the money back.

use sqlx::{PgConnection, Row};

use crate::tasks::array;
use crate::transfers::{self, Phase, Transfer, TransferId, transfer, worker_account};
use crate::{Ledger, LedgerError};
use dovetail_units::Msat;

/// Where a payout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayoutState {
    /// The worker was asked for an invoice; no money has moved.
    Requested,
    /// The money is set aside.
    Reserved,
    /// The wallet may have heard of it. What is uncertain stays here until the wallet knows.
    Sent,
    /// The worker has the money.
    Paid,
    /// The worker has its balance back.
    Failed,
}

impl PayoutState {
    fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Reserved => "reserved",
            Self::Sent => "sent",
            Self::Paid => "paid",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [
            Self::Requested,
            Self::Reserved,
            Self::Sent,
            Self::Paid,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.name() == text)
    }

    /// Whether `next` may follow.
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Requested, Self::Reserved | Self::Failed)
                | (Self::Reserved, Self::Sent | Self::Failed)
                | (Self::Sent, Self::Paid | Self::Failed)
        )
    }
}

/// A payout that has not ended.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenPayout {
    /// The payout.
    pub id: [u8; 32],
    /// Who is paid.
    pub worker: String,
    /// What the worker gets.
    pub amount: Msat,
    /// Where it stands: reserved or sent.
    pub state: PayoutState,
    /// The invoice. A payment that may have been sent is not sent again, unless the wallet itself
    /// refuses to pay a hash twice.
    pub bolt11: String,
    /// Its payment hash: what the wallet is asked about.
    pub payment_hash: [u8; 32],
    /// What its route may cost.
    pub fee_max: Msat,
}

/// A payout as it stood before a step.
struct Before {
    worker: String,
    amount: Msat,
    state: PayoutState,
    fee_max: Msat,
}

impl Ledger {
    /// Notes that the worker was asked for an invoice; once more is harmless.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if the id names another payout, [`LedgerError::Refused`] for an
    /// amount that is not positive.
    pub async fn create_payout(
        &self,
        id: [u8; 32],
        worker: &str,
        amount: Msat,
    ) -> Result<(), LedgerError> {
        if amount <= Msat::ZERO {
            return Err(LedgerError::Refused("a payout is of a positive amount"));
        }
        let inserted = sqlx::query(
            "INSERT INTO payouts (id, worker, amount_msat, state) VALUES ($1, $2, $3, 'requested')
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id.to_vec())
        .bind(worker)
        .bind(amount.get())
        .execute(&self.pool)
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(());
        }
        let same: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM payouts
                            WHERE id = $1 AND worker = $2 AND amount_msat = $3)",
        )
        .bind(id.to_vec())
        .bind(worker)
        .bind(amount.get())
        .fetch_one(&self.pool)
        .await?;
        if same {
            Ok(())
        } else {
            Err(LedgerError::Conflict("the id names another payout"))
        }
    }

    /// requested -> reserved: sets the amount aside, and the most that the route may cost.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the worker has not enough, [`LedgerError::Conflict`] if the
    /// payment hash was used before.
    pub async fn reserve_payout(
        &self,
        id: [u8; 32],
        bolt11: &str,
        payment_hash: [u8; 32],
        fee_max: Msat,
    ) -> Result<(), LedgerError> {
        if fee_max < Msat::ZERO {
            return Err(LedgerError::Refused("a fee is not negative"));
        }
        let mut transaction = self.pool.begin().await?;
        let payout = step(&mut transaction, id, PayoutState::Reserved).await?;
        sqlx::query(
            "UPDATE payouts SET bolt11 = $2, payment_hash = $3, fee_max_msat = $4 WHERE id = $1",
        )
        .bind(id.to_vec())
        .bind(bolt11)
        .bind(payment_hash.to_vec())
        .bind(fee_max.get())
        .execute(&mut *transaction)
        .await
        .map_err(LedgerError::from)
        .map_err(|error| {
            if error.broke("payouts_payment_hash_key") {
                LedgerError::Conflict("the payment hash was used before")
            } else {
                error
            }
        })?;
        let worker = worker_account(&payout.worker);
        for part in amount_and_fee(id, &worker, payout.amount, fee_max) {
            transfer(
                &mut transaction,
                &Transfer {
                    phase: Phase::Pending,
                    ..part
                },
            )
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// reserved -> sent. Call it before the wallet hears of the payment.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not reserved.
    pub async fn mark_sent(&self, id: [u8; 32]) -> Result<(), LedgerError> {
        let mut transaction = self.pool.begin().await?;
        step(&mut transaction, id, PayoutState::Sent).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// sent -> paid, with what the route really cost, even if that is more than was set aside: the
    /// money has left. Call it once the wallet has the preimage.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not sent.
    pub async fn settle_payout(&self, id: [u8; 32], fee: Msat) -> Result<(), LedgerError> {
        if fee < Msat::ZERO {
            return Err(LedgerError::Refused("a fee is not negative"));
        }
        let mut transaction = self.pool.begin().await?;
        let payout = step(&mut transaction, id, PayoutState::Paid).await?;
        sqlx::query("UPDATE payouts SET fee_msat = $2 WHERE id = $1")
            .bind(id.to_vec())
            .bind(fee.get())
            .execute(&mut *transaction)
            .await?;
        let worker = worker_account(&payout.worker);
        let [amount, reserved_fee] = amount_and_fee(id, &worker, payout.amount, payout.fee_max);
        let paid = Transfer {
            id: TransferId::of("payout-paid", &id),
            phase: Phase::Post(amount.id),
            ..amount
        };
        let unused = Transfer {
            id: TransferId::of("payout-fee-void", &id),
            phase: Phase::Void(reserved_fee.id),
            ..reserved_fee
        };
        let actual = Transfer {
            id: TransferId::of("payout-fee-paid", &id),
            phase: Phase::Posted,
            debit: transfers::POOL_LIGHTNING_FEES,
            credit: transfers::POOL_LIGHTNING,
            amount: fee,
            reason: "payout fee",
        };
        for part in [paid, unused, actual] {
            transfer(&mut transaction, &part).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Ends a payout without payment and gives the money back. Only for a payment that the wallet
    /// has proven failed, or one that it never heard of.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it has ended.
    pub async fn fail_payout(&self, id: [u8; 32]) -> Result<(), LedgerError> {
        let mut transaction = self.pool.begin().await?;
        let payout = step(&mut transaction, id, PayoutState::Failed).await?;
        if payout.state != PayoutState::Requested {
            let worker = worker_account(&payout.worker);
            for part in amount_and_fee(id, &worker, payout.amount, payout.fee_max) {
                let purpose = format!("{} void", part.reason);
                transfer(
                    &mut transaction,
                    &Transfer {
                        id: TransferId::of(&purpose, &id),
                        phase: Phase::Void(part.id),
                        ..part
                    },
                )
                .await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The payouts for which money is set aside, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn open_payouts(&self) -> Result<Vec<OpenPayout>, LedgerError> {
        sqlx::query(
            "SELECT id, worker, amount_msat, state, bolt11, payment_hash, fee_max_msat
             FROM payouts WHERE state IN ('reserved', 'sent') ORDER BY created_at LIMIT 1000",
        )
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| {
            let state: String = row.try_get("state")?;
            Ok(OpenPayout {
                id: array(row.try_get("id")?)?,
                worker: row.try_get("worker")?,
                amount: Msat::new(row.try_get("amount_msat")?),
                state: PayoutState::parse(&state).ok_or(LedgerError::Corrupt("payout"))?,
                bolt11: row.try_get("bolt11")?,
                payment_hash: array(row.try_get("payment_hash")?)?,
                fee_max: Msat::new(row.try_get("fee_max_msat")?),
            })
        })
        .collect()
    }
}

/// The two reservations of a payout: the worker's amount, and the pool's fee.
fn amount_and_fee(id: [u8; 32], worker: &str, amount: Msat, fee_max: Msat) -> [Transfer<'_>; 2] {
    [
        Transfer {
            id: TransferId::of("payout", &id),
            phase: Phase::Pending,
            debit: worker,
            credit: transfers::POOL_LIGHTNING,
            amount,
            reason: "payout",
        },
        Transfer {
            id: TransferId::of("payout-fee", &id),
            phase: Phase::Pending,
            debit: transfers::POOL_LIGHTNING_FEES,
            credit: transfers::POOL_LIGHTNING,
            amount: fee_max,
            reason: "payout fee",
        },
    ]
}

/// Takes the step to `next` under a row lock, and returns the payout as it was before.
async fn step(
    connection: &mut PgConnection,
    id: [u8; 32],
    next: PayoutState,
) -> Result<Before, LedgerError> {
    let row = sqlx::query(
        "SELECT worker, amount_msat, state, fee_max_msat FROM payouts WHERE id = $1 FOR UPDATE",
    )
    .bind(id.to_vec())
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(LedgerError::Refused("no such payout"))?;
    let state: String = row.try_get("state")?;
    let state = PayoutState::parse(&state).ok_or(LedgerError::Corrupt("payout"))?;
    if !state.may_become(next) {
        return Err(LedgerError::Refused(
            "the payout is not in a state for this",
        ));
    }
    sqlx::query("UPDATE payouts SET state = $2 WHERE id = $1")
        .bind(id.to_vec())
        .bind(next.name())
        .execute(connection)
        .await?;
    Ok(Before {
        worker: row.try_get("worker")?,
        amount: Msat::new(row.try_get("amount_msat")?),
        state,
        fee_max: Msat::new(row.try_get::<Option<i64>, _>("fee_max_msat")?.unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::PayoutState::{self, Failed, Paid, Requested, Reserved, Sent};

    #[test]
    fn a_payout_goes_forward_only_and_ends_once() {
        let all = [Requested, Reserved, Sent, Paid, Failed];
        let allowed: Vec<(PayoutState, PayoutState)> = all
            .iter()
            .flat_map(|from| all.iter().map(|to| (*from, *to)))
            .filter(|(from, to)| from.may_become(*to))
            .collect();
        assert_eq!(
            allowed,
            [
                (Requested, Reserved),
                (Requested, Failed),
                (Reserved, Sent),
                (Reserved, Failed),
                (Sent, Paid),
                (Sent, Failed)
            ]
        );
    }
}
