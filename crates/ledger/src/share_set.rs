//! Hash shares in one go: a group of them costs three statements, whatever its size. Shares with a batch, and those whose
//! credit is held, are written one by one ([`crate::shares`]).

use std::collections::{BTreeSet, HashSet};

use sqlx::{PgConnection, Row};

use crate::shares::Share;
use crate::transfers::{POOL_HASH, TransferId, worker_account};
use crate::{CommitRefusal, LedgerError};

/// Whether the share may be written with others in one statement.
pub(crate) fn fits(share: &Share) -> bool {
    share.batch.is_none() && !share.is_coinbase_only
}

/// Writes these shares, all of which [`fits`], inside the caller's savepoint. Of the same proof twice the first counts.
/// `None` if a transfer of one of them is there without its share, which one by one will say.
///
/// # Errors
/// [`LedgerError`] also if a single one of them is not taken. Nothing of the set counts then.
pub(crate) async fn write_set(
    connection: &mut PgConnection,
    shares: &[&Share],
) -> Result<Option<Vec<Result<(), CommitRefusal>>>, LedgerError> {
    let mut seen = HashSet::new();
    let first: Vec<bool> = shares
        .iter()
        .map(|share| seen.insert(share.header_hash))
        .collect();
    let of_first = || {
        let shares = shares.iter().zip(&first);
        shares.filter_map(|(share, is_first)| is_first.then_some(*share))
    };
    let inserted = insert(connection, &of_first().collect::<Vec<_>>()).await?;
    let credited: Vec<&Share> = of_first()
        .filter(|share| inserted.contains(share.header_hash.as_bytes().as_slice()))
        .filter(|share| share.credit.get() > 0)
        .collect();
    if !credited.is_empty() && !credit(connection, &credited).await? {
        return Ok(None);
    }
    let outcome = |(share, is_first): (&&Share, &bool)| {
        let is_new = *is_first && inserted.contains(share.header_hash.as_bytes().as_slice());
        is_new.then_some(()).ok_or(CommitRefusal::DuplicateShare)
    };
    Ok(Some(shares.iter().zip(&first).map(outcome).collect()))
}

/// Inserts shares of different proofs; the proofs of those that were not there.
async fn insert(
    connection: &mut PgConnection,
    shares: &[&Share],
) -> Result<HashSet<Vec<u8>>, LedgerError> {
    let column = |of: fn(&Share) -> String| -> Vec<String> {
        shares.iter().map(|share| of(share)).collect()
    };
    let inserted = sqlx::query(
        "INSERT INTO shares (header_hash, account, kind, work, credit_msat, is_block)
         SELECT header_hash, account, 'hash', work::numeric, credit, is_block
           FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::boolean[])
             AS given (header_hash, account, work, credit, is_block)
         ON CONFLICT (header_hash) DO NOTHING RETURNING header_hash",
    )
    .bind(hashes(shares))
    .bind(column(|share| share.account.clone()))
    .bind(column(|share| share.work.get().to_string()))
    .bind(credits(shares))
    .bind(
        shares
            .iter()
            .map(|share| share.is_block)
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let hashes = inserted.iter().map(|row| row.try_get("header_hash"));
    Ok(hashes.collect::<Result<_, _>>()?)
}

/// Credits the hashes of new shares, each with a transfer of its own. `false` if one of the transfers was there.
async fn credit(connection: &mut PgConnection, shares: &[&Share]) -> Result<bool, LedgerError> {
    let accounts: Vec<String> = shares
        .iter()
        .map(|share| worker_account(&share.account))
        .collect();
    // In one order, as another group may open the same ones.
    let names: BTreeSet<&str> = accounts
        .iter()
        .map(String::as_str)
        .chain([POOL_HASH])
        .collect();
    sqlx::query(
        "INSERT INTO accounts (name, never_negative)
         SELECT name, name <> $2 FROM unnest($1::text[]) AS given (name)
          WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.name = given.name)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(names.into_iter().collect::<Vec<_>>())
    .bind(POOL_HASH)
    .execute(&mut *connection)
    .await?;
    let ids = shares
        .iter()
        .map(|share| TransferId::of_hashes(share.header_hash).to_vec());
    let posted = sqlx::query(
        "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
         SELECT given.id, 'posted', pool.id, a.id, given.amount, 'hash'
           FROM unnest($1::bytea[], $2::text[], $3::bigint[]) AS given (id, account, amount)
           JOIN accounts a ON a.name = given.account
           JOIN accounts pool ON pool.name = $4
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(ids.collect::<Vec<_>>())
    .bind(accounts)
    .bind(credits(shares))
    .bind(POOL_HASH)
    .execute(&mut *connection)
    .await?;
    Ok(posted.rows_affected() == shares.len() as u64)
}

fn hashes(shares: &[&Share]) -> Vec<Vec<u8>> {
    let hashes = shares
        .iter()
        .map(|share| share.header_hash.to_bytes().to_vec());
    hashes.collect()
}

fn credits(shares: &[&Share]) -> Vec<i64> {
    shares.iter().map(|share| share.credit.get()).collect()
}
