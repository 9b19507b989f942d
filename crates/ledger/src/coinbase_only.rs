//! Hash credit of jobs in coinbase-only mode. Nobody but their miner can check the merkle path and the fees of such a
//! job, so its hashes may be worth nothing. What they earn is held, as one sum of the account, until the account solves
//! a block on such a job: if the chain shows the block, all of the sum is posted, else it is void. A miner whose jobs
//! are bad once in n times so loses every n-th sum, and nothing is to be gained.

use dovetail_commitment::HeaderHash;
use serde::Serialize;
use sqlx::{PgConnection, Row};

use crate::collateral::{lock, retried};
use crate::tasks::array;
use crate::transfers::{self, Phase, Transfer, TransferId, transfer, worker_account};
use crate::{Ledger, LedgerError};
use dovetail_units::Msat;

/// A block that is looked for on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedBlock {
    /// Its hash.
    pub block: HeaderHash,
    /// Whose share solved it.
    pub account: String,
    /// For how many seconds the chain was looked at for it.
    pub watched_s: u64,
}

/// What is known of a followed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChain {
    /// The chain has it.
    Seen,
    /// It was looked for long enough, and the chain does not have it.
    NotSeen,
    /// It was not looked for all the time, and the chain cannot be asked.
    Unknown,
}

impl OnChain {
    /// The block's result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::NotSeen => "not seen",
            Self::Unknown => "unknown",
        }
    }

    /// The state of its sum.
    fn state(self) -> &'static str {
        match self {
            Self::Seen => "posted",
            Self::NotSeen => "voided",
            Self::Unknown => "carried",
        }
    }

    /// What the transfer that ends the sum is for, and how it ends it.
    fn ending(self, pending: TransferId) -> (&'static str, Phase) {
        match self {
            Self::Seen => ("coinbase-only-seen", Phase::Post(pending)),
            Self::NotSeen => ("coinbase-only-not-seen", Phase::Void(pending)),
            Self::Unknown => ("coinbase-only-unknown", Phase::Void(pending)),
        }
    }
}

/// What became known of a followed block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedBlock {
    /// Whose share solved it.
    pub account: String,
    /// What was held up to it, and is posted, void, or held for the next block.
    pub amount: Msat,
    /// Whether the block was not known to be in the chain before.
    pub is_found: bool,
}

/// What an account did on jobs in coinbase-only mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoinbaseOnlyRecord {
    /// The account.
    pub account: String,
    /// What is held since its last block.
    pub held_msat: i64,
    /// For how many shares.
    pub held_shares: i64,
    /// Blocks that are looked for on the chain.
    pub followed_blocks: i64,
    /// What is held up to them.
    pub followed_msat: i64,
    /// Blocks that the chain has shown.
    pub seen_blocks: i64,
    /// What was posted for them.
    pub posted_msat: i64,
    /// Blocks that it has not.
    pub not_seen_blocks: i64,
    /// What became void with them.
    pub voided_msat: i64,
    /// Blocks of which nobody can know; what was held up to them is held still.
    pub unknown_blocks: i64,
}

/// Adds the credit of shares to what is held for their account; returns the sum's number. Whoever calls it has taken
/// [`lock`].
pub(crate) async fn hold(
    connection: &mut PgConnection,
    account: &str,
    credit: Msat,
    shares: i64,
) -> Result<i64, LedgerError> {
    Ok(sqlx::query_scalar(
        "INSERT INTO coinbase_only_credits AS held (account, amount_msat, shares, state)
         VALUES ($1, $2, $3, 'open')
         ON CONFLICT (account) WHERE state = 'open' DO UPDATE
            SET amount_msat = held.amount_msat + EXCLUDED.amount_msat, shares = held.shares + EXCLUDED.shares
         RETURNING id",
    )
    .bind(account)
    .bind(credit.get())
    .bind(shares)
    .fetch_one(connection)
    .await?)
}

/// A share of the sum has solved this block, which decides about the sum from now on.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    sum: i64,
    account: &str,
    block: HeaderHash,
) -> Result<(), LedgerError> {
    let amount: i64 =
        sqlx::query_scalar("SELECT amount_msat FROM coinbase_only_credits WHERE id = $1")
            .bind(sum)
            .fetch_one(&mut *connection)
            .await?;
    let pending = pending(block);
    move_sum(
        connection,
        account,
        Msat::new(amount),
        pending,
        Phase::Pending,
    )
    .await?;
    sqlx::query(
        "UPDATE coinbase_only_credits
            SET state = 'followed', block = $2, transfer = CASE WHEN amount_msat > 0 THEN $3 END
          WHERE id = $1",
    )
    .bind(sum)
    .bind(block.to_bytes().to_vec())
    .bind(pending.to_vec())
    .execute(connection)
    .await?;
    Ok(())
}

fn pending(block: HeaderHash) -> TransferId {
    TransferId::of("coinbase-only", block.as_bytes())
}

async fn move_sum(
    connection: &mut PgConnection,
    account: &str,
    amount: Msat,
    id: TransferId,
    phase: Phase,
) -> Result<(), LedgerError> {
    let credit = worker_account(account);
    let moved = Transfer {
        id,
        phase,
        debit: transfers::POOL_HASH,
        credit: &credit,
        amount,
        reason: "coinbase-only",
    };
    transfer(connection, &moved).await
}

