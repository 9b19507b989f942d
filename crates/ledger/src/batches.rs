//! Batches: the transcripts behind a root, and whether the root is still to be spent.

use dovetail_commitment::{
    BATCH_LEAVES_MAX, BATCH_TOKENS_MAX, Batch, BatchRoot, HeaderHash, TaskId, WorkerKey,
};
use sqlx::{PgConnection, Row};

use crate::tasks::{array, seconds};
use crate::{Ledger, LedgerError, TaskRecord, TaskState};
use dovetail_units::Msat;
use dovetail_units::time::unix_now;

/// Open batches that may name one task. A worker puts a task into one batch, and into another one where it has lost
/// track; a batch per order and choice of twelve tasks would fill the ledger.
const BATCHES_PER_TASK_MAX: i64 = 16;
/// Open batches that a worker may have. It claims one at a time, and each has room for 64 tasks.
const BATCHES_PER_WORKER_MAX: i64 = 64;
/// The class of the advisory locks of workers that register batches: one registration of a worker at a time, or two that
/// come at once would not count each other. Locks of two numbers are none of those of one (`collateral.rs`).
const REGISTRATION_LOCKS: i32 = 0x4149;

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchState {
    /// A share may claim it.
    Open,
    /// A share has claimed it; its root is spent.
    Settled,
    /// Its audit found a mismatch.
    Failed,
    /// Its audit could not be done too often. It earns nothing and costs nothing.
    Dead,
}

/// A batch with its tasks in the order of the leaves. No `Debug`: the tasks hold prompts.
#[derive(Clone)]
pub struct BatchRecord {
    /// The root that the coinbase carries.
    pub root: BatchRoot,
    /// Whose it is.
    pub worker: WorkerKey,
    /// Where it stands.
    pub state: BatchState,
    /// The header of its first admitted claim, which draws its sample.
    pub sample_header: Option<HeaderHash>,
    /// The VRF key under which it does.
    pub sample_key: Option<[u8; 32]>,
    /// What its sample is drawn against: see [`Ledger::stake`].
    pub stake: Option<Msat>,
    /// What its audit found, in a word, if it has failed.
    pub code: Option<String>,
    /// Its tasks, in the order of the leaves.
    pub tasks: Vec<TaskRecord>,
}

impl BatchRecord {
    /// Whether one of its tasks was settled or has failed, with this batch or with another that
    /// names it too.
    pub fn is_spent(&self) -> bool {
        self.tasks.iter().any(TaskRecord::has_ended)
    }

    /// Whether one of its tasks has run out of time or ended otherwise.
    pub fn is_expired(&self) -> bool {
        let now = unix_now();
        self.tasks
            .iter()
            .any(|task| task.state != TaskState::Finished || task.expires_at_unix <= now)
    }
}

