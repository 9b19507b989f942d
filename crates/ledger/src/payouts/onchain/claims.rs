//! Whose turn it is, of those who are named by an address.

use std::time::Duration;

use dovetail_units::Msat;
use sqlx::Row;

use crate::payouts::DuePayee;
use crate::{Ledger, LedgerError};

impl Ledger {
    /// Claims payees whose names begin like an address and that have enough: no payout under way, and their time has come;
    /// those who have waited longest first. A name that begins so need be no address.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn claim_address_payees(
        &self,
        prefixes: &[String],
        threshold: Msat,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<DuePayee>, LedgerError> {
        // A worker's key is asked for an invoice, and is nobody's address.
        sqlx::query(
            "WITH due AS (
                 SELECT substr(a.name, 8) AS payee, a.credits_posted - a.debits_posted - a.debits_pending AS available
                   FROM accounts a LEFT JOIN payees e ON e.payee = substr(a.name, 8)
                  WHERE starts_with(a.name, 'worker:') AND a.name !~ '^worker:[0-9a-f]{64}$'
                    AND a.credits_posted - a.debits_posted - a.debits_pending >= $2
                    AND EXISTS (SELECT 1 FROM unnest($1) prefix WHERE starts_with(substr(a.name, 8), prefix))
                    AND COALESCE(e.next_try_at, '-infinity') <= now()
                    AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.worker = substr(a.name, 8) AND p.state = 'reserved')
                  ORDER BY COALESCE(e.next_try_at, '-infinity'), a.id LIMIT $3
             ), claimed AS (
                 INSERT INTO payees AS e (payee, next_try_at)
                 SELECT payee, now() + make_interval(secs => $4) FROM due ORDER BY payee
                 ON CONFLICT (payee) DO UPDATE SET next_try_at = excluded.next_try_at WHERE e.next_try_at <= now()
                 RETURNING e.payee
             )
             SELECT due.payee, due.available FROM due JOIN claimed USING (payee)",
        )
        .bind(prefixes)
        .bind(threshold.get())
        .bind(i64::from(limit))
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
}
