//! What the questions of pages and commands take at a full ledger: so many shares, two days of minutes, ninety of hours, and a
//! week of credit intervals, made by the database itself.

use std::time::Instant;

use anyhow::Context;
use clap::Args;
use dovetail_ledger::{Ledger, LedgerError, Span};
use dovetail_units::ShareCredit;
use dovetail_units::time::unix_now;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgPool};

use crate::divisions;
use crate::percentile::percentile;

const DAY_S: u64 = 86_400;
/// How often each question is asked.
const QUESTIONS: usize = 25;
/// Shares of one statement.
const CHUNK: u64 = 1_000_000;
/// As many shares in a block as a pool with a thousand a second.
const SHARES_PER_BLOCK: u64 = 600_000;

/// How full the ledger is.
#[derive(Debug, Args)]
pub(crate) struct Pages {
    /// The URL of an empty database.
    #[arg(long)]
    database: String,
    /// Shares in all.
    #[arg(long, default_value_t = 2_000_000)]
    shares: u64,
    /// Accounts that they are of.
    #[arg(long, default_value_t = 1_000)]
    accounts: u32,
}

/// Medians.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    shares: u64,
    accounts: u32,
    sums: i64,
    transfers: i64,
    /// The pool's counts.
    stats_ms: f64,
    /// An account's day, minute by minute.
    miner_day_ms: f64,
    /// The newest hundred lines of an account.
    statement_ms: f64,
    balance_ms: f64,
    /// All that an account's page shows, asked one after the other.
    miner_page_ms: f64,
    /// The database on disk.
    bytes: i64,
}

/// Fills the ledger and asks it.
pub(crate) async fn measure(pages: &Pages) -> anyhow::Result<Asked> {
    let ledger = Ledger::connect(&pages.database, 4).await?;
    ledger.migrate().await?;
    let sql = PgPool::connect(&pages.database).await?;
    fill(&sql, pages).await?;
    let since = unix_now() - DAY_S;
    let account = "miner-7";
    let stats_ms = median(async || ledger.stats().await.map(drop)).await?;
    let day = async || {
        let day = ledger.share_sums(Some(account), Span::Minute, since, 1_440);
        day.await.map(drop)
    };
    let miner_day_ms = median(day).await?;
    let statement_ms = median(async || ledger.statement(account, 100).await.map(drop)).await?;
    let balance_ms = median(async || ledger.balance(account).await.map(drop)).await?;
    let miner_page_ms = median(async || divisions::page(&ledger, account).await).await?;
    let count = async |table: &str| -> anyhow::Result<i64> {
        let count = format!("SELECT count(*) FROM {table}");
        Ok(sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&sql)
            .await?)
    };
    let bytes = sqlx::query_scalar("SELECT pg_database_size(current_database())")
        .fetch_one(&sql)
        .await?;
    Ok(Asked {
        shares: pages.shares,
        accounts: pages.accounts,
        sums: count("share_sums").await?,
        transfers: count("transfers").await?,
        stats_ms,
        miner_day_ms,
        statement_ms,
        balance_ms,
        miner_page_ms,
        bytes,
    })
}

async fn median(question: impl AsyncFn() -> Result<(), LedgerError>) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..QUESTIONS {
        let started = Instant::now();
        question().await?;
        took.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    took.sort_unstable_by(f64::total_cmp);
    Ok(percentile(&took, 50))
}

async fn fill(sql: &PgPool, pages: &Pages) -> anyhow::Result<()> {
    let accounts = pages.accounts;
    let run = async |statement: String| -> anyhow::Result<()> {
        // Longer than the ledger gives a statement of its own.
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(sql).await?;
        Ok(())
    };
    let each = pages.shares / u64::from(accounts).max(1);
    let part = ShareCredit::PER_MSAT;
    run(format!(
        "INSERT INTO accounts (name, never_negative) SELECT 'worker:miner-' || n, true FROM generate_series(1, {accounts}) n;
         INSERT INTO hash_credits (account, shares, inference_shares, work, unsettled)
             SELECT id, {each}, 0, {each} * 4294967296::numeric, {part} / 2 FROM accounts WHERE starts_with(name, 'worker:');
         INSERT INTO transfers (id, kind, debit, credit, amount, reason, created_at)
             SELECT substr(sha256(convert_to(a.id || '/' || s, 'UTF8')), 1, 16), 'posted', p.id, a.id, 100, 'hash',
                    now() - s * interval '10 minutes'
               FROM accounts a, accounts p, generate_series(1, 1008) s
              WHERE starts_with(a.name, 'worker:') AND p.name = 'pool:hash';"
    ))
    .await?;
    for (span_s, count) in [(60, 2_880), (3_600, 2_160), (86_400, 365)] {
        run(format!(
            "INSERT INTO share_sums (account, span_s, starts_at, shares, work, credit)
             SELECT a, {span_s}, (extract(epoch FROM now())::bigint / {span_s} - s) * {span_s}, 20, 85899345920, {part} * 3
               FROM (SELECT id AS a FROM accounts WHERE starts_with(name, 'worker:') UNION ALL SELECT 0) accounts,
                    generate_series(0, {count} - 1) s"
        ))
        .await?;
    }
    for first in (0..pages.shares).step_by(usize::try_from(CHUNK)?) {
        let last = pages.shares.min(first + CHUNK) - 1;
        let height = 900_000 + first / SHARES_PER_BLOCK;
        run(format!(
            "SELECT make_share_partition({height}), make_share_partition({height} + 2);
             INSERT INTO shares (work, height, account, header_hash)
             SELECT 4294967296, 900000 + n / {SHARES_PER_BLOCK}, n % {accounts} + 1, gen_random_uuid()
               FROM generate_series({first}, {last}) n"
        ))
        .await
        .with_context(|| format!("shares from {first} on"))?;
    }
    // As autovacuum would by the time that there are so many.
    run("VACUUM ANALYZE".to_owned()).await
}
