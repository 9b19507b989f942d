//! Who pays for tasks. When a task is admitted, its highest price is set aside on its payer's account. When its batch is
//! settled, its price moves to the account in between, from which its worker is credited. No account of the two can be
//! negative, so no credit for inference exists that nobody has paid for.
//!
//! A task that ends otherwise gives back what was set aside: a trigger on `tasks` sees to that.
//!
//! Whoever pays has a budget, and an account that is filled from it: all at once, or day by day up to what a day may cost
//! (`subsidy.rs`, `agent_keys.rs`). So each limit is a balance, which the database keeps.

use dovetail_commitment::{BatchRoot, TaskId};
use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use sqlx::PgConnection;

use crate::transfers::{self, Phase, Transfer, TransferId, transfer};
use crate::{KeyId, LedgerError, SubsidyBudget, agent_keys, subsidy};

pub(crate) const DAY_S: u64 = 86_400;

/// Who pays for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payer {
    /// The pool's operator, within a budget.
    Operator(SubsidyBudget),
    /// A key of the operator's, with a budget of its own.
    Key(KeyId),
}

/// Why a payer does not pay for a task. The order is that of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// There is no such key, or it was revoked.
    #[error("the key is unknown, or was revoked")]
    KeyInvalid,
    /// The operator pays for no tasks, or for no more.
    #[error("nobody pays for the task")]
    Unpaid,
    /// The task may cost more than its payer ever has at once. A smaller one may be paid.
    #[error("the task may cost {required}, and its payer has at most {most} at once")]
    TooDear {
        /// The most that its payer has at once.
        most: Msat,
        /// What the task may cost.
        required: Msat,
    },
    /// The balance would do, but tasks that have not ended hold it: worth another try soon.
    #[error(
        "the task may cost {required}; {available} are left beside the {reserved} that other tasks hold"
    )]
    BalanceReserved {
        /// What no task holds.
        available: Msat,
        /// What tasks hold that have not ended.
        reserved: Msat,
        /// What the task may cost.
        required: Msat,
    },
    /// The money is gone.
    #[error("the task may cost {required}; {available} are left, and other tasks hold {reserved}")]
    InsufficientBalance {
        /// What no task holds.
        available: Msat,
        /// What tasks hold that have not ended.
        reserved: Msat,
        /// What the task may cost.
        required: Msat,
    },
    /// What the day may cost is spent; there is more on the next one.
    #[error("the limit of {per_day} for a day is reached")]
    DailyLimit {
        /// The limit.
        per_day: Msat,
        /// When the next day begins, in Unix seconds.
        resets_at_unix: u64,
    },
}

/// A payer's account, and the budget that it is filled from. All amounts are at least 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purse {
    /// The account's name.
    pub(crate) account: String,
    /// Where it is filled from.
    pub(crate) source: &'static str,
    /// What is on it, with what is set aside.
    pub(crate) unspent: Msat,
    /// What is set aside on it.
    pub(crate) reserved: Msat,
    /// What it was given so far ..
    pub(crate) given: Msat,
    /// .. of so much in all.
    pub(crate) in_all: Msat,
    /// How much of it a day may cost.
    pub(crate) per_day: Option<Msat>,
}

impl Purse {
    /// What the account is filled by at the beginning of a day on which tasks have cost so much already. What is still on it
    /// counts, set aside or not: given back on this day, it would else come on top.
    pub(crate) fn due(&self, spent_today: Msat) -> Msat {
        let left = self.in_all.get().saturating_sub(self.given.get());
        let used = self.unspent.get().saturating_add(spent_today.get());
        let today = self.per_day.unwrap_or(self.in_all).get();
        Msat::new(today.saturating_sub(used).min(left).max(0))
    }

    /// Why a task that may cost so much is not paid from it on this day.
    fn lack(&self, required: Msat, day: u64) -> Lack {
        let to_come = self.in_all.get().saturating_sub(self.given.get()).max(0);
        let balance = self.unspent.get().saturating_add(to_come);
        let most = self.per_day.unwrap_or(self.in_all).min(self.in_all);
        let without_reserved =
            |msat: i64| Msat::new(msat.saturating_sub(self.reserved.get()).max(0));
        if required > most {
            Lack::TooDear { most, required }
        } else if self.unspent >= required {
            Lack::BalanceReserved {
                available: without_reserved(self.unspent.get()),
                reserved: self.reserved,
                required,
            }
        } else if balance < required.get() {
            Lack::InsufficientBalance {
                available: without_reserved(balance),
                reserved: self.reserved,
                required,
            }
        } else {
            Lack::DailyLimit {
                per_day: most,
                resets_at_unix: day.saturating_add(1).saturating_mul(DAY_S),
            }
        }
    }
}

