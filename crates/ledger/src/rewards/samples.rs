//! The points that a block's hash draws on the window that it was divided over, and what shows the share on which each falls.

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, CountedShare, LeafProof, ShareProof, Slice, SliceRoot, SumTree, Weight, locate,
    points,
};
use sqlx::Row;
use tokio::task::spawn_blocking;

use super::book::tally;
use super::{broken, pieces, read_number, slice_number, weight};
use crate::tasks::array;
use crate::{Ledger, LedgerError};

/// An account with more shares in one slice is not shown: all of them are needed, 32 bytes each.
pub const LEAF_SHARES_MAX: u64 = 1 << 18;
/// How many pieces are read at a time, of some hundred kilobytes each.
const PIECES_AT_ONCE: i64 = 4;

/// The window of a block, as points are drawn on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleWindow {
    block: HeaderHash,
    first: u64,
    totals: Vec<Weight>,
    newest: SliceRoot,
    /// Whether what shows its shares is still there.
    is_kept: bool,
}

/// What shows the share on which a point falls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPoint {
    /// The slice.
    pub slice: u64,
    /// The leaf.
    pub leaf: LeafProof,
    /// The leaf's shares, in their order; none if they are not kept.
    pub shares: Vec<CountedShare>,
    /// What shows the share; `None` if it is not kept.
    pub proof: Option<ShareProof>,
}

impl SampleWindow {
    /// Whether what shows the shares of all its slices is kept. Before a pool kept it, and once no block needs it any more, it is
    /// not.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Where the point with this number falls; `None` if the window is empty.
    fn point(&self, number: u32) -> Option<(u64, u128)> {
        let total = self
            .totals
            .iter()
            .try_fold(Weight::ZERO, |sum, of| sum.checked_add(*of));
        let count = number.checked_add(1)?;
        let point = points(&self.block, &self.newest, total.ok()?, count).last()?;
        let place = locate(point, self.totals.iter().copied())?;
        Some((self.first + place.index as u64, place.offset))
    }
}

impl Ledger {
    /// The window that a block was divided over; `None` if no such block was, or its finder has it all.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn sample_window(
        &self,
        block: HeaderHash,
    ) -> Result<Option<SampleWindow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT number, total::text AS total, root, number >= GREATEST(work_from, shares_from)
                    AND EXISTS (SELECT FROM slice_shares WHERE slice = number) AS is_kept
               FROM block_rewards JOIN reward_slices ON number BETWEEN first_slice AND last_slice, reward_chain
              WHERE header_hash = $1 ORDER BY number",
        )
        .bind(block.to_bytes().to_vec())
        .fetch_all(&self.pool)
        .await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(None);
        };
        let first = read_number(first.try_get("number")?)?;
        let totals: Result<Vec<Weight>, LedgerError> =
            rows.iter().map(|row| weight(row, "total")).collect();
        let mut is_kept = true;
        for row in &rows {
            is_kept &= row.try_get::<bool, _>("is_kept")?;
        }
        Ok(Some(SampleWindow {
            block,
            first,
            totals: totals?,
            newest: SliceRoot::from_bytes(array(last.try_get("root")?)?),
            is_kept,
        }))
    }

    /// What shows the share on which the point with this number falls. O(accounts and shares of the slice).
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn shown_point(
        &self,
        window: &SampleWindow,
        number: u32,
    ) -> Result<Option<ShownPoint>, LedgerError> {
        let Some((slice, offset)) = window.point(number) else {
            return Ok(None);
        };
        let Some(found) = self.leaf_at(slice, offset).await? else {
            return Ok(None);
        };
        let (leaf, offset) = found;
        let (shares, proof) = match leaf.tally.shares {
            ..=LEAF_SHARES_MAX => self.kept_shares(slice, &leaf.account, offset).await?,
            _ => Default::default(),
        };
        Ok(Some(ShownPoint {
            slice,
            leaf,
            shares,
            proof,
        }))
    }

    /// The leaf that has this point of its slice, and where on the leaf the point lies.
    async fn leaf_at(
        &self,
        slice: u64,
        offset: u128,
    ) -> Result<Option<(LeafProof, u128)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT substr(name, 8) AS name, weight::text AS weight, shares, evidence
               FROM slice_work JOIN accounts ON id = account WHERE slice = $1",
        )
        .bind(slice_number(slice)?)
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let accounts: Result<Vec<_>, LedgerError> = rows.iter().map(tally).collect();
        let slice = Slice::from_parts(slice, accounts?);
        let slice = slice.map_err(|error| broken(&error.to_string()))?;
        // A tenth of a second for the largest slice: not where others' connections are served.
        let made = spawn_blocking(move || {
            let weights = slice.accounts().values().map(|tally| tally.weight);
            let place = locate(offset, weights)?;
            let (account, _) = slice.accounts().iter().nth(place.index)?;
            let account = account.clone();
            let leaf = SumTree::new(slice).proof(&account)?;
            Some((leaf, place.offset))
        });
        made.await
            .map_err(|_| LedgerError::Refused("the slice's tree was not built"))
    }

    /// An account's shares in a slice, and what shows the one that has this point of them.
    async fn kept_shares(
        &self,
        slice: u64,
        account: &AccountId,
        offset: u128,
    ) -> Result<(Vec<CountedShare>, Option<ShareProof>), LedgerError> {
        let (mut shares, mut shown) = (Vec::new(), None);
        let (mut before, mut next) = (0_u128, 0_i32);
        loop {
            let rows = sqlx::query(
                "SELECT piece, bytes FROM slice_shares WHERE slice = $1 AND piece >= $2 ORDER BY piece LIMIT $3",
            )
            .bind(slice_number(slice)?)
            .bind(next)
            .bind(PIECES_AT_ONCE)
            .fetch_all(&self.pool)
            .await?;
            let Some(last) = rows.last() else { break };
            next = last.try_get::<i32, _>("piece")?.saturating_add(1);
            for row in &rows {
                let kept = pieces::read(row.try_get("bytes")?);
                let kept = kept.ok_or(LedgerError::Corrupt("shares of a slice"))?;
                for share in kept.into_iter().filter(|share| share.account == *account) {
                    let end = before + share.counted.weight.get();
                    if (before..end).contains(&offset) {
                        shown = share.proof;
                    }
                    before = end;
                    shares.push(share.counted);
                }
            }
        }
        Ok((shares, shown))
    }
}
