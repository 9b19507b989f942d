//! Payout lists: whom coinbases pay beside the pool. A pool makes them from the window; all pools and declarators on the
//! ledger read them here.

use std::ops::Range;
use std::time::Duration;

use dovetail_rewards::Weight;
use dovetail_units::Msat;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::weight;
use crate::payouts::in_force;
use crate::{Ledger, LedgerError};

/// The advisory lock of those who make lists: one at a time.
const MAKERS: i64 = 7_310_579_402_110_427;

/// An output to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOutput {
    /// Who is paid.
    pub account: String,
    /// The output's script.
    pub script: Vec<u8>,
    /// Its amount.
    pub amount_sat: u64,
}

/// A list that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayoutList {
    /// What blocks that pay it pay at least.
    pub subsidy_sat: u64,
    /// The heights of such blocks.
    pub heights: Range<u32>,
    /// Each to another account and another script.
    pub outputs: Vec<ListedOutput>,
}

/// A list as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutListRecord {
    /// How old it is.
    pub age: Duration,
    /// What blocks that pay it pay at least.
    pub subsidy_sat: u64,
    /// The heights of such blocks.
    pub heights: Range<u32>,
    /// Scripts and amounts, in satoshi.
    pub outputs: Vec<(Vec<u8>, u64)>,
}

/// An account of the window that is paid on-chain, whenever there is something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeavyAccount {
    /// Its name.
    pub account: String,
    /// What it weighs.
    pub weight: Weight,
    /// The address that it is paid at.
    pub address: String,
    /// What it wants to be paid at least.
    pub threshold: Msat,
}

/// Who is paid on-chain now, without those who have named a day.
const HEAVIEST: &str = concat!(
    "
    SELECT substr(a.name, 8) AS account, w.weight::text AS weight, COALESCE(d.threshold_msat, 0) AS threshold,
           COALESCE(d.value, substr(a.name, 8)) AS address
      FROM window_now w JOIN accounts a ON a.id = w.account
      ",
    in_force!("a"),
    "
     WHERE COALESCE(d.kind, kind_of_name(a.name)) = 'onchain' AND d.period_h IS NULL
     ORDER BY w.weight DESC, account LIMIT $1"
);

