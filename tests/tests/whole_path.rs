//! The main job through public doors: a prompt becomes tokens, a share, a credit, a payout and a
//! receipt.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, RECEIPT_PUBLIC, Scenario, ServedModel};
use serde_json::Value;

const TIME_MAX: Duration = Duration::from_secs(90);
/// An invoice that clerk reads without a mistake.
const INVOICE_SEED: u64 = 1;

fn ask(scenario: &Scenario, file: &str, more: &[&str]) -> Value {
    let prompt = "a prompt that only its receipt names";
    ask_for(scenario, file, "32", more, prompt)
}

fn ask_for(
    scenario: &Scenario,
    file: &str,
    max_tokens: &str,
    more: &[&str],
    prompt: &str,
) -> Value {
    let said = output(
        scenario
            .agent()
            .args(["ask", "--json", "--wait", "90"])
            .args(["--max-tokens", max_tokens, "--receipt"])
            .arg(scenario.file(file))
            .args(["--pool-key", RECEIPT_PUBLIC])
            .args(more)
            .args(["--", prompt]),
    )
    .unwrap();
    serde_json::from_str(said.trim()).unwrap()
}

#[test]
fn an_invoice_becomes_its_json_a_share_a_payout_and_a_receipt() {
    let options = Options {
        model: ServedModel::Clerk,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    // The engine is exact: what clerk reads rightly once it reads rightly on every machine.
    let invoice = dovetail_clerk::sample_invoice(INVOICE_SEED);
    let answer = ask_for(&scenario, "receipt.json", "320", &[], &invoice.prompt);
    assert_eq!(answer["text"].as_str(), Some(invoice.answer.as_str()));
    assert_eq!(answer["receipt"]["verified"], true);
    let tokens = answer["output_tokens"].as_array().map_or(0, Vec::len);
    let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert_eq!(settled["replayed"], 1);
    assert_eq!(settled["credit_msat"], tokens * 1000);
    scenario.pool.event("payout_paid", TIME_MAX).unwrap();
}

#[test]
fn a_worker_without_a_model_file_fetches_the_model_from_the_pool_and_is_paid_for_serving_it() {
    let options = Options {
        fetch: true,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    let fetched = scenario.file("fetched");
    let fetched = fetched.join(format!("{}.safetensors", scenario.model_id));
    let handed_out = std::fs::read(scenario.file("model.safetensors")).unwrap();
    assert_eq!(std::fs::read(fetched).unwrap(), handed_out);
    let answer = ask(&scenario, "receipt.json", &["--seed", "7"]);
    assert_eq!(answer["output_tokens"].as_array().map(Vec::len), Some(32));
    assert_eq!(answer["receipt"]["verified"], true);
    let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert_eq!(settled["credit_msat"], 32_000);
}

#[test]
fn a_prompt_becomes_tokens_a_share_a_payout_and_a_receipt() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let answer = ask(
        &scenario,
        "receipt.json",
        &["--seed", &"07".repeat(32), "--temperature", "0.8"],
    );
    assert_eq!(answer["output_tokens"].as_array().map(Vec::len), Some(32));
    assert_eq!(answer["receipt"]["verified"], true);

    let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert_eq!(
        (&settled["transcripts"], &settled["replayed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(settled["credit_msat"], 32_000);
    let paid = scenario.pool.event("payout_paid", TIME_MAX).unwrap();
    assert_eq!(paid["rail"], "simulated");
    // The worker was told what its batch is worth before it was asked for an invoice.
    let worker = scenario.worker.as_ref().unwrap().log();
    let told = worker
        .lines()
        .find(|line| line.contains("what the pool credited the batch with"));
    assert!(told.is_some_and(|line| line.contains("32000")), "{worker}");

    // The ledger agrees, and forgets the prompt.
    let row = scenario
        .query("SELECT count(*), count(prompt), min(state) FROM tasks")
        .unwrap();
    assert_eq!(row, "1|0|settled");
    assert_eq!(
        scenario
            .query("SELECT count(*) FROM shares WHERE kind = 'inference'")
            .unwrap(),
        "1"
    );
    let balanced = scenario
        .query("SELECT sum(credits_posted) = sum(debits_posted) FROM accounts")
        .unwrap();
    assert_eq!(balanced, "t");

    // The same request gives the same text: the engine is exact.
    let again = ask(
        &scenario,
        "again.json",
        &["--seed", &"07".repeat(32), "--temperature", "0.8"],
    );
    assert_eq!(again["text"], answer["text"]);

    // A stop sequence ends it early, and the receipt covers that.
    let text = answer["text"].as_str().unwrap();
    let is_plain = |c: &char| c.is_ascii_alphanumeric();
    let stop = text.chars().find(is_plain).unwrap().to_string();
    let stopped = ask(
        &scenario,
        "stopped.json",
        &[
            "--seed",
            &"07".repeat(32),
            "--temperature",
            "0.8",
            "--stop",
            &stop,
        ],
    );
    let stopped_text = stopped["text"].as_str().unwrap();
    assert!(text.starts_with(stopped_text) && stopped_text.ends_with(&stop));
    assert!(stopped_text.len() < text.len());
    assert_eq!(stopped["receipt"]["verified"], true);

    // Nothing of the prompt is in any log.
    for daemon in [
        &scenario.pool,
        &scenario.declarator,
        scenario.worker.as_ref().unwrap(),
    ] {
        assert!(!daemon.log().contains("only its receipt names"));
    }
}

#[test]
fn a_pool_that_restarts_keeps_its_shares_and_its_worker_comes_back() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    scenario.pool.event("share_accepted", TIME_MAX).unwrap();
    let before: u64 = scenario
        .query("SELECT count(*) FROM shares")
        .unwrap()
        .parse()
        .unwrap();
    assert!(before > 0);
    scenario.restart_pool().unwrap();
    scenario.pool.event("worker_registered", TIME_MAX).unwrap();
    let after: u64 = scenario
        .query("SELECT count(*) FROM shares")
        .unwrap()
        .parse()
        .unwrap();
    assert!(after >= before);
    let answer = ask(&scenario, "receipt.json", &[]);
    assert_eq!(answer["receipt"]["verified"], true);
}

/// Waits for a text in the worker's log, and returns the log.
fn worker_says(scenario: &Scenario, text: &str) -> String {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let log = scenario.worker.as_ref().unwrap().log();
        if log.contains(text) {
            return log;
        }
        assert!(Instant::now() < deadline, "{log}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_worker_that_restarts_goes_on_with_the_pools_beacon() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let of_its_chain = "it is of its chain";
    ask(&scenario, "first.json", &[]);
    // The agent may have its receipt before the worker has heard of it.
    worker_says(&scenario, of_its_chain);
    // A step is spent: what the pool publishes now is still the tip, or the worker would find the next
    // value false and leave.
    scenario.restart_worker().unwrap();
    scenario.restart_pool().unwrap();
    scenario.pool.event("worker_registered", TIME_MAX).unwrap();
    ask(&scenario, "second.json", &[]);
    let after = worker_says(&scenario, of_its_chain);
    assert!(!after.contains("another beacon"), "{after}");
    let kept = std::fs::read_to_string(scenario.file("worker.beacons")).unwrap();
    assert!(kept.contains("\"used\":[0,1]"), "{kept}");
}

#[test]
fn a_validator_of_its_own_replays_and_when_it_dies_the_pool_goes_on_without() {
    let options = Options {
        validator: true,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    ask(&scenario, "first.json", &[]);
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    scenario.validator.as_mut().unwrap().kill();
    ask(&scenario, "second.json", &[]);
    let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert_eq!(settled["replayed"], 1);
    let log = scenario.pool.log();
    assert!(
        log.contains("validator failed") || log.contains("validator is away"),
        "{log}"
    );
    let prompt = "only its receipt names";
    assert!(!scenario.validator.as_ref().unwrap().log().contains(prompt));
}

#[test]
fn blocks_that_miners_solve_reach_the_chain() {
    // A block every 2^16 hashes or so: each share of the hasher is one.
    let options = Options {
        bits: "1f00ffff",
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    scenario.pool.event("block_found", TIME_MAX).unwrap();
    scenario.pool.event("block_found", TIME_MAX).unwrap();
    let answer = ask(&scenario, "receipt.json", &[]);
    assert_eq!(answer["receipt"]["verified"], true);
    let submitted: u64 = scenario
        .query("SELECT count(*) FROM blocks WHERE result = 'accepted'")
        .unwrap()
        .parse()
        .unwrap();
    assert!(submitted >= 2);
    let chain = scenario.ground.daemons().remove(0).log();
    assert!(chain.contains("block"));
}

#[test]
fn an_agent_gets_clear_refusals() {
    let options = Options {
        worker: false,
        hasher: false,
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let refused = |arguments: &[&str]| {
        let done = scenario.agent().args(arguments).output().unwrap();
        assert!(!done.status.success());
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    assert!(refused(&["ask", "hello"]).contains("worker"));
    assert!(refused(&["ask", "--model", &"ab".repeat(32), "hello"]).contains("model"));
    assert!(refused(&["ask", &"x".repeat(10_000)]).contains("prompt"));
    assert!(refused(&["task", "get", &"ab".repeat(32)]).contains("task"));
}
