//! How many shares the ledger takes: many sources at once, each with shares under way, through the committer as the pool has
//! it. Beside it the same rows by one COPY into a table of the same columns, keys and checks: what Postgres takes on this
//! machine if nobody is credited.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use dovetail_commitment::{HeaderHash, tagged_hash};
use dovetail_ledger::{Committer, CommitterConfig, Ledger, Share, ShareKind};
use dovetail_units::{Msat, Work};
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    /// The committer's largest group.
    #[arg(long, default_value_t = 256)]
    group_max: usize,
    /// How long the first share of a group waits for others, in milliseconds.
    #[arg(long, default_value_t = 20)]
    group_wait_ms: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    shares: u64,
    accounts: u64,
    group_max: usize,
    group_wait_ms: u64,
    shares_committed_per_s: f64,
    copy_rows_per_s_same_run: f64,
    ratio_to_limit: f64,
    ack_ms_p50: f64,
    ack_ms_p99: f64,
    /// Of tables and indexes, for each share.
    bytes_per_share: f64,
}

/// Commits the shares, and copies the same ones.
pub(crate) async fn measure(load: &Load) -> anyhow::Result<Taken> {
    let ledger = Ledger::connect(&load.database, 8).await?;
    ledger.migrate().await?;
    let sql = PgPool::connect(&load.database).await?;
    let before = size(&sql).await?;
    let started = Instant::now();
    let mut waits = commit(load, ledger).await?;
    let per_s = load.shares as f64 / started.elapsed().as_secs_f64();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM shares")
        .fetch_one(&sql)
        .await?;
    ensure!(
        count.cast_unsigned() == load.shares,
        "{count} shares of {}",
        load.shares
    );
    let bytes = (size(&sql).await? - before) as f64 / load.shares as f64;
    let limit = copy(&sql, load).await?;
    waits.sort_unstable();
    let ms = |wait: &Duration| wait.as_secs_f64() * 1_000.0;
    let waits: Vec<f64> = waits.iter().map(ms).collect();
    Ok(Taken {
        shares: load.shares,
        accounts: load.accounts,
        group_max: load.group_max,
        group_wait_ms: load.group_wait_ms,
        shares_committed_per_s: per_s,
        copy_rows_per_s_same_run: limit,
        ratio_to_limit: per_s / limit,
        ack_ms_p50: percentile(&waits, 50),
        ack_ms_p99: percentile(&waits, 99),
        bytes_per_share: bytes,
    })
}

/// How long each share waited for its acknowledgement.
async fn commit(load: &Load, ledger: Ledger) -> anyhow::Result<Vec<Duration>> {
    let spool = std::env::temp_dir().join(format!("dovetail-bench-spool-{}", std::process::id()));
    let config = CommitterConfig {
        group_max: load.group_max,
        group_wait: Duration::from_millis(load.group_wait_ms),
        lane_max: 1_000,
        spool_dir: spool.clone(),
    };
    let stop = CancellationToken::new();
    let committer = Committer::start(ledger, config, stop.clone()).await?;
    let lanes = load.sources * load.in_flight;
    ensure!(lanes > 0 && load.accounts > 0, "nobody brings shares");
    let mut sources = JoinSet::new();
    for source in 0..load.sources {
        let committer = committer.for_another_source();
        for lane in 0..load.in_flight {
            let (committer, accounts) = (committer.clone(), load.accounts);
            let (first, shares) = (source * load.in_flight + lane, load.shares);
            sources.spawn(async move {
                let mut waits = Vec::new();
                for number in (first..shares).step_by(lanes as usize) {
                    let began = Instant::now();
                    committer.commit(share(number, accounts)).await?;
                    waits.push(began.elapsed());
                }
                anyhow::Ok(waits)
            });
        }
    }
    let mut waits = Vec::new();
    while let Some(of_lane) = sources.join_next().await {
        waits.extend(of_lane??);
    }
    stop.cancel();
    committer.stopped().await;
    std::fs::remove_dir_all(spool)?;
    Ok(waits)
}

fn share(number: u64, accounts: u64) -> Share {
    Share {
        header_hash: header_hash(number),
        account: format!("miner-{}", number % accounts),
        work: Work::new(WORK.into()),
        kind: ShareKind::Hash,
        is_block: false,
        credit: Msat::new(7),
        is_coinbase_only: false,
        batch: None,
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
        writeln!(
            rows,
            "\\\\x{}\tminer-{account}\thash\t{WORK}\t7\tf",
            // A proof is not copied twice.
            header_hash(number | 1 << 63)
        )?;
    }
    sqlx::raw_sql("CREATE TABLE copied (LIKE shares INCLUDING ALL)")
        .execute(sql)
        .await?;
    let into = "COPY copied (header_hash, account, kind, work, credit_msat, is_block) FROM STDIN";
    let started = Instant::now();
    let mut copy = sql.copy_in_raw(into).await?;
    copy.send(rows.into_bytes()).await?;
    copy.finish().await?;
    Ok(load.shares as f64 / started.elapsed().as_secs_f64())
}

async fn size(sql: &PgPool) -> anyhow::Result<i64> {
    let size = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE c.relname IN ('shares', 'transfers')";
    Ok(sqlx::query_scalar(size).fetch_one(sql).await?)
}
