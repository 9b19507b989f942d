//! What an account has, what it did in the last day, and what moved its money: `dovetail-pool account`.

use anyhow::Context;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_ledger::{Balance, BlockCredit, Ledger, Span, SpanSum, StatementLine};
use dovetail_rewards::Weight;
use dovetail_units::time::unix_now;
use serde::Serialize;

use crate::config::Config;
use crate::payouts::command::Waiting;
use crate::payouts::destination::Pays;
use crate::payouts::stated::Stated;
use crate::records;

/// Hours that are looked back.
const HOURS: u32 = 24;

/// All of it.
#[derive(Debug, Serialize)]
struct AccountRecord {
    account: String,
    available_msat: i64,
    pending_msat: i64,
    held_msat: i64,
    held_for_blocks_msat: i64,
    unsettled_msat: i64,
    /// Of blocks that the chain has, or has not shown yet, and that have not matured.
    immature_msat: i64,
    /// Of all blocks that have matured.
    matured_msat: i64,
    /// What the account has of the window that the next block is divided over, in millionths.
    window_millionths: u32,
    blocks: Vec<Block>,
    payout: Waiting,
    stated: Stated,
    hours: Vec<Hour>,
    statement: Vec<Line>,
}

/// A block that the account has a part of.
#[derive(Debug, Serialize)]
struct Block {
    hash: String,
    height: u32,
    state: &'static str,
    amount_msat: i64,
    /// What of it the block's coinbase has paid itself.
    paid_ahead_msat: i64,
    reward_msat: i64,
    fee_msat: i64,
}

#[derive(Debug, Serialize)]
struct Hour {
    starts_at_unix: u64,
    shares: u64,
    work: String,
    credit_msat: i64,
}

#[derive(Debug, Serialize)]
struct Line {
    unix: u64,
    kind: String,
    reason: String,
    amount_msat: i64,
}

/// Prints the account, as one JSON object or for people, with so many lines of its statement. Only reads the ledger, so it
/// may run beside the pool.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn print_account(
    config: &Config,
    account: &str,
    json: bool,
    limit: u32,
) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    let record = read(&ledger, account, limit, Pays::of(config))
        .await
        .context("cannot read the account: has this pool's database been migrated?")?;
    records::print(&[record], json, text, "")
}

async fn read(
    ledger: &Ledger,
    account: &str,
    limit: u32,
    pays: Pays,
) -> anyhow::Result<AccountRecord> {
    let Balance {
        available,
        pending,
        held,
        held_for_blocks,
        unsettled,
    } = ledger.balance(account).await?;
    let open = ledger.payout_records(Some(account), true, 1).await?;
    let standing = ledger.payee_standing(account).await?.unwrap_or_default();
    let payout = Waiting::new(account, &standing, open.first().cloned(), pays);
    let stated = Stated::new(&ledger.destinations(account).await?);
    let hour_s = u64::from(Span::Hour.seconds());
    let since = unix_now().saturating_sub(u64::from(HOURS) * hour_s);
    let hours = ledger.share_sums(Some(account), Span::Hour, since, HOURS);
    let hours = hours.await?.into_iter().map(|sum: SpanSum| Hour {
        starts_at_unix: sum.starts_at_unix,
        shares: sum.shares,
        work: sum.work,
        credit_msat: sum.credit.get(),
    });
    let earned = ledger.earned_rewards(account, limit).await?;
    let lines = ledger.statement(account, limit).await?;
    let lines = lines.into_iter().map(|line: StatementLine| Line {
        unix: line.unix,
        kind: line.kind,
        reason: line.reason,
        amount_msat: line.amount_msat,
    });
    Ok(AccountRecord {
        account: account.to_owned(),
        available_msat: available.get(),
        pending_msat: pending.get(),
        held_msat: held.get(),
        held_for_blocks_msat: held_for_blocks.get(),
        unsettled_msat: unsettled.get(),
        immature_msat: earned.immature.get(),
        matured_msat: earned.matured.get(),
        window_millionths: millionths(earned.weight, earned.window),
        blocks: earned.blocks.iter().map(block).collect(),
        payout,
        stated,
        hours: hours.collect(),
        statement: lines.collect(),
    })
}

fn block(credit: &BlockCredit) -> Block {
    Block {
        hash: BlockHash::from_byte_array(credit.block.to_bytes()).to_string(),
        height: credit.height,
        state: credit.state.name(),
        amount_msat: credit.amount.get(),
        paid_ahead_msat: credit.paid_ahead.get(),
        reward_msat: credit.reward.get(),
        fee_msat: credit.fee.get(),
    }
}

/// What a part is of the whole, rounded down.
fn millionths(part: Weight, whole: Weight) -> u32 {
    // At most 2^120 each: a shift leaves room for the factor.
    let (part, whole) = (part.get() >> 20, whole.get() >> 20);
    let millionths = (part * 1_000_000).checked_div(whole);
    millionths.map_or(0, |of| u32::try_from(of).unwrap_or(1_000_000))
}

fn text(record: &AccountRecord) -> String {
    let ago = |unix: u64| unix_now().saturating_sub(unix);
    let mut text = format!(
        "{}: {} msat can be paid out, {} are on their way, {} are held for inference and {} until a block, {} wait for the \
         next interval\n",
        record.account,
        record.available_msat,
        record.pending_msat,
        record.held_msat,
        record.held_for_blocks_msat,
        record.unsettled_msat,
    );
    text += &format!(
        "  {} msat of blocks that have matured, {} of blocks that have not; {}.{:04} % of the window of the next block\n",
        record.matured_msat,
        record.immature_msat,
        record.window_millionths / 10_000,
        record.window_millionths % 10_000,
    );
    for block in &record.blocks {
        text += &format!(
            "  block {} at height {} ({}): {} msat of {}, after a fee of {}; {} of them its coinbase pays itself\n",
            block.hash,
            block.height,
            block.state,
            block.amount_msat,
            block.reward_msat,
            block.fee_msat,
            block.paid_ahead_msat,
        );
    }
    text += &format!("  {}\n", record.payout.text());
    text += &record.stated.text();
    for hour in &record.hours {
        text += &format!(
            "  hour that began {} s ago: {} shares, {} hashes, {} msat\n",
            ago(hour.starts_at_unix),
            hour.shares,
            hour.work,
            hour.credit_msat,
        );
    }
    for line in &record.statement {
        text += &format!(
            "  {} s ago: {:+} msat, {} ({})\n",
            ago(line.unix),
            line.amount_msat,
            line.reason,
            line.kind,
        );
    }
    text
}
