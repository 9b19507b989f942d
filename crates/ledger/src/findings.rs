//! What one replay found, until a second one has said the same or something else. A batch with a finding is suspect: its
//! worker has no word in what becomes of it.

use dovetail_commitment::{BatchRoot, HeaderHash, WorkerKey};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::batches::keep_tasks;
use crate::failed_audits::ReplayedDigests;
use crate::tasks::array;
use crate::{Ledger, LedgerError, collateral};
use dovetail_units::time::unix_now;

/// How long the tasks of a batch that was suspect may still be claimed, from the last time that it was looked at. While it
/// is suspect they do not expire.
const KEPT_S: u64 = 24 * 3_600;

/// What one replay found. Digests, never content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspectFinding {
    /// The claim at which it was found.
    pub header_hash: HeaderHash,
    /// The transcript's place in the batch.
    pub index: usize,
    /// What did not hold, in a word.
    pub mismatch: String,
    /// The first token that differs; exactly if the mismatch is `tokens`.
    pub position: Option<u32>,
    /// What came out instead, if anything was computed.
    pub replayed: Option<ReplayedDigests>,
    /// Who found it.
    pub validator: String,
}

impl SuspectFinding {
    /// The transcript's place, as the database keeps it.
    fn leaf_index(&self) -> Result<i32, LedgerError> {
        i32::try_from(self.index)
            .map_err(|_| LedgerError::Refused("a number of the finding is out of range"))
    }
}

/// A suspect batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The batch.
    pub root: BatchRoot,
    /// Whose it is.
    pub worker: WorkerKey,
    /// What was found.
    pub finding: SuspectFinding,
}

impl Suspect {
    fn read(row: &PgRow) -> Result<Self, LedgerError> {
        let corrupt = |_| LedgerError::Corrupt("finding");
        let number = |value: i64| u32::try_from(value).map_err(corrupt);
        let digest = |name: &str| -> Result<Option<[u8; 32]>, LedgerError> {
            let bytes: Option<Vec<u8>> = row.try_get(name)?;
            bytes.map(array).transpose()
        };
        let tokens: Option<i64> = row.try_get("replayed_tokens")?;
        let position: Option<i64> = row.try_get("position")?;
        let index: i32 = row.try_get("leaf_index")?;
        let digests = (
            digest("replayed_output_digest")?,
            digest("replayed_trace_root")?,
        );
        let replayed = match (tokens, digests) {
            (Some(tokens), (Some(output_digest), Some(trace_root))) => Some(ReplayedDigests {
                tokens: number(tokens)?,
                output_digest,
                trace_root,
            }),
            _ => None,
        };
        Ok(Self {
            root: BatchRoot::from_bytes(array(row.try_get("root")?)?),
            worker: WorkerKey::from_bytes(array(row.try_get("worker")?)?),
            finding: SuspectFinding {
                header_hash: HeaderHash::from_bytes(array(row.try_get("header_hash")?)?),
                index: usize::try_from(index).map_err(corrupt)?,
                mismatch: row.try_get("mismatch")?,
                position: position.map(number).transpose()?,
                replayed,
                validator: row.try_get("validator")?,
            },
        })
    }
}

impl Ledger {
    /// Keeps the first finding about an open batch, which makes the batch suspect, and keeps its tasks from
    /// expiring: however long the second replay is in coming, and whether or not the pool runs meanwhile. A later finding
    /// changes nothing, nor does one about a task that another batch has settled, or that has expired: nothing is left to
    /// confirm it with.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`], and nothing has changed.
    pub async fn keep_finding(
        &self,
        root: BatchRoot,
        finding: &SuspectFinding,
    ) -> Result<(), LedgerError> {
        let replayed = finding.replayed;
        let mut transaction = self.begin().await?;
        // A batch of the worker is settled before it or after it, and then not at all.
        collateral::lock(&mut transaction).await?;
        sqlx::query(
            "INSERT INTO findings (root, header_hash, leaf_index, mismatch, position, replayed_tokens,
                 replayed_output_digest, replayed_trace_root, validator)
             SELECT root, $2, $3, $4, $5, $6, $7, $8, $9 FROM batches
              WHERE root = $1 AND state = 'open'
                AND EXISTS (SELECT FROM tasks WHERE id = batches.task_ids[$3 + 1] AND state = 'finished')
             ON CONFLICT (root) DO NOTHING",
        )
        .bind(root.to_bytes().to_vec())
        .bind(finding.header_hash.to_bytes().to_vec())
        .bind(finding.leaf_index()?)
        .bind(&finding.mismatch)
        .bind(finding.position.map(i64::from))
        .bind(replayed.map(|replayed| i64::from(replayed.tokens)))
        .bind(replayed.map(|replayed| replayed.output_digest.to_vec()))
        .bind(replayed.map(|replayed| replayed.trace_root.to_vec()))
        .bind(&finding.validator)
        .execute(&mut *transaction)
        .await?;
        let until = unix_now().saturating_add(KEPT_S);
        keep_tasks(&mut transaction, root, until).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A second replay did not find the same: nobody has lied. Once more is harmless, and another finding about the batch
    /// stays.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`], or [`LedgerError::Refused`] if its numbers are out of range.
    pub async fn drop_finding(
        &self,
        root: BatchRoot,
        finding: &SuspectFinding,
    ) -> Result<(), LedgerError> {
        sqlx::query("DELETE FROM findings WHERE root = $1 AND leaf_index = $2 AND validator = $3")
            .bind(root.to_bytes().to_vec())
            .bind(finding.leaf_index()?)
            .bind(&finding.validator)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Open batches that are suspect, of one worker or of all, at most `limit`: those first that were looked at longest ago,
    /// so that none waits behind others that nobody can confirm.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn suspects(
        &self,
        worker: Option<WorkerKey>,
        limit: u32,
    ) -> Result<Vec<Suspect>, LedgerError> {
        sqlx::query(
            "SELECT findings.*, batches.worker FROM findings JOIN batches USING (root)
             WHERE batches.state = 'open' AND ($1::bytea IS NULL OR batches.worker = $1)
             ORDER BY batches.expires_at, found_at, root LIMIT $2",
        )
        .bind(worker.map(|worker| worker.to_bytes().to_vec()))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(Suspect::read)
        .collect()
    }
}

/// Whether a mismatch was found in an open batch of the worker: while its audit went on, another claim may have found one.
pub(crate) async fn is_suspect(
    connection: &mut PgConnection,
    worker: &[u8],
) -> Result<bool, LedgerError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM findings JOIN batches USING (root)
                         WHERE batches.worker = $1 AND batches.state = 'open')",
    )
    .bind(worker)
    .fetch_one(connection)
    .await?)
}

/// The finding about a batch has been confirmed, and the batch has failed.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    root: BatchRoot,
) -> Result<(), LedgerError> {
    sqlx::query("DELETE FROM findings WHERE root = $1")
        .bind(root.to_bytes().to_vec())
        .execute(connection)
        .await?;
    Ok(())
}
