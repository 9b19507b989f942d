//! Whose turn it is. What is handed out is claimed: it is not handed out again for some time, to nobody, so that a second
//! pool on the ledger cannot do it too, and a crash only delays it.

use std::time::Duration;

use dovetail_payee::{PayTo, PayToKind};
use dovetail_units::Msat;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::{ATTEMPT, Attempt, attempt_of, in_force};
use crate::{Ledger, LedgerError};

/// After so many failed tries over Lightning a payee is paid on-chain, if a Bitcoin address of it is known.
pub const TRIES_BEFORE_ONCHAIN: u32 = 8;

/// Who may be chosen for a payout.
#[derive(Debug, Clone)]
pub struct PayeeQuery<'a> {
    /// Workers that are there: they can be asked for an invoice. All others are paid without a connection.
    pub connected: &'a [String],
    /// What is paid at least ..
    pub threshold: Msat,
    /// .. and at most at once, over Lightning; zero: nothing is paid over Lightning.
    pub payout_max: Msat,
    /// What is paid on-chain at least; `None`: nothing is paid on-chain.
    pub onchain_threshold: Option<Msat>,
    /// Whether there is room to ask the hosts of Lightning addresses.
    pub lightning_addresses: bool,
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
    /// How often paying it has failed since it was paid.
    pub tries: u32,
    /// Where it has stated to be paid; `None`: where its name says.
    pub stated: Option<PayTo>,
    /// The Bitcoin address that it has stated besides.
    pub fallback: Option<String>,
}

/// Who may be paid now. `reachable` are accounts that something leads to, each found by an index: connected workers,
/// names that say where to, and payees that have stated it. No other account is read. `standing` has the way to each.
const CLAIM: &str = concat!(
    "
    WITH reachable AS (
        SELECT id, name, credits_posted - debits_posted - debits_pending AS available
          FROM accounts WHERE name = ANY($1)
         UNION
        SELECT id, name, credits_posted - debits_posted - debits_pending
          FROM accounts WHERE kind_of_name(name) IS NOT NULL
         UNION
        SELECT a.id, a.name, a.credits_posted - a.debits_posted - a.debits_pending
          FROM payees e JOIN accounts a ON a.name = 'worker:' || e.payee WHERE e.destination IS NOT NULL
    ), standing AS (
        SELECT r.id, substr(r.name, 8) AS payee, r.available, COALESCE(e.next_try_at, '-infinity') AS next_try_at,
               COALESCE(e.tries, 0) AS tries, d.kind, d.value, d.fallback, d.period_h, d.begins_h,
               COALESCE(d.threshold_msat, 0) AS own_threshold,
               COALESCE(d.kind, CASE WHEN r.name = ANY($1) THEN 'worker' ELSE kind_of_name(r.name) END) AS way,
               COALESCE(d.fallback, CASE WHEN kind_of_name(r.name) = 'onchain' THEN substr(r.name, 8) END) AS address
          FROM reachable r
          ",
    in_force!("r"),
    "
    ), due AS (
        SELECT id, payee, available, next_try_at, tries, kind, value, fallback
          FROM standing s
         WHERE next_try_at <= now()
           AND (CASE way
                    WHEN 'worker' THEN COALESCE('worker:' || value, 'worker:' || payee) = ANY($1)
                    WHEN 'lightning_address' THEN $7
                    ELSE way = 'bolt12'
                END AND LEAST(available, $3) / 1000 * 1000 >= $2 AND available >= LEAST(own_threshold, $3)
                OR (way = 'onchain' OR (tries >= $8 AND address IS NOT NULL))
                   AND $6::bigint IS NOT NULL AND available >= GREATEST($6, own_threshold))
           AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.worker = payee AND p.state = 'reserved')
           AND (period_h IS NULL OR NOT EXISTS (
                SELECT 1 FROM payouts p WHERE p.worker = payee AND p.state = 'paid'
                   AND p.created_at >= period_began(s.period_h, s.begins_h, now())))
         ORDER BY next_try_at, id LIMIT $4
    ), claimed AS (
        INSERT INTO payees AS e (payee, next_try_at)
        SELECT payee, now() + make_interval(secs => $5) FROM due ORDER BY payee
        ON CONFLICT (payee) DO UPDATE SET next_try_at = excluded.next_try_at WHERE e.next_try_at <= now()
        RETURNING e.payee
    )
    SELECT due.payee, due.available, due.tries, due.kind, due.value, due.fallback FROM due JOIN claimed USING (payee)"
);

fn due_payee(row: &PgRow) -> Result<DuePayee, LedgerError> {
    const CORRUPT: LedgerError = LedgerError::Corrupt("payee");
    let kind: Option<&str> = row.try_get("kind")?;
    let stated = match kind {
        Some(kind) => Some(PayTo::kept(
            PayToKind::parse(kind).ok_or(CORRUPT)?,
            row.try_get("value")?,
        )),
        None => None,
    };
    Ok(DuePayee {
        payee: row.try_get("payee")?,
        available: Msat::new(row.try_get("available")?),
        tries: u32::try_from(row.try_get::<i32, _>("tries")?).map_err(|_| CORRUPT)?,
        stated,
        fallback: row.try_get("fallback")?,
    })
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
        sqlx::query(CLAIM)
            .bind(names)
            .bind(query.threshold.get())
            .bind(query.payout_max.get())
            .bind(i64::from(query.limit))
            .bind(lease.as_secs_f64())
            .bind(query.onchain_threshold.map(Msat::get))
            .bind(query.lightning_addresses)
            .bind(i64::from(TRIES_BEFORE_ONCHAIN))
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(due_payee)
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
