//! Where payees want to be paid: the statements that they have proven. A statement is a fact; it holds from a time on,
//! unless a newer one came before. So of a payee's newest statement and the one that it replaces, one holds.
//!
//! Whether a statement is its owner's is the caller's to find out.

use std::time::Duration;

use dovetail_payee::{PayTo, PayToKind, Schedule, Statement};
use dovetail_units::Msat;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::lock_payee;
use crate::transfers::worker_account;
use crate::{Ledger, LedgerError};

/// How many statements of one payee are taken in a day.
const PER_DAY_MAX: i64 = 16;

/// A statement, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRecord {
    /// Where the payee is paid.
    pub pay_to: PayTo,
    /// The Bitcoin address for what cannot be paid over Lightning.
    pub fallback: Option<String>,
    /// What it is paid at least; `None`: what the pool pays at least.
    pub threshold: Option<Msat>,
    /// When it is paid.
    pub schedule: Schedule,
    /// When it was stated, by the payee's clock, in seconds of Unix time.
    pub made_unix: u64,
    /// From when on it holds, by the ledger's clock.
    pub active_from_unix: u64,
}

/// What a payee has stated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destinations {
    /// What holds; `None`: the payee is paid where its name says.
    pub active: Option<DestinationRecord>,
    /// What will hold, if no newer statement comes before.
    pub pending: Option<DestinationRecord>,
}

/// Why a statement was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StatementRefusal {
    /// Nobody has earned anything under this name.
    #[error("the account has earned nothing yet")]
    AccountUnknown,
    /// The same, or an older one: somebody may be repeating it.
    #[error(
        "a statement of the account that is newer, or as old, was taken before: make a new one"
    )]
    Stale,
    /// A row for ever is kept for each.
    #[error("the account has stated {PER_DAY_MAX} times within a day: wait for tomorrow")]
    TooMany,
    /// Postgres.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for StatementRefusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

/// What [`record_of`] reads, of `destinations` under this name.
macro_rules! columns {
    ($table:literal) => {
        concat!(
            $table,
            ".kind, ",
            $table,
            ".value, ",
            $table,
            ".fallback, ",
            $table,
            ".threshold_msat, ",
            $table,
            ".period_h, ",
            $table,
            ".begins_h, extract(epoch FROM ",
            $table,
            ".made_at)::bigint AS made, extract(epoch FROM ",
            $table,
            ".active_from)::bigint AS active_from, ",
            $table,
            ".active_from <= now() AS is_active"
        )
    };
}

fn record_of(row: &PgRow) -> Result<DestinationRecord, LedgerError> {
    const CORRUPT: LedgerError = LedgerError::Corrupt("destination");
    let kind = PayToKind::parse(row.try_get("kind")?).ok_or(CORRUPT)?;
    let unsigned = |name: &str| -> Result<u64, LedgerError> {
        u64::try_from(row.try_get::<i64, _>(name)?).map_err(|_| CORRUPT)
    };
    Ok(DestinationRecord {
        pay_to: PayTo::kept(kind, row.try_get("value")?),
        fallback: row.try_get("fallback")?,
        threshold: row
            .try_get::<Option<i64>, _>("threshold_msat")?
            .map(Msat::new),
        schedule: schedule_of(row)?,
        made_unix: unsigned("made")?,
        active_from_unix: unsigned("active_from")?,
    })
}

fn schedule_of(row: &PgRow) -> Result<Schedule, LedgerError> {
    const CORRUPT: LedgerError = LedgerError::Corrupt("schedule");
    let hours = |name: &str| -> Result<Option<u16>, LedgerError> {
        let hours: Option<i16> = row.try_get(name)?;
        hours
            .map(|hours| u16::try_from(hours).map_err(|_| CORRUPT))
            .transpose()
    };
    let period = hours("period_h")?.zip(hours("begins_h")?);
    Schedule::of_period_h(period).ok_or(CORRUPT)
}

