//! How many shares log and ledger take: many sources at once, each with shares under way, through the committer as the pool
//! has it; acknowledged from the log, and written to Postgres behind their backs. Then a log full of shares, as an outage
//! leaves it, is drained. Beside it the same rows by one COPY into a table of the same columns, keys and checks: what
//! Postgres takes on this machine if nobody is credited.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_commitment::{HeaderHash, tagged_hash};
use dovetail_ledger::{Committer, CommitterConfig, Ledger, Share};
use dovetail_rewards::Weight;
use dovetail_units::{Msat, Work};
use serde::Serialize;
use sqlx::postgres::PgPoolCopyExt as _;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::delayed::delayed;
use crate::percentile::percentile;

/// A share of the network's difficulty is worth more; the number is as good as any.
const WORK: u64 = 1 << 32;

/// What is committed.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The URL of an empty database.
    #[arg(long)]
    database: String,
    /// Shares in all.
    #[arg(long, default_value_t = 50_000)]
    shares: u64,
    /// Accounts that they are credited to.
    #[arg(long, default_value_t = 1_000)]
    accounts: u64,
    /// Connections that bring them.
    #[arg(long, default_value_t = 64)]
    sources: u64,
    /// Shares of each connection that wait for their acknowledgement at once.
    #[arg(long, default_value_t = 16)]
    in_flight: u64,
    /// Shares that wait in the log when the draining begins.
    #[arg(long, default_value_t = 200_000)]
    drained: u64,
    /// How much longer a round trip to Postgres takes than it does, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    shares: u64,
    accounts: u64,
    delay_ms: u64,
    /// Acknowledged, from the log.
    shares_acknowledged_per_s: f64,
    ack_ms_p50: f64,
    ack_ms_p99: f64,
    /// From the first to the last of them in Postgres, acknowledging beside it.
    shares_committed_per_s: f64,
    drained_shares: u64,
    drain_s: f64,
    /// Of a log that was full before.
    drained_shares_per_s: f64,
    copy_rows_per_s_same_run: f64,
    /// Draining beside COPY.
    ratio_to_limit: f64,
    /// Of the tables and indexes of shares, transfers and sums, for each share.
    bytes_per_share: f64,
    /// Of the table of shares and its index alone.
    share_row_bytes: f64,
    /// The pool's counts, from its sums.
    stats_ms: f64,
}

/// Commits the shares, drains as many as an outage leaves, and copies the same ones.
pub(crate) async fn measure(load: &Load) -> anyhow::Result<Taken> {
    let url = match load.delay_ms {
        0 => load.database.clone(),
        more => delayed(&load.database, Duration::from_millis(more)).await?,
    };
    let ledger = Ledger::connect(&url, 8).await?;
    ledger.migrate().await?;
    let sql = PgPool::connect(&load.database).await?;
    let before = size(&sql, ALL_TABLES).await?;
    let dir = std::env::temp_dir().join(format!("dovetail-bench-log-{}", std::process::id()));
    let committed = commit(load, &ledger, &dir, 0..load.shares, true).await?;
    check(&sql, load.shares).await?;
    let bytes = (size(&sql, ALL_TABLES).await? - before) as f64 / load.shares as f64;
    let row_bytes = size(&sql, "'shares%'").await? as f64 / load.shares as f64;
    let all = load.shares + load.drained;
    let drain = drain(load, &ledger, &dir, load.shares..all).await?;
    check(&sql, all).await?;
    let started = Instant::now();
    ledger.stats().await?;
    let stats_ms = started.elapsed().as_secs_f64() * 1_000.0;
    let limit = copy(&sql, load).await?;
    std::fs::remove_dir_all(dir)?;
    let drained_per_s = load.drained as f64 / drain.as_secs_f64();
    let mut waits = committed.waits;
    waits.sort_unstable();
    let ms = |wait: &Duration| wait.as_secs_f64() * 1_000.0;
    let waits: Vec<f64> = waits.iter().map(ms).collect();
    Ok(Taken {
        shares: load.shares,
        accounts: load.accounts,
        delay_ms: load.delay_ms,
        shares_acknowledged_per_s: load.shares as f64 / committed.acknowledged.as_secs_f64(),
        ack_ms_p50: percentile(&waits, 50),
        ack_ms_p99: percentile(&waits, 99),
        shares_committed_per_s: load.shares as f64 / committed.written.as_secs_f64(),
        drained_shares: load.drained,
        drain_s: drain.as_secs_f64(),
        drained_shares_per_s: drained_per_s,
        copy_rows_per_s_same_run: limit,
        ratio_to_limit: drained_per_s / limit,
        bytes_per_share: bytes,
        share_row_bytes: row_bytes,
        stats_ms,
    })
}

