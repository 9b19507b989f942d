//! What a claim does in the ledger, in one transaction: its batch, its tasks, their receipts, what they cost their payers,
//! and the credit, which is held. The hashes of its share go the way of all shares; until they are in the ledger, the
//! share's record is kept beside the claim, so that nothing is lost between the two.

use dovetail_commitment::BatchRoot;
use dovetail_units::time::unix_now;
use sqlx::{PgConnection, Row};

use crate::samples::{Audit, PASSED};
use crate::shares::{InferenceSettlement, Share};
use crate::tasks::seconds;
use crate::{CommitRefusal, Ledger, LedgerError, audit_records, collateral, findings, payers};

/// How a claim fared: settled, refused, or Postgres failed and nothing is known of it.
type Claimed = Result<Result<(), CommitRefusal>, LedgerError>;

impl Ledger {
    /// Settles the batch that this share claims, and keeps the share's record for the log with this number.
    pub(crate) async fn settle_claim(
        &self,
        share: &Share,
        batch: &InferenceSettlement,
        (log_id, record): (i64, &[u8]),
    ) -> Claimed {
        collateral::retried(|| async {
            let mut transaction = self.begin().await?;
            collateral::lock(&mut transaction).await?;
            let settled = settle_batch(&mut transaction, share, batch).await?;
            if settled.is_ok() {
                sqlx::query(
                    "INSERT INTO claimed_shares (header_hash, log_id, record) VALUES (share_key($1), $2, $3)",
                )
                .bind(share.header_hash.to_bytes().to_vec())
                .bind(log_id)
                .bind(record)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
            }
            Ok(settled)
        })
        .await
    }
}

/// open -> settled for the batch, finished -> settled for its tasks, with their receipts, the audit that
/// they passed, what they cost their payers, and their credit, which is held.
async fn settle_batch(
    connection: &mut PgConnection,
    share: &Share,
    batch: &InferenceSettlement,
) -> Claimed {
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
    sqlx::query(
        "UPDATE batches SET state = 'settled', ended_at = now(), settled_by = $2 WHERE root = $1",
    )
    .bind(batch.root.to_bytes().to_vec())
    .bind(share.header_hash.to_bytes().to_vec())
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
