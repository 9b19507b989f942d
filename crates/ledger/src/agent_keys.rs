//! Keys of the operator's: an agent that shows one has its tasks paid from the key's own account, within a budget in all and,
//! if it has one, a limit for each day. Whoever has the secret has the key. The ledger keeps a hash of it.
//!
//! The budget is on the account at once, or comes day by day, up to what a day may cost. So no task is admitted that the key
//! could not pay, however many are asked for at once: a balance below zero is refused by the database.

use std::fmt;

use dovetail_commitment::tagged_hash;
use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::consistency::Rule;
use crate::payers::{DAY_S, Lack, Purse, day_number, fill};
use crate::{Ledger, LedgerError, collateral, transfers};

/// The longest name of a key.
pub const KEY_NAME_BYTES_MAX: usize = 64;

/// A key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(i64);

/// A key that pays for tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its number.
    pub id: KeyId,
    /// What the operator calls it.
    pub name: String,
}

/// A key to be made.
#[derive(Clone, Copy)]
pub struct NewKey<'a> {
    /// What the operator calls it: letters, digits, `.`, `_` and `-`.
    pub name: &'a str,
    /// What an agent shows. At least 32 random bytes, in whatever form: it is hashed, and nothing slows guessing down.
    pub secret: &'a str,
    /// What its tasks may cost in all.
    pub budget: Msat,
    /// And those of a day (UTC).
    pub per_day: Option<Msat>,
}

impl fmt::Debug for NewKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its number.
    pub id: KeyId,
    /// What the operator calls it.
    pub name: String,
    /// What its tasks may cost in all.
    pub budget: Msat,
    /// And those of a day (UTC).
    pub per_day: Option<Msat>,
    /// What its tasks have cost.
    pub spent: Msat,
    /// What those of them have cost that were settled on this day (UTC).
    pub spent_today: Msat,
    /// What is set aside for tasks that have not ended.
    pub reserved: Msat,
    /// What is left in all for new tasks.
    pub left: Msat,
    /// What of it new tasks may cost on this day.
    pub left_today: Msat,
    /// When it was made, in Unix seconds.
    pub created_at_unix: i64,
    /// When it was revoked, in Unix seconds.
    pub revoked_at_unix: Option<i64>,
}

/// Why a key was not made or revoked, in order of precedence.
#[derive(Debug, thiserror::Error)]
pub enum KeyRefusal {
    /// The name cannot be one.
    #[error(
        "a key's name has 1 to {KEY_NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`, and begins with a letter or a digit"
    )]
    Name,
    /// The amounts make no sense.
    #[error(
        "the budget is at least 1 msat, and what a day may cost is at least that and at most the budget"
    )]
    Budget,
    /// There is one of this name. Names stay taken: what a key has paid for is known by it.
    #[error(
        "a key of this name was made before; a name is never given twice, also not after the key was revoked"
    )]
    Taken,
    /// There is none of this name.
    #[error("there is no key of this name")]
    Unknown,
    /// Worth a retry.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for KeyRefusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

fn hash_of(secret: &str) -> Vec<u8> {
    tagged_hash("dovetail/agent-key", &[secret.as_bytes()]).to_vec()
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=KEY_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| is_plain(&byte))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// The account that a key pays from.
fn account_of(name: &str) -> String {
    format!("payer:key:{name}")
}

/// Whether the key pays for new tasks.
///
/// # Errors
/// [`LedgerError::Unpaid`] if it does not.
pub(crate) async fn check(connection: &mut PgConnection, key: KeyId) -> Result<(), LedgerError> {
    let is_valid: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM agent_keys WHERE number = $1 AND revoked_at IS NULL)",
    )
    .bind(key.0)
    .fetch_one(connection)
    .await?;
    is_valid
        .then_some(())
        .ok_or(LedgerError::Unpaid(Lack::KeyInvalid))
}