/// Why a batch was not registered, in order of precedence.
#[derive(Debug, thiserror::Error)]
pub enum BatchRefusal {
    /// None, too many, or a task twice.
    #[error("a batch has 1 to {BATCH_LEAVES_MAX} distinct tasks")]
    Size,
    /// A task that does not exist.
    #[error("the batch names an unknown task")]
    TaskUnknown,
    /// More to replay than one task may be.
    #[error("the tasks of a batch have at most {BATCH_TOKENS_MAX} tokens together")]
    TooLong,
    /// A task that another worker ran.
    #[error("the batch names another worker's task")]
    TaskNotYours,
    /// A task of a batch that was spent or has failed.
    #[error("the batch names a task that was spent")]
    Spent,
    /// A task whose transcript has not come yet.
    #[error("the batch names a task that is not finished")]
    Unfinished,
    /// A task that has expired, or was cancelled.
    #[error("the batch names a task that has expired")]
    Expired,
    /// The transcripts have another root.
    #[error("the transcripts do not have this root")]
    RootMismatch,
    /// A task that is in as many open batches as it may.
    #[error("the batch names a task that is in {BATCHES_PER_TASK_MAX} open batches already")]
    TooManyOfTask,
    /// The worker has as many open batches as it may.
    #[error("the worker has {BATCHES_PER_WORKER_MAX} open batches already")]
    TooManyOfWorker,
    /// Worth a retry.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for BatchRefusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

impl Ledger {
    /// Registers the batch with this root. Registering it again is harmless.
    ///
    /// # Errors
    /// The first reason that holds, in the order of [`BatchRefusal`].
    pub async fn register_batch(
        &self,
        worker: WorkerKey,
        root: BatchRoot,
        task_ids: &[TaskId],
    ) -> Result<(), BatchRefusal> {
        if task_ids.is_empty() || task_ids.len() > BATCH_LEAVES_MAX {
            return Err(BatchRefusal::Size);
        }
        // Their prompts may be 16 MiB, and a worker may register as often as it likes.
        let tasks = self
            .tasks(task_ids, TaskRecord::COLUMNS_WITHOUT_PROMPT)
            .await?;
        if tasks.len() != task_ids.len() {
            return Err(BatchRefusal::TaskUnknown);
        }
        if tasks.iter().map(tokens_of).sum::<u64>() > BATCH_TOKENS_MAX {
            return Err(BatchRefusal::TooLong);
        }
        check(&tasks, worker, root)?;
        let ids: Vec<Vec<u8>> = task_ids.iter().map(|id| id.to_bytes().to_vec()).collect();
        let expires_at = tasks.iter().map(|task| task.expires_at_unix).min();
        let mut transaction = self.begin().await?;
        lock_registrations(&mut transaction, worker).await?;
        if open_batches_of_a_task(&mut transaction, root, &ids).await? >= BATCHES_PER_TASK_MAX {
            return Err(BatchRefusal::TooManyOfTask);
        }
        if open_batches_of(&mut transaction, worker, root).await? >= BATCHES_PER_WORKER_MAX {
            return Err(BatchRefusal::TooManyOfWorker);
        }
        sqlx::query(
            "INSERT INTO batches (root, worker, state, task_ids, expires_at)
             VALUES ($1, $2, 'open', $3, $4) ON CONFLICT (root) DO NOTHING",
        )
        .bind(root.to_bytes().to_vec())
        .bind(worker.to_bytes().to_vec())
        .bind(ids)
        .bind(seconds(expires_at.unwrap_or_default()))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The batch with this root, if it was registered.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn batch(&self, root: BatchRoot) -> Result<Option<BatchRecord>, LedgerError> {
        self.batch_with(root, TaskRecord::COLUMNS).await
    }

    /// The same with nothing that is private of its tasks, for whoever has no key to that, as a job declarator.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn batch_without_contents(
        &self,
        root: BatchRoot,
    ) -> Result<Option<BatchRecord>, LedgerError> {
        self.batch_with(root, TaskRecord::COLUMNS_WITHOUT_PROMPT)
            .await
    }

    async fn batch_with(
        &self,
        root: BatchRoot,
        columns: &'static str,
    ) -> Result<Option<BatchRecord>, LedgerError> {
        let row = sqlx::query(
            "SELECT worker, state, task_ids, sample_header, sample_key, stake_msat, code FROM batches WHERE root = $1",
        )
        .bind(root.to_bytes().to_vec())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let state: String = row.try_get("state")?;
        let ids: Vec<Vec<u8>> = row.try_get("task_ids")?;
        let sample_header: Option<Vec<u8>> = row.try_get("sample_header")?;
        let sample_key: Option<Vec<u8>> = row.try_get("sample_key")?;
        let ids = ids
            .into_iter()
            .map(|id| array(id).map(TaskId::from_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some(BatchRecord {
            root,
            worker: WorkerKey::from_bytes(array(row.try_get("worker")?)?),
            state: match state.as_str() {
                "open" => BatchState::Open,
                "settled" => BatchState::Settled,
                "failed" => BatchState::Failed,
                "dead" => BatchState::Dead,
                _ => return Err(LedgerError::Corrupt("batch")),
            },
            sample_header: sample_header
                .map(array)
                .transpose()?
                .map(HeaderHash::from_bytes),
            sample_key: sample_key.map(array).transpose()?,
            stake: row.try_get::<Option<i64>, _>("stake_msat")?.map(Msat::new),
            code: row.try_get("code")?,
            tasks: self.tasks(&ids, columns).await?,
        }))
    }

    /// Keeps a claimed batch's finished tasks from expiring before this time, so that a claim that came
    /// in time is not lost to a slow audit.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn keep_claimed(&self, root: BatchRoot, until_unix: u64) -> Result<(), LedgerError> {
        let mut connection = self.pool.acquire().await?;
        keep_tasks(&mut connection, root, until_unix).await
    }

