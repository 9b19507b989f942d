//! `dovetail-pool ledger`: whether the ledger is what its facts say, and what it owes; its tables, as their owner makes them.

use std::path::Path;

use anyhow::{Context, ensure};
use dovetail_daemon::Secret;
use dovetail_ledger::{Consistency, Ledger, Obligations};
use serde::Serialize;

use crate::config::Config;
use crate::keys;
use crate::records;
use crate::solvency::{Purses, Solvency};

/// Brings the ledger's tables up to date as their owner, and gives a role what daemons need.
///
/// # Errors
/// If the owner's URL cannot be read, others may read it, or the database refuses.
pub async fn migrate_ledger(
    config: &Config,
    owner_url: Option<&Path>,
    role: Option<&str>,
) -> anyhow::Result<()> {
    let ledger = match owner_url {
        Some(path) => {
            let secret = Secret::File {
                file: path.to_owned(),
            };
            let url = secret.read().context("--owner-url-file")?;
            Ledger::connect(&url, 2).await.context("--owner-url-file")?
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
    #[serde(flatten)]
    solvency: Solvency,
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
    let mut purses = Purses::of(config, keys::onchain(config)?).context("configuration")?;
    let solvency = Solvency::look(&found.obligations, &mut purses).await;
    let record = record(found, solvency);
    let broken = record.differences.len();
    records::print(&[record], json, text, "")?;
    ensure!(broken == 0, "{broken} rules of the ledger do not hold");
    Ok(())
}

fn record(found: Consistency, solvency: Solvency) -> CheckRecord {
    let Obligations {
        owed,
        held,
        immature,
        rewards,
        fees,
        paid,
        ..
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
        solvency,
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
    text += &record.solvency.text();
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_owners_url_is_not_taken_from_a_file_that_others_may_read() {
        let config: Config =
            toml::from_str(include_str!("../../config/dovetail-pool.toml")).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = "postgres://owner:hunter2@localhost:1/nowhere";
        std::fs::write(file.path(), url).unwrap();
        let open_to_all = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(file.path(), open_to_all).unwrap();
        let refused = migrate_ledger(&config, Some(file.path()), None).await;
        let said = format!("{:#}", refused.unwrap_err());
        assert!(said.starts_with("--owner-url-file"), "{said}");
        assert!(said.contains("chmod 600"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