/// Fills an account by what is due on this day; returns that. To be called once a day and payer, under the lock of held credit.
pub(crate) async fn fill(
    connection: &mut PgConnection,
    purse: &mut Purse,
    day: i64,
) -> Result<Msat, LedgerError> {
    let spent_today = spent_on(connection, &purse.account, day).await?;
    let amount = purse.due(spent_today);
    let cause = [purse.account.as_bytes(), &day.to_be_bytes()].concat();
    let posted = Transfer {
        id: TransferId::of("budget", &cause),
        phase: Phase::Posted,
        debit: purse.source,
        credit: &purse.account,
        amount,
        reason: "budget",
    };
    transfer(connection, &posted).await?;
    let add = |to: Msat| to.checked_add(amount).ok_or(LedgerError::Corrupt("budget"));
    (purse.given, purse.unspent) = (add(purse.given)?, add(purse.unspent)?);
    Ok(amount)
}

/// What tasks have cost this account since the day began.
pub(crate) async fn spent_on(
    connection: &mut PgConnection,
    account: &str,
    day: i64,
) -> Result<Msat, LedgerError> {
    let spent = sqlx::query_scalar(
        "SELECT COALESCE(sum(t.amount), 0)::bigint FROM transfers t JOIN accounts a ON a.id = t.debit
          WHERE a.name = $1 AND t.kind = 'posted' AND t.reason = 'tasks' AND t.created_at >= to_timestamp($2::bigint * 86400)",
    )
    .bind(account)
    .bind(day)
    .fetch_one(connection)
    .await?;
    Ok(Msat::new(spent))
}

/// Days since 1970, as the database keeps them.
pub(crate) fn day_number(day: u64) -> Result<i64, LedgerError> {
    i64::try_from(day).map_err(|_| LedgerError::Refused("the clock is wrong"))
}

/// Sets aside what the task costs at most; returns the transfer, if it costs anything. To be called under the lock of held
/// credit then.
///
/// # Errors
/// [`LedgerError::Unpaid`] if the payer does not pay; the transaction is of no use then.
pub(crate) async fn reserve(
    connection: &mut PgConnection,
    task: TaskId,
    payer: Payer,
    amount: Msat,
) -> Result<Option<TransferId>, LedgerError> {
    reserve_on(connection, task, payer, amount, unix_now() / DAY_S).await
}

/// The same on this day.
pub(crate) async fn reserve_on(
    connection: &mut PgConnection,
    task: TaskId,
    payer: Payer,
    amount: Msat,
    day: u64,
) -> Result<Option<TransferId>, LedgerError> {
    if amount == Msat::ZERO {
        if let Payer::Key(key) = payer {
            agent_keys::check(connection, key).await?;
        }
        return Ok(None);
    }
    let purse = match payer {
        Payer::Operator(budget) => subsidy::open(connection, budget, day).await?,
        Payer::Key(key) => agent_keys::open(connection, key, day).await?,
    };
    let id = TransferId::of("task-reserve", task.as_bytes());
    let pending = Transfer {
        id,
        phase: Phase::Pending,
        debit: &purse.account,
        credit: transfers::PAID_INFERENCE,
        amount,
        reason: "task",
    };
    match transfer(connection, &pending).await {
        Ok(()) => Ok(Some(id)),
        // By the statement that would have set it aside, whoever else is at it: the account's row was locked.
        Err(LedgerError::Refused(_)) => {
            let lack = purse.lack(amount, day);
            Err(LedgerError::Unpaid(match payer {
                Payer::Operator(_) => subsidy::lack(lack),
                Payer::Key(_) => lack,
            }))
        }
        Err(error) => Err(error),
    }
}

