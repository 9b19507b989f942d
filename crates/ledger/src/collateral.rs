//! Inference credit as collateral: what a worker loses if a lie of it is found now. A settled batch's credit is a
//! pending transfer; it is posted in its order, after a least time and once later batches worth as much have passed
//! their audits, and voided if one of them is proven false before. Samples are drawn against what is held, and a worker may
//! leave more there than it must ([`Ledger::keep_credit`]): what it wants counts for nothing, only what is held. Hash credit
//! has no part in this; some of it is held for another reason (`coinbase_only.rs`).

use dovetail_commitment::{BatchRoot, TaskId, WorkerKey};
use sqlx::{PgConnection, Row};

use crate::error::Fault;
use crate::tasks::array;
use crate::transfers::{self, Phase, Transfer, TransferId, transfer, worker_account};
use crate::{Ledger, LedgerError};
use dovetail_units::Msat;

/// Credits that one transaction ends at most.
const CREDITS_PER_TRANSACTION: i64 = 200;
/// How often a transaction that collided with another is tried.
const TRIES_MAX: usize = 3;
/// The advisory lock of those who move held credit, of either kind. They and the committer move two kinds of accounts in
/// different orders; one at a time they cannot wait for each other in a circle.
const HELD_LOCK: i64 = 0x4149;

/// When held credit matures, in the order in which it was earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaturityWindow {
    /// Once it was held for this many seconds, and later credit worth as much is held.
    pub seconds: u32,
    /// In any case after this many seconds without a mismatch: so a worker that leaves is paid.
    pub seconds_max: u32,
}

/// Credit of one worker that has matured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matured {
    /// Whose batches they were.
    pub worker: WorkerKey,
    /// Whom they are credited to.
    pub account: String,
    /// How many batches.
    pub credits: u64,
    /// What they come to.
    pub amount: Msat,
}

/// What a mismatch has cost a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forfeiture {
    /// How many batches lost their credit.
    pub credits: u64,
    /// What they would have come to.
    pub amount: Msat,
}

/// Waits for the right to move held credit, or what payers have set aside, until the transaction ends. To be called before anything
/// else in it takes a lock.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), LedgerError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(HELD_LOCK)
        .execute(connection)
        .await?;
    Ok(())
}

/// The same, and the hash of the request that has created this task by then, if there is one.
pub(crate) async fn lock_for_task(
    connection: &mut PgConnection,
    task: TaskId,
) -> Result<Option<Vec<u8>>, LedgerError> {
    Ok(sqlx::query_scalar("SELECT request_under_lock($1, $2)")
        .bind(HELD_LOCK)
        .bind(task.to_bytes().to_vec())
        .fetch_one(connection)
        .await?)
}

/// One batch's credit.
struct Held {
    root: [u8; 32],
    /// Where it comes from; credit from before migration 14 came from `pool:inference`.
    source: String,
    account: String,
    amount: Msat,
}

impl Held {
    fn pending(&self) -> TransferId {
        TransferId::of("inference", &self.root)
    }