impl Ledger {
    /// What the window holds, and the heaviest accounts in it that are paid on-chain.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn heaviest_accounts(
        &self,
        limit: u32,
    ) -> Result<(Weight, Vec<HeavyAccount>), LedgerError> {
        let mut snapshot = self.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *snapshot)
            .await?;
        let total = sqlx::query("SELECT COALESCE(sum(weight), 0)::text AS weight FROM window_now")
            .fetch_one(&mut *snapshot)
            .await?;
        let rows = sqlx::query(HEAVIEST)
            .bind(i64::from(limit))
            .fetch_all(&mut *snapshot)
            .await?;
        snapshot.rollback().await?;
        let accounts = rows.iter().map(|row| {
            Ok(HeavyAccount {
                account: row.try_get("account")?,
                weight: weight(row, "weight")?,
                address: row.try_get("address")?,
                threshold: Msat::new(row.try_get("threshold")?),
            })
        });
        let accounts: Result<Vec<HeavyAccount>, LedgerError> = accounts.collect();
        Ok((weight(&total, "weight")?, accounts?))
    }

    /// Makes a list, unless the newest one is younger than `renew_after` and of the same heights, or is empty as this one is;
    /// `false` then.
    ///
    /// # Errors
    /// [`LedgerError`], and nothing has changed.
    pub async fn make_payout_list(
        &self,
        list: &NewPayoutList,
        renew_after: Duration,
    ) -> Result<bool, LedgerError> {
        let mut transaction = self.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(MAKERS)
            .execute(&mut *transaction)
            .await?;
        let first = i64::from(list.heights.start);
        let is_needed: bool = sqlx::query_scalar(
            "SELECT COALESCE((
                SELECT CASE WHEN is_empty THEN NOT $3
                            ELSE $3 OR made_at + make_interval(secs => $1) <= now() OR first_height <> $2 END
                  FROM (SELECT made_at, first_height,
                               NOT EXISTS (SELECT FROM payout_list_outputs WHERE list = number) AS is_empty
                          FROM payout_lists ORDER BY number DESC LIMIT 1) newest), NOT $3)",
        )
        .bind(renew_after.as_secs_f64())
        .bind(first)
        .bind(list.outputs.is_empty())
        .fetch_one(&mut *transaction)
        .await?;
        if !is_needed {
            return Ok(false);
        }
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO payout_lists (subsidy_sat, first_height, end_height) VALUES ($1, $2, $3) RETURNING number",
        )
        .bind(sat(list.subsidy_sat)?)
        .bind(first)
        .bind(i64::from(list.heights.end))
        .fetch_one(&mut *transaction)
        .await?;
        let amounts: Result<Vec<i64>, LedgerError> =
            list.outputs.iter().map(|of| sat(of.amount_sat)).collect();
        let written = sqlx::query(
            "INSERT INTO payout_list_outputs (list, account, script, amount_sat)
             SELECT $1, accounts.id::integer, script, amount
               FROM unnest($2::text[], $3::bytea[], $4::bigint[]) AS given (name, script, amount)
               JOIN accounts ON accounts.name = 'worker:' || given.name",
        )
        .bind(number)
        .bind(
            list.outputs
                .iter()
                .map(|of| of.account.clone())
                .collect::<Vec<_>>(),
        )
        .bind(
            list.outputs
                .iter()
                .map(|of| of.script.clone())
                .collect::<Vec<_>>(),
        )
        .bind(amounts?)
        .execute(&mut *transaction)
        .await?;
        if written.rows_affected() != list.outputs.len() as u64 {
            return Err(LedgerError::Refused(
                "an account of a payout list is not open",
            ));
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// The lists that are not older, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn payout_lists(
        &self,
        age_max: Duration,
    ) -> Result<Vec<PayoutListRecord>, LedgerError> {
        let rows = sqlx::query(
            "SELECT subsidy_sat, first_height, end_height,
                    GREATEST(extract(epoch FROM now() - made_at), 0)::float8 AS age,
                    COALESCE(scripts, '{}') AS scripts, COALESCE(amounts, '{}') AS amounts
               FROM payout_lists LEFT JOIN LATERAL (
                    SELECT array_agg(script ORDER BY account) AS scripts, array_agg(amount_sat ORDER BY account) AS amounts
                      FROM payout_list_outputs WHERE list = number) outputs ON true
              WHERE made_at > now() - make_interval(secs => $1) ORDER BY number",
        )
        .bind(age_max.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(record).collect()
    }
}

fn record(row: &PgRow) -> Result<PayoutListRecord, LedgerError> {
    const CORRUPT: LedgerError = LedgerError::Corrupt("payout list");
    let unsigned = |column: &str| -> Result<u64, LedgerError> {
        u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| CORRUPT)
    };
    let height = |column| u32::try_from(unsigned(column)?).map_err(|_| CORRUPT);
    let scripts: Vec<Vec<u8>> = row.try_get("scripts")?;
    let amounts: Vec<i64> = row.try_get("amounts")?;
    let amounts: Result<Vec<u64>, _> = amounts.into_iter().map(u64::try_from).collect();
    let age: f64 = row.try_get("age")?;
    Ok(PayoutListRecord {
        age: Duration::try_from_secs_f64(age).map_err(|_| CORRUPT)?,
        subsidy_sat: unsigned("subsidy_sat")?,
        heights: height("first_height")?..height("end_height")?,
        outputs: scripts
            .into_iter()
            .zip(amounts.map_err(|_| CORRUPT)?)
            .collect(),
    })
}

/// An amount as the database has it.
pub(super) fn sat(amount: u64) -> Result<i64, LedgerError> {
    i64::try_from(amount).map_err(|_| LedgerError::Refused("an amount is more than all bitcoin"))
}

/// Drops lists that no job has any more.
pub(super) async fn drop_old(pool: &PgPool) -> Result<i64, LedgerError> {
    let dropped = sqlx::query_scalar("SELECT drop_payout_lists()");
    Ok(dropped.fetch_one(pool).await?)
}
