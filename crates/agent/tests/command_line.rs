//! The `dovetail` command as a process: exit codes, what goes to stdout and what to stderr.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Output},
};

use dovetail_agent::{Question, ReceiptFile};
use dovetail_commitment::{EncodedPrompt, ModelId, SamplingParams};

/// Nothing listens on this port: it is reserved for a service that nobody runs.
const NO_POOL: &str = "http://127.0.0.1:1";

fn dovetail(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dovetail"))
        .args(arguments)
        .env("DOVETAIL_POOL", NO_POOL)
        .env_remove("DOVETAIL_POOL_KEY")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn save_pending(path: &Path) {
    let sampling = SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1000,
        max_tokens: 8,
    };
    let question = Question::new(
        ModelId::from_bytes([3; 32]),
        b"private words".to_vec(),
        sampling,
    );
    let prompt = EncodedPrompt::new(&question.prompt, vec![256, 112]).unwrap();
    let file = ReceiptFile::pending(&question, &prompt, vec![1]);
    file.save(path).unwrap();
}

#[test]
fn an_unreachable_pool_is_named_with_a_hint() {
    for arguments in [
        &["models"][..],
        &["ask", "hello"],
        &["task", "get", &"00".repeat(32)],
    ] {
        let output = dovetail(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty());
        assert!(
            stderr.contains(NO_POOL) && stderr.contains("hint:"),
            "{stderr}"
        );
    }
}

#[test]
fn a_key_that_goes_unencrypted_over_a_network_is_warned_of() {
    let asked = |pool: &str| {
        let output = dovetail(&["ask", "hello", "--key", "sk-hidden", "--pool", pool]);
        text(&output.stderr)
    };
    // Where nobody listens either, and an address that is no loopback.
    let warned = asked("http://0.0.0.0:1");
    assert!(
        warned.contains("warning: http://0.0.0.0:1 speaks no TLS"),
        "{warned}"
    );
    for other in [NO_POOL, "https://0.0.0.0:1"] {
        assert!(!asked(other).contains("warning"), "{other}");
    }
    assert!(!warned.contains("hidden"));
}

#[test]
fn an_authority_that_is_none_is_named_and_not_needed_offline() {
    let with_ca = |arguments: &[&str]| {
        let ca = ["--ca", "/nonexistent/authority.pem"];
        dovetail(&[arguments, &ca].concat())
    };
    let stderr = text(&with_ca(&["models"]).stderr);
    assert!(
        stderr.contains("--ca") && stderr.contains("authority.pem"),
        "{stderr}"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answer.json");
    save_pending(&file);
    let output = with_ca(&["receipt", "verify", file.to_str().unwrap()]);
    assert!(!output.stdout.is_empty());
}

#[test]
fn wrong_usage_has_an_exit_code_of_its_own() {
    assert_eq!(dovetail(&["ask"]).status.code(), Some(2));
    assert_eq!(dovetail(&["receipt", "verify"]).status.code(), Some(2));
}

#[test]
fn an_empty_prompt_is_refused_before_the_pool_is_asked() {
    let output = dovetail(&["ask", ""]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("prompt is empty"));
}

#[test]
fn a_receipt_that_does_not_hold_is_explained_on_stdout_with_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    save_pending(&path);
    let path = path.to_str().unwrap();

    let output = dovetail(&["receipt", "verify", path]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("FAILS") && stdout.contains("does not hold: format"),
        "{stdout}"
    );
    assert!(!stdout.contains("private words"));

    let output = dovetail(&["receipt", "verify", path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verified"], false);
    assert_eq!(report["first_failure"], "format");
    assert_eq!(report["lines"][0]["check"], "format");
    assert_eq!(report["lines"][0]["result"], "fails");
}

#[test]
fn a_missing_file_is_named() {
    let output = dovetail(&["receipt", "verify", "/nowhere/receipt.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/receipt.json"));
}
