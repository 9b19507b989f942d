//! The partitions of `shares`, by height: made ahead of what is written to them, dropped as a whole when nobody needs them.

use std::collections::BTreeSet;

use sqlx::PgPool;

use crate::LedgerError;
use crate::begin::begin;
use crate::share_set::ShareSet;

/// Blocks in a partition, as in `make_share_partition` of the schema: about a day.
const BLOCKS: i32 = 144;

/// Which partitions are known to be there.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// By their first height. Heights are those of the pool's own templates, so there are few.
    made: BTreeSet<i32>,
    keep_blocks: i32,
    dropped_below: i32,
}

impl Partitions {
    pub(crate) fn new(keep_blocks: u32) -> Self {
        Self {
            made: BTreeSet::new(),
            keep_blocks: i32::try_from(keep_blocks).unwrap_or(i32::MAX),
            dropped_below: 0,
        }
    }

    /// Makes the partitions that the set needs, and each one's next.
    pub(crate) async fn prepare(
        &mut self,
        pool: &PgPool,
        set: &ShareSet<'_>,
    ) -> Result<(), LedgerError> {
        let needed: BTreeSet<i32> = set
            .heights()
            .map(|height| height / BLOCKS * BLOCKS)
            .collect();
        for first in needed {
            self.make(pool, first).await?;
            // Ahead of time. It is not needed yet, so nothing waits for it.
            if let Err(error) = self.make(pool, first.saturating_add(BLOCKS)).await {
                tracing::warn!(%error, "cannot make the next partition of shares yet");
            }
        }
        Ok(())
    }

    async fn make(&mut self, pool: &PgPool, first: i32) -> Result<(), LedgerError> {
        if !self.made.contains(&first) {
            sqlx::query("SELECT make_share_partition($1)")
                .bind(first)
                .execute(pool)
                .await?;
            self.made.insert(first);
        }
        Ok(())
    }

    /// Nobody knows any more which are there: another pool may have dropped some.
    pub(crate) fn forget(&mut self) {
        self.made.clear();
    }

    /// Drops what is older than shares are kept. If it cannot be done now, it is done later.
    pub(crate) async fn drop_old(&mut self, pool: &PgPool) {
        let newest = self
            .made
            .last()
            .map_or(0, |last| last.saturating_sub(BLOCKS));
        let below = newest.saturating_sub(self.keep_blocks);
        if below <= self.dropped_below {
            return;
        }
        match drop_below(pool, below).await {
            Ok(dropped) => {
                self.dropped_below = below;
                self.made
                    .retain(|first| first.saturating_add(BLOCKS) > below);
                if dropped > 0 {
                    tracing::info!(dropped, below, "dropped partitions of old shares");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot drop the partitions of old shares yet"),
        }
    }
}

async fn drop_below(pool: &PgPool, below: i32) -> Result<i32, LedgerError> {
    let mut transaction = begin(pool).await?;
    // Whoever reads shares at length is not waited for, and nobody waits behind us.
    sqlx::query("SET LOCAL lock_timeout = '2s'")
        .execute(&mut *transaction)
        .await?;
    let dropped = sqlx::query_scalar("SELECT drop_share_partitions($1)")
        .bind(below)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(dropped)
}
