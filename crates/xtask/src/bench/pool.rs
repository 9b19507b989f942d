//! `cargo xtask bench pool`: Dovetail's pool beside the Stratum Reference Implementation's, under the same load in the same
//! run, on the same Bitcoin Core.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::postgres::Postgres;
use dovetail_tests::scenario::PAYOUT_ADDRESS;
use serde_json::{Value, json};

use super::contender::{Contender, DATABASE, Ground, Load};
use super::medians::{medians, ratio};
use super::report::{build_release, release_programs};
use crate::steps::Steps;
use crate::{programs, setup};

/// How the pools are loaded.
#[derive(Debug, Args)]
pub(crate) struct PoolArguments {
    /// Seconds of each run under load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds; each figure is the median.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Connections that send shares.
    #[arg(long, default_value_t = 50)]
    connections: u64,
    /// Shares under way on each of them when the pool is to give its most.
    #[arg(long, default_value_t = 32)]
    in_flight: u32,
    /// Accounts that the connections are of.
    #[arg(long, default_value_t = 10)]
    accounts: u64,
    /// Connections that wait, for memory and for a new block.
    #[arg(long, default_value_t = 1_000)]
    idle: u64,
    /// Blocks that they hear of.
    #[arg(long, default_value_t = 5)]
    blocks: u32,
    /// Channels that each of them opens besides.
    #[arg(long, default_value_t = 4)]
    more_channels: u32,
    /// Connections under way when they come and go.
    #[arg(long, default_value_t = 64)]
    visits: u32,
    /// Standard channels instead of extended ones.
    #[arg(long)]
    standard: bool,
    /// A folder whose dovetail-pool is measured instead of this checkout's.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &PoolArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    let folder = arguments.programs.as_deref();
    let folder = steps.step("programs", || release_programs(folder))?;
    // Another build's pool is measured by this checkout's generator.
    let generator = match arguments.programs {
        Some(_) => steps.step("the load generator", || build_release("dovetail-load"))?,
        None => folder.join("dovetail-load"),
    };
    let core = steps.step("Bitcoin Core", programs::bitcoin_core)?;
    let theirs = steps.step("pool_sv2", programs::pool_sv2)?;
    let contenders = [
        Contender {
            name: "dovetail",
            program: folder.join("dovetail-pool"),
            has_ledger: true,
        },
        Contender {
            name: "pool_sv2",
            program: theirs,
            has_ledger: false,
        },
    ];
    let data = dovetail_tests::root().join(".data");
    let postgres = steps.step("Postgres", || {
        durable_postgres(&data.join("bench-postgres"))
    })?;
    let measured = (|| {
        let dir = data.join("bench-pool");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let parts = CoreParts {
            bitcoin_node: core.node,
            bitcoin_cli: core.cli,
        };
        let core = BitcoinCore::start(&parts, &dir.join("bitcoin"), &dir.join("logs"))?;
        core.mine(1, PAYOUT_ADDRESS)?;
        let ground = Ground {
            generator,
            dir: &dir,
            core: &core,
            postgres: &postgres,
            load: load(arguments),
        };
        rounds(&mut steps, &ground, &contenders, arguments.rounds)
    })();
    postgres.drop_database(DATABASE);
    postgres.stop();
    let [ours, theirs] = measured?;
    let report = summary(arguments, &ours, &theirs);
    show(&report);
    if arguments.json {
        println!("{report}");
    }
    Ok(())
}

fn load(arguments: &PoolArguments) -> Load {
    Load {
        seconds: arguments.seconds,
        connections: arguments.connections,
        in_flight: arguments.in_flight,
        idle: arguments.idle,
        blocks: arguments.blocks,
        more_channels: arguments.more_channels,
        visits: arguments.visits,
        accounts: arguments.accounts,
        standard: arguments.standard,
    }
}

/// A cluster of its own whose commits are on the disk when they are confirmed.
pub(super) fn durable_postgres(home: &std::path::Path) -> anyhow::Result<Postgres> {
    let postgres = Postgres::start(home)?;
    for setting in ["fsync", "synchronous_commit"] {
        let is_on = postgres
            .query("postgres", &format!("SHOW {setting}"))
            .map(|value| value == "on");
        if !matches!(is_on, Ok(true)) {
            postgres.stop();
        }
        ensure!(is_on?, "Postgres runs without {setting}");
    }
    Ok(postgres)
}