    /// The tasks with these ids, in their order; unknown ones are left out.
    async fn tasks(
        &self,
        ids: &[TaskId],
        columns: &'static str,
    ) -> Result<Vec<TaskRecord>, LedgerError> {
        let wanted: Vec<Vec<u8>> = ids.iter().map(|id| id.to_bytes().to_vec()).collect();
        let sql = format!(
            "SELECT {columns} FROM unnest($1::bytea[]) WITH ORDINALITY AS wanted (task, place)
             JOIN tasks ON tasks.id = wanted.task ORDER BY place"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(wanted)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(|row| TaskRecord::read(row, self.sealer.as_ref()))
            .collect()
    }
}

/// Keeps an open batch and its finished tasks from expiring before this time.
pub(crate) async fn keep_tasks(
    connection: &mut PgConnection,
    root: BatchRoot,
    until_unix: u64,
) -> Result<(), LedgerError> {
    sqlx::query(
        "WITH kept AS (
             UPDATE batches SET expires_at = greatest(expires_at, $2)
             WHERE root = $1 AND state = 'open' RETURNING task_ids)
         UPDATE tasks SET expires_at = $2 FROM kept
         WHERE tasks.id = ANY(kept.task_ids) AND tasks.state = 'finished' AND tasks.expires_at < $2",
    )
    .bind(root.to_bytes().to_vec())
    .bind(seconds(until_unix))
    .execute(connection)
    .await?;
    Ok(())
}

/// How many tokens this task took in and gave: so many are replayed if it is sampled.
fn tokens_of(task: &TaskRecord) -> u64 {
    let output = task.transcript.as_ref().map_or(0, |of| of.output_tokens);
    u64::from(task.input_tokens) + u64::from(output)
}

/// Waits until no other registration of this worker is under way, on whatever connection.
async fn lock_registrations(
    connection: &mut PgConnection,
    worker: WorkerKey,
) -> Result<(), LedgerError> {
    // Two workers with the same lock wait for each other now and then, which does no harm.
    let [a, b, c, d, ..] = worker.to_bytes();
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(REGISTRATION_LOCKS)
        .bind(i32::from_be_bytes([a, b, c, d]))
        .execute(connection)
        .await?;
    Ok(())
}

/// In how many open batches with other roots the task is that is in most.
async fn open_batches_of_a_task(
    connection: &mut PgConnection,
    root: BatchRoot,
    ids: &[Vec<u8>],
) -> Result<i64, LedgerError> {
    let most = sqlx::query_scalar(
        "SELECT coalesce(max(times), 0) FROM (
             SELECT count(*) AS times FROM batches, unnest(task_ids) AS task
             WHERE state = 'open' AND task_ids && $1 AND root <> $2 AND task = ANY($1)
             GROUP BY task) AS counted",
    )
    .bind(ids.to_vec())
    .bind(root.to_bytes().to_vec())
    .fetch_one(connection)
    .await?;
    Ok(most)
}

/// How many batches with other roots the worker may still claim.
async fn open_batches_of(
    connection: &mut PgConnection,
    worker: WorkerKey,
    root: BatchRoot,
) -> Result<i64, LedgerError> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM batches
         WHERE worker = $1 AND state = 'open' AND expires_at > $2 AND root <> $3
           AND NOT EXISTS (SELECT 1 FROM tasks WHERE id = ANY(task_ids) AND tasks.state <> 'finished')",
    )
    .bind(worker.to_bytes().to_vec())
    .bind(seconds(unix_now()))
    .bind(root.to_bytes().to_vec())
    .fetch_one(connection)
    .await?;
    Ok(count)
}

fn check(tasks: &[TaskRecord], worker: WorkerKey, root: BatchRoot) -> Result<(), BatchRefusal> {
    let now = unix_now();
    if tasks.iter().any(|task| task.worker != Some(worker)) {
        return Err(BatchRefusal::TaskNotYours);
    }
    if tasks.iter().any(TaskRecord::has_ended) {
        return Err(BatchRefusal::Spent);
    }
    let running = |task: &TaskRecord| matches!(task.state, TaskState::Queued | TaskState::Assigned);
    if tasks
        .iter()
        .any(|task| running(task) && task.expires_at_unix > now)
    {
        return Err(BatchRefusal::Unfinished);
    }
    if tasks
        .iter()
        .any(|task| task.state != TaskState::Finished || task.expires_at_unix <= now)
    {
        return Err(BatchRefusal::Expired);
    }
    let leaves = tasks
        .iter()
        .map(|task| task.transcript.as_ref().map(|transcript| transcript.leaf()))
        .collect::<Option<Vec<_>>>()
        .ok_or(BatchRefusal::Expired)?;
    let batch = Batch::new(leaves).map_err(|_| BatchRefusal::Size)?;
    if batch.root() != root {
        return Err(BatchRefusal::RootMismatch);
    }
    Ok(())
}
