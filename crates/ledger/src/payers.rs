//! Who pays for tasks. When a task is admitted, its highest price is set aside on its payer's account. When its batch is
//! settled, its price moves to the account in between, from which its worker is credited. No account of the two can be
//! negative, so no credit for inference exists that nobody has paid for.
//!
//! A task that ends otherwise gives back what was set aside: a trigger on `tasks` sees to that.

use dovetail_commitment::{BatchRoot, TaskId};
use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use sqlx::{PgConnection, Row};

use crate::tasks::seconds;
use crate::transfers::{self, Phase, Transfer, TransferId, transfer};
use crate::{Ledger, LedgerError};

/// The operator's own account for tasks.
const SUBSIDY: &str = "payer:subsidy";
const DAY_S: u64 = 86_400;

/// What the operator pays for tasks at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubsidyBudget {
    /// So much is on its account at the start of each day (UTC), as long as there is as much left of ..
    pub per_day: Msat,
    /// .. what it gives in all, ever.
    pub in_all: Msat,
}

/// Who pays for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payer {
    /// The pool's operator, within a budget.
    Operator(SubsidyBudget),
}

/// How the operator's account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Subsidy {
    /// What the budget gave so far.
    pub granted: Msat,
    /// What is set aside for tasks that have not ended.
    pub reserved: Msat,
    /// What tasks have cost.
    pub spent: Msat,
    /// What those of them have cost that were settled on this day (UTC).
    pub spent_today: Msat,
}

impl Subsidy {
    /// What new tasks may cost now. The first task of a day may bring more.
    pub fn available(&self) -> Msat {
        let used = self.reserved.get().saturating_add(self.spent.get());
        Msat::new(self.granted.get().saturating_sub(used))
    }
}

/// Sets aside what the task costs at most; returns the transfer. To be called under the lock of held credit.
///
/// # Errors
/// [`LedgerError::Unpaid`] if the payer has not enough; the transaction is of no use then.
pub(crate) async fn reserve(
    connection: &mut PgConnection,
    task: TaskId,
    payer: Payer,
    amount: Msat,
) -> Result<TransferId, LedgerError> {
    let Payer::Operator(budget) = payer;
    grant(connection, budget, unix_now() / DAY_S).await?;
    let id = TransferId::of("task-reserve", task.as_bytes());
    let pending = Transfer {
        id,
        phase: Phase::Pending,
        debit: SUBSIDY,
        credit: transfers::PAID_INFERENCE,
        amount,
        reason: "task",
    };
    match transfer(connection, &pending).await {
        Ok(()) => Ok(id),
        Err(LedgerError::Refused(_)) => Err(LedgerError::Unpaid),
        Err(error) => Err(error),
    }
}

/// Fills the operator's account up to what a day may cost; once a day, whatever becomes of the money on that day. What is set
/// aside for tasks of the day before is still on the account: given back today, it would else come on top.
pub(crate) async fn grant(
    connection: &mut PgConnection,
    budget: SubsidyBudget,
    day: u64,
) -> Result<(), LedgerError> {
    let day = i64::try_from(day).map_err(|_| LedgerError::Refused("the clock is wrong"))?;
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM subsidy_days WHERE day = $1) AS is_done,
                (SELECT COALESCE(sum(granted_msat), 0)::bigint FROM subsidy_days) AS granted,
                COALESCE((SELECT credits_posted - debits_posted FROM accounts WHERE name = $2), 0) AS unspent",
    )
    .bind(day)
    .bind(SUBSIDY)
    .fetch_one(&mut *connection)
    .await?;
    if row.try_get("is_done")? {
        return Ok(());
    }
    let left = |budget: Msat, used: i64| budget.get().saturating_sub(used).max(0);
    let today = left(budget.per_day, row.try_get("unspent")?);
    let amount = Msat::new(today.min(left(budget.in_all, row.try_get("granted")?)));
    sqlx::query("INSERT INTO subsidy_days (day, granted_msat) VALUES ($1, $2)")
        .bind(day)
        .bind(amount.get())
        .execute(&mut *connection)
        .await?;
    let posted = Transfer {
        id: TransferId::of("subsidy", &day.to_be_bytes()),
        phase: Phase::Posted,
        debit: transfers::POOL_SUBSIDY,
        credit: SUBSIDY,
        amount,
        reason: "subsidy",
    };
    transfer(connection, &posted).await
}

/// Charges the payers of these tasks, which are those of a batch: instead of what was set aside for each, what it costs.
pub(crate) async fn charge(
    connection: &mut PgConnection,
    root: BatchRoot,
    tasks: &[Vec<u8>],
) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
         SELECT substr(sha256('task-charged' || k.id), 1, 16), 'void', t.id, t.debit, t.credit, t.amount, 'task charged'
           FROM tasks k JOIN transfers t ON t.id = k.reserve WHERE k.id = ANY($1)",
    )
    .bind(tasks.to_vec())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
         SELECT substr(sha256('batch-paid' || $2::bytea || int8send(t.debit)), 1, 16), 'posted', t.debit, t.credit,
                sum(k.price_msat)::bigint, 'tasks'
           FROM tasks k JOIN transfers t ON t.id = k.reserve
          WHERE k.id = ANY($1) AND k.price_msat > 0 GROUP BY t.debit, t.credit",
    )
    .bind(tasks.to_vec())
    .bind(root.to_bytes().to_vec())
    .execute(connection)
    .await?;
    Ok(())
}

impl Ledger {
    /// How the operator's account for tasks stands.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn subsidy(&self) -> Result<Subsidy, LedgerError> {
        let today = seconds(unix_now() / DAY_S * DAY_S);
        let row = sqlx::query(
            "SELECT (SELECT COALESCE(sum(granted_msat), 0)::bigint FROM subsidy_days) AS granted,
                    COALESCE(sum(debits_pending), 0)::bigint AS reserved,
                    COALESCE(sum(debits_posted), 0)::bigint AS spent,
                    (SELECT COALESCE(sum(t.amount), 0)::bigint
                       FROM transfers t JOIN accounts a ON a.id = t.debit
                      WHERE a.name = $1 AND t.kind = 'posted' AND t.reason = 'tasks'
                        AND t.created_at >= to_timestamp($2::bigint)) AS spent_today
               FROM accounts WHERE name = $1",
        )
        .bind(SUBSIDY)
        .bind(today)
        .fetch_one(&self.pool)
        .await?;
        Ok(Subsidy {
            granted: Msat::new(row.try_get("granted")?),
            reserved: Msat::new(row.try_get("reserved")?),
            spent: Msat::new(row.try_get("spent")?),
            spent_today: Msat::new(row.try_get("spent_today")?),
        })
    }
}
