//! The HTTP API on the real pool, with a real worker: what OpenAI's clients send and see, beside gRPC on the same port.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use serde_json::{Value, json};

const TIME_MAX: Duration = Duration::from_secs(90);
const CHAT: &str = "/v1/chat/completions";

/// A connection with one request on it.
fn send(scenario: &Scenario, head: &str, body: &str) -> BufReader<TcpStream> {
    let address = scenario.grpc.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIME_MAX)).unwrap();
    let length = body.len();
    let headers = format!("host: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    write!(
        stream,
        "{head} HTTP/1.1\r\n{headers}content-type: application/json\r\n\r\n{body}"
    )
    .unwrap();
    BufReader::new(stream)
}

/// The status and the headers.
fn head(answer: &mut impl BufRead) -> (u16, String) {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head)
}

/// A body that comes in chunks, or to the connection's end.
fn body(head: &str, answer: &mut impl BufRead) -> String {
    let mut text = Vec::new();
    if !head.contains("transfer-encoding: chunked") {
        answer.read_to_end(&mut text).unwrap();
        return String::from_utf8(text).unwrap();
    }
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        answer.read_exact(&mut chunk).unwrap();
        if length == 0 {
            return String::from_utf8(text).unwrap();
        }
        text.extend_from_slice(&chunk[..length]);
    }
}

fn get(scenario: &Scenario, path: &str) -> (u16, Value) {
    let mut answer = send(scenario, &format!("GET {path}"), "");
    let (status, head) = head(&mut answer);
    let body = body(&head, &mut answer);
    (
        status,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

fn post(scenario: &Scenario, request: &Value) -> (u16, Value) {
    let mut answer = send(scenario, &format!("POST {CHAT}"), &request.to_string());
    let (status, head) = head(&mut answer);
    (
        status,
        serde_json::from_str(&body(&head, &mut answer)).unwrap(),
    )
}

/// The chunks of a stream, without its end mark, and whether that was there.
fn stream(scenario: &Scenario, request: &Value) -> (Vec<Value>, bool) {
    let mut answer = send(scenario, &format!("POST {CHAT}"), &request.to_string());
    let (status, head) = head(&mut answer);
    assert_eq!(status, 200, "{head}");
    let body = body(&head, &mut answer);
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let (done, chunks): (Vec<&str>, Vec<&str>) = data.partition(|data| *data == "[DONE]");
    let chunks = chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk).unwrap());
    (chunks.collect(), done.len() == 1)
}

fn request(model: &str, more: Value) -> Value {
    let messages = json!([{ "role": "user", "content": "a question that only its receipt names" }]);
    let mut request = json!({ "model": model, "messages": messages, "max_tokens": 32, "seed": 7 });
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn a_client_of_openai_s_is_answered_and_has_a_receipt() {
    let (_dir, mut scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    assert_eq!(get(&scenario, "/healthz"), (200, "ok\n".into()));
    let (_, models) = get(&scenario, "/v1/models");
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let ask = |more: Value| request(&model, more);

    // The same seed, the same bytes, whole and in chunks.
    let (status, first) = post(&scenario, &ask(json!({})));
    assert_eq!(status, 200, "{first}");
    let (_, again) = post(&scenario, &ask(json!({})));
    assert_eq!(content(&again), content(&first));
    let usage = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let (chunks, is_done) = stream(&scenario, &ask(usage));
    let pieces = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), content(&first));
    assert!(is_done);
    assert_eq!(chunks.last().unwrap()["usage"], first["usage"]);
    let (_, other) = post(&scenario, &ask(json!({ "seed": 8 })));
    assert_ne!(content(&other), content(&first));

    // What is billed is what the ledger has, which is what the worker has committed to.
    let task = first["dovetail"]["task_id"].as_str().unwrap();
    assert_eq!(first["usage"]["completion_tokens"], 32);
    let row = format!("SELECT price_msat FROM tasks WHERE id = '\\x{task}'");
    assert_eq!(
        scenario.query(&row).unwrap().trim(),
        first["usage"]["cost_msat"].to_string()
    );
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    let (status, receipt) = get(&scenario, &format!("/v1/dovetail/receipts/{task}?wait=60"));
    assert_eq!(status, 200, "{receipt}");
    assert_eq!(receipt["price_msat"], first["usage"]["cost_msat"]);
    let (_, shown) = get(&scenario, &format!("/v1/dovetail/tasks/{task}"));
    assert_eq!(shown["state"], "settled");

    // gRPC is on the same port.
    let answer = scenario.ask("a prompt", 8, "receipt.json", &[]).unwrap();
    assert_eq!(answer["receipt"]["verified"], true);
    let worker = scenario.worker.as_ref().unwrap();
    for log in [scenario.pool.log(), worker.log()] {
        assert!(!log.contains("only its receipt names"));
    }
}

