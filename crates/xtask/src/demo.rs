//! `cargo xtask demo`: the whole path as a live story.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use dovetail_tests::process::{interrupted, output};
use dovetail_tests::scenario::{Options, RECEIPT_PUBLIC, Scenario};
use serde_json::{Value, json};

use crate::setup;
use crate::steps::{Steps, cargo, run as run_command};

/// How long the story may take once everything runs.
const STORY_TIME_MAX: Duration = Duration::from_secs(180);
/// What the agent asks.
const PROMPT: &str = "INVOICE 2026-117 Nordwind Energie GmbH, 3 x heat pump valve at 48.50 EUR";

/// How to show it.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// On Bitcoin Core and two LDK nodes instead of the embedded chain and a simulated wallet.
    #[arg(long)]
    real: bool,
    /// Leave everything running at the end.
    #[arg(long)]
    keep: bool,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// What the story counts, from what the pool and the agent report.
#[derive(Default)]
struct Figures {
    shares_accepted: u64,
    inference_shares_credited: u64,
    transcripts_replayed: u64,
    tokens_generated: u64,
    blocks_found: u64,
    payout_msat: i64,
    payout_rail: String,
}

/// Runs the demonstration.
pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    if arguments.real {
        bail!("--real is not built yet: see the known limits in CHANGELOG.md");
    }
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    steps.step("programs", || {
        run_command(&mut cargo(&["build", "--workspace", "--bins"]))
    })?;
    let postgres = steps.step("Postgres", setup::postgres)?;
    let told = tell_story(arguments, &postgres);
    if !(arguments.keep && told.is_ok()) {
        postgres.stop();
    }
    let summary = told?;
    if arguments.json {
        println!("{summary}");
    }
    Ok(())
}

fn tell_story(
    arguments: &DemoArguments,
    postgres: &dovetail_tests::postgres::Postgres,
) -> anyhow::Result<Value> {
    let dir = dovetail_tests::root().join(".data").join("demo");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let story = Story::begin();
    let mut scenario = Scenario::start(
        &dir,
        postgres,
        "dovetail_demo",
        &Options::default(),
        |part, ready| story.tell(part, &started(part, ready)),
    )?;
    let receipt = ask(&story, &scenario)?;
    let figures = follow(&story, &mut scenario, &receipt)?;
    let verified = verify(&story, &scenario, &receipt)?;
    if !verified {
        bail!("the receipt does not verify");
    }
    let seconds = story.begun.elapsed().as_secs_f64();
    story.summary(&figures, &scenario, seconds);
    if arguments.keep {
        scenario.leave_running();
        eprintln!(
            "Still running: processes {:?}; stop them with `kill`.",
            scenario.process_ids()
        );
    }
    Ok(json!({
        "shares_accepted": figures.shares_accepted,
        "inference_shares_credited": figures.inference_shares_credited,
        "transcripts_replayed": figures.transcripts_replayed,
        "tokens_generated": figures.tokens_generated,
        "blocks_found": figures.blocks_found,
        "payout_msat": figures.payout_msat,
        "payout_rail": figures.payout_rail,
        "receipt_verified": verified,
        "seconds_total": (seconds * 10.0).round() / 10.0,
    }))
}

fn started(part: &str, ready: &Value) -> String {
    let text = |key: &str| ready[key].as_str().unwrap_or("?").to_owned();
    match part {
        "templates" => format!(
            "embedded regtest chain, an Sv2 template provider on {}",
            text("tdp")
        ),
        "wallets" => "two simulated Lightning wallets, a Unix socket each".to_owned(),
        "pool" => format!(
            "Sv2 mining on {}, gRPC for agents on {}",
            text("mining"),
            text("grpc")
        ),
        "declarator" => format!("Sv2 job declaration on {}", text("declaration")),
        "worker" => format!(
            "registered with its key {}..",
            &text("worker").chars().take(16).collect::<String>()
        ),
        "hasher" => "plain Sv2 firmware, hashing on one thread".to_owned(),
        _ => "ready".to_owned(),
    }
}

/// The agent asks and the tokens stream to the terminal.
fn ask(story: &Story, scenario: &Scenario) -> anyhow::Result<PathBuf> {
    let receipt = scenario.file("receipt.json");
    story.tell("agent", &format!("asks for 48 tokens after {PROMPT:?}"));
    eprint!("           | ");
    let begun = Instant::now();
    let child = scenario
        .agent()
        .args([
            "ask",
            "--max-tokens",
            "48",
            "--temperature",
            "0.8",
            "--wait",
            "120",
            "--receipt",
        ])
        .arg(&receipt)
        .args(["--pool-key", RECEIPT_PUBLIC])
        .arg(PROMPT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(
            scenario.file("logs").join("agent.log"),
        )?)
        .spawn()
        .context("cannot start the agent")?;
    // The agent prints tokens as they come, then waits for the receipt by itself.
    let agent = Agent(child);
    std::thread::scope(|_| agent.stream())?;
    let millis = begun.elapsed().as_millis();
    eprintln!();
    story.tell(
        "agent",
        &format!("has its answer and its receipt after {millis} ms"),
    );
    Ok(receipt)
}

/// The agent's process; never outlives the story.
struct Agent(std::process::Child);

