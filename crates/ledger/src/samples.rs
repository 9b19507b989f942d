//! The sample of a batch: which header draws it, how often its audit could not be done, and what was recorded of it.

use dovetail_commitment::{BatchRoot, HeaderHash};
use dovetail_units::Msat;
use dovetail_vrf::{VrfProof, VrfPublicKey};
use sqlx::{PgConnection, Row};

use crate::tasks::array;
use crate::{Ledger, LedgerError};

/// Claims of one root whose audit may fail for the pool's own reasons. After the last one the batch is dead: a batch that
/// cannot be replayed would else be claimed for ever.
pub const UNDONE_CLAIMS_MAX: u32 = 3;

/// A sample, with what proves that nobody chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnSample {
    /// The header of the batch's first admitted claim, from which it is drawn.
    pub header_hash: HeaderHash,
    /// Shows the output that draws it.
    pub proof: VrfProof,
    /// What was at stake for the worker: the least that was held for it at any claim of the batch. With it and the values
    /// of the leaves anybody can draw the sample again.
    pub stake: Msat,
    /// The places of its leaves, in ascending order. There may be none.
    pub indices: Vec<usize>,
}

/// What becomes of a batch whose audit could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// It may be claimed again.
    Open,
    /// It has died of it, or ended otherwise.
    Over,
}

impl Ledger {
    /// The header that draws the sample of this root: that of the first claim that was admitted under this key of the
    /// pool. This claim's, if it is the first one. `None` if the batch is not open.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn fix_sample(
        &self,
        root: BatchRoot,
        header_hash: HeaderHash,
        key: VrfPublicKey,
    ) -> Result<Option<HeaderHash>, LedgerError> {
        // Under another key than before nobody could prove the sample of then.
        let fixed: Option<Vec<u8>> = sqlx::query_scalar(
            "UPDATE batches SET
                 sample_header = CASE WHEN sample_key = $3 THEN sample_header ELSE $2 END,
                 sample_key = $3
             WHERE root = $1 AND state = 'open' RETURNING sample_header",
        )
        .bind(root.to_bytes().to_vec())
        .bind(header_hash.to_bytes().to_vec())
        .bind(key.to_bytes().to_vec())
        .fetch_optional(&self.pool)
        .await?;
        let fixed = fixed.map(array).transpose()?;
        Ok(fixed.map(HeaderHash::from_bytes))
    }

    /// Counts a claim whose audit could not be done: open -> dead with the last one that may be. A suspect batch does not
    /// die.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn count_undone(&self, root: BatchRoot) -> Result<Undone, LedgerError> {
        let state: Option<String> = sqlx::query_scalar(
            "UPDATE batches SET
                 undone_claims = least(undone_claims + 1, $2),
                 state = CASE WHEN dies THEN 'dead' ELSE state END,
                 ended_at = CASE WHEN dies THEN now() ELSE ended_at END
             FROM (SELECT root AS judged_root, undone_claims + 1 >= $2
                          AND NOT EXISTS (SELECT 1 FROM findings WHERE findings.root = batches.root) AS dies
                   FROM batches WHERE root = $1) AS judged
             WHERE root = judged_root AND state = 'open' RETURNING state",
        )
        .bind(root.to_bytes().to_vec())
        .bind(i32::try_from(UNDONE_CLAIMS_MAX).unwrap_or(i32::MAX))
        .fetch_optional(&self.pool)
        .await?;
        Ok(match state.as_deref() {
            Some("open") => Undone::Open,
            _ => Undone::Over,
        })
    }

    /// Records what an audit sampled and that it could not be done; once more is harmless. One that passed
    /// is recorded with its share, one that failed by [`Ledger::fail_audit`].
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if the claim was recorded with another sample.
    pub async fn record_audit(
        &self,
        header_hash: HeaderHash,
        root: BatchRoot,
        sample: &DrawnSample,
        verdict: &str,
    ) -> Result<(), LedgerError> {
        let audit = Audit {
            header_hash,
            root,
            sample,
            verdict,
        };
        let mut transaction = self.begin().await?;
        audit.record(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The verdict of an audit that found nothing.
pub(crate) const PASSED: &str = "passed";

/// How the audit of one claim ended.
pub(crate) struct Audit<'a> {
    pub(crate) header_hash: HeaderHash,
    pub(crate) root: BatchRoot,
    pub(crate) sample: &'a DrawnSample,
    pub(crate) verdict: &'a str,
}

impl Audit<'_> {
    /// # Errors
    /// [`LedgerError::Conflict`] if the claim was recorded with this verdict and another sample.
    pub(crate) async fn record(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let indices = self
            .sample
            .indices
            .iter()
            .map(|index| i32::try_from(*index))
            .collect::<Result<Vec<i32>, _>>()
            .map_err(|_| LedgerError::Refused("a sampled index is out of range"))?;
        let (header, proof) = (self.sample.header_hash, self.sample.proof);
        let stake = self.sample.stake.get();
        let inserted = sqlx::query(
            "INSERT INTO audits (header_hash, root, sample, verdict, sample_header, vrf_proof, stake_msat)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (root, header_hash, verdict) DO NOTHING",
        )
        .bind(self.header_hash.to_bytes().to_vec())
        .bind(self.root.to_bytes().to_vec())
        .bind(&indices)
        .bind(self.verdict)
        .bind(header.to_bytes().to_vec())
        .bind(proof.to_bytes().to_vec())
        .bind(stake)
        .execute(&mut *connection)
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(());
        }
        let known = sqlx::query(
            "SELECT sample, vrf_proof FROM audits WHERE root = $1 AND header_hash = $2 AND verdict = $3",
        )
        .bind(self.root.to_bytes().to_vec())
        .bind(self.header_hash.to_bytes().to_vec())
        .bind(self.verdict)
        .fetch_one(connection)
        .await?;
        let known: (Vec<i32>, Option<Vec<u8>>) =
            (known.try_get("sample")?, known.try_get("vrf_proof")?);
        if known == (indices, Some(proof.to_bytes().to_vec())) {
            Ok(())
        } else {
            Err(LedgerError::Conflict(
                "the claim was recorded with another sample",
            ))
        }
    }
}
