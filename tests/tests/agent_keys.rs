//! Keys of the operator's on the real pool: every way to ask draws from one balance, what is billed is what the ledger has,
//! and nothing stays reserved for a task that is over, even if the pool is killed.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use serde_json::{Value, json};

const TIME_MAX: Duration = Duration::from_secs(90);
const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const PROMPT: &str = "What does a canary say?";
/// For all that these tests ask.
const BUDGET_MSAT: i64 = 100_000_000;

/// A new key's secret.
fn new_key(scenario: &Scenario) -> String {
    scenario.new_key("alice", BUDGET_MSAT).unwrap()
}

/// What the key has spent, and what is set aside of it.
fn standing(scenario: &Scenario) -> (i64, i64) {
    let key = scenario.pool_says(&["keys", "list", "--json"]).unwrap();
    let number = |name: &str| key[name].as_i64().unwrap();
    let (spent, reserved) = (number("spent_msat"), number("reserved_msat"));
    assert_eq!(number("left_msat"), BUDGET_MSAT - spent - reserved);
    (spent, reserved)
}

/// What the key's tasks have drawn from its balance. Of those whose answers no share has settled yet, it is set aside: what
/// they cost, and nothing beyond.
fn drawn(scenario: &Scenario) -> i64 {
    let (spent, reserved) = standing(scenario);
    spent + reserved
}

/// What the ledger has of this key's tasks that somebody pays for.
fn billed(scenario: &Scenario) -> i64 {
    let sum =
        "SELECT COALESCE(sum(price_msat), 0) FROM tasks WHERE state IN ('finished', 'settled')";
    scenario.query(sum).unwrap().trim().parse().unwrap()
}

/// A request of HTTP/1.0, whose answer ends with its connection.
fn send(scenario: &Scenario, path: &str, key: &str, body: &Value) -> BufReader<TcpStream> {
    let address = scenario.grpc.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIME_MAX)).unwrap();
    let (body, length) = (body.to_string(), body.to_string().len());
    let headers = format!("authorization: Bearer {key}\r\ncontent-length: {length}");
    write!(
        stream,
        "POST {path} HTTP/1.0\r\n{headers}\r\ncontent-type: application/json\r\n\r\n{body}"
    )
    .unwrap();
    BufReader::new(stream)
}

/// All of an answer.
fn rest(mut answer: BufReader<TcpStream>) -> String {
    let mut text = String::new();
    answer.read_to_string(&mut text).unwrap();
    text
}

/// The usage in an answer, whole or as a stream.
fn usage(answer: &str) -> Value {
    let with_usage = answer.lines().rfind(|line| line.contains("\"cost_msat\""));
    let json = with_usage.expect(answer).trim_start_matches("data: ");
    serde_json::from_str::<Value>(json).unwrap()["usage"].clone()
}

/// Asks, and hangs up once the answer has begun.
fn give_up(scenario: &Scenario, path: &str, key: &str, body: &Value) {
    let mut answer = send(scenario, path, key, body);
    let mut chunks = 0;
    while chunks < 2 {
        let mut line = String::new();
        assert!(answer.read_line(&mut line).unwrap() > 0, "it has ended");
        chunks += usize::from(line.starts_with("data: "));
    }
}

fn chat(model: &str, stream: bool, tokens: u32) -> Value {
    let messages = json!([{ "role": "user", "content": PROMPT }]);
    json!({
        "model": model, "messages": messages, "max_tokens": tokens,
        "stream": stream, "stream_options": { "include_usage": true },
    })
}

fn text(model: &str, stream: bool, tokens: u32) -> Value {
    json!({
        "model": model, "prompt": PROMPT, "max_tokens": tokens,
        "stream": stream, "stream_options": { "include_usage": true },
    })
}

