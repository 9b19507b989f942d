//! Inference credit as collateral. A settled batch's credit is a pending transfer; it is posted once
//! enough of the worker's later batches have passed their audits and enough time has gone by, and voided
//! if one of them is proven false before. Hash credit has no part in this; some of it is held
//! for another reason (`coinbase_only.rs`).

use dovetail_commitment::{BatchRoot, WorkerKey};
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

/// When held credit matures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaturityWindow {
    /// Once this many later batches of the worker were settled ..
    pub batches: u32,
    /// .. and it was held for this many seconds.
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

/// Waits for the right to move held credit, until the transaction ends. To be called before anything
/// else in it takes a lock.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), LedgerError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(HELD_LOCK)
        .execute(connection)
        .await?;
    Ok(())
}

/// One batch's credit.
struct Held {
    root: [u8; 32],
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
            debit: transfers::POOL_INFERENCE,
            credit: &account,
            amount: self.amount,
            reason: state,
        };
        transfer(connection, &ending).await?;
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
        account: account.to_owned(),
        amount,
    };
    let credit = worker_account(account);
    let pending = Transfer {
        id: held.pending(),
        phase: Phase::Pending,
        debit: transfers::POOL_INFERENCE,
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
        "SELECT root, account, amount_msat FROM held_credits
         WHERE worker = $1 AND state = 'held' ORDER BY account, held_at FOR UPDATE",
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
        account: row.try_get("account")?,
        amount: Msat::new(row.try_get("amount_msat")?),
    })
}

fn add(sum: Msat, amount: Msat) -> Result<Msat, LedgerError> {
    sum.checked_add(amount)
        .ok_or(LedgerError::Corrupt("held credit"))
}

impl Ledger {
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
            "SELECT h.worker, h.account
               FROM held_credits h JOIN trust t USING (worker)
              WHERE h.state = 'held' AND ($4::bytea IS NULL OR h.worker = $4)
                AND is_mature(h, t.batches, $1, $2, $3)
              GROUP BY h.worker, h.account LIMIT 1000",
        )
        .bind(i64::from(window.batches))
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
        let mut transaction = self.pool.begin().await?;
        lock(&mut transaction).await?;
        let rows = sqlx::query(
            "SELECT h.root, h.account, h.amount_msat
               FROM held_credits h JOIN trust t USING (worker)
              WHERE h.worker = $4 AND h.account = $5 AND h.state = 'held'
                AND is_mature(h, t.batches, $1, $2, $3)
              ORDER BY h.held_at LIMIT $6 FOR UPDATE OF h",
        )
        .bind(i64::from(window.batches))
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
