//! Failed audits: what they cost, in one transaction, and a record that the worker can hold against the
//! pool (the table `appeals`). Digests and verdicts, never content.

use dovetail_commitment::{BatchRoot, HeaderHash, Transcript, WorkerKey};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::collateral::{self, Forfeiture, retried};
use crate::findings;
use crate::samples::{Audit, DrawnSample};
use crate::tasks::array;
use crate::{Ledger, LedgerError, audit_records};
use dovetail_units::Msat;

/// What a replay gave where the claim said something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedDigests {
    /// How many tokens it gave, up to the first that differs.
    pub tokens: u32,
    /// The digest of these.
    pub output_digest: [u8; 32],
    /// The root of their trace.
    pub trace_root: [u8; 32],
}

/// An audit that found a mismatch, twice.
#[derive(Debug, Clone, Copy)]
pub struct FailedAudit<'a> {
    /// The claiming share.
    pub header_hash: HeaderHash,
    /// The claimed batch.
    pub root: BatchRoot,
    /// Who claimed it.
    pub worker: WorkerKey,
    /// Which leaves were replayed.
    pub sample: &'a DrawnSample,
    /// The place of the transcript that failed.
    pub index: usize,
    /// That transcript.
    pub transcript: &'a Transcript,
    /// What did not hold, in a word.
    pub mismatch: &'a str,
    /// The first token that differs; exactly if the mismatch is `tokens`.
    pub position: Option<u32>,
    /// What came out instead, if anything was computed.
    pub replayed: Option<ReplayedDigests>,
    /// The version of the arithmetic that replayed it.
    pub engine_version: u16,
    /// Who replayed it, and who once more.
    pub validators: &'a [String],
}

/// A failed audit as it is shown to people. Hashes are lower-case hex; amounts are millisatoshi.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedAuditRecord {
    /// The worker's x-only key.
    pub worker: String,
    /// The batch root.
    pub root: String,
    /// The block hash of the claiming share, in internal byte order.
    pub header_hash: String,
    /// The block hash that drew the sample, and the proof of the output that it was drawn with.
    pub sample_header: Option<String>,
    /// See `sample_header`; `docs/extension-0x4149.md` says how it is checked.
    pub vrf_proof: Option<String>,
    /// What the sample was drawn against.
    pub stake_msat: Option<i64>,
    /// The task whose transcript failed.
    pub task_id: String,
    /// The transcript's place in the batch.
    pub leaf_index: i32,
    /// The transcript's tagged hash.
    pub transcript_hash: String,
    /// The model.
    pub model_id: String,
    /// The version of the arithmetic that replayed it.
    pub engine_version: i32,
    /// What did not hold.
    pub mismatch: String,
    /// The first token that differs.
    pub position: Option<i64>,
    /// How many tokens were claimed.
    pub claimed_tokens: i64,
    /// Their digest.
    pub claimed_output_digest: String,
    /// The claimed trace root.
    pub claimed_trace_root: String,
    /// How many tokens the replay gave, up to the first that differs.
    pub replayed_tokens: Option<i64>,
    /// Their digest.
    pub replayed_output_digest: Option<String>,
    /// The root of their trace.
    pub replayed_trace_root: Option<String>,
    /// Who replayed it, and who once more.
    pub validators: Vec<String>,
    /// The credit that was forfeited.
    pub forfeited_msat: i64,
    /// Of how many batches.
    pub forfeited_credits: i64,
    /// When, in Unix seconds.
    pub created_at_unix: i64,
}

impl FailedAuditRecord {
    fn read(row: &PgRow) -> Result<Self, LedgerError> {
        let bytes = |name: &str| -> Result<String, LedgerError> {
            Ok(hex::encode(row.try_get::<Vec<u8>, _>(name)?))
        };
        let bytes_if_any = |name: &str| -> Result<Option<String>, LedgerError> {
            Ok(row.try_get::<Option<Vec<u8>>, _>(name)?.map(hex::encode))
        };
        Ok(Self {
            worker: bytes("worker")?,
            root: bytes("root")?,
            header_hash: bytes("header_hash")?,
            sample_header: bytes_if_any("sample_header")?,
            vrf_proof: bytes_if_any("vrf_proof")?,
            stake_msat: row.try_get("stake_msat")?,
            task_id: bytes("task_id")?,
            leaf_index: row.try_get("leaf_index")?,
            transcript_hash: bytes("transcript_hash")?,
            model_id: bytes("model_id")?,
            engine_version: row.try_get("engine_version")?,
            mismatch: row.try_get("mismatch")?,
            position: row.try_get("position")?,
            claimed_tokens: row.try_get("claimed_tokens")?,
            claimed_output_digest: bytes("claimed_output_digest")?,
            claimed_trace_root: bytes("claimed_trace_root")?,
            replayed_tokens: row.try_get("replayed_tokens")?,
            replayed_output_digest: bytes_if_any("replayed_output_digest")?,
            replayed_trace_root: bytes_if_any("replayed_trace_root")?,
            validators: row.try_get("validators")?,
            forfeited_msat: row.try_get("forfeited_msat")?,
            forfeited_credits: row.try_get("forfeited_credits")?,
            created_at_unix: row.try_get("created_at_unix")?,
        })
    }
}

