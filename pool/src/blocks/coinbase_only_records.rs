//! `dovetail-pool coinbase-only`: what accounts did on jobs that nobody else can check, for an operator.

use anyhow::Context;
use dovetail_ledger::CoinbaseOnlyRecord;

use crate::config::Config;
use crate::records;

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
    let ledger = records::connect(config).await?;
    let records = ledger
        .coinbase_only_records(account.as_deref(), limit)
        .await
        .context("cannot read the held credit: has this pool's database been migrated?")?;
    records::print(
        &records,
        json,
        text,
        "no account has mined in coinbase-only mode",
    )
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
