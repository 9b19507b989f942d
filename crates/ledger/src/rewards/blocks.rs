//! A block's life: submitted -> active <-> orphaned, as the chain has it, and matured once its coinbase can be spent. Only
//! then money moves: once, and to whom the division says.

use dovetail_commitment::HeaderHash;
use dovetail_units::Msat;
use sqlx::{PgConnection, Row};

use super::advances::{self, PaidOutput};
use super::division::Solved;
use super::{RewardsConfig, SliceBook};
use crate::tasks::array;
use crate::transfers::{POOL_FEES, POOL_REWARDS, Phase, Transfer, TransferId, transfer};
use crate::{Ledger, LedgerError, collateral};

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewardState {
    /// The chain has not shown it yet.
    Submitted,
    /// The chain has it.
    Active,
    /// The chain had it, or another one in its place.
    Orphaned,
    /// It is so deep that its coinbase can be spent, and its parts are credited.
    Matured,
    /// No chain took it.
    Refused,
}

impl RewardState {
    const ALL: [Self; 5] = [
        Self::Submitted,
        Self::Active,
        Self::Orphaned,
        Self::Matured,
        Self::Refused,
    ];

    /// As the ledger has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Active => "active",
            Self::Orphaned => "orphaned",
            Self::Matured => "matured",
            Self::Refused => "refused",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, LedgerError> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or(LedgerError::Corrupt("state of a block"))
    }
}

/// A block whose end is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReward {
    /// The block.
    pub block: HeaderHash,
    /// Its height.
    pub height: u32,
    /// Where it stands.
    pub state: RewardState,
    /// What it pays the pool.
    pub reward: Msat,
}

/// What a block that has matured came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaturedReward {
    /// What it paid the pool.
    pub reward: Msat,
    /// What the pool keeps of it.
    pub fee: Msat,
    /// How many accounts were credited with the rest.
    pub accounts: u64,
    /// What of it its coinbase had paid accounts itself ..
    pub paid_ahead: Msat,
    /// .. and what of this they did not have: the pool has paid too much.
    pub loss: Msat,
}

/// Whom a coinbase pays beside the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BesidePool {
    /// Nobody, or accounts as a payout list says.
    Accounts,
    /// Others, whom no payout list names so.
    Others,
}

