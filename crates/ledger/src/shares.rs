//! Shares: one proof, one credit. A share and what it earns are written in one transaction.

use dovetail_commitment::{BatchRoot, HeaderHash, TaskId};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row};

use crate::samples::{Audit, DrawnSample, PASSED};
use crate::tasks::seconds;
use crate::transfers::{self, Phase, Transfer, TransferId, transfer, worker_account};
use crate::{
    CommitRefusal, LedgerError, audit_records, coinbase_only, collateral, findings, payers,
};
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, Work};

/// What a share is credited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareKind {
    /// Its hashes.
    Hash,
    /// Its hashes and a batch of inference.
    Inference,
}

/// A batch that passed its audit, to be settled with its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceSettlement {
    /// The batch.
    pub root: BatchRoot,
    /// What its tokens earn, once it has matured.
    pub credit: Msat,
    /// Which leaves were replayed.
    pub sample: DrawnSample,
    /// One receipt per task, as JSON.
    pub receipts: Vec<(TaskId, String)>,
}

/// A share that was found good, to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The proof.
    pub header_hash: HeaderHash,
    /// Whom it is credited to.
    pub account: String,
    /// What was proven.
    pub work: Work,
    /// What for.
    pub kind: ShareKind,
    /// Whether it solved a block.
    pub is_block: bool,
    /// What its hashes earn.
    pub credit: Msat,
    /// Whether its job was one in coinbase-only mode: what its hashes earn is held until the account's next block then.
    pub is_coinbase_only: bool,
    /// The batch that it settles; present exactly for [`ShareKind::Inference`].
    pub batch: Option<InferenceSettlement>,
}

/// The longest account name: with its prefix it fits the ledger's, and a line of the spool.
const ACCOUNT_BYTES_MAX: usize = 190;

impl Share {
    pub(crate) fn check(&self) -> Result<(), CommitRefusal> {
        let settled = self.batch.as_ref().map_or(Msat::ZERO, |batch| batch.credit);
        let fits = self.credit >= Msat::ZERO
            && settled >= Msat::ZERO
            && (self.batch.is_some() == (self.kind == ShareKind::Inference))
            && !self.account.is_empty()
            && self.account.len() <= ACCOUNT_BYTES_MAX
            && !self.account.contains(char::is_control);
        if fits {
            Ok(())
        } else {
            Err(CommitRefusal::Invalid)
        }
    }
}

/// How one share of a group fared: written, refused, or Postgres failed and the group with it.
pub(crate) type Written = Result<Result<(), CommitRefusal>, LedgerError>;

/// Writes one share inside the caller's transaction (or savepoint, which the caller rolls back on
/// a refusal).
pub(crate) async fn write(connection: &mut PgConnection, share: &Share) -> Written {
    if let Some(batch) = &share.batch {
        // The batch is settled before its share refers to it; a proof that is known is named first.
        if is_known(connection, share.header_hash).await? {
            return Ok(Err(CommitRefusal::DuplicateShare));
        }
        if let Err(refusal) = settle_batch(connection, share, batch).await? {
            return Ok(Err(refusal));
        }
    }
    let held_in = match share.is_coinbase_only {
        true => Some(coinbase_only::hold(connection, &share.account, share.credit, 1).await?),
        false => None,
    };
    let inserted = sqlx::query(
        "INSERT INTO shares (header_hash, account, kind, work, credit_msat, is_block, batch_root, held_in)
         VALUES ($1, $2, $3, $4::text::numeric, $5, $6, $7, $8) ON CONFLICT (header_hash) DO NOTHING",
    )
    .bind(share.header_hash.to_bytes().to_vec())
    .bind(&share.account)
    .bind(match share.kind {
        ShareKind::Hash => "hash",
        ShareKind::Inference => "inference",
    })
    .bind(share.work.get().to_string())
    .bind(share.credit.get())
    .bind(share.is_block)
    .bind(
        share
            .batch
            .as_ref()
            .map(|batch| batch.root.to_bytes().to_vec()),
    )
    .bind(held_in)
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Err(CommitRefusal::DuplicateShare));
    }
    match held_in {
        Some(sum) if share.is_block => {
            let block = share.header_hash;
            coinbase_only::follow(connection, sum, &share.account, block).await?;
        }
        Some(_) => {}
        None => post(connection, share).await?,
    }
    Ok(Ok(()))
}

