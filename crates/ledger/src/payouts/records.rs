//! What people see of payouts, and what an operator decides about those that nobody else can.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::success::{Proof, Success, succeed};
use super::{AttemptState, PayoutState, Rail};
use crate::tasks::array;
use crate::{Ledger, LedgerError};
use dovetail_units::Msat;

/// Why an attempt has failed that an operator has called failed.
const DECIDED: &str = "operator";

/// A payout, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutRecord {
    /// The payout.
    pub id: [u8; 32],
    /// Who is paid.
    pub payee: String,
    /// What the payee gets.
    pub amount: Msat,
    /// Where it stands.
    pub state: PayoutState,
    /// Why it failed, if it did.
    pub failure_class: Option<String>,
    /// When it began, in seconds of Unix time.
    pub unix: u64,
    /// How the payee stands.
    pub standing: PayeeStanding,
    /// Its attempts, in their order.
    pub attempts: Vec<AttemptRecord>,
}

/// An attempt, for people. Its proof is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Its name: what the wallet knows it by.
    pub id: [u8; 32],
    /// How it pays.
    pub rail: Rail,
    /// What it pays, if that is known.
    pub payment_hash: Option<[u8; 32]>,
    /// The newest transaction of its batch, or the one that has paid it. As hashes are in blocks; explorers turn it round.
    pub txid: Option<[u8; 32]>,
    /// Where it stands.
    pub state: AttemptState,
    /// Why it failed, or cannot be decided.
    pub failure_class: Option<String>,
    /// What its route may cost.
    pub fee_max: Msat,
    /// What its route has cost.
    pub fee: Option<Msat>,
    /// When it was prepared, in seconds of Unix time.
    pub unix: u64,
    /// When it ended.
    pub ended_unix: Option<u64>,
    /// When its invoice ends.
    pub expires_unix: u64,
}

/// When a payee is tried next, and why it was not paid before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayeeStanding {
    /// How often paying it has failed since it was paid.
    pub tries: u32,
    /// Why, the last time.
    pub failure_class: Option<String>,
    /// When it is tried next, in seconds of Unix time.
    pub next_try_unix: u64,
    /// Whether it has stated where it is paid, and that holds.
    pub has_stated: bool,
}

fn unsigned(row: &PgRow, name: &str) -> Result<u64, LedgerError> {
    u64::try_from(row.try_get::<i64, _>(name)?).map_err(|_| LedgerError::Corrupt("payout"))
}

fn standing_of(row: &PgRow) -> Result<PayeeStanding, LedgerError> {
    let tries: i32 = row.try_get("tries")?;
    Ok(PayeeStanding {
        tries: u32::try_from(tries).map_err(|_| LedgerError::Corrupt("payee"))?,
        failure_class: row.try_get("payee_class")?,
        next_try_unix: unsigned(row, "next_try")?,
        has_stated: row.try_get("has_stated")?,
    })
}

fn attempt_of(row: &PgRow) -> Result<AttemptRecord, LedgerError> {
    let payment_hash: Option<Vec<u8>> = row.try_get("payment_hash")?;
    let txid: Option<Vec<u8>> = row.try_get("txid")?;
    let ended: Option<i64> = row.try_get("ended")?;
    Ok(AttemptRecord {
        id: array(row.try_get("id")?)?,
        rail: Rail::parse(row.try_get("rail")?)?,
        payment_hash: payment_hash.map(array).transpose()?,
        txid: txid.map(array).transpose()?,
        state: AttemptState::parse(row.try_get("state")?)?,
        failure_class: row.try_get("failure_class")?,
        fee_max: Msat::new(row.try_get("fee_max_msat")?),
        fee: row.try_get::<Option<i64>, _>("fee_msat")?.map(Msat::new),
        unix: unsigned(row, "unix")?,
        ended_unix: ended.and_then(|ended| u64::try_from(ended).ok()),
        expires_unix: unsigned(row, "expires")?,
    })
}

const STANDING: &str = "COALESCE(e.tries, 0) AS tries, e.failure_class AS payee_class,
    COALESCE(extract(epoch FROM e.next_try_at), 0)::bigint AS next_try,
    EXISTS (SELECT 1 FROM destinations n WHERE n.id = e.destination AND (n.active_from <= now() OR n.replaces IS NOT NULL))
        AS has_stated";

