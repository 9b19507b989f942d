//! Transactions that whoever asked for them may leave at any moment.
//!
//! `sqlx` 0.9.0 notes that a transaction is open once the server has answered `BEGIN`. A future that is dropped before gives
//! its connection back with the transaction open, and whatever is written on it next is never committed. Time limits drop
//! futures, so `BEGIN` is said by a task of its own, which nobody drops: if nobody waits any more, the transaction is rolled back.

use sqlx::{PgPool, Postgres, Transaction};

use crate::{Ledger, LedgerError};

impl Ledger {
    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, LedgerError> {
        begin(&self.pool).await
    }
}

/// Begins a transaction on a connection of the pool's.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, LedgerError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin().await }).await;
    // It does not panic: its runtime stops.
    Ok(begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))?)
}