impl Ledger {
    /// open -> failed for the batch and its tasks; the worker forfeits the credit that is
    /// held for it; all of it is recorded. Once more is harmless. `None` if the batch is
    /// not open: what was settled stays settled.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`], and nothing has changed; [`LedgerError::Conflict`] if the claim was
    /// recorded with another sample.
    pub async fn fail_audit(
        &self,
        audit: &FailedAudit<'_>,
    ) -> Result<Option<Forfeiture>, LedgerError> {
        retried(|| self.try_fail_audit(audit)).await
    }

    async fn try_fail_audit(
        &self,
        audit: &FailedAudit<'_>,
    ) -> Result<Option<Forfeiture>, LedgerError> {
        let mut transaction = self.begin().await?;
        collateral::lock(&mut transaction).await?;
        let ids: Option<Vec<Vec<u8>>> = sqlx::query_scalar(
            "UPDATE batches SET state = 'failed', code = $2, ended_at = now()
             WHERE root = $1 AND worker = $3 AND state = 'open' RETURNING task_ids",
        )
        .bind(audit.root.to_bytes().to_vec())
        .bind(audit.mismatch)
        .bind(audit.worker.to_bytes().to_vec())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(ids) = ids else {
            return recorded(&mut transaction, audit).await;
        };
        sqlx::query(
            "UPDATE tasks SET state = 'failed', error_code = 'inference-mismatch', prompt = NULL, stop = NULL, answer_form = NULL
             WHERE id = ANY($1) AND state = 'finished'",
        )
        .bind(ids)
        .execute(&mut *transaction)
        .await?;
        Audit {
            header_hash: audit.header_hash,
            root: audit.root,
            sample: audit.sample,
            verdict: audit.mismatch,
        }
        .record(&mut transaction)
        .await?;
        findings::forget(&mut transaction, audit.root).await?;
        audit_records::mismatched(&mut transaction, &audit.worker).await?;
        let forfeited = collateral::forfeit(&mut transaction, audit.worker).await?;
        record(&mut transaction, audit, forfeited).await?;
        transaction.commit().await?;
        Ok(Some(forfeited))
    }

    /// Failed audits, of one worker or of all, the newest first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn failed_audits(
        &self,
        worker: Option<WorkerKey>,
        limit: u32,
    ) -> Result<Vec<FailedAuditRecord>, LedgerError> {
        sqlx::query(
            "SELECT *, extract(epoch FROM created_at)::bigint AS created_at_unix FROM appeals
             WHERE $1::bytea IS NULL OR worker = $1 ORDER BY created_at DESC, root LIMIT $2",
        )
        .bind(worker.map(|worker| worker.to_bytes().to_vec()))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(FailedAuditRecord::read)
        .collect()
    }
}

/// What the same audit has cost before, if it was recorded.
async fn recorded(
    connection: &mut PgConnection,
    audit: &FailedAudit<'_>,
) -> Result<Option<Forfeiture>, LedgerError> {
    let row = sqlx::query(
        "SELECT worker, forfeited_msat, forfeited_credits FROM appeals WHERE header_hash = $1 AND root = $2",
    )
    .bind(audit.header_hash.to_bytes().to_vec())
    .bind(audit.root.to_bytes().to_vec())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if array(row.try_get("worker")?)? != audit.worker.to_bytes() {
        return Err(LedgerError::Conflict(
            "the claim is recorded as another worker's",
        ));
    }
    let credits: i64 = row.try_get("forfeited_credits")?;
    Ok(Some(Forfeiture {
        credits: u64::try_from(credits).map_err(|_| LedgerError::Corrupt("failed audit"))?,
        amount: Msat::new(row.try_get("forfeited_msat")?),
    }))
}

async fn record(
    connection: &mut PgConnection,
    audit: &FailedAudit<'_>,
    forfeited: Forfeiture,
) -> Result<(), LedgerError> {
    let transcript = audit.transcript;
    let out_of_range = |_| LedgerError::Refused("a number of the audit is out of range");
    let replayed = audit.replayed;
    sqlx::query(
        "INSERT INTO appeals (worker, root, header_hash, sample_header, vrf_proof, task_id, leaf_index, transcript_hash,
             model_id, engine_version, mismatch, position, claimed_tokens, claimed_output_digest,
             claimed_trace_root, replayed_tokens, replayed_output_digest, replayed_trace_root,
             validators, forfeited_msat, forfeited_credits, stake_msat)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    )
    .bind(audit.worker.to_bytes().to_vec())
    .bind(audit.root.to_bytes().to_vec())
    .bind(audit.header_hash.to_bytes().to_vec())
    .bind(audit.sample.header_hash.to_bytes().to_vec())
    .bind(audit.sample.proof.to_bytes().to_vec())
    .bind(transcript.task_id.to_bytes().to_vec())
    .bind(i32::try_from(audit.index).map_err(out_of_range)?)
    .bind(transcript.leaf().to_bytes().to_vec())
    .bind(transcript.model_id.to_bytes().to_vec())
    .bind(i32::from(audit.engine_version))
    .bind(audit.mismatch)
    .bind(audit.position.map(i64::from))
    .bind(i64::from(transcript.output_tokens))
    .bind(transcript.output_digest.to_vec())
    .bind(transcript.trace_root.to_vec())
    .bind(replayed.map(|replayed| i64::from(replayed.tokens)))
    .bind(replayed.map(|replayed| replayed.output_digest.to_vec()))
    .bind(replayed.map(|replayed| replayed.trace_root.to_vec()))
    .bind(audit.validators)
    .bind(forfeited.amount.get())
    .bind(i64::try_from(forfeited.credits).map_err(out_of_range)?)
    .bind(audit.sample.stake.get())
    .execute(connection)
    .await?;
    Ok(())
}
