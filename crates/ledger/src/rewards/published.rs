//! Slices as they are published, and what an account is shown of its own.

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, DivisionRule, LeafProof, PoolFee, Slice, SliceHeader, SliceRoot, SumTree,
    WindowLength,
};
use dovetail_units::Msat;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::task::spawn_blocking;

use super::book::tally;
use super::statements::BlockSignature;
use super::{RewardState, broken, read_number, slice_number, weight};
use crate::tasks::array;
use crate::transfers::worker_account;
use crate::{Ledger, LedgerError};

/// How many slices one answer has at most.
pub const SLICES_PER_ANSWER_MAX: u32 = 1_024;

/// A closed slice, as anybody may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSlice {
    /// The header.
    pub header: SliceHeader,
    /// Who signed its root.
    pub signer: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
}

/// What is published of a block that was divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedBlock {
    /// Its hash.
    pub block: HeaderHash,
    /// Its height.
    pub height: u32,
    /// Where it stands.
    pub state: RewardState,
    /// What its coinbase pays the pool.
    pub reward: Msat,
    /// What the pool keeps ..
    pub fee: Msat,
    /// .. and which part of the reward that is.
    pub fee_part: PoolFee,
    /// By which rule it was divided.
    pub rule: DivisionRule,
    /// The window; `None` if the finder has it all.
    pub window: Option<PublishedWindow>,
    /// Who has signed all of this but the state; `None` for a block from before migration 25.
    pub signed: Option<BlockSignature>,
}

/// The window that a block was divided over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedWindow {
    /// Its oldest slice.
    pub first: u64,
    /// Its newest slice.
    pub last: u64,
    /// How much it holds, once so much was mined.
    pub length: WindowLength,
}

/// In which slices an account has work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSlices {
    /// The slices.
    pub numbers: Vec<u64>,
    /// The first slice that was not looked at.
    pub next: u64,
}

impl Ledger {
    /// Slices from this number on, the oldest first, at most [`SLICES_PER_ANSWER_MAX`].
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn published_slices(
        &self,
        from: u64,
        limit: u32,
    ) -> Result<Vec<PublishedSlice>, LedgerError> {
        let rows = sqlx::query(
            "SELECT number, previous, accounts, total::text AS total, top, signer, signature
               FROM reward_slices WHERE number >= $1 ORDER BY number LIMIT $2",
        )
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(i64::from(limit.min(SLICES_PER_ANSWER_MAX)))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(published).collect()
    }

    /// The leaf of this account in a slice, with its way to the slice's root; `None` if it has no share in it, or there is no
    /// such slice.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn slice_leaf(
        &self,
        slice: u64,
        account: &str,
    ) -> Result<Option<LeafProof>, LedgerError> {
        let Ok(account_id) = AccountId::new(account) else {
            return Ok(None);
        };
        // Most accounts are asked for in slices that they are not in, if a stranger asks.
        let is_in: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM slice_work JOIN accounts ON id = account WHERE slice = $1 AND name = $2)",
        )
        .bind(i64::try_from(slice).unwrap_or(i64::MAX))
        .bind(worker_account(account))
        .fetch_one(&self.pool)
        .await?;
        if !is_in {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT substr(name, 8) AS name, weight::text AS weight, shares, evidence
               FROM slice_work JOIN accounts ON id = account WHERE slice = $1",
        )
        .bind(slice_number(slice)?)
        .fetch_all(&self.pool)
        .await?;
        let accounts: Result<Vec<_>, LedgerError> = rows.iter().map(tally).collect();
        let slice = Slice::from_parts(slice, accounts?);
        let slice = slice.map_err(|error| broken(&error.to_string()))?;
        // A tenth of a second for the largest slice: not where others' connections are served.
        let proof = spawn_blocking(move || SumTree::new(slice).proof(&account_id)).await;
        proof.map_err(|_| LedgerError::Refused("the slice's tree was not built"))
    }

    /// The closed slices from this number on in which an account has work, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn account_slices(
        &self,
        account: &str,
        from: u64,
        limit: u32,
    ) -> Result<AccountSlices, LedgerError> {
        // First, so that a slice that closes meanwhile is one that was not looked at.
        let newest: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM reward_slices")
            .fetch_one(&self.pool)
            .await?;
        let end = newest.map(read_number).transpose()?;
        let end = end.map_or(0, |newest| newest + 1);
        let numbers: Vec<i64> = sqlx::query_scalar(
            "SELECT slice FROM slice_work
              WHERE account = (SELECT id::integer FROM accounts WHERE name = $1) AND slice BETWEEN $2 AND $3
              ORDER BY slice LIMIT $4",
        )
        .bind(worker_account(account))
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(newest.unwrap_or(-1))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let numbers: Result<Vec<u64>, _> = numbers.into_iter().map(read_number).collect();
        let numbers = numbers?;
        let is_all = u32::try_from(numbers.len()).is_ok_and(|found| found < limit);
        let next = match numbers.last() {
            Some(last) if !is_all => last + 1,
            _ => end.max(from),
        };
        Ok(AccountSlices { numbers, next })
    }

    /// The highest blocks that were divided, of this height and below, the highest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn published_blocks(
        &self,
        height_max: u32,
        limit: u32,
    ) -> Result<Vec<PublishedBlock>, LedgerError> {
        let rows = sqlx::query(
            "SELECT header_hash, height, state, scheme, reward_msat, fee_msat, fee_millionths, first_slice, last_slice, length,
                    parts, parts_top, signer, signature
               FROM block_rewards WHERE height <= $1 ORDER BY height DESC, header_hash LIMIT $2",
        )
        .bind(i32::try_from(height_max).unwrap_or(i32::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(block).collect()
    }

    /// A block, if it was divided.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn published_block(
        &self,
        hash: HeaderHash,
    ) -> Result<Option<PublishedBlock>, LedgerError> {
        let row = sqlx::query(
            "SELECT header_hash, height, state, scheme, reward_msat, fee_msat, fee_millionths, first_slice, last_slice, length,
                    parts, parts_top, signer, signature
               FROM block_rewards WHERE header_hash = $1",
        )
        .bind(hash.to_bytes().to_vec())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(block).transpose()
    }
}

