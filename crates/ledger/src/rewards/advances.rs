//! What coinbases have paid accounts themselves: noted from the chain when it first shows a block, and taken off their parts
//! when the block matures.

use dovetail_commitment::HeaderHash;
use dovetail_units::Msat;
use sqlx::{PgConnection, Row};

use super::payout_lists::sat;
use crate::LedgerError;
use crate::consistency::Rule;
use crate::transfers::{POOL_COINBASE, POOL_LOSS, TransferId};

/// An output of a coinbase: script and satoshi.
pub type PaidOutput = (Vec<u8>, u64);

/// Notes what a coinbase has paid beside the pool, if all of it is of one payout list; `false` if it is not.
pub(crate) async fn note(
    connection: &mut PgConnection,
    block: HeaderHash,
    outputs: &[PaidOutput],
) -> Result<bool, LedgerError> {
    let amounts: Result<Vec<i64>, LedgerError> = outputs.iter().map(|of| sat(of.1)).collect();
    let noted = sqlx::query(
        "WITH paid AS (SELECT DISTINCT script, amount FROM unnest($2::bytea[], $3::bigint[]) AS given (script, amount)),
              by_list AS (SELECT list FROM payout_list_outputs JOIN paid USING (script) WHERE amount_sat = amount
                           GROUP BY list HAVING count(*) = cardinality($2) ORDER BY list DESC LIMIT 1)
         INSERT INTO block_advances (block, account, amount_sat)
         SELECT $1, account, amount_sat FROM payout_list_outputs JOIN by_list USING (list) JOIN paid USING (script)",
    )
    .bind(block.to_bytes().to_vec())
    .bind(outputs.iter().map(|of| of.0.clone()).collect::<Vec<_>>())
    .bind(amounts?)
    .execute(connection)
    .await?;
    Ok(noted.rows_affected() == outputs.len() as u64)
}

/// What was booked of a block's advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Booked {
    /// In all.
    pub(super) paid: Msat,
    /// Of it, what its accounts did not have.
    pub(super) loss: Msat,
}

/// Takes what a block has paid accounts off what they have, in the transaction that has credited its parts. What an account
/// has not, the pool has paid too much.
pub(super) async fn book(
    connection: &mut PgConnection,
    block: HeaderHash,
) -> Result<Booked, LedgerError> {
    let rows = sqlx::query(
        "SELECT id, amount_sat, credits_posted - debits_posted - debits_pending AS available
           FROM block_advances JOIN accounts ON id = account WHERE block = $1 ORDER BY id FOR NO KEY UPDATE OF accounts",
    )
    .bind(block.to_bytes().to_vec())
    .fetch_all(&mut *connection)
    .await?;
    let mut booked = Booked::default();
    let (mut ids, mut debits, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (account, available): (i64, i64) = (row.try_get("id")?, row.try_get("available")?);
        let paid = row.try_get::<i64, _>("amount_sat")?.checked_mul(1_000);
        let paid = paid.ok_or(LedgerError::Corrupt("advance"))?;
        let own = paid.min(available.max(0));
        let cause = [&block.as_bytes()[..], &account.to_le_bytes()].concat();
        let sum = |sum: Msat, part: i64| {
            let sum = sum.get().checked_add(part).map(Msat::new);
            sum.ok_or(LedgerError::Corrupt("advance"))
        };
        booked.paid = sum(booked.paid, paid)?;
        booked.loss = sum(booked.loss, paid - own)?;
        for (purpose, debit, amount) in [
            ("reward-advance", Some(account), own),
            ("reward-advance-loss", None, paid - own),
        ] {
            if amount > 0 {
                ids.push(TransferId::of(purpose, &cause).to_vec());
                debits.push(debit);
                amounts.push(amount);
            }
        }
    }
    let transfers = ids.len() as u64;
    let written = sqlx::query(
        "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
         SELECT given.id, 'posted', COALESCE(account, loss.id), coinbase.id, amount, 'paid in the coinbase'
           FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS given (id, account, amount)
           JOIN accounts coinbase ON coinbase.name = $4 JOIN accounts loss ON loss.name = $5",
    )
    .bind(ids)
    .bind(debits)
    .bind(amounts)
    .bind(POOL_COINBASE)
    .bind(POOL_LOSS)
    .execute(connection)
    .await?;
    match written.rows_affected() == transfers {
        true => Ok(booked),
        false => Err(LedgerError::Corrupt("accounts of the pool's")),
    }
}

/// What has to hold of them, for `Ledger::check_consistency`.
pub(crate) static RULES: [Rule; 2] = [
    Rule {
        name: "what coinbases have paid accounts is what matured blocks have",
        broken: "
            SELECT 'pool:coinbase' AS name, format('has %s, matured blocks have paid %s', account, blocks) AS what FROM (
                SELECT (SELECT COALESCE(sum(credits_posted - debits_posted), 0) FROM accounts WHERE name = 'pool:coinbase') AS account,
                       (SELECT COALESCE(sum(1000 * amount_sat), 0) FROM block_advances JOIN block_rewards ON header_hash = block
                         WHERE state = 'matured') AS blocks) both_sums
             WHERE account <> blocks",
    },
    Rule {
        name: "a coinbase pays accounts less than its reward",
        broken: "
            SELECT encode(block, 'hex') AS name, format('pays %s msat, accounts %s sat', reward_msat, sum(amount_sat)) AS what
              FROM block_advances JOIN block_rewards ON header_hash = block
             GROUP BY block, reward_msat HAVING sum(amount_sat) * 1000 >= reward_msat",
    },
];
