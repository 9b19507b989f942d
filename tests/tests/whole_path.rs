//! The main job through public interfaces: a prompt becomes tokens, a share, a credit, a payout and a
//! receipt.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dovetail_agent::Vocabulary;
use dovetail_agent::receipt_file::load;
use dovetail_agent::verify::{Check, Known, verify, verify_with};
use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use serde_json::Value;

const TIME_MAX: Duration = Duration::from_secs(90);
/// An invoice that clerk reads without a mistake.
const INVOICE_SEED: u64 = 1;

fn ask(scenario: &Scenario, file: &str, more: &[&str]) -> Value {
    let prompt = "a prompt that only its receipt names";
    scenario.ask(prompt, 32, file, more).unwrap()
}

/// The agent computes the answer again with the model's file; how many tokens it has.
fn replay(scenario: &Scenario, file: &str) -> Value {
    let verified = scenario
        .agent()
        .args(["receipt", "verify", "--replay", "--json", "--model"])
        .arg(scenario.file("model.safetensors"))
        .arg(scenario.file(file))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["replay"]["result"], "same", "{report}");
    report["replay"]["output_tokens"].clone()
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
    let answer = scenario
        .ask(&invoice.prompt, 320, "receipt.json", &[])
        .unwrap();
    assert_eq!(answer["text"].as_str(), Some(invoice.answer.as_str()));
    assert_eq!(answer["receipt"]["verified"], true);
    let tokens = answer["output_tokens"].as_array().map_or(0, Vec::len);
    let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert_eq!(settled["replayed"], 1);
    assert_eq!(settled["credit_msat"], tokens * 1000);
    scenario.pool.event("payout_paid", TIME_MAX).unwrap();
    assert_eq!(replay(&scenario, "receipt.json"), tokens);
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
fn a_key_that_the_operator_makes_pays_for_what_its_agent_asks_and_no_more() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let keys = |scenario: &Scenario, arguments: &[&str]| {
        let arguments = [&["keys", "--json"], arguments].concat();
        scenario.pool_says(&arguments).unwrap()
    };
    // A token costs 1,000 msat.
    let add = ["add", "--name", "alice", "--budget-msat", "100000"];
    let made = keys(&scenario, &[&add[..], &["--per-day", "35000"]].concat());
    let secret = made["secret"].as_str().unwrap();
    let paid = ["--seed", "7", "--key", secret];
    let answer = ask(&scenario, "receipt.json", &paid);
    assert_eq!(answer["receipt"]["verified"], true);
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    let standing = keys(&scenario, &["list"]);
    let cost = 1_000 * answer["output_tokens"].as_array().map_or(0, Vec::len);
    assert_eq!(standing["spent_msat"], cost, "{standing}");
    assert_eq!(standing["reserved_msat"], 0);
    // Its day is over, and then the key itself; what everybody else asks is the operator's.
    let prompt = "a prompt that only its receipt names";
    for word in ["daily-limit", "key-invalid"] {
        let refused = scenario.ask(prompt, 20, "other.json", &paid).unwrap_err();
        assert!(format!("{refused:#}").contains(word), "{refused:#}");
        keys(&scenario, &["revoke", "--name", "alice"]);
    }
    ask(&scenario, "third.json", &["--seed", "8"]);
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    let standing = keys(&scenario, &["list"]);
    assert_eq!(standing["spent_msat"], cost, "{standing}");
    scenario.ledger_audit().unwrap();
    for log in [scenario.pool.log(), scenario.declarator.log()] {
        assert!(!log.contains("sk-"));
    }
}

/// What the tiny model, which knows nothing, would never write by itself.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "maxLength": 8},
        "paid": {"type": "boolean"},
        "pieces": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3}
    },
    "required": ["vendor", "paid", "pieces"],
    "additionalProperties": false
}"#;

