//! What the commands have in common that print an operator's records: `dovetail-pool audits`, `coinbase-only`, `devices`.

use std::io::Write;

use anyhow::Context;
use dovetail_ledger::Ledger;
use dovetail_units::{harmless, harmless_lines};
use serde::Serialize;

use crate::config::Config;

/// Such a command reads one table after the other.
const CONNECTIONS_MAX: u32 = 2;

/// Connects to the pool's ledger, to read it; the pool may run beside.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<Ledger> {
    open(config, CONNECTIONS_MAX).await
}

/// Connects to the pool's ledger with so many connections.
pub(crate) async fn open(config: &Config, connections_max: u32) -> anyhow::Result<Ledger> {
    Ledger::connect(&config.ledger.url.read()?, connections_max)
        .await
        .context("cannot connect to Postgres: is ledger.url right and the server running?")
}

/// Prints records as one JSON object per line, or for people; then `none` where there is no record. Miners choose some of
/// the words in them, which steer nobody's terminal.
pub(crate) fn print<T: Serialize>(
    records: &[T],
    json: bool,
    text: impl Fn(&T) -> String,
    none: &str,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for record in records {
        if json {
            writeln!(out, "{}", harmless(serde_json::to_string(record)?))?;
        } else {
            write!(out, "{}", harmless_lines(text(record)))?;
        }
    }
    if records.is_empty() && !json {
        writeln!(out, "{none}")?;
    }
    Ok(())
}
