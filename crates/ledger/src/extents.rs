//! How much of each task of a batch an audit would replay, for whoever bounds the cost of batches.

use dovetail_commitment::{BatchRoot, ModelId, TaskId, WorkerKey};
use sqlx::Row;

use crate::sealing::Sealer;
use crate::tasks::array;
use crate::{Ledger, LedgerError};

/// What the replay of a task's transcript goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskExtent {
    /// Its model.
    pub model_id: ModelId,
    /// Tokens of its prompt.
    pub input_tokens: u64,
    /// Tokens of its output.
    pub output_tokens: u64,
    /// Whether the output follows a constraint.
    pub constrained: bool,
}

impl Ledger {
    /// The extents of those of the tasks that are this worker's; none for a batch that is registered already.
    ///
    /// # Errors
    /// [`LedgerError`] if it cannot be reached.
    pub async fn extents_of_new_batch(
        &self,
        worker: WorkerKey,
        root: BatchRoot,
        task_ids: &[TaskId],
    ) -> Result<Vec<TaskExtent>, LedgerError> {
        let ids: Vec<Vec<u8>> = task_ids.iter().map(|id| id.to_bytes().to_vec()).collect();
        let rows = sqlx::query(
            "SELECT model_id, input_tokens, coalesce(octet_length(output_tokens) - $4, 0) / 4 AS output_tokens,
                    answer_form IS NOT NULL AS constrained
             FROM tasks
             WHERE id = ANY($1) AND worker = $2 AND NOT EXISTS (SELECT FROM batches WHERE root = $3)",
        )
        .bind(ids)
        .bind(worker.to_bytes().to_vec())
        .bind(root.to_bytes().to_vec())
        .bind(Sealer::OVERHEAD_BYTES)
        .fetch_all(&self.pool)
        .await?;
        let extents = rows.iter().map(|row| {
            let count = |column: &str| -> Result<u64, LedgerError> {
                let count: i64 = row.try_get(column)?;
                u64::try_from(count).map_err(|_| LedgerError::Corrupt("tokens"))
            };
            Ok(TaskExtent {
                model_id: ModelId::from_bytes(array(row.try_get("model_id")?)?),
                input_tokens: count("input_tokens")?,
                output_tokens: count("output_tokens")?,
                constrained: row.try_get("constrained")?,
            })
        });
        extents.collect()
    }
}
