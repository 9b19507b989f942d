//! The ledger: who is owed what and why, in Postgres. The only crate that speaks SQL.
//!
//! It knows no sockets and no Sv2. Its invariants are the database's: transfers are double-entry
//! and never changed, a worker's account is never negative, one header hash is one share, one batch
//! root is spent once. `docs/ledger.md` has the accounts and the state machines.

mod agent_keys;
mod audit_records;
mod batches;
mod begin;
mod claim;
mod coinbase_only;
mod collateral;
mod committer;
mod consistency;
mod declared_jobs;
mod devices;
mod error;
mod extents;
mod failed_audits;
mod findings;
mod hash_credits;
mod known_shares;
mod migrations;
mod new_task;
mod partitions;
mod payers;
mod payouts;
mod rewards;
mod samples;
mod sealing;
mod share_record;
mod share_set;
mod share_sums;
mod share_writer;
mod shares;
mod standing;
mod stats;
mod subsidy;
mod tasks;
#[cfg(test)]
mod tests;
mod transfers;

use std::str::FromStr;
use std::time::Duration;

use sealing::Sealer;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

pub use agent_keys::{KEY_NAME_BYTES_MAX, Key, KeyId, KeyRecord, KeyRefusal, NewKey};
pub use audit_records::AuditRecord;
pub use batches::{BatchRecord, BatchRefusal, BatchState};
pub use coinbase_only::{CoinbaseOnlyRecord, DecidedBlock, FollowedBlock, OnChain};
pub use collateral::{Forfeiture, Matured, MaturityWindow};
pub use committer::{Committer, CommitterConfig};
pub use consistency::{Consistency, Difference, Obligations};
pub use declared_jobs::DeclaredJob;
pub use devices::{DEVICES_PER_ACCOUNT_MAX, DeviceRecord, DeviceWork};
pub use error::{CommitRefusal, LedgerError, PostgresError};
pub use extents::TaskExtent;
pub use failed_audits::{FailedAudit, FailedAuditRecord, ReplayedDigests};
pub use findings::{Suspect, SuspectFinding};
pub use new_task::NewTask;
pub use payers::{Lack, Payer};
pub use payouts::onchain::{
    BookedOutput, NewOutput, NewTransaction, OnchainBatch, OnchainOutput, OnchainState,
    OnchainTransaction, TransactionState, WaitingOutput,
};
pub use payouts::{
    Attempt, AttemptRecord, AttemptState, DestinationRecord, Destinations, DuePayee, FeesBorneBy,
    NewAttempt, NewPayout, PayeeQuery, PayeeStanding, PayoutRecord, PayoutState, Proof, Rail,
    StatementRefusal, Success, TRIES_BEFORE_ONCHAIN,
};
pub use rewards::{
    AccountSlices, BlockCredit, BlockSignature, EarnedRewards, LEAF_SHARES_MAX, MaturedReward,
    OpenReward, PublishedBlock, PublishedSlice, PublishedWindow, RewardSigner, RewardState,
    RewardsConfig, SLICES_PER_ANSWER_MAX, SampleWindow, Scheme, ShownPoint,
};
pub use samples::{DrawnSample, UNDONE_CLAIMS_MAX, Undone};
pub use share_sums::{Span, SpanSum, StatementLine};
pub use shares::{InferenceSettlement, Share};
pub use standing::Standing;
pub use stats::{Balance, Stats};
pub use subsidy::{Subsidy, SubsidyBudget};
pub use tasks::{TASKS_WIPED_MAX, TaskRecord, TaskState};

/// How long a caller waits for a connection before Postgres counts as away.
const ACQUIRE_TIME_MAX: Duration = Duration::from_secs(3);

/// How long the server works on one statement: far longer than any of ours takes.
const STATEMENT_TIME_MAX: &str = "30s";

/// How long a migration waits for a lock: nobody else gets one behind it.
const MIGRATION_LOCK_TIME_MAX: &str = "30s";

/// A handle to the ledger; clones share its connections.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: PgPool,
    /// For what is private of tasks; only a pool has it.
    sealer: Option<Sealer>,
}

impl Ledger {
    /// Connects to a `postgres://` URL.
    ///
    /// # Errors
    /// [`LedgerError::Url`] for a URL that is none, [`LedgerError::Unavailable`] if the server does
    /// not answer.
    pub async fn connect(url: &str, connections_max: u32) -> Result<Self, LedgerError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| LedgerError::Url)?;
        Self::open(options, connections_max).await
    }

    /// Whether this is the URL of a Postgres. Nothing is connected to.
    ///
    /// # Errors
    /// [`LedgerError::Url`].
    pub fn check_url(url: &str) -> Result<(), LedgerError> {
        PgConnectOptions::from_str(url)
            .map(drop)
            .map_err(|_| LedgerError::Url)
    }

    async fn open(options: PgConnectOptions, connections_max: u32) -> Result<Self, LedgerError> {
        // What is acknowledged has been flushed, whatever the server's default is.
        let options = options.options([
            ("synchronous_commit", "on"),
            ("statement_timeout", STATEMENT_TIME_MAX),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections_max.max(2))
            .acquire_timeout(ACQUIRE_TIME_MAX)
            .connect_with(options)
            .await?;
        Ok(Self { pool, sealer: None })
    }

    /// The same ledger for a pool, which keeps tasks: what is private of them is encrypted with this key. It is kept where the
    /// database is not. Without it no task can be stored or read.
    #[must_use]
    pub fn with_content_key(self, key: &[u8; 32]) -> Self {
        Self {
            sealer: Some(Sealer::new(key)),
            ..self
        }
    }

    /// # Errors
    /// [`LedgerError::Sealed`] without a key.
    fn sealer(&self) -> Result<&Sealer, LedgerError> {
        self.sealer.as_ref().ok_or(LedgerError::Sealed)
    }

    /// Brings the schema up to date; harmless if it is, and then any role may call it. Several processes may do it at once.
    ///
    /// # Errors
    /// [`LedgerError::Migration`] if the database holds something else, or the role does not own it.
    pub async fn migrate(&self) -> Result<(), LedgerError> {
        // On a connection of its own: rewriting a large table takes longer than a statement may otherwise. But nobody waits
        // behind it for a table that somebody else holds.
        let options = PgConnectOptions::clone(&self.pool.connect_options());
        let options = options.options([
            ("statement_timeout", "0"),
            ("lock_timeout", MIGRATION_LOCK_TIME_MAX),
        ]);
        let mut connection = options.connect().await?;
        let migrated = if migrations::are_all_there(&mut connection).await? {
            Ok(())
        } else {
            let run = migrations::migrator().run(&mut connection).await;
            run.map_err(|error| LedgerError::Migration(error.to_string()))
        };
        let _ = connection.close().await;
        migrated
    }

    /// Gives a role what daemons need of this database: to read, to add, to change what is no fact; not to make or change
    /// tables. Only their owner may call it, and has to again after each migration.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`], also if there is no such role.
    pub async fn grant_to_daemons(&self, role: &str) -> Result<(), LedgerError> {
        sqlx::query("SELECT grant_to_daemons($1::text::name)")
            .bind(role)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
