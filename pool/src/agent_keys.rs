//! Keys with which agents have their tasks paid, as the operator makes and sees them: `dovetail-pool keys`. The ledger holds
//! each key to its budget; it may be used beside the pool, which knows a new or revoked key at once.

use anyhow::Context;
use clap::Subcommand;
use dovetail_ledger::{KeyRecord, Ledger, NewKey};
use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use serde::Serialize;

use crate::config::Config;
use crate::records;

/// What begins each secret: OpenAI's clients expect it, and scanners for leaked secrets look for it.
const SECRET_PREFIX: &str = "sk-";

/// Whether a word has the form of a secret that [`KeysCommand::Add`] has made.
pub(crate) fn is_secret(word: &str) -> bool {
    let digits = word.strip_prefix(SECRET_PREFIX);
    digits.is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print its secret. The secret is shown this once: the ledger keeps a hash of it.
    Add {
        /// What you call it: letters, digits, `.`, `_` and `-`. Never to be given again.
        #[arg(long)]
        name: String,
        /// What its tasks may cost in all, in millisatoshi.
        #[arg(long)]
        budget_msat: i64,
        /// What its tasks may cost on a day (UTC), in millisatoshi.
        #[arg(long)]
        per_day: Option<i64>,
    },
    /// Print all keys: what each may cost and has cost, what is set aside for tasks that run, and what is left.
    List,
    /// Revoke a key: it pays for no new task. Those that run are still paid.
    Revoke {
        /// What you call it.
        #[arg(long)]
        name: String,
    },
}

/// A key that was made. Amounts are millisatoshi.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    /// What agents show.
    secret: String,
    budget_msat: Msat,
    per_day_msat: Option<Msat>,
}

/// A key as it stands. Amounts are millisatoshi.
#[derive(Debug, Serialize)]
struct Standing {
    name: String,
    budget_msat: Msat,
    per_day_msat: Option<Msat>,
    spent_msat: Msat,
    spent_today_msat: Msat,
    reserved_msat: Msat,
    left_msat: Msat,
    left_today_msat: Msat,
    created_at_unix: i64,
    revoked_at_unix: Option<i64>,
}

/// A key that was revoked.
#[derive(Debug, Serialize)]
struct Revoked<'a> {
    name: &'a str,
    /// Whether it was valid until now.
    revoked_now: bool,
}

/// Does it and prints what came of it, as one JSON object per line or for people.
///
/// # Errors
/// If the ledger cannot be reached, or refuses.
pub async fn manage_keys(config: &Config, command: KeysCommand, json: bool) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    match command {
        KeysCommand::Add {
            name,
            budget_msat,
            per_day,
        } => add(&ledger, &name, (budget_msat, per_day), json).await,
        KeysCommand::List => list(&ledger, json).await,
        KeysCommand::Revoke { name } => {
            let revoked = ledger.revoke_key(&name).await;
            let revoked_now = revoked.with_context(|| format!("cannot revoke the key {name:?}"))?;
            let revoked = Revoked {
                name: &name,
                revoked_now,
            };
            records::print(&[revoked], json, revoked_text, "")
        }
    }
}

async fn add(
    ledger: &Ledger,
    name: &str,
    (budget, per_day): (i64, Option<i64>),
    json: bool,
) -> anyhow::Result<()> {
    let secret = new_secret();
    let new = NewKey {
        name,
        secret: &secret,
        budget: Msat::new(budget),
        per_day: per_day.map(Msat::new),
    };
    let added = ledger.add_key(&new).await;
    added.with_context(|| format!("cannot make the key {name:?}"))?;
    let made = Made {
        name,
        budget_msat: new.budget,
        per_day_msat: new.per_day,
        secret,
    };
    records::print(&[made], json, made_text, "")
}

/// 32 random bytes, which nobody guesses.
fn new_secret() -> String {
    format!("{SECRET_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()))
}

async fn list(ledger: &Ledger, json: bool) -> anyhow::Result<()> {
    let keys = ledger
        .keys()
        .await
        .context("cannot read the keys: has this pool's database been migrated?")?;
    let keys: Vec<Standing> = keys.into_iter().map(Standing::from).collect();
    records::print(&keys, json, standing_text, "no keys")
}

impl From<KeyRecord> for Standing {
    fn from(key: KeyRecord) -> Self {
        Self {
            name: key.name,
            budget_msat: key.budget,
            per_day_msat: key.per_day,
            spent_msat: key.spent,
            spent_today_msat: key.spent_today,
            reserved_msat: key.reserved,
            left_msat: key.left,
            left_today_msat: key.left_today,
            created_at_unix: key.created_at_unix,
            revoked_at_unix: key.revoked_at_unix,
        }
    }
}

fn a_day(per_day: Option<Msat>) -> String {
    per_day.map_or_else(String::new, |limit| format!(", {limit} a day"))
}

fn made_text(made: &Made<'_>) -> String {
    format!(
        "{}\n{}: {} in all{}. The secret above is shown this once.\n",
        made.secret,
        made.name,
        made.budget_msat,
        a_day(made.per_day_msat),
    )
}

fn standing_text(key: &Standing) -> String {
    let state = key.revoked_at_unix.map_or_else(
        || {
            format!(
                "{} left, {} of it today",
                key.left_msat, key.left_today_msat
            )
        },
        |at| {
            let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
            format!("revoked {} s ago", now.saturating_sub(at).max(0))
        },
    );
    format!(
        "{}: {} in all{}; spent {}, {} of it today; {} set aside; {state}\n",
        key.name,
        key.budget_msat,
        a_day(key.per_day_msat),
        key.spent_msat,
        key.spent_today_msat,
        key.reserved_msat,
    )
}

fn revoked_text(revoked: &Revoked<'_>) -> String {
    let name = revoked.name;
    match revoked.revoked_now {
        true => format!("{name} is revoked: it pays for no new task\n"),
        false => format!("{name} was revoked before\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Database;

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let (one, other) = (new_secret(), new_secret());
        assert_eq!((one.len(), &one[..3]), (67, "sk-"));
        assert_ne!(one, other);
        assert!(is_secret(&one) && is_secret(&other));
        for word in ["", "sk-", "none", "sk-proj-1234", &one[1..], &one[..66]] {
            assert!(!is_secret(word), "{word}");
        }
    }

    #[tokio::test]
    async fn a_key_that_was_made_is_listed_without_its_secret_until_it_is_revoked() {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let command = "alice";
        add(&ledger, command, (5_000, Some(100)), true)
            .await
            .unwrap();
        let again = add(&ledger, command, (5_000, None), true).await;
        assert!(again.unwrap_err().to_string().contains("alice"));
        assert!(add(&ledger, "a b", (5_000, None), true).await.is_err());
        let standing = async || {
            let keys = ledger.keys().await.unwrap().into_iter();
            let keys: Vec<Standing> = keys.map(Standing::from).collect();
            keys.iter().map(standing_text).collect::<String>()
        };
        let text = standing().await;
        assert!(
            text.contains("alice: 5000 msat in all, 100 msat a day"),
            "{text}"
        );
        assert!(
            text.contains("5000 msat left, 100 msat of it today"),
            "{text}"
        );
        assert!(!text.contains(SECRET_PREFIX), "{text}");
        assert!(ledger.revoke_key("alice").await.unwrap());
        assert!(standing().await.contains("revoked"));
        database.drop().await;
    }
}
