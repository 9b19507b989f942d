//! A task's beginning: what an agent asks for, what it costs at most and who pays.

use dovetail_commitment::{
    Constraint, EncodedPrompt, ModelId, SamplingParams, StopSequences, TaskId, tagged_hash,
};
use dovetail_units::{Msat, TokenPrices};
use sqlx::PgConnection;

use crate::sealing::Part;
use crate::tasks::{TaskRecord, TaskState, seconds};
use crate::transfers::TransferId;
use crate::{Ledger, LedgerError, Payer, collateral, payers};

/// A task to be created. No `Debug`: it holds a prompt.
#[derive(Clone)]
pub struct NewTask {
    /// Chosen by the agent, or for it.
    pub id: TaskId,
    /// The model to run.
    pub model_id: ModelId,
    /// What to complete.
    pub prompt: EncodedPrompt,
    /// Where to stop.
    pub stop: StopSequences,
    /// The form that the output must have.
    pub constraint: Option<Constraint>,
    /// The salt of the prompt's commitment.
    pub salt: [u8; 32],
    /// How to sample.
    pub sampling: SamplingParams,
    /// The seed of the sampling.
    pub seed: [u8; 32],
    /// What its tokens cost.
    pub prices: TokenPrices,
    /// Who pays for them.
    pub payer: Payer,
    /// When it was asked for, in Unix seconds.
    pub created_at_unix: u64,
    /// When it is worthless, in Unix seconds.
    pub expires_at_unix: u64,
}

impl NewTask {
    /// What it costs at most: with the longest output.
    pub fn price_max(&self) -> Msat {
        self.prices
            .of(self.input_tokens(), self.sampling.max_tokens)
    }

    /// How many tokens of input are paid for.
    pub fn input_tokens(&self) -> u32 {
        u32::try_from(self.prompt.tokens().len()).expect("a prompt has 65,536 tokens at most")
    }

    /// The task as the ledger has it, once it was created.
    pub fn record(&self) -> TaskRecord {
        TaskRecord {
            id: self.id,
            state: TaskState::Queued,
            model_id: self.model_id,
            prompt: Some(self.prompt.clone()),
            stop: Some(self.stop.clone()),
            constraint: self.constraint.clone(),
            salt: Some(self.salt),
            sampling: self.sampling,
            seed: self.seed,
            price: self.price_max(),
            input_tokens: self.input_tokens(),
            prices: self.prices,
            worker: None,
            transcript: None,
            output_tokens: None,
            error_code: None,
            created_at_unix: self.created_at_unix,
            expires_at_unix: self.expires_at_unix,
            stops_at_unix: None,
        }
    }

    /// What tells a repeated request from another one. The seed is left out: the pool may have
    /// chosen it. So are the tokens: the pool made them, and may make others of the text after an update.
    fn request_hash(&self) -> [u8; 32] {
        tagged_hash(
            "dovetail/request",
            &[
                self.model_id.as_bytes(),
                &self.salt,
                &self.stop.encode(),
                &Constraint::encode_optional(self.constraint.as_ref()),
                self.prompt.text().as_bytes(),
                &self.sampling.encode(),
            ],
        )
    }
}

impl Ledger {
    /// Creates the task, and sets aside on its payer's account what it costs at most; `false` if the very same request
    /// created it before.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if the id names another task, [`LedgerError::Unpaid`] if the payer does not pay.
    pub async fn create_task(&self, task: &NewTask) -> Result<bool, LedgerError> {
        let mut transaction = self.begin().await?;
        let price_max = task.price_max();
        let request_hash = task.request_hash().to_vec();
        let before = match price_max > Msat::ZERO {
            true => collateral::lock_for_task(&mut transaction, task.id).await?,
            false => request_before(&mut transaction, task.id).await?,
        };
        if let Some(before) = before {
            return same_request(&before, &request_hash);
        }
        let reserve = payers::reserve(&mut transaction, task.id, task.payer, price_max).await?;
        let sealer = self.sealer()?;
        let sealed = |part, content: &[u8]| sealer.seal(task.id, part, content);
        let constraint = task.constraint.as_ref().map(Constraint::encode);
        let price = |msat_per_million: u64| i64::try_from(msat_per_million).unwrap_or(i64::MAX);
        let inserted = sqlx::query(
            "INSERT INTO tasks (id, state, model_id, prompt, stop, request_hash, salt, sampling, seed,
                                price_msat, created_at, expires_at, answer_form, reserve, input_tokens,
                                input_msat_per_million, output_msat_per_million)
             VALUES ($1, 'queued', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(task.id.to_bytes().to_vec())
        .bind(task.model_id.to_bytes().to_vec())
        .bind(sealed(Part::Prompt, &task.prompt.encode()))
        .bind(sealed(Part::Stop, &task.stop.encode()))
        .bind(&request_hash)
        .bind(sealed(Part::Salt, &task.salt))
        .bind(task.sampling.encode().to_vec())
        .bind(task.seed.to_vec())
        .bind(price_max.get())
        .bind(seconds(task.created_at_unix))
        .bind(seconds(task.expires_at_unix))
        .bind(constraint.map(|form| sealed(Part::Constraint, &form)))
        .bind(reserve.map(TransferId::to_vec))
        .bind(i64::from(task.input_tokens()))
        .bind(price(task.prices.input_msat_per_million()))
        .bind(price(task.prices.output_msat_per_million()))
        .execute(&mut *transaction)
        .await?;
        if inserted.rows_affected() == 1 {
            transaction.commit().await?;
            return Ok(true);
        }
        // Another request has created it since this one looked: only tasks that cost nothing come here.
        let before = request_before(&mut transaction, task.id).await?;
        same_request(&before.unwrap_or_default(), &request_hash)
    }
}

impl Ledger {
    /// Whether the very same request created the task before.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if the id names another task.
    pub async fn was_created(&self, task: &NewTask) -> Result<bool, LedgerError> {
        let mut connection = self.pool.acquire().await?;
        match request_before(&mut connection, task.id).await? {
            Some(before) => same_request(&before, &task.request_hash()).map(|_| true),
            None => Ok(false),
        }
    }
}

/// The hash of the request that created this task, if there is one.
async fn request_before(
    connection: &mut PgConnection,
    id: TaskId,
) -> Result<Option<Vec<u8>>, LedgerError> {
    Ok(
        sqlx::query_scalar("SELECT request_hash FROM tasks WHERE id = $1")
            .bind(id.to_bytes().to_vec())
            .fetch_optional(connection)
            .await?,
    )
}

/// The answer to a request for a task that is there.
fn same_request(before: &[u8], now: &[u8]) -> Result<bool, LedgerError> {
    if before == now {
        Ok(false)
    } else {
        Err(LedgerError::Conflict("the id names another task"))
    }
}