impl Ledger {
    /// Takes a statement whose proof was verified. Where it leaves the destination as it is, it holds at once; else after
    /// `hold`, so that a payee whose key was stolen can notice and state otherwise. The newest one again changes nothing.
    ///
    /// # Errors
    /// [`StatementRefusal`].
    pub async fn state_destination(
        &self,
        statement: &Statement,
        proof: &[u8],
        hold: Duration,
    ) -> Result<DestinationRecord, StatementRefusal> {
        let payee = &statement.account;
        let mut transaction = self.begin().await?;
        let is_known: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE name = $1)")
                .bind(worker_account(payee))
                .fetch_one(&mut *transaction)
                .await?;
        if !is_known {
            return Err(StatementRefusal::AccountUnknown);
        }
        lock_payee(&mut transaction, payee).await?;
        let stated = stated(&mut transaction, payee).await?;
        let newest = stated.pending.as_ref().or(stated.active.as_ref());
        if let Some(newest) = newest
            && newest.made_unix >= statement.made_unix
        {
            return match same(newest, statement) {
                true => Ok(newest.clone()),
                false => Err(StatementRefusal::Stale),
            };
        }
        let today: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM destinations WHERE payee = $1 AND created_at > now() - interval '1 day'",
        )
        .bind(payee)
        .fetch_one(&mut *transaction)
        .await?;
        if today >= PER_DAY_MAX {
            return Err(StatementRefusal::TooMany);
        }
        let hold = match leads_elsewhere(stated.active.as_ref(), statement) {
            true => hold,
            false => Duration::ZERO,
        };
        insert(&mut transaction, statement, proof, hold).await?;
        let taken = stated_newest(&mut transaction, payee).await?;
        transaction.commit().await?;
        taken.ok_or(StatementRefusal::Ledger(LedgerError::Corrupt(
            "destination",
        )))
    }

    /// What the payee has stated.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn destinations(&self, payee: &str) -> Result<Destinations, LedgerError> {
        stated(&mut *self.pool.acquire().await?, payee).await
    }
}

/// Whether it is what was stated.
fn same(record: &DestinationRecord, statement: &Statement) -> bool {
    let threshold = record.threshold.map(|msat| msat.get().unsigned_abs());
    (
        record.made_unix,
        &record.pay_to,
        &record.fallback,
        threshold,
        record.schedule,
    ) == (
        statement.made_unix,
        &statement.pay_to,
        &statement.fallback,
        statement.threshold_msat,
        statement.schedule,
    )
}

/// Whether money would go to another place than it goes to now. A threshold or a schedule leads nowhere.
fn leads_elsewhere(active: Option<&DestinationRecord>, statement: &Statement) -> bool {
    match active {
        Some(active) => {
            (&active.pay_to, &active.fallback) != (&statement.pay_to, &statement.fallback)
        }
        // The name itself says where: a worker's key, or an address.
        None => statement.pay_to.value() != statement.account || statement.fallback.is_some(),
    }
}

async fn insert(
    connection: &mut PgConnection,
    statement: &Statement,
    proof: &[u8],
    hold: Duration,
) -> Result<(), LedgerError> {
    let threshold = statement
        .threshold_msat
        .map(i64::try_from)
        .transpose()
        .map_err(|_| LedgerError::Refused("a threshold is out of range"))?;
    let made = i64::try_from(statement.made_unix)
        .map_err(|_| LedgerError::Refused("a time is out of range"))?;
    let hours = |hours: u16| i16::try_from(hours).unwrap_or(i16::MAX);
    let period = statement.schedule.period_h();
    sqlx::query(
        "INSERT INTO destinations (payee, kind, value, fallback, threshold_msat, period_h, begins_h, made_at, statement,
                                   proof, created_at, active_from)
         VALUES ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8), $9, $10, now(), now() + make_interval(secs => $11))",
    )
    .bind(&statement.account)
    .bind(statement.pay_to.kind().name())
    .bind(statement.pay_to.value())
    .bind(&statement.fallback)
    .bind(threshold)
    .bind(period.map(|(length, _)| hours(length)))
    .bind(period.map(|(_, begins)| hours(begins)))
    .bind(made)
    .bind(statement.message())
    .bind(proof)
    .bind(hold.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn stated_newest(
    connection: &mut PgConnection,
    payee: &str,
) -> Result<Option<DestinationRecord>, LedgerError> {
    let stated = stated(connection, payee).await?;
    Ok(stated.pending.or(stated.active))
}

async fn stated(connection: &mut PgConnection, payee: &str) -> Result<Destinations, LedgerError> {
    let newest = concat!(
        "SELECT n.replaces, ",
        columns!("n"),
        " FROM payees e JOIN destinations n ON n.id = e.destination WHERE e.payee = $1"
    );
    let row = sqlx::query(newest)
        .bind(payee)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else {
        return Ok(Destinations::default());
    };
    let newest = record_of(&row)?;
    if row.try_get("is_active")? {
        return Ok(Destinations {
            active: Some(newest),
            pending: None,
        });
    }
    let replaced: Option<i64> = row.try_get("replaces")?;
    let select = concat!(
        "SELECT ",
        columns!("d"),
        " FROM destinations d WHERE d.id = $1"
    );
    let active = sqlx::query(select)
        .bind(replaced)
        .fetch_optional(connection)
        .await?;
    Ok(Destinations {
        active: active.as_ref().map(record_of).transpose()?,
        pending: Some(newest),
    })
}
