//! Tasks: queued -> assigned -> finished -> settled, or an early end. Each step is one statement
//! that names the state it starts from, so two callers cannot both take it.

use dovetail_commitment::{
    Constraint, EncodedPrompt, ModelId, SamplingParams, StopSequences, TaskId, Transcript,
    WorkerKey, output_digest,
};
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, TokenPrices};
use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row, Transaction};

use crate::sealing::{Part, Sealer};
use crate::{Ledger, LedgerError, collateral, payers};

/// Tasks that are wiped at once: a statement of milliseconds.
pub const TASKS_WIPED_MAX: u64 = 1_000;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Waiting for a worker.
    Queued,
    /// A worker runs it.
    Assigned,
    /// Its transcript waits for a share.
    Finished,
    /// Credited; the receipt exists.
    Settled,
    /// It went wrong.
    Failed,
    /// The agent stopped it.
    Cancelled,
    /// Its time ran out.
    Expired,
}

impl TaskState {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "queued" => Self::Queued,
            "assigned" => Self::Assigned,
            "finished" => Self::Finished,
            "settled" => Self::Settled,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "expired" => Self::Expired,
            _ => return None,
        })
    }
}

/// A task as the ledger has it. No `Debug`: it holds a prompt.
#[derive(Clone)]
pub struct TaskRecord {
    /// The task.
    pub id: TaskId,
    /// Where it stands.
    pub state: TaskState,
    /// The model.
    pub model_id: ModelId,
    /// What every replay takes in. Gone once the task has ended.
    pub prompt: Option<EncodedPrompt>,
    /// Gone with the prompt.
    pub stop: Option<StopSequences>,
    /// Gone with the prompt, too; none as well for a task that was asked for without one.
    pub constraint: Option<Constraint>,
    /// The salt of the prompt's commitment. Wiped with the output, some time after its end.
    pub salt: Option<[u8; 32]>,
    /// How to sample.
    pub sampling: SamplingParams,
    /// The seed of the sampling.
    pub seed: [u8; 32],
    /// The price of its tokens: of the most that there may be, until it has finished. So much it earns its worker, if it is
    /// settled. [`TaskRecord::cost`] is what its payer pays.
    pub price: Msat,
    /// How many tokens of input that counts.
    pub input_tokens: u32,
    /// What it counts a token with.
    pub prices: TokenPrices,
    /// Who runs or ran it.
    pub worker: Option<WorkerKey>,
    /// What the worker committed to.
    pub transcript: Option<Transcript>,
    /// Its output; wiped some time after its end.
    pub output_tokens: Option<Vec<u32>>,
    /// Why it failed.
    pub error_code: Option<String>,
    /// In Unix seconds.
    pub created_at_unix: u64,
    /// In Unix seconds.
    pub expires_at_unix: u64,
    /// Its agent cancelled it while it ran: until when its worker may deliver what was streamed.
    pub stops_at_unix: Option<u64>,
}

impl TaskRecord {
    pub(crate) const COLUMNS: &'static str = "id, state, model_id, prompt, stop, answer_form, salt, sampling, seed, \
        price_msat, input_tokens, input_msat_per_million, output_msat_per_million, worker, transcript, output_tokens, \
        error_code, created_at, expires_at, stops_at";

    /// The same with nothing that is private, for those who look at many tasks.
    pub(crate) const COLUMNS_WITHOUT_PROMPT: &'static str = "id, state, model_id, NULL::bytea AS prompt, NULL::bytea AS stop, \
        NULL::bytea AS answer_form, NULL::bytea AS salt, sampling, seed, price_msat, input_tokens, input_msat_per_million, \
        output_msat_per_million, worker, transcript, NULL::bytea AS output_tokens, error_code, created_at, expires_at, stops_at";

    /// What it costs its payer: at most, until it has finished. Nothing, if it ended in another way.
    pub fn cost(&self) -> Msat {
        match self.state {
            TaskState::Queued | TaskState::Assigned | TaskState::Finished | TaskState::Settled => {
                self.price
            }
            TaskState::Failed | TaskState::Cancelled | TaskState::Expired => Msat::ZERO,
        }
    }