impl Ledger {
    /// Blocks that are looked for on the chain, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn followed_blocks(&self, limit: u32) -> Result<Vec<FollowedBlock>, LedgerError> {
        let rows = sqlx::query(
            "SELECT block, account, watched_s FROM coinbase_only_credits
              WHERE state = 'followed' ORDER BY id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let watched_s: i64 = row.try_get("watched_s")?;
                Ok(FollowedBlock {
                    block: HeaderHash::from_bytes(array(row.try_get("block")?)?),
                    account: row.try_get("account")?,
                    watched_s: u64::try_from(watched_s)
                        .map_err(|_| LedgerError::Corrupt("followed block"))?,
                })
            })
            .collect()
    }

    /// Notes for how many seconds the chain has been looked at for these blocks by now; less than is noted already
    /// changes nothing.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn note_watched(&self, watched: &[(HeaderHash, u64)]) -> Result<(), LedgerError> {
        let (blocks, seconds): (Vec<Vec<u8>>, Vec<i64>) = watched
            .iter()
            .map(|(block, seconds)| {
                let seconds = i64::try_from(*seconds).unwrap_or(i64::MAX);
                (block.to_bytes().to_vec(), seconds)
            })
            .unzip();
        sqlx::query(
            "UPDATE coinbase_only_credits AS held SET watched_s = given.seconds
               FROM unnest($1::bytea[], $2::bigint[]) AS given (block, seconds)
              WHERE held.block = given.block AND held.state = 'followed' AND held.watched_s < given.seconds",
        )
        .bind(blocks)
        .bind(seconds)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Posts or voids what was held up to a followed block, or holds it for the account's next one, and notes the
    /// block's result. The first word stands: `None` if there is one already, or the block is not followed.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`], and nothing has changed.
    pub async fn decide_block(
        &self,
        block: HeaderHash,
        word: OnChain,
    ) -> Result<Option<DecidedBlock>, LedgerError> {
        retried(|| self.try_decide_block(block, word)).await
    }

    async fn try_decide_block(
        &self,
        block: HeaderHash,
        word: OnChain,
    ) -> Result<Option<DecidedBlock>, LedgerError> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction).await?;
        let row = sqlx::query(
            "SELECT account, amount_msat, shares FROM coinbase_only_credits
              WHERE block = $1 AND state = 'followed' FOR UPDATE",
        )
        .bind(block.to_bytes().to_vec())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let account: String = row.try_get("account")?;
        let amount = Msat::new(row.try_get("amount_msat")?);
        let (purpose, phase) = word.ending(pending(block));
        let id = TransferId::of(purpose, block.as_bytes());
        move_sum(&mut transaction, &account, amount, id, phase).await?;
        let carried_to = match word {
            OnChain::Seen | OnChain::NotSeen => None,
            OnChain::Unknown => {
                let shares = row.try_get("shares")?;
                Some(hold(&mut transaction, &account, amount, shares).await?)
            }
        };
        sqlx::query(
            "UPDATE coinbase_only_credits SET state = $2, decided_at = now(), carried_to = $3 WHERE block = $1",
        )
        .bind(block.to_bytes().to_vec())
        .bind(word.state())
        .bind(carried_to)
        .execute(&mut *transaction)
        .await?;
        let noted = sqlx::query(
            "UPDATE blocks SET result = $2
              WHERE header_hash = $1 AND result NOT IN ('accepted', 'seen')",
        )
        .bind(block.to_bytes().to_vec())
        .bind(word.as_str())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(DecidedBlock {
            account,
            amount,
            is_found: word == OnChain::Seen && noted.rows_affected() == 1,
        }))
    }

    /// What accounts did on jobs in coinbase-only mode, of one account or of all, those with the most held first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn coinbase_only_records(
        &self,
        account: Option<&str>,
        limit: u32,
    ) -> Result<Vec<CoinbaseOnlyRecord>, LedgerError> {
        let rows = sqlx::query(
            "SELECT account,
                    COALESCE(sum(amount_msat) FILTER (WHERE state = 'open'), 0)::bigint AS held_msat,
                    COALESCE(sum(shares) FILTER (WHERE state = 'open'), 0)::bigint AS held_shares,
                    count(*) FILTER (WHERE state = 'followed') AS followed_blocks,
                    COALESCE(sum(amount_msat) FILTER (WHERE state = 'followed'), 0)::bigint AS followed_msat,
                    count(*) FILTER (WHERE state = 'posted') AS seen_blocks,
                    COALESCE(sum(amount_msat) FILTER (WHERE state = 'posted'), 0)::bigint AS posted_msat,
                    count(*) FILTER (WHERE state = 'voided') AS not_seen_blocks,
                    COALESCE(sum(amount_msat) FILTER (WHERE state = 'voided'), 0)::bigint AS voided_msat,
                    count(*) FILTER (WHERE state = 'carried') AS unknown_blocks
               FROM coinbase_only_credits WHERE $1::text IS NULL OR account = $1
              GROUP BY account
              ORDER BY sum(amount_msat) FILTER (WHERE state IN ('open', 'followed')) DESC NULLS LAST, account
              LIMIT $2",
        )
        .bind(account)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(CoinbaseOnlyRecord {
                    account: row.try_get("account")?,
                    held_msat: row.try_get("held_msat")?,
                    held_shares: row.try_get("held_shares")?,
                    followed_blocks: row.try_get("followed_blocks")?,
                    followed_msat: row.try_get("followed_msat")?,
                    seen_blocks: row.try_get("seen_blocks")?,
                    posted_msat: row.try_get("posted_msat")?,
                    not_seen_blocks: row.try_get("not_seen_blocks")?,
                    voided_msat: row.try_get("voided_msat")?,
                    unknown_blocks: row.try_get("unknown_blocks")?,
                })
            })
            .collect()
    }
}