/// Gives back what was set aside for a task beyond its price, which is known once its answer is whole. To be called under the
/// lock of held credit.
///
/// # Errors
/// [`LedgerError::Unavailable`].
pub(crate) async fn release_surplus(
    connection: &mut PgConnection,
    task: TaskId,
) -> Result<(), LedgerError> {
    let (task, owed) = (
        task.to_bytes().to_vec(),
        TransferId::of("task-owed", task.as_bytes()).to_vec(),
    );
    let voided = sqlx::query(
        "INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
         SELECT substr(sha256('task-finished' || k.id), 1, 16), 'void', t.id, t.debit, t.credit, t.amount, 'task finished'
           FROM tasks k JOIN transfers t ON t.id = k.reserve WHERE k.id = $1 AND k.price_msat < t.amount",
    )
    .bind(&task)
    .execute(&mut *connection)
    .await?;
    if voided.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
         SELECT $2, 'pending', t.debit, t.credit, k.price_msat, 'task finished'
           FROM tasks k JOIN transfers t ON t.id = k.reserve WHERE k.id = $1 AND k.price_msat > 0",
    )
    .bind(&task)
    .bind(&owed)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE tasks SET reserve = CASE WHEN price_msat > 0 THEN $2 END WHERE id = $1")
        .bind(&task)
        .bind(&owed)
        .execute(connection)
        .await?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn purse(unspent: i64, reserved: i64, given: i64, per_day: Option<i64>) -> Purse {
        Purse {
            account: String::new(),
            source: transfers::POOL_KEYS,
            unspent: Msat::new(unspent),
            reserved: Msat::new(reserved),
            given: Msat::new(given),
            in_all: Msat::new(1_000),
            per_day: per_day.map(Msat::new),
        }
    }

    #[test]
    fn a_day_is_filled_up_to_its_limit_and_never_past_the_budget() {
        let due = |purse: Purse, spent: i64| purse.due(Msat::new(spent)).get();
        assert_eq!(due(purse(0, 0, 0, None), 0), 1_000);
        assert_eq!(due(purse(0, 0, 0, Some(300)), 0), 300);
        // What is on the account counts, and so does what tasks of the day before have cost since midnight.
        assert_eq!(due(purse(100, 100, 300, Some(300)), 0), 200);
        assert_eq!(due(purse(100, 0, 300, Some(300)), 150), 50);
        assert_eq!(due(purse(0, 0, 300, Some(300)), 400), 0);
        assert_eq!(due(purse(0, 0, 900, Some(300)), 0), 100);
        assert_eq!(due(purse(i64::MAX, 0, i64::MAX, Some(300)), i64::MAX), 0);
    }

    #[test]
    fn what_other_tasks_hold_what_is_gone_and_what_comes_tomorrow_are_told_apart() {
        let lack = |purse: Purse, required: i64| purse.lack(Msat::new(required), 20_000);
        let (msat, of) = (Msat::new, purse);
        // All of the budget is on the account.
        assert_eq!(
            lack(of(400, 390, 1_000, None), 400),
            Lack::BalanceReserved {
                available: msat(10),
                reserved: msat(390),
                required: msat(400)
            }
        );
        assert_eq!(
            lack(of(400, 390, 1_000, None), 401),
            Lack::InsufficientBalance {
                available: msat(10),
                reserved: msat(390),
                required: msat(401)
            }
        );
        let too_dear = |most, required| Lack::TooDear {
            most: msat(most),
            required: msat(required),
        };
        assert_eq!(lack(of(400, 0, 1_000, None), 1_001), too_dear(1_000, 1_001));
        // Day by day.
        assert_eq!(lack(of(300, 0, 300, Some(300)), 301), too_dear(300, 301));
        let limit = Lack::DailyLimit {
            per_day: msat(300),
            resets_at_unix: 20_001 * 86_400,
        };
        assert_eq!(lack(of(100, 0, 300, Some(300)), 101), limit);
        assert!(matches!(
            lack(of(100, 50, 300, Some(300)), 100),
            Lack::BalanceReserved { .. }
        ));
        // Tomorrow brings too little for it.
        assert_eq!(
            lack(of(100, 50, 900, Some(300)), 201),
            Lack::InsufficientBalance {
                available: msat(150),
                reserved: msat(50),
                required: msat(201)
            }
        );
        assert_eq!(lack(of(100, 50, 900, Some(300)), 200), limit);
    }
}
