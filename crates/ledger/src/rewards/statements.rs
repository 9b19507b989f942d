//! What the pool has signed of blocks, and what it says of each account.

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, BlockStatement, BlockTerms, Credit, PartsRoot, PartsTree, SliceRoot, StatedPart,
    WindowTerms,
};
use dovetail_units::Msat;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::task::spawn_blocking;

use super::published::{PublishedBlock, block};
use crate::tasks::array;
use crate::{Ledger, LedgerError};

/// How a block's terms and its parts were signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSignature {
    /// The parts.
    pub parts: PartsRoot,
    /// Who has signed.
    pub signer: [u8; 32],
    /// The signature of [`BlockStatement::hash`].
    pub signature: [u8; 64],
}

impl BlockSignature {
    /// `None` for a block from before blocks were signed.
    pub(super) fn read(row: &PgRow) -> Result<Option<Self>, LedgerError> {
        let Some(signature) = row.try_get::<Option<Vec<u8>>, _>("signature")? else {
            return Ok(None);
        };
        let signature = signature.try_into();
        let accounts: i64 = row.try_get("parts")?;
        Ok(Some(Self {
            parts: PartsRoot {
                accounts: u32::try_from(accounts).map_err(|_| LedgerError::Corrupt("parts"))?,
                top: array(row.try_get("parts_top")?)?,
            },
            signer: array(row.try_get("signer")?)?,
            signature: signature.map_err(|_| LedgerError::Corrupt("signature"))?,
        }))
    }
}

impl PublishedBlock {
    /// What was signed of it. `newest` is the root of its window's newest slice.
    fn statement(&self, parts: PartsRoot, newest: Option<SliceRoot>) -> BlockStatement {
        BlockStatement {
            block: self.block,
            height: self.height,
            rule: self.rule,
            terms: BlockTerms {
                reward: self.reward,
                fee: self.fee,
                fee_part: self.fee_part,
            },
            window: self.window.zip(newest).map(|(window, newest)| {
                let terms = WindowTerms {
                    first: window.first,
                    last: window.last,
                    length: window.length,
                };
                (terms, newest)
            }),
            parts,
        }
    }
}

impl Ledger {
    /// What the pool says that an account gets of a block, with its way to what it has signed; `None` if it gets nothing, or
    /// there is no such block. O(accounts).
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn stated_part(
        &self,
        of: HeaderHash,
        account: &str,
    ) -> Result<Option<StatedPart>, LedgerError> {
        let Ok(account) = AccountId::new(account) else {
            return Ok(None);
        };
        let credits = credits(&mut *self.pool.acquire().await?, of).await?;
        // Milliseconds for 100,000 accounts: not where others' connections are served.
        let part = spawn_blocking(move || PartsTree::over(credits).part(&account)).await;
        part.map_err(|_| LedgerError::Refused("the tree of a block's parts was not built"))
    }
}

async fn credits(
    connection: &mut PgConnection,
    of: HeaderHash,
) -> Result<Vec<Credit>, LedgerError> {
    let rows = sqlx::query(
        "SELECT substr(name, 8) AS name, amount_msat FROM block_credits JOIN accounts ON id = account WHERE block = $1",
    )
    .bind(of.to_bytes().to_vec())
    .fetch_all(connection)
    .await?;
    let credits = rows.iter().map(|row| {
        let account = AccountId::new(row.try_get::<String, _>("name")?);
        Ok(Credit {
            account: account.map_err(|_| LedgerError::Corrupt("account"))?,
            amount: Msat::new(row.try_get("amount_msat")?),
        })
    });
    credits.collect()
}

/// Blocks whose signature does not cover what the tables say: their hashes, at most so many. O(all parts).
pub(crate) async fn wrong_signatures(
    connection: &mut PgConnection,
    limit: usize,
) -> Result<Vec<String>, LedgerError> {
    let rows = sqlx::query(
        "SELECT header_hash, height, state, scheme, reward_msat, fee_msat, fee_millionths, first_slice, last_slice, length,
                parts, parts_top, b.signer, b.signature, root
           FROM block_rewards b LEFT JOIN reward_slices ON number = last_slice WHERE b.signature IS NOT NULL ORDER BY height",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut wrong = Vec::new();
    for row in &rows {
        let block = block(row)?;
        let root: Option<Vec<u8>> = row.try_get("root")?;
        let newest = root.map(array).transpose()?.map(SliceRoot::from_bytes);
        let parts = PartsTree::over(credits(connection, block.block).await?).root();
        let holds = block.signed.is_some_and(|signed| {
            let statement = block.statement(parts, newest);
            statement.is_signed_by(&signed.signer, &signed.signature) && signed.parts == parts
        });
        if !holds {
            wrong.push(hex::encode(block.block.to_bytes()));
        }
        if wrong.len() >= limit {
            break;
        }
    }
    Ok(wrong)
}
