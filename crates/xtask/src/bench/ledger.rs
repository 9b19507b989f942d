//! `cargo xtask bench ledger`: how many shares the ledger takes, beside what Postgres takes by COPY in the same run.

use std::process::Command;

use clap::Args;
use serde_json::Value;

use super::report::{build_bench, number, report};
use crate::setup;
use crate::steps::Steps;

const DATABASE: &str = "dovetail_bench_ledger";

/// What to commit.
#[derive(Debug, Args)]
pub(crate) struct LedgerArguments {
    /// Shares of each run.
    #[arg(long, default_value_t = 50_000)]
    shares: u64,
    /// Groups' largest sizes; the JSON is the last one's.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256")]
    groups: Vec<usize>,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &LedgerArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    let bench = steps.step("the bench", build_bench)?;
    let postgres = steps.step("Postgres", setup::postgres)?;
    let measured: anyhow::Result<Vec<Value>> = arguments
        .groups
        .iter()
        .map(|group| {
            // A group of one share says what a round trip and a commit cost; fewer of them do.
            let shares = arguments.shares.min(*group as u64 * 2_000);
            steps.step(&format!("groups of {group}"), || {
                let url = postgres.fresh_database(DATABASE)?;
                report(
                    Command::new(&bench)
                        .args(["ledger", "--database", &url])
                        .args(["--shares", &shares.to_string()])
                        .args(["--group-max", &group.to_string()]),
                )
            })
        })
        .collect();
    postgres.drop_database(DATABASE);
    postgres.stop();
    let rows = measured?;
    eprintln!(
        "\n{:>8} {:>14} {:>14} {:>8} {:>12} {:>12} {:>14}",
        "group", "shares/s", "COPY rows/s", "ratio", "ack p50 ms", "ack p99 ms", "bytes a share"
    );
    for row in &rows {
        eprintln!(
            "{:>8} {:>14} {:>14} {:>8} {:>12} {:>12} {:>14}",
            row["group_max"],
            number(row, "shares_committed_per_s", 0),
            number(row, "copy_rows_per_s_same_run", 0),
            number(row, "ratio_to_limit", 2),
            number(row, "ack_ms_p50", 1),
            number(row, "ack_ms_p99", 1),
            number(row, "bytes_per_share", 0),
        );
    }
    if let (true, Some(last)) = (arguments.json, rows.last()) {
        println!("{last}");
    }
    Ok(())
}