    /// Whether it was settled or has failed: its transcript earns nothing any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, TaskState::Settled | TaskState::Failed)
    }

    pub(crate) fn read(row: &PgRow, sealer: Option<&Sealer>) -> Result<Self, LedgerError> {
        let corrupt = || LedgerError::Corrupt("task");
        let id = TaskId::from_bytes(array(row.try_get("id")?)?);
        let opened = |column: &str, part: Part| -> Result<Option<Vec<u8>>, LedgerError> {
            let Some(sealed) = row.try_get::<Option<Vec<u8>>, _>(column)? else {
                return Ok(None);
            };
            let sealer = sealer.ok_or(LedgerError::Sealed)?;
            sealer.open(id, part, &sealed).map(Some)
        };
        let state: String = row.try_get("state")?;
        let worker: Option<Vec<u8>> = row.try_get("worker")?;
        let transcript: Option<Vec<u8>> = row.try_get("transcript")?;
        let tokens = opened("output_tokens", Part::Output)?;
        let sampling: Vec<u8> = row.try_get("sampling")?;
        let prompt = opened("prompt", Part::Prompt)?;
        let stop = opened("stop", Part::Stop)?;
        let form = opened("answer_form", Part::Constraint)?;
        let unix = |value: i64| u64::try_from(value).map_err(|_| LedgerError::Corrupt("task"));
        Ok(Self {
            id,
            state: TaskState::parse(&state).ok_or_else(corrupt)?,
            model_id: ModelId::from_bytes(array(row.try_get("model_id")?)?),
            prompt: prompt
                .map(|bytes| EncodedPrompt::decode(&bytes).map_err(|_| corrupt()))
                .transpose()?,
            stop: stop.map(|bytes| stop_from(&bytes)).transpose()?,
            constraint: form.map(|bytes| constraint_from(&bytes)).transpose()?,
            salt: opened("salt", Part::Salt)?.map(array).transpose()?,
            sampling: sampling_from(&sampling).ok_or_else(corrupt)?,
            seed: array(row.try_get("seed")?)?,
            price: Msat::new(row.try_get("price_msat")?),
            input_tokens: u32::try_from(row.try_get::<i64, _>("input_tokens")?)
                .map_err(|_| corrupt())?,
            prices: prices_from(row)?,
            worker: worker.map(array).transpose()?.map(WorkerKey::from_bytes),
            transcript: transcript
                .map(|bytes| Transcript::decode(&bytes).map_err(|_| corrupt()))
                .transpose()?,
            output_tokens: tokens.map(|bytes| tokens_from(&bytes)),
            error_code: row.try_get("error_code")?,
            created_at_unix: unix(row.try_get("created_at")?)?,
            expires_at_unix: unix(row.try_get("expires_at")?)?,
            stops_at_unix: row
                .try_get::<Option<i64>, _>("stops_at")?
                .map(unix)
                .transpose()?,
        })
    }
}

fn prices_from(row: &PgRow) -> Result<TokenPrices, LedgerError> {
    let price = |name: &str| -> Result<u64, LedgerError> {
        let msat: i64 = row.try_get(name)?;
        u64::try_from(msat).map_err(|_| LedgerError::Corrupt("task"))
    };
    let (input, output) = (
        price("input_msat_per_million")?,
        price("output_msat_per_million")?,
    );
    TokenPrices::new(input, output).map_err(|_| LedgerError::Corrupt("task"))
}

pub(crate) fn array(bytes: Vec<u8>) -> Result<[u8; 32], LedgerError> {
    bytes.try_into().map_err(|_| LedgerError::Corrupt("id"))
}