async fn check(sql: &PgPool, shares: u64) -> anyhow::Result<()> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM shares")
        .fetch_one(sql)
        .await?;
    ensure!(
        count.cast_unsigned() == shares,
        "{count} shares of {shares}"
    );
    Ok(())
}

struct Committed {
    /// How long each share waited for its acknowledgement.
    waits: Vec<Duration>,
    acknowledged: Duration,
    written: Duration,
}

/// Commits these shares; `is_written` says whether to wait until Postgres has them.
async fn commit(
    load: &Load,
    ledger: &Ledger,
    dir: &Path,
    numbers: Range<u64>,
    is_written: bool,
) -> anyhow::Result<Committed> {
    let lanes = load.sources * load.in_flight;
    ensure!(lanes > 0 && load.accounts > 0, "nobody brings shares");
    let stop = CancellationToken::new();
    let config = CommitterConfig::new(dir.to_owned(), 4 << 30);
    let committer = Committer::start(ledger.clone(), config, stop.clone()).await?;
    let started = Instant::now();
    let mut sources = JoinSet::new();
    for lane in 0..lanes {
        let (committer, accounts, numbers) = (committer.clone(), load.accounts, numbers.clone());
        sources.spawn(async move {
            let mut waits = Vec::new();
            for number in (numbers.start + lane..numbers.end).step_by(lanes as usize) {
                let began = Instant::now();
                committer.commit(share(number, accounts)).await?;
                waits.push(began.elapsed());
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(of_lane) = sources.join_next().await {
        waits.extend(of_lane??);
    }
    let acknowledged = started.elapsed();
    if is_written {
        committer.written().await;
    }
    let written = started.elapsed();
    stop.cancel();
    committer.stopped().await;
    Ok(Committed {
        waits,
        acknowledged,
        written,
    })
}

/// Fills the log while the ledger's tables are locked, and times how long the writer needs for it.
async fn drain(
    load: &Load,
    ledger: &Ledger,
    dir: &Path,
    numbers: Range<u64>,
) -> anyhow::Result<Duration> {
    let sql = PgPool::connect(&load.database).await?;
    let mut lock = sql.begin().await?;
    // The writer waits here, as it would for a Postgres that is slow.
    sqlx::query("LOCK TABLE hash_credits IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await?;
    let stop = CancellationToken::new();
    let config = CommitterConfig::new(dir.to_owned(), 4 << 30);
    let committer = Committer::start(ledger.clone(), config, stop.clone()).await?;
    let mut shares = JoinSet::new();
    for number in numbers {
        let (committer, accounts) = (committer.clone(), load.accounts);
        shares.spawn(async move { committer.commit(share(number, accounts)).await });
        if shares.len() >= 4_096
            && let Some(done) = shares.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = shares.join_next().await {
        done??;
    }
    lock.rollback().await?;
    let started = Instant::now();
    committer.written().await;
    let took = started.elapsed();
    stop.cancel();
    committer.stopped().await;
    Ok(took)
}

fn share(number: u64, accounts: u64) -> Share {
    Share {
        header_hash: header_hash(number),
        account: format!("miner-{}", number % accounts),
        work: Work::new(WORK.into()),
        height: 900_000,
        is_block: false,
        credit: Msat::new(7).into(),
        weight: Weight::ZERO,
        reward_sat: 0,
        is_coinbase_only: false,
        batch: None,
        proof: None,
    }
}

fn header_hash(number: u64) -> HeaderHash {
    HeaderHash::from_bytes(tagged_hash("dovetail/bench", &[&number.to_be_bytes()]))
}

/// Rows a second.
async fn copy(sql: &PgPool, load: &Load) -> anyhow::Result<f64> {
    let mut rows = String::new();
    for number in 0..load.shares {
        let account = number % load.accounts;
        // A proof is not copied twice.
        let proof = header_hash(number | 1 << 63).to_string();
        let key = proof.get(..32).context("a hash has 64 digits")?;
        writeln!(rows, "{WORK}\t900000\t{account}\t{key}")?;
    }
    sqlx::raw_sql("CREATE TABLE copied (LIKE shares INCLUDING ALL)")
        .execute(sql)
        .await?;
    let into = "COPY copied (work, height, account, header_hash) FROM STDIN";
    let started = Instant::now();
    let mut copy = sql.copy_in_raw(into).await?;
    copy.send(rows.into_bytes()).await?;
    copy.finish().await?;
    Ok(load.shares as f64 / started.elapsed().as_secs_f64())
}

const ALL_TABLES: &str = "'shares%', 'transfers', 'hash_credits', 'share_sums'";

/// What tables with these names take, with their indexes.
async fn size(sql: &PgPool, names: &str) -> anyhow::Result<i64> {
    let size = format!(
        "SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
          WHERE c.relkind = 'r' AND c.relname LIKE ANY (ARRAY[{names}])"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(size))
        .fetch_one(sql)
        .await?)
}
