//! What a block takes that is divided over many accounts, and what the page of one of them takes then: shares through the log
//! and the writer, as the pool has them, until each account weighs in the window; then a share that solves a block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_commitment::{HeaderHash, tagged_hash};
use dovetail_ledger::{
    Committer, CommitterConfig, Ledger, RewardState, RewardsConfig, Scheme, Share, Span,
};
use dovetail_rewards::{PoolFee, Slice, Weight, WindowLength};
use dovetail_units::time::unix_now;
use dovetail_units::{ShareCredit, Work};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// Accounts of one slice.
const ACCOUNTS_PER_SLICE: u32 = 500;
/// What the block pays.
const REWARD_SAT: u64 = 312_500_000;

/// Over how many.
#[derive(Debug, Args)]
pub(crate) struct Divisions {
    /// The URL of an empty database.
    #[arg(long)]
    database: String,
    /// Accounts in the window.
    #[arg(long, default_value_t = 20_000)]
    accounts: u32,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Divided {
    accounts: u32,
    /// Shares that filled the window, written one second.
    weighed_shares_per_s: f64,
    /// From the share that solves the block to its division in Postgres.
    split_s: f64,
    /// From its hundredth confirmation to the credit of all.
    mature_s: f64,
    /// An account's balance, rewards, day and statement, asked one after the other.
    miner_page_ms: f64,
}

/// Fills a window, and divides a block over it.
pub(crate) async fn measure(divisions: &Divisions) -> anyhow::Result<Divided> {
    let ledger = Ledger::connect(&divisions.database, 8).await?;
    ledger.migrate().await?;
    let dir = std::env::temp_dir().join(format!("dovetail-bench-split-{}", std::process::id()));
    let stop = CancellationToken::new();
    let committer = Committer::start(ledger.clone(), config(&dir), stop.clone()).await?;
    let started = Instant::now();
    let mut shares = tokio::task::JoinSet::new();
    for number in 0..divisions.accounts {
        let committer = committer.clone();
        shares.spawn(async move { committer.commit(share(number)).await });
    }
    while let Some(done) = shares.join_next().await {
        done??;
    }
    committer.written().await;
    let filled = started.elapsed();
    let started = Instant::now();
    let solved = Share {
        is_block: true,
        reward_sat: REWARD_SAT,
        ..share(divisions.accounts)
    };
    let block = solved.header_hash;
    committer.commit(solved).await?;
    committer.written().await;
    let split_s = started.elapsed().as_secs_f64();
    stop.cancel();
    committer.stopped().await;
    std::fs::remove_dir_all(dir)?;
    ledger.note_reward(block, RewardState::Active).await?;
    let started = Instant::now();
    let matured = ledger.mature_reward(block).await?;
    let mature_s = started.elapsed().as_secs_f64();
    let matured = matured.context("the block did not mature")?;
    // The accounts of the slice that is open have no part.
    let least = u64::from(divisions.accounts.saturating_sub(ACCOUNTS_PER_SLICE));
    ensure!(
        matured.accounts >= least,
        "divided over {} accounts only",
        matured.accounts
    );
    let started = Instant::now();
    page(&ledger, "miner-7").await?;
    Ok(Divided {
        accounts: divisions.accounts,
        weighed_shares_per_s: f64::from(divisions.accounts) / filled.as_secs_f64(),
        split_s,
        mature_s,
        miner_page_ms: started.elapsed().as_secs_f64() * 1_000.0,
    })
}

/// What a miner's page shows.
pub(crate) async fn page(
    ledger: &Ledger,
    account: &str,
) -> Result<(), dovetail_ledger::LedgerError> {
    ledger.balance(account).await?;
    ledger.earned_rewards(account, 20).await?;
    let since = unix_now() - 86_400;
    ledger
        .share_sums(Some(account), Span::Hour, since, 24)
        .await?;
    ledger.statement(account, 100).await?;
    Ok(())
}

fn config(dir: &std::path::Path) -> CommitterConfig {
    CommitterConfig {
        rewards: Some(RewardsConfig {
            scheme: Scheme::Pplns(WindowLength::default()),
            fee: PoolFee::NONE,
            first_block: HeaderHash::from_bytes([0; 32]),
            signer: [1; 32],
            // A signature takes far less than the rest.
            sign: Arc::new(|_| [1; 64]),
            keep_slices: Duration::from_secs(3_600),
            keep_shares: Some(Duration::from_secs(3_600)),
        }),
        ..CommitterConfig::new(dir.to_owned(), 1 << 30)
    }
}

fn share(number: u32) -> Share {
    let weight = Slice::SIZE.get() / u128::from(ACCOUNTS_PER_SLICE);
    Share {
        header_hash: HeaderHash::from_bytes(tagged_hash(
            "dovetail/bench",
            &[&number.to_be_bytes()],
        )),
        account: format!("miner-{number}"),
        work: Work::new(1 << 32),
        height: 900_000,
        is_block: false,
        credit: ShareCredit::ZERO,
        // Rounded up, so that so many fill a slice.
        weight: Weight::new(weight + 1).unwrap_or(Slice::SIZE),
        reward_sat: 0,
        is_coinbase_only: false,
        batch: None,
        proof: None,
    }
}