/// The key's account, which is filled up to what a day may cost if this is the first time on this day.
///
/// # Errors
/// [`LedgerError::Unpaid`] if there is no such key, or it was revoked.
pub(crate) async fn open(
    connection: &mut PgConnection,
    key: KeyId,
    day: u64,
) -> Result<Purse, LedgerError> {
    let day = day_number(day)?;
    let row = sqlx::query(
        "SELECT k.budget_msat, k.per_day_msat, a.name, a.credits_posted - a.debits_posted AS unspent,
                a.debits_pending AS reserved,
                (SELECT COALESCE(sum(given_msat), 0)::bigint FROM agent_key_days d WHERE d.key = k.number) AS given,
                k.per_day_msat IS NULL
                OR EXISTS (SELECT FROM agent_key_days d WHERE d.key = k.number AND d.day = $2) AS is_filled
           FROM agent_keys k JOIN accounts a ON a.id = k.account WHERE k.number = $1 AND k.revoked_at IS NULL",
    )
    .bind(key.0)
    .bind(day)
    .fetch_optional(&mut *connection)
    .await?;
    let row = row.ok_or(LedgerError::Unpaid(Lack::KeyInvalid))?;
    let mut purse = purse_from(&row)?;
    if !row.try_get("is_filled")? {
        give(connection, key, &mut purse, day).await?;
    }
    Ok(purse)
}

fn purse_from(row: &PgRow) -> Result<Purse, LedgerError> {
    let msat = |column: &str| -> Result<Msat, LedgerError> { Ok(Msat::new(row.try_get(column)?)) };
    let per_day: Option<i64> = row.try_get("per_day_msat")?;
    Ok(Purse {
        account: row.try_get("name")?,
        source: transfers::POOL_KEYS,
        unspent: msat("unspent")?,
        reserved: msat("reserved")?,
        given: msat("given")?,
        in_all: msat("budget_msat")?,
        per_day: per_day.map(Msat::new),
    })
}

/// Fills the key's account by what is due on this day.
async fn give(
    connection: &mut PgConnection,
    key: KeyId,
    purse: &mut Purse,
    day: i64,
) -> Result<(), LedgerError> {
    let amount = fill(connection, purse, day).await?;
    sqlx::query("INSERT INTO agent_key_days (key, day, given_msat) VALUES ($1, $2, $3)")
        .bind(key.0)
        .bind(day)
        .bind(amount.get())
        .execute(connection)
        .await?;
    Ok(())
}

impl Ledger {
    /// Makes a key. Its secret is not kept.
    ///
    /// # Errors
    /// The first reason that holds, in the order of [`KeyRefusal`].
    pub async fn add_key(&self, new: &NewKey<'_>) -> Result<KeyId, KeyRefusal> {
        if !is_name(new.name) {
            return Err(KeyRefusal::Name);
        }
        let is_sound = |per_day: Msat| (Msat::new(1)..=new.budget).contains(&per_day);
        if new.budget < Msat::new(1) || !new.per_day.is_none_or(is_sound) {
            return Err(KeyRefusal::Budget);
        }
        let mut transaction = self.begin().await?;
        collateral::lock(&mut transaction).await?;
        let account = account_of(new.name);
        let account_id = transfers::account(&mut transaction, &account).await?;
        let number: Option<i64> = sqlx::query_scalar(
            "INSERT INTO agent_keys (name, secret_hash, account, budget_msat, per_day_msat)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING RETURNING number",
        )
        .bind(new.name)
        .bind(hash_of(new.secret))
        .bind(account_id)
        .bind(new.budget.get())
        .bind(new.per_day.map(Msat::get))
        .fetch_optional(&mut *transaction)
        .await?;
        let id = KeyId(number.ok_or(KeyRefusal::Taken)?);
        if new.per_day.is_none() {
            let mut purse = Purse {
                account,
                source: transfers::POOL_KEYS,
                unspent: Msat::ZERO,
                reserved: Msat::ZERO,
                given: Msat::ZERO,
                in_all: new.budget,
                per_day: None,
            };
            let day = day_number(unix_now() / DAY_S)?;
            give(&mut transaction, id, &mut purse, day).await?;
        }
        transaction.commit().await?;
        Ok(id)
    }

