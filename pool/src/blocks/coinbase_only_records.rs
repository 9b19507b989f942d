//! `dovetail-pool coinbase-only`: what accounts did on jobs that nobody else can check, for an operator.

use std::io::Write;

use anyhow::Context;
use dovetail_ledger::{CoinbaseOnlyRecord, Ledger};

use crate::config::Config;

/// Prints what one account or all did on jobs in coinbase-only mode, those with the most held first, at most `limit`; as
/// one JSON object per line, or for people. Only reads the ledger, so it may run beside the pool.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn print_coinbase_only(
    config: &Config,
    account: Option<String>,
    json: bool,
    limit: u32,
) -> anyhow::Result<()> {
    let ledger = Ledger::connect(&config.ledger.url.read()?, 2)
        .await
        .context("cannot connect to Postgres: is ledger.url right and the server running?")?;
    let records = ledger
        .coinbase_only_records(account.as_deref(), limit)
        .await
        .context("cannot read the held credit: has this pool's database been migrated?")?;
    let mut out = std::io::stdout().lock();
    for record in &records {
        if json {
            writeln!(out, "{}", serde_json::to_string(record)?)?;
        } else {
            write!(out, "{}", text(record))?;
        }
    }
    if records.is_empty() && !json {
        writeln!(out, "no account has mined in coinbase-only mode")?;
    }
    Ok(())
}

fn text(record: &CoinbaseOnlyRecord) -> String {
    let CoinbaseOnlyRecord {
        account,
        held_msat,
        held_shares,
        followed_blocks,
        followed_msat,
        seen_blocks,
        posted_msat,
        not_seen_blocks,
        voided_msat,
        unknown_blocks,
    } = record;
    format!(
        "{account}\n  \
           held for the next block  {held_msat} msat of {held_shares} shares\n  \
           blocks looked for        {followed_blocks}, with {followed_msat} msat held\n  \
           blocks seen              {seen_blocks}, with {posted_msat} msat posted\n  \
           blocks not seen          {not_seen_blocks}, with {voided_msat} msat void\n  \
           blocks nobody knows of   {unknown_blocks}\n"
    )
}
