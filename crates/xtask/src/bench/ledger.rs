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
    /// Shares that are acknowledged and written.
    #[arg(long, default_value_t = 200_000)]
    shares: u64,
    /// Shares that wait in the log when the draining begins.
    #[arg(long, default_value_t = 200_000)]
    drained: u64,
    /// How much longer a round trip to Postgres takes, in milliseconds; the JSON is the first one's, with the others in
    /// `delayed`.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    delays: Vec<u64>,
    /// Shares of a ledger that is asked what pages ask; 0 leaves it out. Ten million take 3 GB and eight minutes.
    #[arg(long, default_value_t = 2_000_000)]
    full: u64,
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
        .delays
        .iter()
        .map(|delay| {
            steps.step(&format!("{delay} ms more to Postgres"), || {
                let url = postgres.fresh_database(DATABASE)?;
                report(
                    Command::new(&bench)
                        .args(["ledger", "--database", &url])
                        .args(["--shares", &arguments.shares.to_string()])
                        .args(["--drained", &arguments.drained.to_string()])
                        .args(["--delay-ms", &delay.to_string()]),
                )
            })
        })
        .collect();
    let asked: anyhow::Result<Option<Value>> = (arguments.full > 0)
        .then(|| {
            steps.step(&format!("a ledger of {} shares", arguments.full), || {
                let url = postgres.fresh_database(DATABASE)?;
                report(
                    Command::new(&bench)
                        .args(["pages", "--database", &url])
                        .args(["--shares", &arguments.full.to_string()]),
                )
            })
        })
        .transpose();
    let divided = steps.step("a block over 20,000 accounts", || {
        let url = postgres.fresh_database(DATABASE)?;
        report(Command::new(&bench).args(["divisions", "--database", &url]))
    });
    postgres.drop_database(DATABASE);
    postgres.stop();
    let (rows, asked, divided) = (measured?, asked?, divided?);
    print_table(&rows, asked.as_ref());
    eprintln!(
        "\na block is divided over {} accounts in {} s and credited in {} s; the page of one of them takes {} ms then",
        divided["accounts"],
        number(&divided, "split_s", 2),
        number(&divided, "mature_s", 2),
        number(&divided, "miner_page_ms", 1),
    );
    if arguments.json
        && let Some((first, others)) = rows.split_first()
    {
        let mut first = first.clone();
        first["delayed"] = others.into();
        // The page of a full ledger, where one was filled.
        let page = asked.as_ref().unwrap_or(&divided);
        first["miner_page_ms"] = page["miner_page_ms"].clone();
        first["split_20000_accounts_s"] = divided["split_s"].clone();
        first["full"] = asked.unwrap_or_default();
        first["divided"] = divided;
        println!("{first}");
    }
    Ok(())
}

fn print_table(rows: &[Value], asked: Option<&Value>) {
    eprintln!(
        "\n{:>8} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>8} {:>10} {:>10}",
        "delay ms",
        "acked/s",
        "ack p50 ms",
        "ack p99 ms",
        "written/s",
        "drained/s",
        "COPY rows/s",
        "ratio",
        "bytes each",
        "stats ms"
    );
    for row in rows {
        eprintln!(
            "{:>8} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>8} {:>10} {:>10}",
            row["delay_ms"],
            number(row, "shares_acknowledged_per_s", 0),
            number(row, "ack_ms_p50", 1),
            number(row, "ack_ms_p99", 1),
            number(row, "shares_committed_per_s", 0),
            number(row, "drained_shares_per_s", 0),
            number(row, "copy_rows_per_s_same_run", 0),
            number(row, "ratio_to_limit", 2),
            number(row, "bytes_per_share", 0),
            number(row, "stats_ms", 1),
        );
    }
    if let Some(asked) = asked {
        eprintln!(
            "\nat {} shares: counts {} ms, a miner's day {} ms, a statement {} ms, a balance {} ms, all of its page {} ms",
            asked["shares"],
            number(asked, "stats_ms", 1),
            number(asked, "miner_day_ms", 1),
            number(asked, "statement_ms", 1),
            number(asked, "balance_ms", 1),
            number(asked, "miner_page_ms", 1),
        );
    }
}
