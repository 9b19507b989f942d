//! One module per command. Each returns the exit code, or an error that `main` explains.

pub(crate) mod ask;
pub(crate) mod credit;
mod model_file;
pub(crate) mod models;
pub(crate) mod payout;
pub(crate) mod receipt;
pub(crate) mod task;

use dovetail_agent::verify::Outcome;
use dovetail_console::print_line;
use serde::Serialize;

/// Prints one JSON value on one line, so that the last line of stdout can be parsed.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print_line(serde_json::to_string(value)?)?)
}

/// A check as people read it.
fn checked(claim: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Holds => format!("  ok       {claim}"),
        Outcome::Fails(why) => format!("  FAILS    {claim}: {why}"),
        Outcome::NotChecked(why) => format!("  skipped  {claim} ({why})"),
    }
}
