//! What shows the shares of slices, until it is written with the slices that they are counted in.

use std::collections::BTreeMap;

use dovetail_rewards::{AccountId, CountedShare, ShareProof};
use sqlx::{PgConnection, Row};

use super::pieces::{KeptShare, pieces};
use super::{RewardsConfig, slice_number};
use crate::LedgerError;

/// What is not written yet.
pub(super) struct KeptShares {
    /// Whether the shares of the open slice are kept. If it was begun without, it ends without: an account's shares in a slice
    /// can be shown only all together.
    is_open_kept: bool,
    /// The slice that was written to last, and how many pieces it has.
    written: (u64, i32),
    /// By their slice, the oldest first.
    shares: BTreeMap<u64, Vec<KeptShare>>,
}

impl KeptShares {
    /// Of the open slice.
    pub(super) async fn read(
        connection: &mut PgConnection,
        config: &RewardsConfig,
        open: u64,
    ) -> Result<Self, LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT COALESCE(max(piece) + 1, 0) FROM slice_shares WHERE slice = $1) AS pieces,
                    (SELECT COALESCE(sum(shares), 0) FROM slice_shares WHERE slice = $1)
                  = (SELECT COALESCE(sum(shares), 0) FROM open_slice_work) AS is_whole",
        )
        .bind(slice_number(open)?)
        .fetch_one(connection)
        .await?;
        let is_whole: bool = row.try_get("is_whole")?;
        Ok(Self {
            is_open_kept: is_whole && config.keep_shares.is_some(),
            written: (open, row.try_get("pieces")?),
            shares: BTreeMap::new(),
        })
    }

    /// A share is counted in the open slice, which has this number.
    pub(super) fn add(
        &mut self,
        slice: u64,
        account: &AccountId,
        counted: CountedShare,
        proof: Option<&ShareProof>,
    ) {
        // What weighs nothing is no part of a slice.
        if self.is_open_kept && counted.weight.get() > 0 {
            self.shares.entry(slice).or_default().push(KeptShare {
                account: account.clone(),
                counted,
                proof: proof.cloned(),
            });
        }
    }

    /// The open slice has closed, and another one is open.
    pub(super) fn begin_slice(&mut self, is_kept: bool) {
        self.is_open_kept = is_kept;
    }

    /// The slices that there is something of.
    pub(super) fn slices(&self) -> impl Iterator<Item = u64> {
        self.shares.keys().copied()
    }

    /// Writes what is not written yet.
    pub(super) async fn write(&mut self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        for (slice, shares) in std::mem::take(&mut self.shares) {
            if self.written.0 != slice {
                self.written = (slice, 0);
            }
            for piece in pieces(&shares) {
                sqlx::query(
                    "INSERT INTO slice_shares (slice, piece, shares, bytes) VALUES ($1, $2, $3, $4)",
                )
                .bind(slice_number(slice)?)
                .bind(self.written.1)
                .bind(piece.shares)
                .bind(piece.bytes)
                .execute(&mut *connection)
                .await?;
                self.written.1 += 1;
            }
        }
        Ok(())
    }
}