#[test]
fn an_agent_that_asks_with_a_schema_gets_json_of_it_and_a_receipt_for_it() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let schema = scenario.file("schema.json");
    std::fs::write(&schema, SCHEMA).unwrap();
    let prompt = "an order that only its receipt names";
    let form = ["--schema", schema.to_str().unwrap(), "--temperature", "0.8"];
    let answer = scenario.ask(prompt, 300, "receipt.json", &form).unwrap();
    assert_eq!(answer["finish_reason"], "stop");
    let order: Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
    assert!(
        order["vendor"].is_string() && order["paid"].is_boolean(),
        "{order}"
    );
    assert!(order["pieces"].is_array() && order.as_object().unwrap().len() == 3);
    assert_eq!(answer["receipt"]["verified"], true);
    let settled = scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert_eq!(settled["replayed"], 1);

    let tokens = answer["output_tokens"].as_array().unwrap().len();
    assert_eq!(replay(&scenario, "receipt.json"), tokens);

    // The receipt is one for this form, and no other.
    let kept = std::fs::read_to_string(scenario.file("receipt.json")).unwrap();
    let mut kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["constraint"]["form"]["json_schema"], SCHEMA);
    kept["constraint"]["form"]["json_schema"] = "{}".into();
    let other = scenario.file("other.json");
    std::fs::write(&other, kept.to_string()).unwrap();
    let report = verify(&load(&other).unwrap(), None);
    assert_eq!(report.first_failure, Some(Check::Prompt));

    // The ledger forgets the form with the prompt, and no log has either.
    let row = "SELECT count(*), count(prompt), count(answer_form), min(state) FROM tasks";
    assert_eq!(scenario.query(row).unwrap(), "1|0|0|settled");
    let worker = scenario.worker.as_ref().unwrap();
    for log in [scenario.pool.log(), scenario.declarator.log(), worker.log()] {
        assert!(!log.contains("only its receipt names") && !log.contains("pieces"));
    }

    // What is no form is refused with its word, and what it does not understand is named.
    std::fs::write(&schema, r#"{"not": {"type": "string"}}"#).unwrap();
    let refused = scenario.ask(prompt, 8, "refused.json", &form).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains("constraint-invalid") && refused.contains("not"),
        "{refused}"
    );
    let choice = ["--choice", "yes", "--choice", "no"];
    let answer = scenario.ask(prompt, 8, "choice.json", &choice).unwrap();
    assert!(["yes", "no"].contains(&answer["text"].as_str().unwrap()));
    assert_eq!(answer["receipt"]["verified"], true);
}

/// With the tokenizer, the agent holds the pool to its encoding of the prompt.
fn the_agents_tokenizer_agrees(scenario: &Scenario) {
    let vocabulary = Vocabulary::of_bytes(scenario.model_id.parse().unwrap());
    let known = Known {
        vocabulary: Some(&vocabulary),
        ..Known::default()
    };
    let kept = load(&scenario.file("receipt.json")).unwrap();
    assert!(verify_with(&kept, &known).verified);
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
    the_agents_tokenizer_agrees(&scenario);

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
    let claims = "SELECT count(*) FROM named_shares WHERE kind = 'inference'";
    scenario.query_until(claims, "1").unwrap();
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
    assert_eq!(replay(&scenario, "receipt.json"), 32);
    replay(&scenario, "stopped.json");

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
    scenario
        .query_until("SELECT count(*) > 0 FROM shares", "t")
        .unwrap();
    let before: u64 = scenario
        .query("SELECT count(*) FROM shares")
        .unwrap()
        .parse()
        .unwrap();
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

#[test]
fn a_prompt_of_sixty_thousand_tokens_reaches_its_worker_and_ends_no_connection() {
    let options = Options {
        model: ServedModel::TinyOfLongContext,
        // By default a replay on a slow machine would not have time enough for so much, and the task would be refused.
        pool_settings: &[("AUDIT__TIMEOUT_S", "3600")],
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let long = scenario.file("long.txt");
    std::fs::write(&long, "x".repeat(60_000)).unwrap();
    // To take it in takes a while, and its agent does not wait for that.
    let asked = scenario
        .agent()
        .args(["ask", "--timeout", "3", "--max-tokens", "4096", "-"])
        .stdin(std::fs::File::open(&long).unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success(), "{stderr}");
    assert!(stderr.contains("has not ended within 3 s"), "{stderr}");
    let log = worker_says(&scenario, "the task was cancelled");
    assert!(log.contains("took a task"), "{log}");
    // One that no task can be made of is its agent's matter alone.
    std::fs::write(&long, "x".repeat(100_000)).unwrap();
    let asked = scenario
        .agent()
        .args(["ask", "-"])
        .stdin(std::fs::File::open(&long).unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert!(stderr.contains("a context of 65536"), "{stderr}");
    // The session is the first one, and goes on.
    let answer = ask(&scenario, "receipt.json", &[]);
    assert_eq!(answer["receipt"]["verified"], true);
    let pool = scenario.pool.log();
    assert_eq!(pool.matches("worker registered").count(), 1, "{pool}");
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
fn a_worker_and_a_pool_that_restart_go_on_and_no_pool_is_left() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let proven = "the pool has proven the sample";
    ask(&scenario, "first.json", &[]);
    // The agent may have its receipt before the worker has heard of it.
    worker_says(&scenario, proven);
    scenario.restart_worker().unwrap();
    scenario.restart_pool().unwrap();
    scenario.pool.event("worker_registered", TIME_MAX).unwrap();
    ask(&scenario, "second.json", &[]);
    worker_says(&scenario, proven);
    assert!(!scenario.file("worker.left").exists());
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
    let chain = scenario.network.daemons().remove(0).log();
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