impl Ledger {
    /// Blocks whose end is not known, the lowest first. Orphaned ones end nowhere: only those of this height and above.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn open_rewards(
        &self,
        orphaned_from: u32,
        limit: u32,
    ) -> Result<Vec<OpenReward>, LedgerError> {
        let rows = sqlx::query(
            "SELECT header_hash, height, state, reward_msat FROM block_rewards
              WHERE state IN ('submitted', 'active') OR (state = 'orphaned' AND height >= $1) ORDER BY height LIMIT $2",
        )
        .bind(i32::try_from(orphaned_from).unwrap_or(i32::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let open = rows.iter().map(|row| {
            let (height, state): (i32, String) = (row.try_get("height")?, row.try_get("state")?);
            Ok(OpenReward {
                block: HeaderHash::from_bytes(array(row.try_get("header_hash")?)?),
                height: u32::try_from(height).map_err(|_| LedgerError::Corrupt("height"))?,
                state: RewardState::parse(&state)?,
                reward: Msat::new(row.try_get("reward_msat")?),
            })
        });
        open.collect()
    }

    /// Notes what the chain says of a block; `false` if it stands there already, or the block does not go there from where
    /// it is. A block whose coinbase is known becomes active with [`Ledger::note_active`], and it matures with
    /// [`Ledger::mature_reward`] only.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_reward(
        &self,
        block: HeaderHash,
        state: RewardState,
    ) -> Result<bool, LedgerError> {
        note(&mut *self.pool.acquire().await?, state, block).await
    }

    /// Notes that the chain has a block, and what its coinbase has paid beside the pool: a part of its division that has been
    /// paid ahead. `None` if it is known to have it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_active(
        &self,
        block: HeaderHash,
        paid_beside: &[PaidOutput],
    ) -> Result<Option<BesidePool>, LedgerError> {
        let mut transaction = self.begin().await?;
        let state: Option<String> = sqlx::query_scalar(
            "SELECT state FROM block_rewards WHERE header_hash = $1 FOR NO KEY UPDATE",
        )
        .bind(block.to_bytes().to_vec())
        .fetch_optional(&mut *transaction)
        .await?;
        // One that has left the chain and is back was looked at when the chain had it first.
        let beside = match state.as_deref() {
            Some("submitted") if advances::note(&mut transaction, block, paid_beside).await? => {
                BesidePool::Accounts
            }
            Some("submitted") => BesidePool::Others,
            Some("orphaned") => BesidePool::Accounts,
            _ => return Ok(None),
        };
        note(&mut transaction, RewardState::Active, block).await?;
        transaction.commit().await?;
        Ok(Some(beside))
    }

    /// Credits each account with its part of an active block whose coinbase can be spent now; `None` if the block is not
    /// active, because it has matured before.
    ///
    /// # Errors
    /// [`LedgerError`], and nothing has moved.
    pub async fn mature_reward(
        &self,
        block: HeaderHash,
    ) -> Result<Option<MaturedReward>, LedgerError> {
        collateral::retried(|| self.try_mature(block)).await
    }

    /// Divides a block that the chain has and no share was logged for: the pool stopped in between. `false` if it was divided
    /// before, or only its finder could have it, whom nobody knows.
    ///
    /// # Errors
    /// [`LedgerError`], and nothing has changed.
    pub async fn divide_found_block(
        &self,
        config: &RewardsConfig,
        block: HeaderHash,
        height: u32,
        reward_sat: u64,
    ) -> Result<bool, LedgerError> {
        let mut transaction = self.begin().await?;
        let found = Solved {
            block,
            height,
            reward_sat,
            finder: None,
        };
        let mut book = SliceBook::new(config.clone());
        let is_new = book.divide_found(&mut transaction, &found).await?;
        transaction.commit().await?;
        Ok(is_new)
    }

    /// Whether a block was divided.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn has_reward(&self, block: HeaderHash) -> Result<bool, LedgerError> {
        let known =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM block_rewards WHERE header_hash = $1)");
        Ok(known
            .bind(block.to_bytes().to_vec())
            .fetch_one(&self.pool)
            .await?)
    }

    /// Up to which height the chain was searched for such blocks; `None` if it never was.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn searched_height(&self) -> Result<Option<u32>, LedgerError> {
        let height: Option<i32> = sqlx::query_scalar("SELECT searched_height FROM reward_chain")
            .fetch_one(&self.pool)
            .await?;
        let height = height.map(u32::try_from).transpose();
        height.map_err(|_| LedgerError::Corrupt("height"))
    }

    /// The chain was searched up to here; `None`: what it has by now is not to be divided.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_searched(&self, height: Option<u32>) -> Result<(), LedgerError> {
        sqlx::query("UPDATE reward_chain SET searched_height = $1")
            .bind(height.map(|height| i32::try_from(height).unwrap_or(i32::MAX)))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn try_mature(&self, block: HeaderHash) -> Result<Option<MaturedReward>, LedgerError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "UPDATE block_rewards SET state = 'matured' WHERE header_hash = $1 AND state = 'active'
             RETURNING reward_msat, fee_msat",
        )
        .bind(block.to_bytes().to_vec())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let credits = sqlx::query(
            "SELECT account, amount_msat FROM block_credits WHERE block = $1 ORDER BY account",
        )
        .bind(block.to_bytes().to_vec())
        .fetch_all(&mut *transaction)
        .await?;
        let (mut ids, mut accounts, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
        for credit in &credits {
            let account: i32 = credit.try_get("account")?;
            let cause = [&block.as_bytes()[..], &account.to_le_bytes()].concat();
            ids.push(TransferId::of("reward", &cause).to_vec());
            accounts.push(i64::from(account));
            amounts.push(credit.try_get::<i64, _>("amount_msat")?);
        }
        sqlx::query(
            "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
             SELECT given.id, 'posted', pool.id, account, amount, 'reward'
               FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS given (id, account, amount)
               JOIN accounts pool ON pool.name = $4",
        )
        .bind(ids)
        .bind(accounts)
        .bind(amounts)
        .bind(POOL_REWARDS)
        .execute(&mut *transaction)
        .await?;
        let fee = Msat::new(row.try_get("fee_msat")?);
        let kept = Transfer {
            id: TransferId::of("reward-fee", block.as_bytes()),
            phase: Phase::Posted,
            debit: POOL_REWARDS,
            credit: POOL_FEES,
            amount: fee,
            reason: "reward fee",
        };
        transfer(&mut transaction, &kept).await?;
        let advances = advances::book(&mut transaction, block).await?;
        transaction.commit().await?;
        Ok(Some(MaturedReward {
            reward: Msat::new(row.try_get("reward_msat")?),
            fee,
            accounts: credits.len() as u64,
            paid_ahead: advances.paid,
            loss: advances.loss,
        }))
    }
}

async fn note(
    connection: &mut PgConnection,
    state: RewardState,
    block: HeaderHash,
) -> Result<bool, LedgerError> {
    let from: &[&str] = match state {
        RewardState::Active => &["submitted", "orphaned"],
        RewardState::Orphaned => &["submitted", "active"],
        RewardState::Refused => &["submitted"],
        RewardState::Submitted | RewardState::Matured => &[],
    };
    let noted = sqlx::query(
        "UPDATE block_rewards SET state = $2 WHERE header_hash = $1 AND state = ANY($3)",
    )
    .bind(block.to_bytes().to_vec())
    .bind(state.name())
    .bind(from)
    .execute(connection)
    .await?;
    Ok(noted.rows_affected() == 1)
}
