//! `cargo xtask bench start`: how large the release programs are, and how long they take to start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::postgres::Postgres;
use dovetail_tests::scenario::PAYOUT_ADDRESS;
use dovetail_tests::sv2_pool::Sv2Pool;
use serde_json::{Map, Value, json};

use super::elf::loaded_bytes;
use super::medians::median;
use super::pool::durable_postgres;
use super::report::release_programs;
use crate::steps::Steps;
use crate::{programs, setup};

const DATABASE: &str = "dovetail_bench_start";
/// The programs: their names here, and those of their files.
const PROGRAMS: [(&str, &str); 3] = [
    ("pool", "dovetail-pool"),
    ("worker", "dovetail-worker"),
    ("agent", "dovetail"),
];

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// How often each program is started; each figure is the median.
    #[arg(long, default_value_t = 11)]
    starts: u32,
    /// A folder whose programs are measured instead of this checkout's.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &StartArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    let core = steps.step("Bitcoin Core", programs::bitcoin_core)?;
    let folder = arguments.programs.as_deref();
    let folder = steps.step("programs", || release_programs(folder))?;
    let mut report = Map::new();
    for (name, file) in PROGRAMS {
        let program = folder.join(file);
        let row = steps.step(&format!("starts of {file}"), || {
            command_line(&program, arguments.starts)
        })?;
        report.insert(name.to_owned(), row);
        if name == "pool" {
            let parts = CoreParts {
                bitcoin_node: core.node.clone(),
                bitcoin_cli: core.cli.clone(),
            };
            let ready = steps.step("the pool until it is ready", || {
                pool_ready(&program, &parts, arguments.starts)
            })?;
            report.insert("pool_ready".to_owned(), ready);
        }
    }
    let report = Value::Object(report);
    show(&report);
    if arguments.json {
        println!("{report}");
    }
    Ok(())
}

/// A program's size, and its time to load, to read its command line and to end.
fn command_line(program: &Path, starts: u32) -> anyhow::Result<Value> {
    let bytes =
        std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let loaded = loaded_bytes(&bytes).context("this is no ELF program of 64 bits")?;
    let mut times = Vec::new();
    for _ in 0..starts.max(1) {
        let begun = Instant::now();
        let status = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(status.success(), "{} failed", program.display());
    }
    Ok(json!({
        "file_bytes": bytes.len(),
        "loaded_bytes": loaded,
        "version_ms": median(times),
    }))
}

/// The pool on Bitcoin Core, with a ledger that is migrated, until it says that it is ready.
fn pool_ready(program: &Path, parts: &CoreParts, starts: u32) -> anyhow::Result<Value> {
    let data = dovetail_tests::root().join(".data");
    let postgres = durable_postgres(&data.join("bench-postgres"))?;
    let measured = ready_times(program, parts, &postgres, &data.join("bench-start"), starts);
    postgres.drop_database(DATABASE);
    postgres.stop();
    measured
}

fn ready_times(
    program: &Path,
    parts: &CoreParts,
    postgres: &Postgres,
    dir: &Path,
    starts: u32,
) -> anyhow::Result<Value> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let core = BitcoinCore::start(parts, &dir.join("bitcoin"), &dir.join("logs"))?;
    core.mine(1, PAYOUT_ADDRESS)?;
    let url = postgres.fresh_database(DATABASE)?;
    let start = || -> anyhow::Result<f64> {
        let begun = Instant::now();
        let pool = Sv2Pool::dovetail(program, &dir.join("pool"), &core, &url)?;
        let time = begun.elapsed().as_secs_f64() * 1e3;
        drop(pool);
        Ok(time)
    };
    let first = start()?;
    let times = (0..starts.max(1)).map(|_| start());
    let times = times.collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(json!({ "ready_ms": median(times), "with_migrations_ms": first }))
}

fn show(report: &Value) {
    let figure = |pointer: &str, unit: f64, digits: usize| {
        let figure = report.pointer(pointer).and_then(Value::as_f64);
        figure.map_or_else(
            || "-".to_owned(),
            |figure| format!("{:.digits$}", figure / unit),
        )
    };
    eprintln!(
        "\n{:<8} {:>12} {:>12} {:>14}",
        "program", "file MiB", "loaded MiB", "--version ms"
    );
    let mebibyte = 1024.0 * 1024.0;
    for (name, _) in PROGRAMS {
        eprintln!(
            "{name:<8} {:>12} {:>12} {:>14}",
            figure(&format!("/{name}/file_bytes"), mebibyte, 1),
            figure(&format!("/{name}/loaded_bytes"), mebibyte, 1),
            figure(&format!("/{name}/version_ms"), 1.0, 1),
        );
    }
    eprintln!(
        "the pool is ready after {} ms, {} ms with an empty database; files have the line numbers of debuggers in them",
        figure("/pool_ready/ready_ms", 1.0, 0),
        figure("/pool_ready/with_migrations_ms", 1.0, 0),
    );
}