fn sampling_from(bytes: &[u8]) -> Option<SamplingParams> {
    let mut fields = bytes
        .chunks_exact(4)
        .map(|chunk| u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    Some(SamplingParams {
        temperature_milli: fields.next()?,
        top_k: fields.next()?,
        top_p_milli: fields.next()?,
        max_tokens: fields.next()?,
    })
}

fn stop_from(bytes: &[u8]) -> Result<StopSequences, LedgerError> {
    match StopSequences::decode_from(bytes) {
        Ok((stop, [])) => Ok(stop),
        _ => Err(LedgerError::Corrupt("task")),
    }
}

fn constraint_from(bytes: &[u8]) -> Result<Constraint, LedgerError> {
    match Constraint::decode_optional_from(bytes) {
        Ok((Some(constraint), [])) => Ok(constraint),
        _ => Err(LedgerError::Corrupt("task")),
    }
}

fn tokens_from(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|chunk| u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
        .collect()
}

fn tokens_to(tokens: &[u32]) -> Vec<u8> {
    tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect()
}

/// Unix seconds as the database keeps them.
pub(crate) fn seconds(unix: u64) -> i64 {
    i64::try_from(unix).unwrap_or(i64::MAX)
}

impl Ledger {
    /// A transaction that may end tasks: what is set aside for them moves then.
    async fn ending_tasks(&self) -> Result<Transaction<'static, Postgres>, LedgerError> {
        let mut transaction = self.begin().await?;
        collateral::lock(&mut transaction).await?;
        Ok(transaction)
    }

    /// The task, if there is one.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, LedgerError> {
        let sql = format!("SELECT {} FROM tasks WHERE id = $1", TaskRecord::COLUMNS);
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(id.to_bytes().to_vec())
            .fetch_optional(&self.pool)
            .await?
            .map(|row| TaskRecord::read(&row, self.sealer.as_ref()))
            .transpose()
    }

    /// Where the task stands, without all that belongs to it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn task_state(&self, id: TaskId) -> Result<Option<TaskState>, LedgerError> {
        let found: Option<String> = sqlx::query_scalar("SELECT state FROM tasks WHERE id = $1")
            .bind(id.to_bytes().to_vec())
            .fetch_optional(&self.pool)
            .await?;
        let state = |text: String| TaskState::parse(&text).ok_or(LedgerError::Corrupt("task"));
        found.map(state).transpose()
    }

    /// queued -> assigned; `false` if it is not queued any more, or expired.
    ///
    /// It does not wait for the disk: an agent waits for its first token meanwhile. Nobody is owed anything for an
    /// assignment. Should Postgres crash within the next second, the task is queued again, and its worker's
    /// transcript is refused.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn assign_task(&self, id: TaskId, worker: WorkerKey) -> Result<bool, LedgerError> {
        let assign = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
             UPDATE tasks SET state = 'assigned', worker = $2 FROM quick
             WHERE id = $1 AND state = 'queued' AND expires_at > $3";
        self.move_task(assign, id, worker).await
    }

    /// assigned -> queued: the worker does not run it, and another one may. `false` if it does not run on
    /// this worker any more, or has expired. Like an assignment, it does not wait for the disk.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn release_task(&self, id: TaskId, worker: WorkerKey) -> Result<bool, LedgerError> {
        let release = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
             UPDATE tasks SET state = 'queued', worker = NULL FROM quick
             WHERE id = $1 AND worker = $2 AND state = 'assigned' AND stops_at IS NULL AND expires_at > $3";
        self.move_task(release, id, worker).await
    }

    /// Runs an update of the task `$1` and the worker `$2` at the time `$3`. Whether it changed the task.
    async fn move_task(
        &self,
        update: &'static str,
        id: TaskId,
        worker: WorkerKey,
    ) -> Result<bool, LedgerError> {
        let done = sqlx::query(update)
            .bind(id.to_bytes().to_vec())
            .bind(worker.to_bytes().to_vec())
            .bind(seconds(unix_now()))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// assigned -> finished, with what the worker committed to.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the task is not this worker's running one, has expired, or the
    /// transcript is of something else.
    pub async fn finish_task(
        &self,
        id: TaskId,
        worker: WorkerKey,
        transcript: &Transcript,
        tokens: &[u32],
    ) -> Result<(), LedgerError> {
        let fits = transcript.task_id == id
            && transcript.worker_key == worker
            && usize::try_from(transcript.output_tokens) == Ok(tokens.len())
            && transcript.output_digest == output_digest(tokens);
        if !fits {
            return Err(LedgerError::Refused(
                "the transcript is not of this task, worker and output",
            ));
        }
        let mut transaction = self.ending_tasks().await?;
        let done = sqlx::query(
            "UPDATE tasks SET state = 'finished', transcript = $3, output_tokens = $4,
                    price_msat = div(input_tokens::numeric * input_msat_per_million
                                     + $7::numeric * output_msat_per_million + 999999, 1000000)::bigint
             WHERE id = $1 AND worker = $2 AND state = 'assigned' AND model_id = $5
               AND expires_at > $6",
        )
        .bind(id.to_bytes().to_vec())
        .bind(worker.to_bytes().to_vec())
        .bind(transcript.encode())
        .bind(self.sealer()?.seal(id, Part::Output, &tokens_to(tokens)))
        .bind(transcript.model_id.to_bytes().to_vec())
        .bind(seconds(unix_now()))
        .bind(i64::from(transcript.output_tokens))
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() != 1 {
            return Err(LedgerError::Refused("the task does not run on this worker"));
        }
        payers::release_surplus(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Ends a queued or running task as failed; of a worker's, where one is given. `false` if
    /// there is nothing to end.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn fail_task(
        &self,
        id: TaskId,
        worker: Option<WorkerKey>,
        code: &str,
    ) -> Result<bool, LedgerError> {
        let mut transaction = self.ending_tasks().await?;
        let done = sqlx::query(
            "UPDATE tasks SET state = 'failed', error_code = $3, prompt = NULL, stop = NULL, answer_form = NULL
             WHERE id = $1 AND state IN ('queued', 'assigned') AND ($2::bytea IS NULL OR worker = $2)",
        )
        .bind(id.to_bytes().to_vec())
        .bind(worker.map(|worker| worker.to_bytes().to_vec()))
        .bind(code)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a queued or running task as cancelled; `false` if it has ended.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn cancel_task(&self, id: TaskId) -> Result<bool, LedgerError> {
        let mut transaction = self.ending_tasks().await?;
        let done = sqlx::query(
            "UPDATE tasks SET state = 'cancelled', prompt = NULL, stop = NULL, answer_form = NULL
             WHERE id = $1 AND state IN ('queued', 'assigned')",
        )
        .bind(id.to_bytes().to_vec())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Its agent wants no more of a running task: it stays assigned, and its worker may deliver what was streamed
    /// until then. [`Ledger::expire_tasks`] ends it as cancelled otherwise. `false` if it does not run.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn stop_task(&self, id: TaskId, until_unix: u64) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "UPDATE tasks SET stops_at = COALESCE(stops_at, $2) WHERE id = $1 AND state = 'assigned'",
        )
        .bind(id.to_bytes().to_vec())
        .bind(seconds(until_unix))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends every open task whose time is over, and those that were cancelled and did not end, and returns them. Not the
    /// tasks of a suspect batch, which are evidence.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn expire_tasks(&self, now_unix: u64) -> Result<Vec<TaskId>, LedgerError> {
        let mut transaction = self.ending_tasks().await?;
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(
            "UPDATE tasks SET state = CASE WHEN expires_at <= $1 THEN 'expired' ELSE 'cancelled' END,
                    prompt = NULL, stop = NULL, answer_form = NULL
             WHERE (state IN ('queued', 'assigned', 'finished') AND expires_at <= $1
                    AND id <> ALL (ARRAY(SELECT unnest(b.task_ids) FROM findings f JOIN batches b ON b.root = f.root
                                          WHERE b.state = 'open')))
                OR (state = 'assigned' AND stops_at <= $1) RETURNING id",
        )
        .bind(seconds(now_unix))
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        ids.into_iter()
            .map(|id| array(id).map(TaskId::from_bytes))
            .collect()
    }

    /// Ends the tasks that were queued or running when the pool stopped: their streams are lost.
    /// Finished ones still wait for their share.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn fail_unfinished(&self, code: &str) -> Result<u64, LedgerError> {
        let mut transaction = self.ending_tasks().await?;
        let done = sqlx::query(
            "UPDATE tasks SET state = 'failed', error_code = $1, prompt = NULL, stop = NULL, answer_form = NULL
             WHERE state IN ('queued', 'assigned')",
        )
        .bind(code)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    /// Wipes outputs and salts of tasks that have ended and whose time was over then; returns of how many. If it is
    /// [`TASKS_WIPED_MAX`], more may be left.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn wipe_contents(&self, before_unix: u64) -> Result<u64, LedgerError> {
        let done = sqlx::query(
            "UPDATE tasks SET output_tokens = NULL, salt = NULL
              WHERE id = ANY (ARRAY (SELECT id FROM tasks
                      WHERE salt IS NOT NULL AND state IN ('settled', 'failed', 'cancelled', 'expired') AND expires_at <= $1
                      ORDER BY expires_at LIMIT $2))",
        )
        .bind(seconds(before_unix))
        .bind(i64::try_from(TASKS_WIPED_MAX).unwrap_or(i64::MAX))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// The receipt of a settled task.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn receipt(&self, id: TaskId) -> Result<Option<String>, LedgerError> {
        Ok(
            sqlx::query_scalar("SELECT receipt FROM receipts WHERE task_id = $1")
                .bind(id.to_bytes().to_vec())
                .fetch_optional(&self.pool)
                .await?,
        )
    }
}