impl Agent {
    fn stream(mut self) -> anyhow::Result<()> {
        use std::io::Read;
        let mut stdout = self.0.stdout.take().context("standard output is piped")?;
        let mut bytes = [0; 256];
        loop {
            let read = stdout.read(&mut bytes)?;
            if read == 0 {
                break;
            }
            let mut err = std::io::stderr().lock();
            err.write_all(&bytes[..read])?;
            err.flush()?;
        }
        let status = self.0.wait()?;
        if interrupted() {
            bail!("interrupted");
        }
        if !status.success() {
            bail!("the agent failed ({status}); see .data/demo/logs/agent.log");
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the pool's events until the payout.
fn follow(
    story: &Story,
    scenario: &mut Scenario,
    _receipt: &std::path::Path,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let deadline = Instant::now() + STORY_TIME_MAX;
    while figures.payout_msat == 0 || figures.inference_shares_credited == 0 {
        if Instant::now() > deadline {
            bail!(
                "no payout in time; the end of the pool's log:\n{}",
                scenario.pool.log_tail()
            );
        }
        if let Some(event) = scenario.pool.next_line(Duration::from_millis(200))? {
            figures.take(story, &event);
        }
    }
    Ok(figures)
}

impl Figures {
    fn take(&mut self, story: &Story, event: &Value) {
        let number = |key: &str| event[key].as_u64().unwrap_or(0);
        let text = |key: &str| event[key].as_str().unwrap_or("?");
        let short = |key: &str| text(key).chars().take(16).collect::<String>();
        match text("event") {
            "task_assigned" => story.tell(
                "pool",
                &format!("gives the task to worker {}..", short("worker")),
            ),
            "task_finished" => {
                self.tokens_generated += number("output_tokens");
                story.tell(
                    "worker",
                    &format!(
                        "delivers the transcript of {} tokens",
                        number("output_tokens")
                    ),
                );
            }
            "share_accepted" => {
                self.shares_accepted += 1;
                if text("kind") == "inference" {
                    self.inference_shares_credited += 1;
                    story.tell(
                        "pool",
                        &format!(
                            "credits a share of {} expected hashes that bears inference",
                            number("work")
                        ),
                    );
                } else if self.shares_accepted <= 3 {
                    story.tell(
                        "pool",
                        &format!(
                            "credits {} for {} expected hashes",
                            text("worker"),
                            number("work")
                        ),
                    );
                }
            }
            "batch_settled" => {
                self.transcripts_replayed += number("replayed");
                story.tell(
                    "pool",
                    &format!(
                        "replayed {} of {} transcripts of batch {}.., bit for bit; credits {} msat",
                        number("replayed"),
                        number("transcripts"),
                        short("root"),
                        event["credit_msat"]
                    ),
                );
            }
            "block_found" => {
                self.blocks_found += 1;
                let declared = if event["declared"] == true {
                    "declared "
                } else {
                    ""
                };
                story.tell(
                    "pool",
                    &format!("a {declared}job solved block {}", text("hash")),
                );
            }
            "payout_paid" => {
                self.payout_msat += event["amount_msat"].as_i64().unwrap_or(0);
                text("rail").clone_into(&mut self.payout_rail);
                story.tell(
                    "pool",
                    &format!(
                        "paid {} msat over Lightning ({})",
                        event["amount_msat"],
                        text("rail")
                    ),
                );
            }
            _ => {}
        }
    }
}

/// The receipt is checked offline: no pool is asked.
fn verify(story: &Story, scenario: &Scenario, receipt: &std::path::Path) -> anyhow::Result<bool> {
    let said = output(
        scenario
            .agent()
            .env_remove("DOVETAIL_POOL")
            .args(["receipt", "verify", "--json", "--pool-key", RECEIPT_PUBLIC])
            .arg(receipt),
    )?;
    let report: Value =
        serde_json::from_str(said.trim()).context("the agent's report is no JSON")?;
    let verified = report["verified"] == true;
    let word = if verified { "holds" } else { "does not hold" };
    story.tell("agent", &format!("checks the receipt offline: it {word}"));
    Ok(verified)
}

/// The live story.
struct Story {
    begun: Instant,
}

impl Story {
    fn begin() -> Self {
        eprintln!();
        Self {
            begun: Instant::now(),
        }
    }

    fn tell(&self, who: &str, what: &str) {
        eprintln!(
            "{:>7.2} s  {who:<10} {what}",
            self.begun.elapsed().as_secs_f64()
        );
    }

    fn summary(&self, figures: &Figures, scenario: &Scenario, seconds: f64) {
        eprintln!(
            "
One share carried work and inference, from a prompt to a payout, in {seconds:.1} s:
  shares credited      {} ({} bore inference)
  transcripts replayed {}
  tokens generated     {}
  blocks found         {}
  paid out             {} msat ({})

Look further: logs in {}; the receipt in {};
docs/architecture.md follows this share through the code.",
            figures.shares_accepted,
            figures.inference_shares_credited,
            figures.transcripts_replayed,
            figures.tokens_generated,
            figures.blocks_found,
            figures.payout_msat,
            figures.payout_rail,
            scenario.file("logs").display(),
            scenario.file("receipt.json").display(),
        );
    }
}
