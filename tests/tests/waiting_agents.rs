//! Agents whose receipt takes its time, since nobody hashes yet.

#![allow(clippy::unwrap_used)]

mod devices;

use std::process::Stdio;
use std::time::{Duration, Instant};

use devices::{Device, TIME_MAX, hard_target};
use dovetail_agent::ReceiptFile;
use dovetail_tests::scenario::Options;
use serde_json::Value;

/// Half of the time after which a daemon that does not stop is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_for_its_receipt_over_a_restart_of_the_pool_and_replays_the_answer_itself() {
    // Nobody hashes until a device comes.
    let options = Options {
        firmware: true,
        hasher: false,
        ..Options::default()
    };
    let start = move || dovetail_tests::scenario(&options).unwrap();
    let (_dir, mut scenario) = tokio::task::spawn_blocking(start).await.unwrap();
    let path = scenario.file("receipt.json");
    let asked = scenario
        .agent()
        .args(["ask", "--max-tokens", "16", "--wait", "0", "--receipt"])
        .arg(&path)
        .args(["--", "a prompt"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert!(stderr.contains("is not settled yet"), "{stderr}");
    let task = ReceiptFile::load(&path).unwrap().task_id.to_string();
    let mut waiting = scenario
        .agent()
        .args(["receipt", "get", &task, "--wait", "120", "--into"])
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(waiting.try_wait().unwrap().is_none());

    // Its stream, which would go on for minutes, does not keep the pool from stopping.
    let begun = Instant::now();
    scenario.pool.stop();
    let took = begun.elapsed();
    assert!(took < STOP_TIME_MAX, "the pool took {took:?} to stop");
    scenario.restart_pool().unwrap();
    scenario.pool.event("worker_registered", TIME_MAX).unwrap();
    let firmware = scenario.firmware.clone().unwrap();
    let _device = Device::start(&firmware, hard_target()).await;
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    let got = waiting.wait_with_output().unwrap();
    assert!(got.status.success(), "{got:?}");

    let verified = scenario
        .agent()
        .args(["receipt", "verify", "--replay", "--json", "--model"])
        .arg(scenario.file("model.safetensors"))
        .arg(&path)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["replay"]["result"], "same");
    assert_eq!(report["replay"]["output_tokens"], 16);
}
