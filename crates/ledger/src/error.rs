//! What can go wrong, by what the caller can do about it. No error carries a prompt or a key.

/// Why the ledger did not do something.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The URL does not parse. It is not shown: it may hold a password.
    #[error("the ledger's URL is not a postgres:// URL")]
    Url,
    /// Postgres is away or refused; try again later.
    #[error("Postgres: {0}")]
    Unavailable(sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the schema could not be migrated: {0}")]
    Migration(String),
    /// The same id was used before for something else.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// The thing is not in a state from which this is possible.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// A row does not decode: somebody wrote to the database by hand.
    #[error("the ledger holds a malformed {0}")]
    Corrupt(&'static str),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error)
    }
}

impl LedgerError {
    /// Whether a constraint of this name stopped it.
    pub(crate) fn broke(&self, constraint: &str) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) => {
                error.constraint() == Some(constraint)
            }
            _ => false,
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
    /// The batch was settled by another share, or has failed its audit.
    #[error("the batch was spent by another share")]
    BatchSpent,
    /// A task of the batch has expired or ended otherwise.
    #[error("a task of the batch is no longer open")]
    TaskExpired,
    /// The share's numbers are out of range.
    #[error("the share's numbers are out of range")]
    Invalid,
    /// Too many shares wait. Worth a retry.
    #[error("too many shares wait for the ledger")]
    QueueFull,
    /// Postgres is away and this share cannot wait for it. Worth a retry.
    #[error("the ledger is away")]
    Unavailable,
}
