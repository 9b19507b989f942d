//! What the operator pays for tasks of agents that have no key: an account that is filled once a day, within a budget.

use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use sqlx::{PgConnection, Row};

use crate::payers::{DAY_S, Lack, Purse, day_number, fill};
use crate::tasks::seconds;
use crate::{Ledger, LedgerError, transfers};

/// The operator's own account for tasks.
const SUBSIDY: &str = "payer:subsidy";

/// What the operator pays for tasks at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubsidyBudget {
    /// So much is on its account at the start of each day (UTC), as long as there is as much left of ..
    pub per_day: Msat,
    /// .. what it gives in all, ever.
    pub in_all: Msat,
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

/// The operator's account, filled up to what a day may cost: once a day, whatever becomes of the money on that day.
pub(crate) async fn open(
    connection: &mut PgConnection,
    budget: SubsidyBudget,
    day: u64,
) -> Result<Purse, LedgerError> {
    let day = day_number(day)?;
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM subsidy_days WHERE day = $1) AS is_filled,
                (SELECT COALESCE(sum(granted_msat), 0)::bigint FROM subsidy_days) AS given,
                COALESCE(sum(credits_posted - debits_posted), 0)::bigint AS unspent,
                COALESCE(sum(debits_pending), 0)::bigint AS reserved
           FROM accounts WHERE name = $2",
    )
    .bind(day)
    .bind(SUBSIDY)
    .fetch_one(&mut *connection)
    .await?;
    let mut purse = Purse {
        account: SUBSIDY.to_owned(),
        source: transfers::POOL_SUBSIDY,
        unspent: Msat::new(row.try_get("unspent")?),
        reserved: Msat::new(row.try_get("reserved")?),
        given: Msat::new(row.try_get("given")?),
        in_all: budget.in_all,
        per_day: Some(budget.per_day),
    };
    if row.try_get("is_filled")? {
        return Ok(purse);
    }
    let amount = fill(connection, &mut purse, day).await?;
    sqlx::query("INSERT INTO subsidy_days (day, granted_msat) VALUES ($1, $2)")
        .bind(day)
        .bind(amount.get())
        .execute(connection)
        .await?;
    Ok(purse)
}

/// An agent without a key has no balance of its own: what is gone, or was never given, somebody else has to pay.
pub(crate) fn lack(lack: Lack) -> Lack {
    match lack {
        Lack::TooDear { .. } | Lack::InsufficientBalance { .. } => Lack::Unpaid,
        other => other,
    }
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
