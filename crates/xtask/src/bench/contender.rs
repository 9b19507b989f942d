//! One pool through everything that `cargo xtask bench pool` measures. It is started afresh for each kind of load, so that
//! none finds the memory that another left.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail};
use dovetail_tests::bitcoin_core::BitcoinCore;
use dovetail_tests::postgres::Postgres;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, PAYOUT_ADDRESS};
use dovetail_tests::sv2_pool::Sv2Pool;
use serde_json::{Map, Value, json};

use super::report::report;

/// Of the ledger, which is made anew for each start.
pub(super) const DATABASE: &str = "dovetail_bench_pool";

/// How much load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) seconds: u64,
    pub(super) connections: u64,
    pub(super) in_flight: u32,
    pub(super) idle: u64,
    pub(super) blocks: u32,
    pub(super) more_channels: u32,
    pub(super) visits: u32,
    pub(super) accounts: u64,
    pub(super) standard: bool,
}

/// A pool to measure.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    /// Whether it writes to Postgres, whose time is then counted too.
    pub(super) has_ledger: bool,
}

/// What all pools stand on.
pub(super) struct Ground<'a> {
    pub(super) generator: PathBuf,
    pub(super) dir: &'a Path,
    pub(super) core: &'a BitcoinCore,
    pub(super) postgres: &'a Postgres,
    pub(super) load: Load,
}

/// One kind of load on a pool, whose figures it puts into the row.
type Run<G> = fn(&G, &Contender, &Sv2Pool, &mut Map<String, Value>) -> anyhow::Result<()>;

