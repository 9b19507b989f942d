//! What hashes have earned and no transfer has moved yet, for each account, to the last part of a millisatoshi
//! ([`ShareCredit`]). A credit interval's end moves the whole millisatoshi; the rest waits for the next.

use std::collections::BTreeMap;

use dovetail_units::{Msat, ShareCredit};
use sqlx::{PgConnection, PgPool};

use crate::share_set::Sum;
use crate::transfers::POOL_HASH;
use crate::{LedgerError, collateral};

/// Adds the sums of new shares, by account.
pub(crate) async fn add(
    connection: &mut PgConnection,
    sums: &BTreeMap<i32, Sum>,
) -> Result<(), LedgerError> {
    let column = |of: fn(&Sum) -> i64| sums.values().map(of).collect::<Vec<_>>();
    let text = |of: fn(&Sum) -> u128| {
        sums.values()
            .map(|sum| of(sum).to_string())
            .collect::<Vec<_>>()
    };
    // In the order of their numbers, as another pool's set may have the same ones.
    sqlx::query(
        "INSERT INTO hash_credits AS h (account, shares, inference_shares, work, unsettled)
         SELECT account, shares, inference_shares, work::numeric, unsettled::numeric
           FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
             AS given (account, shares, inference_shares, work, unsettled)
         ON CONFLICT (account) DO UPDATE
            SET shares = h.shares + EXCLUDED.shares, work = h.work + EXCLUDED.work,
                inference_shares = h.inference_shares + EXCLUDED.inference_shares,
                unsettled = h.unsettled + EXCLUDED.unsettled",
    )
    .bind(sums.keys().copied().collect::<Vec<_>>())
    .bind(column(|sum| sum.shares))
    .bind(column(|sum| sum.inference_shares))
    .bind(text(|sum| sum.work.get()))
    .bind(text(|sum| sum.credit.get()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Of what an account's held shares come to, the whole millisatoshi; the rest is kept for its next ones.
pub(crate) async fn take_held(
    connection: &mut PgConnection,
    account: i32,
    held: ShareCredit,
) -> Result<Msat, LedgerError> {
    let msat: i64 = sqlx::query_scalar(
        "UPDATE hash_credits h SET held_part = mod(old.held_part + $2::text::numeric, $3::text::numeric)
           FROM (SELECT held_part FROM hash_credits WHERE account = $1 FOR UPDATE) old
          WHERE h.account = $1
         RETURNING div(old.held_part + $2::text::numeric, $3::text::numeric)::bigint",
    )
    .bind(account)
    .bind(held.get().to_string())
    .bind(ShareCredit::PER_MSAT.to_string())
    .fetch_one(connection)
    .await?;
    Ok(Msat::new(msat))
}

/// Accounts that one transaction settles: however many there are, each one is short.
const ACCOUNTS_PER_TRANSACTION: u64 = 2_000;

/// Ends the credit interval: a transfer for each account that has earned a millisatoshi or more.
///
/// # Errors
/// [`LedgerError`]; some accounts may have been settled, and the rest is next time.
pub(crate) async fn settle(pool: &PgPool) -> Result<u64, LedgerError> {
    let mut settled = 0;
    loop {
        let some = collateral::retried(|| settle_some(pool)).await?;
        settled += some;
        if some < ACCOUNTS_PER_TRANSACTION {
            return Ok(settled);
        }
    }
}

/// The bound of `due` is [`ShareCredit::PER_MSAT`], written out: only so does Postgres use the index of accounts that are due.
async fn settle_some(pool: &PgPool) -> Result<u64, LedgerError> {
    let settled = sqlx::query(
        "WITH due AS (
             SELECT account, div(unsettled, $1::text::numeric) AS msat
               FROM hash_credits WHERE unsettled >= 1048576000000000000 ORDER BY account LIMIT $3 FOR UPDATE
         ), moved AS (
             UPDATE hash_credits h
                SET unsettled = h.unsettled - due.msat * $1::text::numeric, settlements = h.settlements + 1
               FROM due WHERE h.account = due.account
             RETURNING h.account, due.msat, h.settlements
         )
         INSERT INTO transfers (id, kind, debit, credit, amount, reason)
         SELECT substr(sha256(convert_to('dovetail/hash-slice/' || account || '/' || settlements, 'UTF8')), 1, 16),
                'posted', pool.id, account, msat::bigint, 'hash'
           FROM moved JOIN accounts pool ON pool.name = $2",
    )
    .bind(ShareCredit::PER_MSAT.to_string())
    .bind(POOL_HASH)
    .bind(i64::try_from(ACCOUNTS_PER_TRANSACTION).unwrap_or(i64::MAX))
    .execute(pool)
    .await?;
    Ok(settled.rows_affected())
}