/// Credits the share's hashes at once.
async fn post(connection: &mut PgConnection, share: &Share) -> Result<(), LedgerError> {
    let account = worker_account(&share.account);
    transfer(
        connection,
        &Transfer {
            id: TransferId::of_hashes(share.header_hash),
            phase: Phase::Posted,
            debit: transfers::POOL_HASH,
            credit: &account,
            amount: share.credit,
            reason: "hash",
        },
    )
    .await
}

async fn is_known(
    connection: &mut PgConnection,
    header_hash: HeaderHash,
) -> Result<bool, LedgerError> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM shares WHERE header_hash = $1)")
            .bind(header_hash.to_bytes().to_vec())
            .fetch_one(connection)
            .await?,
    )
}

/// open -> settled for the batch, finished -> settled for its tasks, with their receipts, the audit that
/// they passed, what they cost their payers, and their credit, which is held.
async fn settle_batch(
    connection: &mut PgConnection,
    share: &Share,
    batch: &InferenceSettlement,
) -> Written {
    let Claimable { worker, ids } = match claimable(connection, batch.root).await? {
        Ok(claimable) => claimable,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // Every task gets its receipt, and no other does.
    let mut receipts: Vec<Vec<u8>> = batch
        .receipts
        .iter()
        .map(|(task, _)| task.to_bytes().to_vec())
        .collect();
    let mut tasks = ids.clone();
    receipts.sort_unstable();
    tasks.sort_unstable();
    if receipts != tasks {
        return Ok(Err(CommitRefusal::Invalid));
    }
    sqlx::query(
        "UPDATE tasks SET state = 'settled', prompt = NULL, stop = NULL, answer_form = NULL WHERE id = ANY($1)",
    )
    .bind(&ids)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE batches SET state = 'settled', ended_at = now() WHERE root = $1")
        .bind(batch.root.to_bytes().to_vec())
        .execute(&mut *connection)
        .await?;
    for (task, receipt) in &batch.receipts {
        sqlx::query("INSERT INTO receipts (task_id, receipt) VALUES ($1, $2)")
            .bind(task.to_bytes().to_vec())
            .bind(receipt)
            .execute(&mut *connection)
            .await?;
    }
    let audit = Audit {
        header_hash: share.header_hash,
        root: batch.root,
        sample: &batch.sample,
        verdict: PASSED,
    };
    audit.record(connection).await?;
    payers::charge(connection, batch.root, &ids).await?;
    let number = audit_records::settled(connection, &worker).await?;
    let (account, amount) = (&share.account, batch.credit);
    collateral::hold(connection, batch.root, &worker, account, amount, number).await?;
    Ok(Ok(()))
}

/// A batch that a share may claim now.
struct Claimable {
    worker: Vec<u8>,
    /// Its tasks, locked.
    ids: Vec<Vec<u8>>,
}

async fn claimable(
    connection: &mut PgConnection,
    root: BatchRoot,
) -> Result<Result<Claimable, CommitRefusal>, LedgerError> {
    let row = sqlx::query("SELECT worker, state, task_ids FROM batches WHERE root = $1 FOR UPDATE")
        .bind(root.to_bytes().to_vec())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else {
        return Ok(Err(CommitRefusal::BatchUnknown));
    };
    let (state, ids): (String, Vec<Vec<u8>>) = (row.try_get("state")?, row.try_get("task_ids")?);
    let worker: Vec<u8> = row.try_get("worker")?;
    if state != "open" {
        return Ok(Err(CommitRefusal::BatchSpent));
    }
    if findings::is_suspect(connection, &worker).await? {
        return Ok(Err(CommitRefusal::WorkerSuspect));
    }
    let states: Vec<String> = sqlx::query_scalar(
        "SELECT CASE WHEN state = 'finished' AND expires_at <= $2 THEN 'expired' ELSE state END
         FROM tasks WHERE id = ANY($1) ORDER BY id FOR UPDATE",
    )
    .bind(&ids)
    .bind(seconds(unix_now()))
    .fetch_all(&mut *connection)
    .await?;
    Ok(if states.iter().any(|state| state == "settled") {
        Err(CommitRefusal::BatchSpent)
    } else if states.len() != ids.len() || states.iter().any(|state| state != "finished") {
        Err(CommitRefusal::TaskExpired)
    } else {
        Ok(Claimable { worker, ids })
    })
}
