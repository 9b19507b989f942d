//! Sums of shares over minutes, hours and days: what pages show. They are written with the shares, so a page reads a few
//! rows however many shares there are.

use std::collections::BTreeMap;

use dovetail_units::{Msat, ShareCredit};
use sqlx::{PgConnection, PgPool, Row};

use crate::share_record::LoggedShare;
use crate::share_set::Sum;
use crate::transfers::worker_account;
use crate::{Ledger, LedgerError};

/// What a sum is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// A minute; kept for two days.
    Minute,
    /// An hour; kept for ninety days.
    Hour,
    /// A day; kept.
    Day,
}

impl Span {
    const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its length.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// How long its sums are kept, in seconds.
    const fn kept_s(self) -> Option<i64> {
        match self {
            Self::Minute => Some(2 * 86_400),
            Self::Hour => Some(90 * 86_400),
            Self::Day => None,
        }
    }
}

/// What an account, or the pool, did in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSum {
    /// When it began, in seconds since 1970.
    pub starts_at_unix: u64,
    /// How many shares.
    pub shares: u64,
    /// Their work. Text, since it may be wider than any integer.
    pub work: String,
    /// What their hashes earned, held or not, rounded down.
    pub credit: Msat,
}

/// A line of an account's statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLine {
    /// When, in seconds since 1970.
    pub unix: u64,
    /// `posted`, `pending`, `post` or `void`.
    pub kind: String,
    /// What for.
    pub reason: String,
    /// Positive if it came to the account.
    pub amount_msat: i64,
}

/// The account that stands for all together.
const ALL_ACCOUNTS: i32 = 0;

/// Sums that are not in the ledger yet, by account, span and begin.
#[derive(Debug, Default)]
pub(crate) struct SpanSums(BTreeMap<(i32, Span, u64), Sum>);

impl SpanSums {
    pub(crate) fn add(&mut self, account: i32, share: &LoggedShare) {
        for span in Span::ALL {
            let start = share.unix - share.unix % u64::from(span.seconds());
            for account in [ALL_ACCOUNTS, account] {
                self.0.entry((account, span, start)).or_default().add(share);
            }
        }
    }

    pub(crate) async fn add_to(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let sums = || self.0.iter();
        let starts = sums().map(|((_, _, start), _)| i64::try_from(*start));
        let starts: Result<Vec<i64>, _> = starts.collect();
        let starts = starts.map_err(|_| LedgerError::Corrupt("time of a share"))?;
        let span = |span: Span| i32::try_from(span.seconds()).unwrap_or(i32::MAX);
        let credit = |sum: &Sum| sum.credit.saturating_add(sum.held).get().to_string();
        sqlx::query(
            "INSERT INTO share_sums AS s (account, span_s, starts_at, shares, work, credit)
             SELECT account, span_s, starts_at, shares, work::numeric, credit::numeric
               FROM unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::text[])
                 AS given (account, span_s, starts_at, shares, work, credit)
             ON CONFLICT (account, span_s, starts_at) DO UPDATE
                SET shares = s.shares + EXCLUDED.shares, work = s.work + EXCLUDED.work,
                    credit = s.credit + EXCLUDED.credit",
        )
        .bind(sums().map(|((account, ..), _)| *account).collect::<Vec<_>>())
        .bind(sums().map(|((_, of, _), _)| span(*of)).collect::<Vec<_>>())
        .bind(starts)
        .bind(sums().map(|(_, sum)| sum.shares).collect::<Vec<_>>())
        .bind(sums().map(|(_, sum)| sum.work.get().to_string()).collect::<Vec<_>>())
        .bind(sums().map(|(_, sum)| credit(sum)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Deletes sums that are older than they are kept.
pub(crate) async fn drop_old(pool: &PgPool, unix_now: u64) -> Result<u64, LedgerError> {
    let mut dropped = 0;
    for span in Span::ALL {
        let Some(kept_s) = span.kept_s() else {
            continue;
        };
        let before = i64::try_from(unix_now).unwrap_or(i64::MAX) - kept_s;
        let done = sqlx::query("DELETE FROM share_sums WHERE span_s = $1 AND starts_at < $2")
            .bind(i32::try_from(span.seconds()).unwrap_or(i32::MAX))
            .bind(before)
            .execute(pool)
            .await?;
        dropped += done.rows_affected();
    }
    Ok(dropped)
}

impl Ledger {
    /// What an account, or `None` the whole pool, did from a time on, span by span, the newest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn share_sums(
        &self,
        account: Option<&str>,
        span: Span,
        since_unix: u64,
        limit: u32,
    ) -> Result<Vec<SpanSum>, LedgerError> {
        let rows = sqlx::query(
            "SELECT starts_at, shares, work::text AS work,
                    LEAST(div(credit, $5::text::numeric), 9223372036854775807)::bigint AS credit_msat
               FROM share_sums
              WHERE account = CASE WHEN $1::text IS NULL THEN 0
                                   ELSE (SELECT id FROM accounts WHERE name = $1) END
                AND span_s = $2 AND starts_at >= $3 ORDER BY starts_at DESC LIMIT $4",
        )
        .bind(account.map(worker_account))
        .bind(i32::try_from(span.seconds()).unwrap_or(i32::MAX))
        .bind(i64::try_from(since_unix).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .bind(ShareCredit::PER_MSAT.to_string())
        .fetch_all(&self.pool)
        .await?;
        let unsigned = |number: i64| u64::try_from(number).map_err(|_| LedgerError::Corrupt("sum"));
        rows.iter()
            .map(|row| {
                Ok(SpanSum {
                    starts_at_unix: unsigned(row.try_get("starts_at")?)?,
                    shares: unsigned(row.try_get("shares")?)?,
                    work: row.try_get("work")?,
                    credit: Msat::new(row.try_get("credit_msat")?),
                })
            })
            .collect()
    }

    /// What moved an account's money, the newest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn statement(
        &self,
        account: &str,
        limit: u32,
    ) -> Result<Vec<StatementLine>, LedgerError> {
        let rows = sqlx::query(
            "SELECT floor(extract(epoch FROM created_at))::bigint AS unix, kind, reason, amount FROM (
                 (SELECT created_at, kind, reason, amount FROM transfers
                   WHERE credit = (SELECT id FROM accounts WHERE name = $1) ORDER BY created_at DESC LIMIT $2)
                 UNION ALL
                 (SELECT created_at, kind, reason, -amount FROM transfers
                   WHERE debit = (SELECT id FROM accounts WHERE name = $1) ORDER BY created_at DESC LIMIT $2)) lines
              ORDER BY created_at DESC LIMIT $2",
        )
        .bind(worker_account(account))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let unix: i64 = row.try_get("unix")?;
                Ok(StatementLine {
                    unix: u64::try_from(unix).map_err(|_| LedgerError::Corrupt("transfer"))?,
                    kind: row.try_get("kind")?,
                    reason: row.try_get("reason")?,
                    amount_msat: row.try_get("amount")?,
                })
            })
            .collect()
    }
}