impl Ledger {
    /// Payouts, newest first: of one payee or of all, those under way or all of them. One with an attempt in review counts
    /// as under way.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn payout_records(
        &self,
        payee: Option<&str>,
        is_open: bool,
        limit: u32,
    ) -> Result<Vec<PayoutRecord>, LedgerError> {
        let select = AssertSqlSafe(format!(
            "SELECT p.id, p.worker, p.amount_msat, p.state, p.failure_class,
                    extract(epoch FROM p.created_at)::bigint AS unix, {STANDING}
               FROM payouts p LEFT JOIN payees e ON e.payee = p.worker
              WHERE ($1::text IS NULL OR p.worker = $1)
                AND (NOT $2 OR p.state = 'reserved' OR EXISTS
                     (SELECT 1 FROM attempts a WHERE a.payout = p.id AND a.state IN ('prepared', 'dispatched', 'review')))
              ORDER BY p.created_at DESC, p.id LIMIT $3"
        ));
        let rows = sqlx::query(select)
            .bind(payee)
            .bind(is_open)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = array(row.try_get("id")?)?;
            records.push(PayoutRecord {
                id,
                payee: row.try_get("worker")?,
                amount: Msat::new(row.try_get("amount_msat")?),
                state: PayoutState::parse(row.try_get("state")?)?,
                failure_class: row.try_get("failure_class")?,
                unix: unsigned(row, "unix")?,
                standing: standing_of(row)?,
                attempts: self.attempt_records(id).await?,
            });
        }
        Ok(records)
    }

    async fn attempt_records(&self, payout: [u8; 32]) -> Result<Vec<AttemptRecord>, LedgerError> {
        sqlx::query(
            "SELECT id, rail, payment_hash, state, failure_class, fee_max_msat, fee_msat,
                    COALESCE(txid, (SELECT t.txid FROM onchain_outputs o JOIN onchain_transactions t USING (batch)
                                     WHERE o.attempt = attempts.id ORDER BY t.n DESC LIMIT 1)) AS txid,
                    extract(epoch FROM created_at)::bigint AS unix, extract(epoch FROM ended_at)::bigint AS ended,
                    extract(epoch FROM expires_at)::bigint AS expires
               FROM attempts WHERE payout = $1 ORDER BY n",
        )
        .bind(payout.to_vec())
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(attempt_of)
        .collect()
    }

    /// How the payee stands; `None` if it was never tried.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn payee_standing(&self, payee: &str) -> Result<Option<PayeeStanding>, LedgerError> {
        let select = AssertSqlSafe(format!(
            "SELECT {STANDING} FROM payees e WHERE e.payee = $1"
        ));
        sqlx::query(select)
            .bind(payee)
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(standing_of)
            .transpose()
    }

    /// Whether the payment hash of the payout in review is known, so that a preimage can be held against it. An offer's is
    /// not before it is paid.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not in review.
    pub async fn knows_hash_in_review(&self, payout: [u8; 32]) -> Result<bool, LedgerError> {
        let mut connection = self.pool.acquire().await?;
        let (_, payment_hash) = in_review(&mut connection, payout).await?;
        Ok(payment_hash.is_some())
    }

    /// An operator has found that the payout in review was paid: this is the proof. The preimage of an offer, whose payment
    /// hash was never known, can be held against nothing. Its fee is not known and is booked as nothing.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not in review, or the preimage is not that of its payment hash.
    pub async fn decide_paid(
        &self,
        payout: [u8; 32],
        preimage: [u8; 32],
    ) -> Result<Success, LedgerError> {
        let mut transaction = self.begin().await?;
        let (attempt, payment_hash) = in_review(&mut transaction, payout).await?;
        let payment_hash = match payment_hash {
            Some(hash) => hash,
            None => {
                let hash = sqlx::query_scalar("SELECT sha256($1)")
                    .bind(preimage.to_vec())
                    .fetch_one(&mut *transaction)
                    .await?;
                array(hash)?
            }
        };
        let proof = Proof {
            payment_hash,
            preimage,
            fee: Msat::ZERO,
        };
        let success = succeed(&mut transaction, attempt, &proof).await?;
        transaction.commit().await?;
        Ok(success)
    }

    /// An operator has found that the payout in review was not paid. It is tried again, or given up.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it is not in review.
    pub async fn decide_failed(&self, payout: [u8; 32]) -> Result<(), LedgerError> {
        let mut connection = self.pool.acquire().await?;
        let (attempt, _) = in_review(&mut connection, payout).await?;
        drop(connection);
        // In this order: the wallet's own word may come between, and is not written over.
        self.note_failed(attempt, DECIDED, None).await?;
        sqlx::query(
            "UPDATE payees e SET next_try_at = now() FROM payouts p WHERE p.id = $1 AND e.payee = p.worker",
        )
        .bind(payout.to_vec())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// The attempt of the payout that is in review.
async fn in_review(
    connection: &mut PgConnection,
    payout: [u8; 32],
) -> Result<([u8; 32], Option<[u8; 32]>), LedgerError> {
    let row =
        sqlx::query("SELECT id, payment_hash FROM attempts WHERE payout = $1 AND state = 'review'")
            .bind(payout.to_vec())
            .fetch_optional(connection)
            .await?
            .ok_or(LedgerError::Refused(
                "no attempt of this payout is in review: only such a payout is decided by hand",
            ))?;
    let payment_hash: Option<Vec<u8>> = row.try_get("payment_hash")?;
    Ok((
        array(row.try_get("id")?)?,
        payment_hash.map(array).transpose()?,
    ))
}
