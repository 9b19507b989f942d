//! The steps of an attempt: prepared -> dispatched -> succeeded | failed | review. A trigger refuses every other one.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{ATTEMPT, Attempt, AttemptState, NewAttempt, not_a_step, used_before};
use crate::{Ledger, LedgerError};

/// The longest time between two tries to pay a payee, in seconds.
const RETRY_S_MAX: f64 = 3_600.0;
/// A failed attempt is looked at again after this, and then ever more seldom: it may have succeeded late.
const LATE_CHECK: Duration = Duration::from_secs(10);
/// Why an attempt failed that an earlier one of the same invoice made needless.
const SUPERSEDED: &str = "superseded";

/// Notes a new attempt; the wallet may hear of it once this is committed.
pub(super) async fn insert(
    connection: &mut PgConnection,
    payout: [u8; 32],
    n: i32,
    attempt: &NewAttempt,
    check_in: Duration,
) -> Result<(), LedgerError> {
    let expires_at = i64::try_from(attempt.expires_at_unix).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO attempts (id, payout, n, rail, destination, payment_hash, fee_max_msat, cltv_max, expires_at,
                               state, next_check_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp(LEAST($9, 253402300799)), 'prepared',
                 now() + make_interval(secs => $10))",
    )
    .bind(attempt.id.to_vec())
    .bind(payout.to_vec())
    .bind(n)
    .bind(attempt.rail.name())
    .bind(&attempt.destination)
    .bind(attempt.payment_hash.map(|hash| hash.to_vec()))
    .bind(attempt.fee_max.get())
    .bind(i32::from(attempt.cltv_max))
    .bind(expires_at)
    .bind(check_in.as_secs_f64())
    .execute(connection)
    .await
    .map_err(used_before)?;
    Ok(())
}

impl Ledger {
    /// Prepares the next attempt of a payout whose attempts have all failed, with the same invoice or offer. An earlier
    /// one of the same invoice is not looked at any more: what the wallet learns of the hash, it says of the newest.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the payout has ended or has an attempt that has not failed, [`LedgerError::Conflict`] if
    /// the name was used before.
    pub async fn prepare_attempt(
        &self,
        payout: [u8; 32],
        id: [u8; 32],
        check_in: Duration,
    ) -> Result<Attempt, LedgerError> {
        let mut transaction = self.begin().await?;
        let last = AssertSqlSafe(format!(
            "SELECT {ATTEMPT}, a.n FROM payouts p JOIN attempts a ON a.payout = p.id
              WHERE p.id = $1 ORDER BY a.n DESC LIMIT 1 FOR UPDATE OF p"
        ));
        let row = sqlx::query(last)
            .bind(payout.to_vec())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(LedgerError::Refused("no such payout, or it has no attempt"))?;
        let (last, n) = (super::attempt_of(&row)?, row.try_get::<i32, _>("n")?);
        let is_due =
            last.state == AttemptState::Failed && last.payout_state == super::PayoutState::Reserved;
        if !is_due {
            return Err(LedgerError::Refused(
                "the payout has ended, or an attempt of it has not failed",
            ));
        }
        let next = NewAttempt {
            id,
            rail: last.rail,
            destination: last.destination,
            payment_hash: last.payment_hash,
            fee_max: last.fee_max,
            cltv_max: last.cltv_max,
            expires_at_unix: last.expires_at_unix,
        };
        insert(&mut transaction, payout, n + 1, &next, check_in).await?;
        sqlx::query(
            "UPDATE attempts SET next_check_at = NULL
              WHERE payout = $1 AND n <= $2 AND rail = 'bolt11' AND state = 'failed'",
        )
        .bind(payout.to_vec())
        .bind(n)
        .execute(&mut *transaction)
        .await?;
        let prepared = locked(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(prepared)
    }

    /// prepared -> dispatched: the wallet has said that it is under way. Once more is harmless.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it has ended.
    pub async fn note_dispatched(
        &self,
        attempt: [u8; 32],
        check_in: Duration,
    ) -> Result<(), LedgerError> {
        self.note(attempt, "dispatched", None, check_in).await
    }

    /// prepared | dispatched -> review: nobody can know what became of it.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it has ended.
    pub async fn note_review(
        &self,
        attempt: [u8; 32],
        reason: &str,
        check_in: Duration,
    ) -> Result<(), LedgerError> {
        self.note(attempt, "review", Some(reason), check_in).await
    }

    async fn note(
        &self,
        attempt: [u8; 32],
        state: &str,
        failure_class: Option<&str>,
        check_in: Duration,
    ) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE attempts SET state = $2, failure_class = COALESCE(failure_class, $3),
                    next_check_at = now() + make_interval(secs => $4) WHERE id = $1",
        )
        .bind(attempt.to_vec())
        .bind(state)
        .bind(failure_class)
        .bind(check_in.as_secs_f64())
        .execute(&self.pool)
        .await
        .map_err(|error| not_a_step(error, "the attempt has ended"))?;
        Ok(())
    }

    /// An open attempt -> failed. Only for one that the wallet has proven failed, or never heard of and never will. Its
    /// payee's next try waits, twice as long each time, from `backoff` up to an hour; without one it does not wait for this.
    /// Once more is harmless.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it has succeeded.
    pub async fn note_failed(
        &self,
        attempt: [u8; 32],
        failure_class: &str,
        backoff: Option<Duration>,
    ) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        let before = locked(&mut transaction, attempt).await?;
        if before.state == AttemptState::Failed {
            return Ok(());
        }
        sqlx::query(
            "UPDATE attempts SET state = 'failed', failure_class = $2, ended_at = now(),
                    next_check_at = now() + make_interval(secs => $3) WHERE id = $1",
        )
        .bind(attempt.to_vec())
        .bind(failure_class)
        .bind(LATE_CHECK.as_secs_f64())
        .execute(&mut *transaction)
        .await
        .map_err(|error| not_a_step(error, "the attempt has succeeded"))?;
        if let Some(backoff) = backoff {
            put_off(&mut transaction, &before.payee, failure_class, backoff).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// When the attempt is looked at next; `None`: never again.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_checked(
        &self,
        attempt: [u8; 32],
        check_in: Option<Duration>,
    ) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE attempts SET next_check_at = now() + make_interval(secs => $2) WHERE id = $1",
        )
        .bind(attempt.to_vec())
        .bind(check_in.map(|wait| wait.as_secs_f64()))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A payee could not be paid before an attempt was made. Its next try waits, twice as long each time.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn put_payee_off(
        &self,
        payee: &str,
        failure_class: &str,
        backoff: Duration,
    ) -> Result<(), LedgerError> {
        let mut connection = self.pool.acquire().await?;
        put_off(&mut connection, payee, failure_class, backoff).await
    }
}

