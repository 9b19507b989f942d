//! `dovetail-pool ledger`: whether the ledger is what its facts say, and what it owes; its tables, as their owner makes them.

use std::path::Path;

use anyhow::{Context, ensure};
use dovetail_ledger::{Consistency, Ledger, Obligations};
use dovetail_lightning::Client;
use serde::Serialize;

use crate::config::Config;
use crate::payouts::onchain::{holdings, node_of};
use crate::records;

/// Brings the ledger's tables up to date as their owner, and gives a role what daemons need.
///
/// # Errors
/// If the owner's URL cannot be read, or the database refuses.
pub async fn migrate_ledger(
    config: &Config,
    owner_url: Option<&Path>,
    role: Option<&str>,
) -> anyhow::Result<()> {
    let ledger = match owner_url {
        Some(path) => {
            let url = std::fs::read_to_string(path).context("--owner-url-file")?;
            Ledger::connect(url.trim(), 2)
                .await
                .context("--owner-url-file")?
        }
        None => records::connect(config).await?,
    };
    ledger
        .migrate()
        .await
        .context("cannot migrate the ledger")?;
    if let Some(role) = role {
        let granted = ledger.grant_to_daemons(role).await;
        granted.with_context(|| format!("cannot give the role {role} what daemons need"))?;
    }
    Ok(())
}

/// All of it. Amounts are millisatoshi.
#[derive(Debug, Serialize)]
struct CheckRecord {
    /// How many rules were looked at.
    rules: usize,
    /// Those that do not hold.
    differences: Vec<DifferenceRecord>,
    owed_msat: i64,
    held_msat: i64,
    immature_msat: i64,
    rewards_msat: i64,
    fees_msat: i64,
    paid_msat: i64,
    /// What the wallet can spend; `null` if it has none, or did not answer.
    wallet_msat: Option<u64>,
    /// What the wallet on the chain can spend; the same.
    onchain_msat: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DifferenceRecord {
    rule: &'static str,
    examples: Vec<String>,
}

/// Looks through the ledger and prints what it finds, as one JSON object or for people. Only reads it, so it may run beside
/// the pool.
///
/// # Errors
/// If the ledger cannot be read, or a rule does not hold.
pub async fn print_ledger_audit(config: &Config, json: bool) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    let found = ledger
        .check_consistency()
        .await
        .context("cannot read the ledger: has this pool's database been migrated?")?;
    let wallet_msat = match &config.lightning.socket {
        Some(socket) => Client::new(socket.clone()).balance().await.ok(),
        None => None,
    };
    let record = record(found, wallet_msat, onchain_msat(config).await);
    let broken = record.differences.len();
    records::print(&[record], json, text, "")?;
    ensure!(broken == 0, "{broken} rules of the ledger do not hold");
    Ok(())
}

/// What the wallet on the chain can spend now, if there is one and its node answers.
async fn onchain_msat(config: &Config) -> Option<u64> {
    let onchain = config.onchain.as_ref()?;
    let keys = onchain.keys(config.mining.network).ok()?;
    let holdings = holdings(&node_of(onchain).ok()?, &keys).await.ok()?;
    holdings.spendable.to_sat().checked_mul(1_000)
}

fn record(found: Consistency, wallet_msat: Option<u64>, onchain_msat: Option<u64>) -> CheckRecord {
    let Obligations {
        owed,
        held,
        immature,
        rewards,
        fees,
        paid,
    } = found.obligations;
    let differences = found.differences.into_iter().map(|difference| {
        let examples = difference.examples.into_iter();
        DifferenceRecord {
            rule: difference.rule,
            examples: examples
                .map(|(name, what)| format!("{name} {what}"))
                .collect(),
        }
    });
    CheckRecord {
        rules: found.rules.len(),
        differences: differences.collect(),
        owed_msat: owed.get(),
        held_msat: held.get(),
        immature_msat: immature.get(),
        rewards_msat: rewards.get(),
        fees_msat: fees.get(),
        paid_msat: paid.get(),
        wallet_msat,
        onchain_msat,
    }
}

fn text(record: &CheckRecord) -> String {
    let mut text = format!(
        "{} rules, of which {} do not hold\n",
        record.rules,
        record.differences.len()
    );
    for difference in &record.differences {
        text += &format!("  NOT TRUE: {}\n", difference.rule);
        for example in &difference.examples {
            text += &format!("    {example}\n");
        }
    }
    text += &format!(
        "owed to miners     {} msat, and {} held, {} of blocks that have not matured\n\
         matured blocks     {} msat, of which the pool keeps {}\n\
         paid out           {} msat\n",
        record.owed_msat,
        record.held_msat,
        record.immature_msat,
        record.rewards_msat,
        record.fees_msat,
        record.paid_msat,
    );
    text += &match record.wallet_msat {
        Some(wallet) => format!("in the wallet      {wallet} msat\n"),
        None => "in the wallet      unknown\n".to_owned(),
    };
    if let Some(onchain) = record.onchain_msat {
        text += &format!("on the chain       {onchain} msat\n");
    }
    text
}