/// Both pools in turn; who begins alternates.
fn rounds(
    steps: &mut Steps,
    ground: &Ground<'_>,
    contenders: &[Contender; 2],
    rounds: u32,
) -> anyhow::Result<[Vec<Value>; 2]> {
    let mut rows = [Vec::new(), Vec::new()];
    for round in 0..rounds.max(1) {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let contender = &contenders[at];
            let what = format!("{}, round {}", contender.name, round + 1);
            let row = steps.step(&what, || ground.measure(contender))?;
            eprintln!("{row}");
            rows[at].push(row);
        }
    }
    Ok(rows)
}

fn summary(arguments: &PoolArguments, ours: &[Value], theirs: &[Value]) -> Value {
    let both = [ours, theirs].map(|rounds| medians(&rounds.iter().collect::<Vec<_>>()));
    let [dovetail, pool_sv2] = both;
    let refused = ours.iter().filter_map(|row| row["refused"].as_u64());
    json!({
        "shares_per_core_ratio": ratio(ours, theirs, "shares_per_core_s"),
        "accepted_ratio": ratio(ours, theirs, "accepted_per_s"),
        "refused": refused.sum::<u64>(),
        "ack_p99_ms": dovetail["ack_p99_ms"],
        "block_to_last_ratio": ratio(ours, theirs, "block_to_last_ms"),
        "rss_bytes_per_idle_connection": dovetail["rss_bytes_per_idle_connection"],
        "seconds": arguments.seconds,
        "rounds": arguments.rounds.max(1),
        "connections": arguments.connections,
        "in_flight": arguments.in_flight,
        "idle": arguments.idle,
        "channels": if arguments.standard { "standard" } else { "extended" },
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "dovetail": dovetail,
        "pool_sv2": pool_sv2,
        "dovetail_rounds": ours,
        "pool_sv2_rounds": theirs,
    })
}

/// What the table shows: words, where the figure is in a pool's object, and digits behind the point.
const TABLE: [(&str, &str, usize); 26] = [
    ("accepted shares/s, saturated", "/accepted_per_s", 0),
    ("shares per core-second", "/shares_per_core_s", 0),
    ("CPU us/share, server", "/cpu_us_per_share/server", 1),
    ("CPU us/share, Postgres", "/cpu_us_per_share/postgres", 1),
    ("written behind for, s", "/settling_s", 1),
    ("saturated ack p50 ms", "/saturated_ack_p50_ms", 2),
    ("saturated ack p99 ms", "/saturated_ack_p99_ms", 2),
    ("half of it, shares/s", "/half_accepted_per_s", 0),
    ("ack p50 ms at half", "/ack_p50_ms", 2),
    ("ack p99 ms at half", "/ack_p99_ms", 2),
    ("ack p999 ms at half", "/ack_p999_ms", 2),
    ("refused", "/refused", 0),
    ("unanswered", "/unanswered", 0),
    ("idle connections open in s", "/idle_opening_s", 2),
    ("CPU us/opening, server", "/cpu_us_per_opening/server", 0),
    ("bytes/idle connection", "/rss_bytes_per_idle_connection", 0),
    ("bytes/channel more", "/rss_bytes_per_channel", 0),
    ("block to first job ms", "/block_to_first_ms", 1),
    ("block to last job ms", "/block_to_last_ms", 1),
    (
        "CPU us/job of a block, server",
        "/cpu_us_per_block_job/server",
        0,
    ),
    ("connections/s, come and go", "/connections_per_s", 0),
    (
        "CPU us/connection, server",
        "/cpu_us_per_connection/server",
        0,
    ),
    ("first job p99 ms", "/churn_job_p99_ms", 1),
    ("failures", "/churn_failures", 0),
    ("growth, bytes/connection", "/rss_growth_bytes_per_visit", 0),
    ("generator CPU us/share", "/generator_cpu_us_per_share", 1),
];

fn show(report: &Value) {
    eprintln!(
        "\n{:<30} {:>12} {:>12} {:>8}",
        "medians", "dovetail", "pool_sv2", "ratio"
    );
    for (name, pointer, digits) in TABLE {
        let figure = |pool: &str| report[pool].pointer(pointer).and_then(Value::as_f64);
        let (ours, theirs) = (figure("dovetail"), figure("pool_sv2"));
        let text = |figure: Option<f64>| {
            figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        let ratio = ratio.filter(|ratio| ratio.is_finite());
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        eprintln!(
            "{name:<30} {:>12} {:>12} {ratio:>8}",
            text(ours),
            text(theirs)
        );
    }
    eprintln!(
        "Dovetail acknowledges what is durable, pool_sv2 what it remembers; shares per core-second count Postgres"
    );
}
