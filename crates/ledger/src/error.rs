//! What can go wrong, by what the caller can do about it. No error carries a prompt or a key.

use std::fmt;

use crate::Lack;

/// What the database client reported. Its `Debug` is its `Display`: the server's detail, which
/// `sqlx` would show, may quote a whole row.
pub struct PostgresError(sqlx::Error);

impl PostgresError {
    fn sqlstate_class(&self) -> Option<String> {
        let sqlx::Error::Database(error) = &self.0 else {
            return None;
        };
        error
            .code()
            .and_then(|code| code.get(..2).map(str::to_owned))
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why the ledger did not do something.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The URL does not parse. It is not shown: it may hold a password.
    #[error("the ledger's URL is not a postgres:// URL")]
    Url,
    /// Postgres is away or refused; try again later.
    #[error("Postgres: {0}")]
    Unavailable(PostgresError),
    /// The schema could not be brought up to date.
    #[error("the schema could not be migrated: {0}")]
    Migration(String),
    /// The same id was used before for something else.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// The task's payer does not pay for it.
    #[error(transparent)]
    Unpaid(Lack),
    /// The thing is not in a state from which this is possible.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The log of shares cannot be used, or does not fit the ledger. The words say what to do.
    #[error("the log of shares: {0}")]
    Log(String),
    /// What is private of a task was encrypted with another key, or there is none here.
    #[error(
        "a task's contents cannot be opened: is inference.content_key the key that they were stored with?"
    )]
    Sealed,
    /// A row does not decode: somebody wrote to the database by hand.
    #[error("the ledger holds a malformed {0}")]
    Corrupt(&'static str),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(PostgresError(error))
    }
}

/// Whose fault an error is, when a group of rows is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The row's own: no retry will make it fit.
    Row,
    /// Two transactions met; the same one again may pass.
    Collision,
    /// Postgres is away, or not fit to take anything.
    Away,
}

impl LedgerError {
    /// Whether a constraint of this name stopped it.
    pub(crate) fn broke(&self, constraint: &str) -> bool {
        match self {
            Self::Unavailable(PostgresError(sqlx::Error::Database(error))) => {
                error.constraint() == Some(constraint)
            }
            _ => false,
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        let error = match self {
            Self::Conflict(_)
            | Self::Refused(_)
            | Self::Corrupt(_)
            | Self::Sealed
            | Self::Unpaid(_) => {
                return Fault::Row;
            }
            Self::Url | Self::Migration(_) | Self::Log(_) => return Fault::Away,
            Self::Unavailable(error) => error,
        };
        // https://www.postgresql.org/docs/current/errcodes-appendix.html: data exception,
        // integrity constraint violation, exception raised by a trigger; transaction rollback.
        match error.sqlstate_class().as_deref() {
            Some("22" | "23" | "P0") => Fault::Row,
            Some("40") => Fault::Collision,
            _ => Fault::Away,
        }
    }
}

/// Why a share was not committed, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefusal {
    /// This proof was credited before.
    #[error("the share was credited before")]
    DuplicateShare,
    /// No such batch.
    #[error("no such batch was registered")]
    BatchUnknown,
    /// The batch or a task of it was settled by another share, or the batch has failed its audit.
    #[error("the batch was spent by another share")]
    BatchSpent,
    /// A task of the batch has expired or ended otherwise.
    #[error("a task of the batch is no longer open")]
    TaskExpired,
    /// A mismatch was found in another batch of the worker, and nobody has confirmed it yet. Worth a retry.
    #[error("another batch of the worker is suspect")]
    WorkerSuspect,
    /// The share's numbers are out of range, or its receipts are not those of the batch.
    #[error("the share's numbers are out of range")]
    Invalid,
    /// Postgres has been away for so long that the log has no room, or its disk has none. Worth a retry.
    #[error("the log of shares is full")]
    LogFull,
    /// The log takes nothing, or Postgres is away and the share claims a batch. Worth a retry.
    #[error("the ledger is away")]
    Unavailable,
}