    /// The key with this secret, unless it was revoked. The secret is hashed, whatever it is, and only the hash is looked for:
    /// how long that takes tells nothing of other secrets.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn find_key(&self, secret: &str) -> Result<Option<Key>, LedgerError> {
        let found = sqlx::query(
            "SELECT number, name FROM agent_keys WHERE secret_hash = $1 AND revoked_at IS NULL",
        )
        .bind(hash_of(secret))
        .fetch_optional(&self.pool)
        .await?;
        found
            .map(|row| {
                Ok(Key {
                    id: KeyId(row.try_get("number")?),
                    name: row.try_get("name")?,
                })
            })
            .transpose()
    }

    /// Revokes a key: it pays for no new task from now on. What it has set aside for tasks that have not ended still pays for
    /// them. `false` if it was revoked before.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`], [`KeyRefusal::Ledger`].
    pub async fn revoke_key(&self, name: &str) -> Result<bool, KeyRefusal> {
        let mut transaction = self.begin().await?;
        // Whoever sets something aside with it has done so before this, or finds it revoked.
        collateral::lock(&mut transaction).await?;
        // The time of now, not that of the transaction's beginning: no task of before is later.
        let revoked = sqlx::query(
            "UPDATE agent_keys SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL",
        )
        .bind(name)
        .execute(&mut *transaction)
        .await?;
        let is_there: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM agent_keys WHERE name = $1)")
                .bind(name)
                .fetch_one(&mut *transaction)
                .await?;
        transaction.commit().await?;
        match (revoked.rows_affected(), is_there) {
            (_, false) => Err(KeyRefusal::Unknown),
            (changed, true) => Ok(changed == 1),
        }
    }

    /// How all keys stand, in the order in which they were made.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, LedgerError> {
        let day = day_number(unix_now() / DAY_S)?;
        sqlx::query(
            "SELECT k.number, k.name AS key_name, k.budget_msat, k.per_day_msat, a.name, a.debits_posted AS spent,
                    a.credits_posted - a.debits_posted AS unspent, a.debits_pending AS reserved,
                    extract(epoch FROM k.created_at)::bigint AS created_at,
                    extract(epoch FROM k.revoked_at)::bigint AS revoked_at,
                    (SELECT COALESCE(sum(given_msat), 0)::bigint FROM agent_key_days d WHERE d.key = k.number) AS given,
                    k.per_day_msat IS NULL
                    OR EXISTS (SELECT FROM agent_key_days d WHERE d.key = k.number AND d.day = $1) AS is_filled,
                    (SELECT COALESCE(sum(t.amount), 0)::bigint FROM transfers t
                      WHERE t.debit = k.account AND t.kind = 'posted' AND t.reason = 'tasks'
                        AND t.created_at >= to_timestamp($1::bigint * 86400)) AS spent_today
               FROM agent_keys k JOIN accounts a ON a.id = k.account ORDER BY k.number",
        )
        .bind(day)
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(record_from)
        .collect()
    }
}

fn record_from(row: &PgRow) -> Result<KeyRecord, LedgerError> {
    let purse = purse_from(row)?;
    let spent_today = Msat::new(row.try_get("spent_today")?);
    let due = match row.try_get("is_filled")? {
        true => Msat::ZERO,
        false => purse.due(spent_today),
    };
    let spent: i64 = row.try_get("spent")?;
    let (reserved, unspent) = (purse.reserved.get(), purse.unspent.get());
    let left = purse.in_all.get().saturating_sub(spent);
    Ok(KeyRecord {
        id: KeyId(row.try_get("number")?),
        name: row.try_get("key_name")?,
        budget: purse.in_all,
        per_day: purse.per_day,
        spent: Msat::new(spent),
        spent_today,
        reserved: purse.reserved,
        left: Msat::new(left.saturating_sub(reserved)),
        left_today: Msat::new(unspent.saturating_add(due.get()).saturating_sub(reserved)),
        created_at_unix: row.try_get("created_at")?,
        revoked_at_unix: row.try_get("revoked_at")?,
    })
}

