//! The work of each device of an account: a statistic for its miner, which moves no money. Miners name their devices as
//! they like, so an account has a bounded number of them, and those that are idle for long are forgotten.

use serde::Serialize;
use sqlx::Row;

use crate::{Ledger, LedgerError};
use dovetail_units::Work;

/// Devices of one account that are told apart. The work of further ones is that of no device in particular.
pub const DEVICES_PER_ACCOUNT_MAX: i64 = 1_024;
/// Days after its last share for which a device is remembered.
const IDLE_DAYS_MAX: i32 = 30;

/// Work of a device that was counted since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceWork {
    /// Whom it is credited to.
    pub account: String,
    /// What the miner calls the device; empty if it has no name.
    pub device: String,
    /// What its shares proved.
    pub work: Work,
    /// How many they were.
    pub shares: u64,
}

/// What a device has done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceRecord {
    /// What the miner calls it; empty for the work of no device in particular.
    pub device: String,
    /// Shares since it was first seen.
    pub shares: u64,
    /// Expected hashes since it was first seen. Text, because JSON numbers are not that wide.
    pub work: String,
    /// Hashes per second over this hour and the one before.
    pub hash_rate: f64,
    /// When it was first seen, in Unix seconds.
    pub first_share_unix: i64,
    /// When it was last seen, in Unix seconds.
    pub last_share_unix: i64,
}

impl Ledger {
    /// Adds what devices have done. Beyond [`DEVICES_PER_ACCOUNT_MAX`] of an account, it is added to the device with the
    /// empty name.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]; nothing was added then.
    pub async fn add_device_work(&self, counted: &[DeviceWork]) -> Result<(), LedgerError> {
        let text = |of: fn(&DeviceWork) -> String| counted.iter().map(of).collect::<Vec<String>>();
        let shares = counted.iter();
        let shares = shares.map(|each| i64::try_from(each.shares).unwrap_or(i64::MAX));
        let mut transaction = self.begin().await?;
        // One writer at a time: two would count the same account's devices and both add the last one.
        sqlx::query("LOCK TABLE devices IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "WITH counted AS (
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
                     AS counted(account, device, work, shares)
             ), placed AS (
                 SELECT counted.*, known.device IS NOT NULL AS is_known,
                        (SELECT count(*) FROM devices WHERE devices.account = counted.account)
                        + row_number() OVER (
                              PARTITION BY counted.account, known.device IS NULL
                              ORDER BY counted.work::numeric DESC, counted.device) AS place
                 FROM counted LEFT JOIN devices known USING (account, device)
             ), named AS (
                 SELECT account, CASE WHEN is_known OR place < $5 THEN device ELSE '' END AS device,
                        sum(work::numeric) AS work, sum(shares)::bigint AS shares,
                        floor(extract(epoch FROM now()) / 3600)::bigint AS hour
                 FROM placed GROUP BY 1, 2
             )
             INSERT INTO devices AS old (account, device, shares, work, hour, hour_work, hour_before_work)
             SELECT account, device, shares, work, hour, work, 0 FROM named
             ON CONFLICT (account, device) DO UPDATE SET
                 shares = old.shares + excluded.shares,
                 work = old.work + excluded.work,
                 hour = excluded.hour,
                 hour_work = excluded.work
                     + CASE WHEN old.hour = excluded.hour THEN old.hour_work ELSE 0 END,
                 hour_before_work = CASE excluded.hour - old.hour
                     WHEN 0 THEN old.hour_before_work WHEN 1 THEN old.hour_work ELSE 0 END,
                 last_share_at = now()",
        )
        .bind(text(|each| each.account.clone()))
        .bind(text(|each| each.device.clone()))
        .bind(text(|each| each.work.get().to_string()))
        .bind(shares.collect::<Vec<i64>>())
        .bind(DEVICES_PER_ACCOUNT_MAX)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The devices of an account, the last seen first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn devices(&self, account: &str) -> Result<Vec<DeviceRecord>, LedgerError> {
        let rows = sqlx::query(
            "SELECT device, shares, work::text AS work,
                    extract(epoch FROM first_share_at)::bigint AS first_share,
                    extract(epoch FROM last_share_at)::bigint AS last_share,
                    (CASE this.hour - devices.hour WHEN 0 THEN hour_work + hour_before_work
                                           WHEN 1 THEN hour_work ELSE 0 END
                     / greatest(60, least(extract(epoch FROM now()) - (this.hour - 1) * 3600,
                                          extract(epoch FROM now() - first_share_at))))::float8 AS hash_rate
             FROM devices, (SELECT floor(extract(epoch FROM now()) / 3600)::bigint AS hour) AS this
             WHERE account = $1 ORDER BY last_share_at DESC, device LIMIT $2",
        )
        .bind(account)
        .bind(DEVICES_PER_ACCOUNT_MAX)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let shares: i64 = row.try_get("shares")?;
                Ok(DeviceRecord {
                    device: row.try_get("device")?,
                    shares: u64::try_from(shares).map_err(|_| LedgerError::Corrupt("device"))?,
                    work: row.try_get("work")?,
                    hash_rate: row.try_get("hash_rate")?,
                    first_share_unix: row.try_get("first_share")?,
                    last_share_unix: row.try_get("last_share")?,
                })
            })
            .collect()
    }

    /// Forgets devices that have not been seen for a month; how many they were.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn forget_idle_devices(&self) -> Result<u64, LedgerError> {
        let done = sqlx::query(
            "DELETE FROM devices WHERE last_share_at < now() - make_interval(days => $1)",
        )
        .bind(IDLE_DAYS_MAX)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