#[test]
fn every_way_to_ask_draws_from_one_balance_and_bills_what_the_ledger_has() {
    let options = Options {
        // An answer that takes long enough to hang up on.
        model: ServedModel::TinyOfLongContext,
        hasher: false,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    let key = new_key(&scenario);
    let model = scenario.model_id.clone();

    // To the end: what the answer says is what the key has paid.
    let mut spent = 0;
    for (path, body) in [
        (CHAT, chat(&model, false, 9)),
        (CHAT, chat(&model, true, 9)),
        (TEXT, text(&model, false, 9)),
        (TEXT, text(&model, true, 9)),
    ] {
        let usage = usage(&rest(send(&scenario, path, &key, &body)));
        assert!(usage["completion_tokens"].as_u64().unwrap() > 0, "{usage}");
        spent += usage["cost_msat"].as_i64().unwrap();
        assert_eq!(drawn(&scenario), spent, "{path} {body}");
    }
    let by_grpc = |scenario: &Scenario, more: &[&str]| {
        let mut agent = scenario.agent();
        agent
            .env("DOVETAIL_KEY", &key)
            .args(["ask", "--json"])
            .args(more);
        agent.args(["--", PROMPT]);
        output(&mut agent)
    };
    by_grpc(&scenario, &["--max-tokens", "9"]).unwrap();
    let now = billed(&scenario);
    assert_eq!(drawn(&scenario), now);
    assert!(now > spent);

    // Given up in the middle.
    for (path, body) in [
        (CHAT, chat(&model, true, 4096)),
        (TEXT, text(&model, true, 4096)),
    ] {
        give_up(&scenario, path, &key, &body);
    }
    let running = "SELECT count(*) FROM tasks WHERE state IN ('queued', 'assigned')";
    scenario.query_until(running, "0").unwrap();
    let (before, now) = (now, billed(&scenario));
    assert_eq!(drawn(&scenario), now);
    let all_of_both = before + 2 * 4096 * 1000;
    assert!(before < now && now < all_of_both, "{before} {now}");

    // Failed: the worker takes the tasks, as many as it runs at once, gives no token, and is gone.
    scenario.worker.as_ref().unwrap().signal("STOP");
    let asked = [
        send(&scenario, CHAT, &key, &chat(&model, true, 9)),
        send(&scenario, TEXT, &key, &text(&model, false, 9)),
    ];
    let assigned = "SELECT count(*) FROM tasks WHERE state = 'assigned'";
    scenario.query_until(assigned, "2").unwrap();
    assert!(drawn(&scenario) > now);
    scenario.worker.as_mut().unwrap().kill();
    for answer in asked {
        let answer = rest(answer);
        assert!(answer.contains("worker_lost"), "{answer}");
    }
    let refused = by_grpc(&scenario, &["--max-tokens", "9"]).unwrap_err();
    assert!(refused.to_string().contains("worker"), "{refused}");
    assert_eq!(drawn(&scenario), now);

    // Whatever happened, no log has a key or a prompt.
    let worker = scenario.worker.as_ref().unwrap();
    for log in [scenario.pool.log(), worker.log(), scenario.declarator.log()] {
        assert!(!log.is_empty() && !log.contains(&key) && !log.contains(PROMPT));
    }
}

#[test]
fn nothing_stays_reserved_for_a_task_that_is_over_though_the_pool_was_killed() {
    let options = Options {
        task_lifetime_s: 12,
        hasher: false,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    let key = new_key(&scenario);
    let model = scenario.model_id.clone();
    scenario.worker.as_ref().unwrap().signal("STOP");
    let asked = Instant::now();
    let answer = send(&scenario, CHAT, &key, &chat(&model, true, 9));
    let assigned = "SELECT count(*) FROM tasks WHERE state = 'assigned'";
    scenario.query_until(assigned, "1").unwrap();
    assert!(standing(&scenario).1 > 0);
    scenario.pool.kill();
    drop(answer);
    scenario.restart_pool().unwrap();
    scenario.query_until(assigned, "0").unwrap();
    // The task's time, and five seconds; the other ten are for a machine that is busy.
    let most = Duration::from_secs(12 + 5 + 10);
    assert!(asked.elapsed() < most, "{:?}", asked.elapsed());
    assert_eq!(standing(&scenario), (0, 0));
    scenario.worker.as_ref().unwrap().signal("CONT");
}