#[test]
fn an_answer_has_the_form_and_the_end_that_were_asked_for_and_refusals_say_why() {
    let (_dir, scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let (_, models) = get(&scenario, "/v1/models");
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let ask = |more: Value| request(&model, more);
    let schema = json!({
        "type": "object",
        "properties": { "paid": { "type": "boolean" }, "kind": { "enum": ["a", "b"] } },
        "required": ["paid", "kind"],
        "additionalProperties": false,
    });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "bill", "schema": schema } });
    let (status, answer) = post(
        &scenario,
        &ask(json!({ "response_format": format, "max_tokens": 200 })),
    );
    assert_eq!(status, 200, "{answer}");
    let bill: Value = serde_json::from_str(content(&answer)).unwrap();
    assert!(
        bill["paid"].is_boolean() && bill.as_object().unwrap().len() == 2,
        "{bill}"
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let any = json!({ "response_format": { "type": "json_object" }, "max_tokens": 64 });
    let (status, answer) = post(&scenario, &ask(any));
    assert_eq!(status, 200, "{answer}");
    assert!(content(&answer).starts_with('{'), "{answer}");

    // A stop sequence that the answer is known to have: its second character.
    let (_, whole) = post(&scenario, &ask(json!({})));
    let stop = content(&whole).chars().nth(1).unwrap();
    if stop != char::REPLACEMENT_CHARACTER {
        let (_, answer) = post(&scenario, &ask(json!({ "stop": stop.to_string() })));
        let before = content(&whole).split(stop).next().unwrap();
        assert_eq!(content(&answer), before);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }

    let (status, refused) = post(&scenario, &json!({ "model": "gpt-5", "messages": [] }));
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("messages"))
    );
    let long = json!([{ "role": "user", "content": "x".repeat(100_000) }]);
    let (status, refused) = post(&scenario, &ask(json!({ "messages": long })));
    assert_eq!(
        (status, &refused["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    let huge = json!([{ "role": "user", "content": "x".repeat(2 << 20) }]);
    let (status, refused) = post(&scenario, &ask(json!({ "messages": huge })));
    assert_eq!(
        (status, &refused["error"]["code"]),
        (413, &json!("request_too_large"))
    );
    let (status, refused) = get(&scenario, "/v1/embeddings");
    assert_eq!(
        (status, &refused["error"]["code"]),
        (404, &json!("unknown_url"))
    );
}

#[test]
fn a_client_that_hangs_up_cancels_its_task_and_its_worker_earns_what_it_gave() {
    let options = Options {
        model: ServedModel::TinyOfLongContext,
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let (_, models) = get(&scenario, "/v1/models");
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let more = json!({ "stream": true, "max_tokens": 4096 });
    let mut answer = send(
        &scenario,
        &format!("POST {CHAT}"),
        &request(&model, more).to_string(),
    );
    let (status, _) = head(&mut answer);
    assert_eq!(status, 200);
    // Until some text has come.
    let mut text = 0;
    while text < 2 {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        text += usize::from(line.starts_with("data: ") && !line.contains("\"role\""));
    }
    drop(answer);
    // Its worker hands in what it has given, and is paid for that.
    let ended = "SELECT count(*) FROM tasks WHERE state IN ('finished', 'settled') AND stops_at IS NOT NULL";
    scenario.query_until(ended, "1").unwrap();
    // Four bytes for each token, encrypted with 40 bytes besides.
    let billed = "SELECT count(*) FROM tasks WHERE price_msat = 1000 * ((length(output_tokens) - 40) / 4) \
                  AND (length(output_tokens) - 40) / 4 BETWEEN 1 AND 4095";
    assert_eq!(scenario.query(billed).unwrap().trim(), "1");
}

#[test]
fn a_stream_whose_only_worker_is_killed_ends_with_an_error_and_neither_reason_nor_done() {
    let options = Options {
        model: ServedModel::TinyOfLongContext,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    let (_, models) = get(&scenario, "/v1/models");
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let more =
        json!({ "stream": true, "max_tokens": 4096, "stream_options": { "include_usage": true } });
    let asked = request(&model, more).to_string();
    let mut answer = send(&scenario, &format!("POST {CHAT}"), &asked);
    assert_eq!(head(&mut answer).0, 200);
    let mut data = Vec::new();
    let mut worker = scenario.worker.take().unwrap();
    for line in answer.lines() {
        let line = line.unwrap();
        if let Some(said) = line.strip_prefix("data: ") {
            data.push(said.to_owned());
        }
        // The role, and some text.
        if data.len() == 3 {
            worker.kill();
        }
    }
    let error: Value = serde_json::from_str(&data.pop().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "worker_lost");
    for chunk in &data {
        let chunk: Value = serde_json::from_str(chunk).unwrap();
        assert!(chunk["choices"][0]["finish_reason"].is_null(), "{chunk}");
        assert!(chunk["usage"].is_null(), "{chunk}");
    }
    // And nobody pays for it.
    let unpaid = "SELECT count(*) FROM tasks WHERE state = 'failed'";
    scenario.query_until(unpaid, "1").unwrap();
    assert_eq!(scenario.query(SPENT).unwrap().trim(), "0");
}

/// What the operator has paid for agents' tasks.
const SPENT: &str =
    "SELECT coalesce(sum(price_msat), 0) FROM tasks WHERE state IN ('finished', 'settled')";

/// The time-outs of clients end at the headers: only what comes keeps them from waiting for ever.
#[test]
fn a_stream_is_not_silent_for_15_s_while_its_worker_is_and_goes_on_with_it() {
    let (_dir, scenario) = dovetail_tests::scenario(&Options::default()).unwrap();
    let (_, models) = get(&scenario, "/v1/models");
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let worker = scenario.worker.as_ref().unwrap();
    worker.signal("STOP");
    let asked = request(&model, json!({ "stream": true })).to_string();
    let answer = send(&scenario, &format!("POST {CHAT}"), &asked);
    let silence_max = Duration::from_secs(15);
    answer
        .get_ref()
        .set_read_timeout(Some(silence_max))
        .unwrap();
    let (mut comments, mut is_done) = (0, false);
    for line in answer.lines() {
        let line = line.expect("it is silent");
        if line.starts_with(':') {
            comments += 1;
            worker.signal("CONT");
        }
        is_done |= line == "data: [DONE]";
    }
    assert!(comments >= 1 && is_done);
}