impl Ground<'_> {
    /// Everything about one pool, once.
    pub(super) fn measure(&self, contender: &Contender) -> anyhow::Result<Value> {
        let mut row = Map::new();
        for (what, run) in [
            ("idle connections", Self::idle as Run<Self>),
            ("shares", Self::shares),
            ("churn", Self::churn),
        ] {
            let pool = self.start(contender)?;
            run(self, contender, &pool, &mut row).with_context(|| {
                format!("{what}; the log of {}: {}", contender.name, pool.log_tail())
            })?;
        }
        Ok(Value::Object(row))
    }

    fn start(&self, contender: &Contender) -> anyhow::Result<Sv2Pool> {
        let dir = self.dir.join(contender.name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let program = &contender.program;
        let started = if contender.has_ledger {
            let url = self.postgres.fresh_database(DATABASE)?;
            Sv2Pool::dovetail(program, &dir, self.core, &url)
        } else {
            Sv2Pool::pool_sv2(program, &dir, self.core)
        };
        started.with_context(|| format!("{} does not start", contender.name))
    }

    /// The generator against this pool, without its mode.
    fn generator(&self, contender: &Contender, pool: &Sv2Pool) -> anyhow::Result<Command> {
        let load = self.load;
        let mut command = Command::new(&self.generator);
        command.args(["--pool", &pool.mining, "--authority", AUTHORITY_PUBLIC]);
        command.args(["--accounts", &load.accounts.to_string()]);
        command.args(["--pid", &format!("server={}", pool.id())]);
        if contender.has_ledger {
            let id = self.postgres.id().context("Postgres does not run")?;
            command.args(["--pid", &format!("postgres={id}")]);
        }
        command.args(load.standard.then_some("--standard"));
        Ok(command)
    }

    fn shares(
        &self,
        contender: &Contender,
        pool: &Sv2Pool,
        row: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let load = self.load;
        let run = |pace: [&str; 2]| {
            let mut command = self.generator(contender, pool)?;
            command.arg("shares").args(pace);
            command.args(["--connections", &load.connections.to_string()]);
            command.args(["--seconds", &load.seconds.to_string()]);
            report(&mut command)
        };
        let most = run(["--in-flight", &load.in_flight.to_string()])?;
        let accepted = most["accepted_per_s"].as_f64().unwrap_or_default();
        if accepted < 1.0 {
            bail!("it accepts no shares: {most}");
        }
        let half = run(["--rate", &format!("{:.0}", (accepted / 2.0).max(1.0))])?;
        take(
            row,
            &most,
            &[
                ("accepted_per_s", "accepted_per_s"),
                ("shares_per_core_s", "shares_per_core_s"),
                ("cpu_us_per_share", "cpu_us_per_share"),
                ("settling_s", "settling_s"),
                ("saturated_ack_p50_ms", "ack_p50_ms"),
                ("saturated_ack_p99_ms", "ack_p99_ms"),
                ("saturated_rss_bytes", "rss_bytes"),
                ("generator_cpu_us_per_share", "generator_cpu_us_per_share"),
            ],
        );
        take(
            row,
            &half,
            &[
                ("half_rate_per_s", "rate"),
                ("half_accepted_per_s", "accepted_per_s"),
                ("half_cpu_us_per_share", "cpu_us_per_share"),
                ("ack_p50_ms", "ack_p50_ms"),
                ("ack_p99_ms", "ack_p99_ms"),
                ("ack_p999_ms", "ack_p999_ms"),
            ],
        );
        for key in [
            "refused",
            "unanswered",
            "mismatched_acks",
            "dead_connections",
            "targets",
        ] {
            let both = [&most, &half].map(|run| run[key].as_u64().unwrap_or_default());
            row.insert(key.to_owned(), json!(both[0] + both[1]));
        }
        row.insert(
            "refused_codes".to_owned(),
            json!([most["refused_codes"], half["refused_codes"]]),
        );
        Ok(())
    }

    fn churn(
        &self,
        contender: &Contender,
        pool: &Sv2Pool,
        row: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let mut command = self.generator(contender, pool)?;
        command.args(["churn", "--in-flight", &self.load.visits.to_string()]);
        command.args(["--seconds", &self.load.seconds.to_string()]);
        let churn = report(&mut command)?;
        take(
            row,
            &churn,
            &[
                ("connections_per_s", "connections_per_s"),
                ("cpu_us_per_connection", "cpu_us_per_connection"),
                ("churn_failures", "failures"),
                ("churn_handshake_p99_ms", "handshake_p99_ms"),
                ("churn_job_p99_ms", "job_p99_ms"),
            ],
        );
        let visits = churn["connections"].as_f64().filter(|visits| *visits > 0.0);
        let growth = churn["rss_growth_bytes"].as_f64().zip(visits);
        let growth = growth.map(|(bytes, visits)| bytes / visits);
        row.insert("rss_growth_bytes_per_visit".to_owned(), json!(growth));
        Ok(())
    }

    fn idle(
        &self,
        contender: &Contender,
        pool: &Sv2Pool,
        row: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let mut command = self.generator(contender, pool)?;
        command.args(["idle", "--connections", &self.load.idle.to_string()]);
        command.args(["--blocks", &self.load.blocks.to_string()]);
        command.args(["--more-channels", &self.load.more_channels.to_string()]);
        let idle = self.with_blocks(command)?;
        take(
            row,
            &idle,
            &[
                ("idle_opening_s", "opening_s"),
                ("cpu_us_per_opening", "cpu_us_per_opening"),
                (
                    "rss_bytes_per_idle_connection",
                    "rss_bytes_per_idle_connection",
                ),
                ("rss_bytes_per_channel", "rss_bytes_per_channel"),
                ("block_to_first_ms", "block_to_first_ms"),
                ("block_to_last_ms", "block_to_last_ms"),
                ("block_p50_ms", "block_p50_ms"),
                ("cpu_us_per_block_job", "cpu_us_per_block_job"),
            ],
        );
        Ok(())
    }

    /// Runs the generator, and has the node mine a block whenever the generator waits for one.
    fn with_blocks(&self, mut command: Command) -> anyhow::Result<Value> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = Running(child.context("cannot start the generator")?);
        let mut stdin = child.0.stdin.take().context("its input is piped")?;
        let stdout = child.0.stdout.take().context("its output is piped")?;
        for line in BufReader::new(stdout).lines() {
            let said: Value = serde_json::from_str(&line?)?;
            if said["event"] != "open" {
                return Ok(said);
            }
            self.core
                .mine_when_ordered(PAYOUT_ADDRESS, || order(&mut stdin))?;
        }
        bail!("the generator has ended without a report")
    }
}

fn order(stdin: &mut ChildStdin) -> anyhow::Result<()> {
    stdin.write_all(b"block\n")?;
    Ok(stdin.flush()?)
}

/// A child that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes figures of a run into the row, under names of its own.
fn take(row: &mut Map<String, Value>, run: &Value, names: &[(&str, &str)]) {
    for (name, key) in names {
        row.insert((*name).to_owned(), run[*key].clone());
    }
}
