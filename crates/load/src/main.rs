//! `dovetail-load`: an open-loop load generator for Sv2 mining pools. It speaks as miners do, over real Noise connections,
//! and knows nothing of any pool. It makes valid shares cheaply, on chains whose pool gives targets that nearly every
//! header meets. One call measures one thing and prints one JSON object.
//!
//! Times are from the moment at which something was to be done, not from when it was: a pool that holds everything up
//! does not hide the waits of what was due meanwhile.

mod channel;
mod churn;
mod connection;
mod header;
mod idle;
mod opening;
mod percentile;
mod processes;
mod schedule;
mod shares;
mod unanswered;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use dovetail_sv2::AuthorityPublicKey;
use serde_json::{Map, Value, json};

use crate::channel::Kind;
use crate::connection::Pool;
use crate::processes::Watched;
use crate::shares::Loop;

/// Load for an Sv2 mining pool.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    mode: Mode,
}

/// Whom to load, and whom to watch.
#[derive(Debug, Args)]
struct Target {
    /// The pool's mining port, host:port.
    #[arg(long, global = true, default_value = "127.0.0.1:3333")]
    pool: String,
    /// The pool's authority key, by which its certificate is checked.
    #[arg(
        long,
        global = true,
        default_value = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72"
    )]
    authority: AuthorityPublicKey,
    /// The user, to which the number of its account is added, and that of the connection as its device.
    #[arg(long, global = true, default_value = "load")]
    user: String,
    /// How many accounts the connections are of.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    accounts: u64,
    /// Open standard channels; extended ones otherwise.
    #[arg(long, global = true)]
    standard: bool,
    /// A process whose processor time and memory are watched, with its children: PID or NAME=PID. May be given several
    /// times; memory is the first one's.
    #[arg(long, global = true)]
    pid: Vec<Watched>,
    /// Threads of this generator. One opens and reads some 10,000 shares a second.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
}

/// How fast.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Pace {
    /// So many a second in all, whatever is answered.
    #[arg(long)]
    rate: Option<f64>,
    /// So many under way at once: shares on each connection, or connections.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Send valid shares.
    Shares {
        #[command(flatten)]
        pace: Pace,
        /// How many connections, with a channel each.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        connections: u64,
        /// Seconds that count.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
        /// Seconds before them that do not.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
        warm_up: u64,
        /// Seconds for which answers are waited for at the end.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=600))]
        drain: u64,
        /// Seconds for which the watched processes may go on working after that; it counts as the shares'.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3_600))]
        settling: u64,
    },
    /// Open many connections, and let them wait.
    Idle {
        /// How many connections, with a channel each.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        connections: u64,
        /// So many times, print a line, wait for one on standard input, and measure how long a new block's job takes from then
        /// on. The caller makes the block.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
        blocks: u32,
        /// Then open so many channels more on each connection.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
        more_channels: u32,
    },
    /// Connect, open a channel, take the first job and leave, again and again.
    Churn {
        #[command(flatten)]
        pace: Pace,
        /// For how many seconds.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(report) => {
            println!("{}", Value::Object(report));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<Map<String, Value>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(arguments.target.threads))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime.block_on(run(arguments));
    // The thread that reads standard input may wait for ever.
    runtime.shutdown_background();
    report
}

async fn run(arguments: Arguments) -> anyhow::Result<Map<String, Value>> {
    let Target {
        pool: address,
        authority,
        user,
        accounts,
        standard,
        pid: watched,
        ..
    } = arguments.target;
    let kind = if standard {
        Kind::Standard
    } else {
        Kind::Extended
    };
    let pool = Arc::new(Pool {
        address,
        authority,
        user,
        accounts,
        kind,
    });
    let (mode, mut report) = match arguments.mode {
        Mode::Shares {
            pace,
            connections,
            seconds,
            warm_up,
            drain,
            settling,
        } => {
            let plan = shares::Plan {
                connections,
                offered: offered(&pace)?,
                warm_up: Duration::from_secs(warm_up),
                time: Duration::from_secs(seconds),
                drain: Duration::from_secs(drain),
                settling: Duration::from_secs(settling),
            };
            ("shares", shares::run(&pool, &plan, &watched).await?)
        }
        Mode::Idle {
            connections,
            blocks,
            more_channels,
        } => {
            let plan = idle::Plan {
                connections,
                blocks,
                more_channels,
            };
            ("idle", idle::run(&pool, &plan, &watched).await?)
        }
        Mode::Churn { pace, seconds } => {
            let plan = churn::Plan {
                offered: offered(&pace)?,
                time: Duration::from_secs(seconds),
            };
            ("churn", churn::run(&pool, &plan, &watched).await?)
        }
    };
    report.insert("mode".to_owned(), json!(mode));
    let channels = if standard { "standard" } else { "extended" };
    report.insert("channels".to_owned(), json!(channels));
    Ok(report)
}

fn offered(pace: &Pace) -> anyhow::Result<Loop> {
    match (pace.rate, pace.in_flight) {
        (Some(rate), None) => Ok(Loop::Open { rate }),
        (None, Some(in_flight)) => Ok(Loop::Closed {
            in_flight: in_flight as usize,
        }),
        // The group of the arguments says so too.
        _ => anyhow::bail!("give a rate, or how many are under way"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_wants_one_pace() {
        Arguments::command().debug_assert();
        let parses = |line: &str| Arguments::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("load shares --rate 100 --pid 1 --pid postgres=2"));
        assert!(parses("load --standard churn --in-flight 8"));
        assert!(parses("load idle --blocks 2"));
        assert!(!parses("load shares"));
        assert!(!parses("load shares --rate 1 --in-flight 1"));
        assert!(!parses("load churn --in-flight 0"));
    }
}
