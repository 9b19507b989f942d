//! What is kept of slices: made ahead of what is written, a partition of 1,024 slices at a time, and dropped as a whole when
//! no block needs it. The functions of migration 26 see to it that nothing is dropped that one does, whoever calls them.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use super::{RewardsConfig, payout_lists, read_number, slice_number};
use crate::begin::begin;
use crate::{Ledger, LedgerError};

/// Slices in a partition, as in `make_slice_partitions` of the schema.
const SLICES: u64 = 1_024;

/// Makes the partitions of these slices, in the transaction that has locked the chain; returns up to which slice there are
/// partitions now.
pub(super) async fn make(
    connection: &mut PgConnection,
    first: u64,
    last: u64,
) -> Result<u64, LedgerError> {
    sqlx::query("SELECT make_slice_partitions($1, $2)")
        .bind(slice_number(first)?)
        .bind(slice_number(last)?)
        .execute(connection)
        .await?;
    Ok(last / SLICES * SLICES + SLICES)
}

/// Drops what is older than it is kept. If it cannot be done now, it is done later.
pub(crate) async fn drop_old(pool: &PgPool, config: &RewardsConfig) {
    let keep_shares = config.keep_shares.unwrap_or_default();
    for (table, keep) in [
        ("slice_work", config.keep_slices),
        ("slice_shares", keep_shares),
    ] {
        match drop_partitions(pool, table, keep).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(table, dropped, "dropped partitions of old slices"),
            Err(error) => {
                tracing::warn!(table, %error, "cannot drop the partitions of old slices yet");
            }
        }
    }
    if let Err(error) = payout_lists::drop_old(pool).await {
        tracing::warn!(%error, "cannot drop old payout lists yet");
    }
}

async fn drop_partitions(pool: &PgPool, table: &str, keep: Duration) -> Result<i32, LedgerError> {
    let mut transaction = begin(pool).await?;
    // Whoever reads slices at length is not waited for, and nobody waits behind us.
    sqlx::query("SET LOCAL lock_timeout = '2s'")
        .execute(&mut *transaction)
        .await?;
    let dropped =
        sqlx::query_scalar("SELECT drop_slice_partitions($1, now() - make_interval(secs => $2))")
            .bind(table)
            .bind(keep.as_secs_f64())
            .fetch_one(&mut *transaction)
            .await?;
    transaction.commit().await?;
    Ok(dropped)
}

impl Ledger {
    /// The first slice whose accounts' work is kept. Before it there are headers only.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn slices_kept_from(&self) -> Result<u64, LedgerError> {
        let from = sqlx::query_scalar("SELECT work_from FROM reward_chain");
        read_number(from.fetch_one(&self.pool).await?)
    }
}