/// What has to hold of payers and keys.
pub(crate) static RULES: [Rule; 6] = [
    Rule {
        name: "a key was given what its days say, and no more than its budget",
        broken: "
            SELECT k.name, format('was given %s of %s, its days say %s', COALESCE(t.msat, 0), k.budget_msat, COALESCE(d.msat, 0)) AS what
              FROM agent_keys k
              LEFT JOIN (SELECT key, sum(given_msat) AS msat, max(given_msat) AS most FROM agent_key_days GROUP BY key) d
                ON d.key = k.number
              LEFT JOIN (SELECT credit, sum(amount) AS msat FROM transfers JOIN accounts ON accounts.id = debit
                          WHERE accounts.name = 'pool:keys' GROUP BY credit) t ON t.credit = k.account
             WHERE COALESCE(t.msat, 0) <> COALESCE(d.msat, 0) OR COALESCE(t.msat, 0) > k.budget_msat
                OR COALESCE(d.most, 0) > COALESCE(k.per_day_msat, k.budget_msat)",
    },
    Rule {
        name: "payers' accounts are filled from their budgets alone",
        broken: "
            SELECT c.name, format('got %s msat from %s', t.amount, d.name) AS what
              FROM transfers t JOIN accounts c ON c.id = t.credit JOIN accounts d ON d.id = t.debit
             WHERE starts_with(c.name, 'payer:')
               AND d.name <> CASE c.name WHEN 'payer:subsidy' THEN 'pool:subsidy' ELSE 'pool:keys' END",
    },
    Rule {
        name: "what is set aside on payers' accounts is for tasks that have not ended",
        broken: "
            SELECT a.name, format('%s set aside, open tasks may cost %s', a.debits_pending, COALESCE(o.msat, 0)) AS what
              FROM accounts a
              LEFT JOIN (SELECT t.debit, sum(t.amount) AS msat FROM tasks k JOIN transfers t ON t.id = k.reserve
                          WHERE k.state IN ('queued', 'assigned', 'finished') GROUP BY t.debit) o ON o.debit = a.id
             WHERE starts_with(a.name, 'payer:') AND a.debits_pending <> COALESCE(o.msat, 0)",
    },
    Rule {
        name: "what a settled batch has cost each payer is the price of its tasks",
        broken: "
            SELECT encode(b.root, 'hex') AS name, format('has cost %s, its tasks come to %s', t.amount, s.msat) AS what
              FROM batches b CROSS JOIN LATERAL (
                   SELECT r.debit, sum(k.price_msat) AS msat FROM tasks k JOIN transfers r ON r.id = k.reserve
                    WHERE k.id = ANY (b.task_ids) GROUP BY r.debit) s
              JOIN transfers t ON t.id = substr(sha256('batch-paid' || b.root || int8send(s.debit)), 1, 16)
             WHERE b.state = 'settled' AND t.amount <> s.msat",
    },
    Rule {
        name: "a key has paid what its settled tasks cost, and nothing else",
        broken: "
            SELECT a.name, format('paid %s, its settled tasks cost %s', COALESCE(p.msat, 0), COALESCE(s.msat, 0)) AS what
              FROM accounts a
              LEFT JOIN (SELECT debit, sum(amount) AS msat FROM transfers WHERE kind = 'posted' GROUP BY debit) p ON p.debit = a.id
              LEFT JOIN (SELECT t.debit, sum(k.price_msat) AS msat FROM tasks k JOIN transfers t ON t.id = k.reserve
                          WHERE k.state = 'settled' GROUP BY t.debit) s ON s.debit = a.id
             WHERE starts_with(a.name, 'payer:key:') AND COALESCE(p.msat, 0) <> COALESCE(s.msat, 0)",
    },
    Rule {
        name: "a revoked key pays for no task that came later",
        broken: "
            SELECT k.name, format('%s msat were set aside after it was revoked', t.amount) AS what
              FROM agent_keys k JOIN transfers t ON t.debit = k.account
             WHERE t.kind = 'pending' AND t.reason <> 'task finished' AND t.created_at > k.revoked_at",
    },
];
