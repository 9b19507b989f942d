//! Double entry: accounts, and transfers between them. Ids are derived from what a transfer is for,
//! so that doing the same thing twice is one transfer.

use dovetail_commitment::tagged_hash;
use dovetail_units::Msat;
use sqlx::{PgConnection, Row};

use crate::LedgerError;

/// Hash credit comes from here.
pub(crate) const POOL_HASH: &str = "pool:hash";
/// What blocks pay comes from here.
pub(crate) const POOL_REWARDS: &str = "pool:rewards";
/// What the pool keeps of blocks.
pub(crate) const POOL_FEES: &str = "pool:fees";
/// What payers have paid for tasks, and workers are credited from. Never negative.
pub(crate) const PAID_INFERENCE: &str = "paid:inference";
/// What the operator's budget gives comes from here.
pub(crate) const POOL_SUBSIDY: &str = "pool:subsidy";
/// What budgets have given to keys comes from here.
pub(crate) const POOL_KEYS: &str = "pool:keys";
/// Credit that a mismatch has forfeited goes here: to the pool, not back to who paid. A worker that asked its own
/// questions would get its stake back otherwise.
pub(crate) const POOL_FORFEITED: &str = "pool:forfeited";
/// What has left, or is leaving, through the wallet.
pub(crate) const POOL_LIGHTNING: &str = "pool:lightning";
/// Routing fees come from here.
pub(crate) const POOL_LIGHTNING_FEES: &str = "pool:lightning_fees";
/// What has left, or is leaving, on the chain.
pub(crate) const POOL_ONCHAIN: &str = "pool:onchain";
/// What transactions cost comes from here.
pub(crate) const POOL_ONCHAIN_FEES: &str = "pool:onchain_fees";
/// What coinbases have paid accounts themselves.
pub(crate) const POOL_COINBASE: &str = "pool:coinbase";
/// What was paid twice, or to somebody who no longer had it, comes from here as far as the payee has not enough.
pub(crate) const POOL_LOSS: &str = "pool:loss";

/// The account of what a worker or miner can be paid.
pub(crate) fn worker_account(identity: &str) -> String {
    format!("worker:{identity}")
}

/// A transfer's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferId([u8; 16]);

impl TransferId {
    /// The id of the transfer that is made for `purpose` because of `cause`.
    pub(crate) fn of(purpose: &str, cause: &[u8]) -> Self {
        let purpose_len = [u8::try_from(purpose.len()).unwrap_or(u8::MAX)];
        let hash = tagged_hash(
            "dovetail/transfer",
            &[&purpose_len, purpose.as_bytes(), cause],
        );
        let (id, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        Self(*id)
    }

    /// As the database keeps it.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// Which of the two phases a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Both at once.
    Posted,
    /// Sets the money aside.
    Pending,
    /// Moves what was set aside.
    Post(TransferId),
    /// Gives back what was set aside.
    Void(TransferId),
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Posted => "posted",
            Self::Pending => "pending",
            Self::Post(_) => "post",
            Self::Void(_) => "void",
        }
    }

    fn ends(self) -> Option<Vec<u8>> {
        match self {
            Self::Post(id) | Self::Void(id) => Some(id.to_vec()),
            Self::Posted | Self::Pending => None,
        }
    }
}

/// One debit and one credit of the same amount.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    pub(crate) id: TransferId,
    pub(crate) phase: Phase,
    pub(crate) debit: &'a str,
    pub(crate) credit: &'a str,
    pub(crate) amount: Msat,
    pub(crate) reason: &'a str,
}

/// Makes the transfer; once more is harmless. An amount of zero moves nothing and leaves no row.
///
/// # Errors
/// [`LedgerError::Conflict`] if the id was used for another transfer, [`LedgerError::Refused`] if
/// an account would become negative.
pub(crate) async fn transfer(
    connection: &mut PgConnection,
    transfer: &Transfer<'_>,
) -> Result<(), LedgerError> {
    if transfer.amount == Msat::ZERO {
        return Ok(());
    }
    if transfer.amount < Msat::ZERO {
        return Err(LedgerError::Refused("a transfer moves a positive amount"));
    }
    if insert(connection, transfer).await? {
        return Ok(());
    }
    // One of the accounts is new, or the transfer was made before.
    let debit = account(connection, transfer.debit).await?;
    let credit = account(connection, transfer.credit).await?;
    if insert(connection, transfer).await? {
        return Ok(());
    }
    let same: bool = sqlx::query(
        "SELECT kind = $2 AND ends IS NOT DISTINCT FROM $3 AND debit = $4 AND credit = $5
                AND amount = $6 AS same FROM transfers WHERE id = $1",
    )
    .bind(transfer.id.to_vec())
    .bind(transfer.phase.name())
    .bind(transfer.phase.ends())
    .bind(debit)
    .bind(credit)
    .bind(transfer.amount.get())
    .fetch_one(connection)
    .await?
    .try_get("same")?;
    if same {
        Ok(())
    } else {
        Err(LedgerError::Conflict("the id names another transfer"))
    }
}

/// Makes the transfer, unless its id is taken or one of the accounts is not there: tasks wait for this, so it looks the accounts
/// up on its way.
async fn insert(
    connection: &mut PgConnection,
    transfer: &Transfer<'_>,
) -> Result<bool, LedgerError> {
    let inserted = sqlx::query(
        "INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
         SELECT $1::bytea, $2::text, $3::bytea, d.id, c.id, $6::bigint, $7::text FROM accounts d, accounts c
          WHERE d.name = $4 AND c.name = $5 ON CONFLICT (id) DO NOTHING",
    )
    .bind(transfer.id.to_vec())
    .bind(transfer.phase.name())
    .bind(transfer.phase.ends())
    .bind(transfer.debit)
    .bind(transfer.credit)
    .bind(transfer.amount.get())
    .bind(transfer.reason)
    .execute(connection)
    .await
    .map_err(LedgerError::from)
    .map_err(|error| {
        if error.broke("balance_never_negative") {
            LedgerError::Refused("the account has not enough")
        } else if error.broke("transfers_ends_key") {
            LedgerError::Conflict("the pending transfer has ended otherwise")
        } else {
            error
        }
    })?;
    Ok(inserted.rows_affected() == 1)
}

/// What begins the names of accounts that may not become negative.
const OWE_NOTHING: [&str; 3] = ["worker:", "payer:", "paid:"];

/// The account's id; opens it if it is new.
pub(crate) async fn account(connection: &mut PgConnection, name: &str) -> Result<i64, LedgerError> {
    let existing = sqlx::query_scalar::<_, i64>("SELECT id FROM accounts WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(id) = existing {
        return Ok(id);
    }
    sqlx::query(
        "INSERT INTO accounts (name, never_negative) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(OWE_NOTHING.iter().any(|prefix| name.starts_with(prefix)))
    .execute(&mut *connection)
    .await?;
    Ok(
        sqlx::query_scalar("SELECT id FROM accounts WHERE name = $1")
            .bind(name)
            .fetch_one(connection)
            .await?,
    )
}
