//! `cargo xtask demo`: the whole path as a live story.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use dovetail_clerk::check::{Field, check};
use dovetail_clerk::{Document, marks, sample_invoice};
use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, RECEIPT_PUBLIC, Scenario, ServedModel};
use dovetail_units::time::since_epoch;
use serde_json::{Value, json};

use crate::agent::{AgentNews, ask};
use crate::steps::{Steps, cargo, run as run_command};
use crate::{programs, setup};

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
    #[arg(long, value_name = "SEED")]
    invoice: Option<u64>,
}

/// What the agent sends, and what the worker's model makes of it.
struct Question {
    seed: u64,
    /// The invoice and its truth.
    document: Document,
    answer: String,
}

impl Question {
    fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| {
            // A seed that people can type again.
            since_epoch().as_millis() as u64 % 1_000_000
        });
        Self {
            seed,
            document: sample_invoice(seed),
            answer: String::new(),
        }
    }

    /// How many of the answer's fields are right, of how many, and which are not.
    fn marked(&self) -> (usize, usize, Vec<&'static str>) {
        let marks = marks(&self.document, &self.answer);
        let wrong: Vec<&str> = marks.iter().filter(|m| !m.right).map(|m| m.field).collect();
        (marks.len() - wrong.len(), marks.len(), wrong)
    }

    /// The answer's JSON, or its text where it is none.
    fn answer(&self) -> Value {
        serde_json::from_str(&self.answer).unwrap_or_else(|_| json!(self.answer))
    }

    /// The fields that are doubtful without knowing the truth; nothing where the answer is no JSON.
    fn doubtful(&self) -> Option<Vec<String>> {
        let report = check(&self.document.prompt, &self.answer);
        let doubtful = report.fields.into_iter().filter(Field::is_doubtful);
        report
            .valid
            .then(|| doubtful.map(|field| field.name).collect())
    }

    fn told(&self) -> String {
        let doubts = match self.doubtful().as_deref() {
            None => "not of the schema, all of it is doubtful".to_owned(),
            Some([]) => "nothing in it is doubtful".to_owned(),
            Some(doubtful) => format!("doubtful are {}", doubtful.join(" and ")),
        };
        let (right, of, wrong) = self.marked();
        match &wrong[..] {
            [] => format!("compares it with the invoice: {doubts}; all {of} fields are right"),
            wrong => format!(
                "compares it with the invoice: {doubts}; {right} of {of} fields are right, not {}; it should be {}",
                wrong.join(" and "),
                self.document.answer
            ),
        }
    }
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
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    steps.step("programs", || {
        // Of the whole workspace, as in the tests: of some packages, their dependencies would be built with fewer
        // features, and again for the tests.
        let mut build = cargo(&["build", "--workspace"]);
        run_command(build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program])))
    })?;
    let options = if arguments.real {
        Options {
            // On regtest each share is a block: few of them, or the chain runs ahead of its clock.
            shares_per_minute: 6,
            min_hashrate: 400_000,
            real: Some(steps.step("Bitcoin Core and LDK", programs::real_parts)?),
            model: ServedModel::Clerk,
            ..Options::default()
        }
    } else {
        Options {
            model: ServedModel::Clerk,
            ..Options::default()
        }
    };
    let postgres = steps.step("Postgres", setup::postgres)?;
    let told = tell_story(arguments, &options, &postgres);
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
    options: &Options,
    postgres: &dovetail_tests::postgres::Postgres,
) -> anyhow::Result<Value> {
    let dir = dovetail_tests::root().join(".data").join("demo");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let story = Story::begin();
    let mut scenario = Scenario::start(&dir, postgres, "dovetail_demo", options, |part, ready| {
        story.tell(part, &started(part, ready))
    })?;
    let mut question = Question::new(arguments.invoice);
    let figures = follow(&story, &mut scenario, &mut question)?;
    let verified = verify(&story, &scenario)?;
    if !verified {
        bail!("the receipt does not verify");
    }
    let seconds = story.begun.elapsed().as_secs_f64();
    story.summary(&figures, &question, &scenario, seconds);
    if arguments.keep {
        scenario.leave_running();
        let mut ids = scenario.process_ids();
        ids.extend(postgres.id());
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let invoice = scenario.file("invoice.txt");
        std::fs::write(&invoice, &question.document.prompt)
            .with_context(|| format!("cannot write {}", invoice.display()))?;
        eprintln!(
            "\nStill running. Ask it: DOVETAIL_POOL={} {} ask --max-tokens 320 - < {}\nStop it: kill {}",
            scenario.grpc,
            dovetail_tests::program("dovetail").display(),
            invoice.display(),
            ids.join(" ")
        );
    }
    let (right, of, _) = question.marked();
    Ok(json!({
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
    }))
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
                self.shares_accepted += 1;
                self.inference_shares_credited += u64::from(event["kind"] == "inference");
            }
            "batch_settled" => self.transcripts_replayed += number("replayed"),
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
                let (worker, work) = (text("worker"), number("work"));
                (
                    "pool",
                    format!("credits {worker} for {work} expected hashes"),
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
fn verify(story: &Story, scenario: &Scenario) -> anyhow::Result<bool> {
    let said = output(
        scenario
            .agent()
            .env_remove("DOVETAIL_POOL")
            .args(["receipt", "verify", "--json", "--pool-key", RECEIPT_PUBLIC])
            .arg(scenario.file("receipt.json")),
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

    fn summary(&self, figures: &Figures, question: &Question, scenario: &Scenario, seconds: f64) {
        let (right, of, _) = question.marked();
        eprintln!(
            "
One share carried work and inference, from an invoice to a payout, in {seconds:.1} s:
  fields read right    {right} of {of}
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