pub(super) async fn put_off(
    connection: &mut PgConnection,
    payee: &str,
    failure_class: &str,
    backoff: Duration,
) -> Result<(), LedgerError> {
    // Up to half of the time is left off by chance, so that payees who failed together do not come back together.
    sqlx::query(
        "INSERT INTO payees AS e (payee, tries, failure_class, next_try_at)
         VALUES ($1, 1, $2, now() + make_interval(secs => LEAST($3, $4) * (0.5 + random() / 2)))
         ON CONFLICT (payee) DO UPDATE SET tries = e.tries + 1, failure_class = excluded.failure_class,
             next_try_at = now() + make_interval(
                 secs => LEAST($3, $4 * power(2, LEAST(e.tries, 30))) * (0.5 + random() / 2))",
    )
    .bind(payee)
    .bind(failure_class)
    .bind(RETRY_S_MAX)
    .bind(backoff.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

/// The attempt and its payout, under locks of both rows.
pub(super) async fn locked(
    connection: &mut PgConnection,
    attempt: [u8; 32],
) -> Result<Attempt, LedgerError> {
    // The payout's lock comes first everywhere.
    let lock =
        "SELECT 1 FROM payouts WHERE id = (SELECT payout FROM attempts WHERE id = $1) FOR UPDATE";
    sqlx::query(lock)
        .bind(attempt.to_vec())
        .execute(&mut *connection)
        .await?;
    let read = AssertSqlSafe(format!(
        "SELECT {ATTEMPT} FROM attempts a JOIN payouts p ON p.id = a.payout WHERE a.id = $1 FOR UPDATE OF a"
    ));
    let row = sqlx::query(read)
        .bind(attempt.to_vec())
        .fetch_optional(connection)
        .await?
        .ok_or(LedgerError::Refused("no such attempt"))?;
    super::attempt_of(&row)
}

/// Attempts of this payout and hash that the wallet need not hear of any more: the invoice is paid.
pub(super) async fn supersede(
    connection: &mut PgConnection,
    payout: [u8; 32],
    payment_hash: [u8; 32],
) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE attempts SET state = 'failed', failure_class = $3, ended_at = now(),
                next_check_at = now() + make_interval(secs => $4)
          WHERE payout = $1 AND payment_hash = $2 AND state = 'prepared'",
    )
    .bind(payout.to_vec())
    .bind(payment_hash.to_vec())
    .bind(SUPERSEDED)
    .bind(LATE_CHECK.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}
