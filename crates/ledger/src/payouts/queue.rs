//! Whose turn it is. What is handed out is claimed: it is not handed out again for some time, to nobody, so that a second
//! pool on the ledger cannot do it too, and a crash only delays it.

use std::time::Duration;

use dovetail_units::Msat;
use sqlx::{AssertSqlSafe, Row};

use super::{ATTEMPT, Attempt, attempt_of};
use crate::{Ledger, LedgerError};

/// Who may be chosen for a payout.
#[derive(Debug, Clone)]
pub struct PayeeQuery<'a> {
    /// Payees that are there: they can be asked for an invoice. Those whose name is an offer need not be.
    pub connected: &'a [String],
    /// What is paid at least ..
    pub threshold: Msat,
    /// .. and at most at once.
    pub payout_max: Msat,
    /// How many at most.
    pub limit: u32,
}

/// A payee to be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePayee {
    /// The account.
    pub payee: String,
    /// What it has.
    pub available: Msat,
}

impl Ledger {
    /// Claims payees that have enough, no payout under way, and whose time has come; those who have waited longest first.
    /// Whoever cannot be paid now is not among them, so it takes nobody's place.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn claim_payees(
        &self,
        query: &PayeeQuery<'_>,
        lease: Duration,
    ) -> Result<Vec<DuePayee>, LedgerError> {
        let names: Vec<String> = query
            .connected
            .iter()
            .map(|payee| crate::transfers::worker_account(payee))
            .collect();
        sqlx::query(
            "WITH reachable AS (
                 SELECT id, name, credits_posted - debits_posted - debits_pending AS available
                   FROM accounts WHERE name = ANY($1)
                  UNION
                 SELECT id, name, credits_posted - debits_posted - debits_pending
                   FROM accounts WHERE starts_with(name, 'worker:lno1')
             ), due AS (
                 SELECT substr(r.name, 8) AS payee, r.available
                   FROM reachable r LEFT JOIN payees e ON e.payee = substr(r.name, 8)
                  WHERE LEAST(r.available, $3) / 1000 * 1000 >= $2
                    AND COALESCE(e.next_try_at, '-infinity') <= now()
                    AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.worker = substr(r.name, 8) AND p.state = 'reserved')
                  ORDER BY COALESCE(e.next_try_at, '-infinity'), r.id LIMIT $4
             ), claimed AS (
                 INSERT INTO payees AS e (payee, next_try_at)
                 SELECT payee, now() + make_interval(secs => $5) FROM due ORDER BY payee
                 ON CONFLICT (payee) DO UPDATE SET next_try_at = excluded.next_try_at WHERE e.next_try_at <= now()
                 RETURNING e.payee
             )
             SELECT due.payee, due.available FROM due JOIN claimed USING (payee)",
        )
        .bind(names)
        .bind(query.threshold.get())
        .bind(query.payout_max.get())
        .bind(i64::from(query.limit))
        .bind(lease.as_secs_f64())
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| {
            Ok(DuePayee {
                payee: row.try_get("payee")?,
                available: Msat::new(row.try_get("available")?),
            })
        })
        .collect()
    }

    /// Claims payouts whose attempts have all failed and whose payee's time has come; returns the last attempt of each.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn claim_retries(
        &self,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Attempt>, LedgerError> {
        let claim = AssertSqlSafe(format!(
            "WITH due AS (
                 SELECT e.payee, p.id AS payout FROM payees e JOIN payouts p ON p.worker = e.payee AND p.state = 'reserved'
                  WHERE e.next_try_at <= now()
                    AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.payout = p.id AND a.state <> 'failed')
                  ORDER BY e.next_try_at LIMIT $1 FOR UPDATE OF e SKIP LOCKED
             ), claimed AS (
                 UPDATE payees e SET next_try_at = now() + make_interval(secs => $2)
                   FROM (SELECT DISTINCT payee FROM due) d WHERE e.payee = d.payee RETURNING e.payee
             )
             SELECT DISTINCT ON (p.id) {ATTEMPT}
               FROM due JOIN claimed USING (payee) JOIN payouts p ON p.id = due.payout
               JOIN attempts a ON a.payout = p.id
              ORDER BY p.id, a.n DESC"
        ));
        sqlx::query(claim)
            .bind(i64::from(limit))
            .bind(lease.as_secs_f64())
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(attempt_of)
            .collect()
    }

    /// Claims attempts that the wallet is to be asked about, those that have waited longest first. Of those on the chain the
    /// wallet knows nothing.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn claim_checks(
        &self,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Attempt>, LedgerError> {
        let claim = AssertSqlSafe(format!(
            "WITH due AS (
                 SELECT id FROM attempts WHERE next_check_at <= now() AND rail <> 'onchain'
                  ORDER BY next_check_at LIMIT $1 FOR UPDATE SKIP LOCKED
             )
             UPDATE attempts a SET next_check_at = now() + make_interval(secs => $2)
               FROM due, payouts p WHERE a.id = due.id AND p.id = a.payout RETURNING {ATTEMPT}"
        ));
        sqlx::query(claim)
            .bind(i64::from(limit))
            .bind(lease.as_secs_f64())
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(attempt_of)
            .collect()
    }

    /// All open attempts of the wallet's are to be looked at now: what happened while the pool was away is not known.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn recheck_open_attempts(&self) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE attempts SET next_check_at = now()
              WHERE state IN ('prepared', 'dispatched', 'review') AND rail <> 'onchain'",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The failed attempts of a payout are to be looked at now: the wallet says that one of them has not failed.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn recheck_failed_attempts(&self, payout: [u8; 32]) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE attempts SET next_check_at = now() WHERE payout = $1 AND state = 'failed'",
        )
        .bind(payout.to_vec())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