fn published(row: &PgRow) -> Result<PublishedSlice, LedgerError> {
    let accounts: i32 = row.try_get("accounts")?;
    let signature: Vec<u8> = row.try_get("signature")?;
    Ok(PublishedSlice {
        header: SliceHeader {
            number: read_number(row.try_get("number")?)?,
            previous: SliceRoot::from_bytes(array(row.try_get("previous")?)?),
            accounts: u32::try_from(accounts).map_err(|_| LedgerError::Corrupt("slice"))?,
            total: weight(row, "total")?,
            top: array(row.try_get("top")?)?,
        },
        signer: array(row.try_get("signer")?)?,
        signature: signature
            .try_into()
            .map_err(|_| LedgerError::Corrupt("signature"))?,
    })
}

pub(super) fn block(row: &PgRow) -> Result<PublishedBlock, LedgerError> {
    let (height, state): (i32, String) = (row.try_get("height")?, row.try_get("state")?);
    let number = |column: &str| -> Result<Option<u64>, LedgerError> {
        let number: Option<i64> = row.try_get(column)?;
        number.map(read_number).transpose()
    };
    let millionths: i32 = row.try_get("fee_millionths")?;
    let fee_part = PoolFee::from_millionths(u32::try_from(millionths).unwrap_or(u32::MAX));
    let length: Option<i32> = row.try_get("length")?;
    let length = length.and_then(|length| u16::try_from(length).ok());
    let length = length.and_then(|length| WindowLength::new(length).ok());
    let rule = match row.try_get::<&str, _>("scheme")? {
        "pplns" => DivisionRule::Pplns,
        "solo" => DivisionRule::Solo,
        _ => return Err(LedgerError::Corrupt("scheme of a block")),
    };
    Ok(PublishedBlock {
        block: HeaderHash::from_bytes(array(row.try_get("header_hash")?)?),
        height: u32::try_from(height).map_err(|_| LedgerError::Corrupt("height"))?,
        state: RewardState::parse(&state)?,
        reward: Msat::new(row.try_get("reward_msat")?),
        fee: Msat::new(row.try_get("fee_msat")?),
        fee_part: fee_part.map_err(|_| LedgerError::Corrupt("fee"))?,
        rule,
        signed: BlockSignature::read(row)?,
        window: number("first_slice")?
            .zip(number("last_slice")?)
            .zip(length)
            .map(|((first, last), length)| PublishedWindow {
                first,
                last,
                length,
            }),
    })
}
