//! What an account has of blocks.

use dovetail_commitment::HeaderHash;
use dovetail_units::Msat;
use sqlx::Row;

use super::{RewardState, weight};
use crate::tasks::array;
use crate::transfers::worker_account;
use crate::{Ledger, LedgerError};
use dovetail_rewards::Weight;

/// An account's part of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockCredit {
    /// The block.
    pub block: HeaderHash,
    /// Its height.
    pub height: u32,
    /// Where it stands. Only a matured one is on the balance.
    pub state: RewardState,
    /// The part.
    pub amount: Msat,
    /// What the block's coinbase has paid the account itself: the part less this is credited.
    pub paid_ahead: Msat,
    /// What the block pays the pool.
    pub reward: Msat,
    /// What the pool keeps of it.
    pub fee: Msat,
}

/// What an account has of blocks, and will have of the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EarnedRewards {
    /// Of blocks that have not matured, and that the chain has, or has not shown yet; less what their coinbases have paid.
    pub immature: Msat,
    /// Of blocks that have.
    pub matured: Msat,
    /// What the account weighs in the window ..
    pub weight: Weight,
    /// .. of so much.
    pub window: Weight,
    /// The newest blocks that it has a part of, the newest first.
    pub blocks: Vec<BlockCredit>,
}

impl Ledger {
    /// What this account has of blocks; the newest `limit` of them one by one.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn earned_rewards(
        &self,
        account: &str,
        limit: u32,
    ) -> Result<EarnedRewards, LedgerError> {
        let sums = sqlx::query(
            "WITH me AS (SELECT id::integer AS id FROM accounts WHERE name = $1)
             SELECT COALESCE(sum(GREATEST(amount_msat - 1000 * COALESCE(amount_sat, 0), 0))
                       FILTER (WHERE state IN ('submitted', 'active')), 0)::bigint AS immature,
                    COALESCE(sum(amount_msat) FILTER (WHERE state = 'matured'), 0)::bigint AS matured,
                    (SELECT COALESCE(sum(w.weight), 0)::text FROM window_now w WHERE w.account = (SELECT id FROM me)) AS weight,
                    (SELECT COALESCE(sum(weight), 0)::text FROM window_now) AS total
               FROM me JOIN block_credits c ON c.account = id JOIN block_rewards ON header_hash = c.block
               LEFT JOIN block_advances a ON a.block = c.block AND a.account = c.account",
        )
        .bind(worker_account(account))
        .fetch_one(&self.pool)
        .await?;
        let rows = sqlx::query(
            "SELECT header_hash, height, state, amount_msat, reward_msat, fee_msat, COALESCE(1000 * amount_sat, 0) AS ahead
               FROM block_credits c JOIN block_rewards ON header_hash = c.block
               LEFT JOIN block_advances a ON a.block = c.block AND a.account = c.account
              WHERE c.account = (SELECT id FROM accounts WHERE name = $1)
              ORDER BY height DESC, header_hash LIMIT $2",
        )
        .bind(worker_account(account))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let blocks: Result<Vec<BlockCredit>, LedgerError> = rows
            .iter()
            .map(|row| {
                let (height, state): (i32, String) =
                    (row.try_get("height")?, row.try_get("state")?);
                Ok(BlockCredit {
                    block: HeaderHash::from_bytes(array(row.try_get("header_hash")?)?),
                    height: u32::try_from(height).map_err(|_| LedgerError::Corrupt("height"))?,
                    state: RewardState::parse(&state)?,
                    amount: Msat::new(row.try_get("amount_msat")?),
                    paid_ahead: Msat::new(row.try_get("ahead")?),
                    reward: Msat::new(row.try_get("reward_msat")?),
                    fee: Msat::new(row.try_get("fee_msat")?),
                })
            })
            .collect();
        Ok(EarnedRewards {
            immature: Msat::new(sums.try_get("immature")?),
            matured: Msat::new(sums.try_get("matured")?),
            weight: weight(&sums, "weight")?,
            window: weight(&sums, "total")?,
            blocks: blocks?,
        })
    }
}