    /// Ends the pending transfer, one way or the other, and notes it.
    async fn end(&self, connection: &mut PgConnection, matured: bool) -> Result<(), LedgerError> {
        let (state, purpose, phase): (_, _, fn(TransferId) -> Phase) = if matured {
            ("matured", "inference-matured", Phase::Post)
        } else {
            ("forfeited", "inference-forfeited", Phase::Void)
        };
        let account = worker_account(&self.account);
        let ending = Transfer {
            id: TransferId::of(purpose, &self.root),
            phase: phase(self.pending()),
            debit: &self.source,
            credit: &account,
            amount: self.amount,
            reason: state,
        };
        transfer(connection, &ending).await?;
        if !matured && self.source == transfers::PAID_INFERENCE {
            let kept = Transfer {
                id: TransferId::of("inference-kept", &self.root),
                phase: Phase::Posted,
                debit: transfers::PAID_INFERENCE,
                credit: transfers::POOL_FORFEITED,
                amount: self.amount,
                reason: state,
            };
            transfer(connection, &kept).await?;
        }
        sqlx::query("UPDATE held_credits SET state = $2 WHERE root = $1")
            .bind(self.root.to_vec())
            .bind(state)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Holds the credit of a batch that was just settled as its worker's `batch_number`th.
pub(crate) async fn hold(
    connection: &mut PgConnection,
    root: BatchRoot,
    worker: &[u8],
    account: &str,
    amount: Msat,
    batch_number: i64,
) -> Result<(), LedgerError> {
    if amount == Msat::ZERO {
        return Ok(());
    }
    let held = Held {
        root: root.to_bytes(),
        source: transfers::PAID_INFERENCE.to_owned(),
        account: account.to_owned(),
        amount,
    };
    let credit = worker_account(account);
    let pending = Transfer {
        id: held.pending(),
        phase: Phase::Pending,
        debit: &held.source,
        credit: &credit,
        amount,
        reason: "inference",
    };
    transfer(connection, &pending).await?;
    sqlx::query(
        "INSERT INTO held_credits (root, worker, account, amount_msat, transfer, batch_number)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(held.root.to_vec())
    .bind(worker)
    .bind(account)
    .bind(amount.get())
    .bind(held.pending().to_vec())
    .bind(batch_number)
    .execute(connection)
    .await?;
    Ok(())
}

/// Voids all that is held for the worker.
pub(crate) async fn forfeit(
    connection: &mut PgConnection,
    worker: WorkerKey,
) -> Result<Forfeiture, LedgerError> {
    let rows = sqlx::query(
        "SELECT h.root, h.account, h.amount_msat, a.name AS source
           FROM held_credits h JOIN transfers t ON t.id = h.transfer JOIN accounts a ON a.id = t.debit
          WHERE h.worker = $1 AND h.state = 'held' ORDER BY h.account, h.batch_number FOR UPDATE OF h",
    )
    .bind(worker.to_bytes().to_vec())
    .fetch_all(&mut *connection)
    .await?;
    let mut forfeited = Forfeiture::default();
    for row in &rows {
        let held = read(row)?;
        held.end(connection, false).await?;
        forfeited.credits += 1;
        forfeited.amount = add(forfeited.amount, held.amount)?;
    }
    Ok(forfeited)
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Held, LedgerError> {
    Ok(Held {
        root: array(row.try_get("root")?)?,
        source: row.try_get("source")?,
        account: row.try_get("account")?,
        amount: Msat::new(row.try_get("amount_msat")?),
    })
}

fn add(sum: Msat, amount: Msat) -> Result<Msat, LedgerError> {
    sum.checked_add(amount)
        .ok_or(LedgerError::Corrupt("held credit"))
}

impl Ledger {
    /// A claim of this batch is audited from now on: what its sample is drawn against. That is the least that was held
    /// for the worker at this or an earlier claim of the batch, so nothing that a worker does after its first claim
    /// makes the sample smaller. While the batch is open, nothing of the worker matures: until its tasks have expired, which
    /// may have been kept longer for another batch that names them too. `None` if the worker has no
    /// such open batch.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn stake(
        &self,
        worker: WorkerKey,
        root: BatchRoot,
    ) -> Result<Option<Msat>, LedgerError> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction).await?;
        let stake: Option<i64> = sqlx::query_scalar(
            "UPDATE batches SET stake_msat = LEAST(stake_msat, (
                 SELECT COALESCE(sum(amount_msat), 0)::bigint FROM held_credits
                  WHERE worker = $2 AND state = 'held')),
                 expires_at = GREATEST(expires_at, (SELECT min(k.expires_at) FROM tasks k WHERE k.id = ANY(task_ids)))
              WHERE root = $1 AND worker = $2 AND state = 'open' RETURNING stake_msat",
        )
        .bind(root.to_bytes().to_vec())
        .bind(worker.to_bytes().to_vec())
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(stake.map(Msat::new))
    }

    /// Posts the held credit that has matured, of one worker or of all; once more is harmless. Returns
    /// what was posted; more may be due if there was very much of it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]; what was posted before stays so.
    pub async fn mature_credits(
        &self,
        window: MaturityWindow,
        worker: Option<WorkerKey>,
    ) -> Result<Vec<Matured>, LedgerError> {
        let due = sqlx::query(
            "SELECT worker, account FROM matured_credits($3, $1, $2)
              GROUP BY worker, account ORDER BY min(batch_number) LIMIT 1000",
        )
        .bind(f64::from(window.seconds))
        .bind(f64::from(window.seconds_max))
        .bind(worker.map(|worker| worker.to_bytes().to_vec()))
        .fetch_all(&self.pool)
        .await?;
        let mut all = Vec::with_capacity(due.len());
        for row in due {
            let worker = WorkerKey::from_bytes(array(row.try_get("worker")?)?);
            let account: String = row.try_get("account")?;
            let matured = retried(|| self.mature(window, worker, &account)).await?;
            if matured.credits > 0 {
                all.push(matured);
            }
        }
        Ok(all)
    }

    /// Posts what has matured on one account: one transaction, so that it moves one worker's account.
    async fn mature(
        &self,
        window: MaturityWindow,
        worker: WorkerKey,
        account: &str,
    ) -> Result<Matured, LedgerError> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction).await?;
        let rows = sqlx::query(
            "SELECT h.root, h.account, h.amount_msat, a.name AS source
               FROM matured_credits($3, $1, $2) m JOIN held_credits h ON h.root = m.root
               JOIN transfers t ON t.id = h.transfer JOIN accounts a ON a.id = t.debit
              WHERE h.account = $4 ORDER BY h.batch_number LIMIT $5 FOR UPDATE OF h",
        )
        .bind(f64::from(window.seconds))
        .bind(f64::from(window.seconds_max))
        .bind(worker.to_bytes().to_vec())
        .bind(account)
        .bind(CREDITS_PER_TRANSACTION)
        .fetch_all(&mut *transaction)
        .await?;
        let mut matured = Matured {
            worker,
            account: account.to_owned(),
            credits: 0,
            amount: Msat::ZERO,
        };
        for row in &rows {
            let held = read(row)?;
            held.end(&mut transaction, true).await?;
            matured.credits += 1;
            matured.amount = add(matured.amount, held.amount)?;
        }
        transaction.commit().await?;
        Ok(matured)
    }
}

/// Does it again where it collided with another transaction.
pub(crate) async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if error.fault() == Fault::Collision && tries < TRIES_MAX => tries += 1,
            result => return result,
        }
    }
}
