//! `dovetail-worker chat` and `bench` as processes. The answers are the engine's own, bit for bit.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Output, Stdio};
use std::sync::Arc;

use dovetail_chat::{Chat, Message, render};
use dovetail_commitment::{SamplingParams, StopSequences};
use dovetail_engine::{Architecture, Model, Parts, Request, Runtime, run, tiny};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dovetail-worker");
const TEMPLATE: &str = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n\
    {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
const INVOICE: &str =
    "Northwind Metals\nInvoice 2207\n14 March 2026\n2 x brass hinge 3.50\nTotal EUR 7.00\n";

fn clerk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clerk/model/clerk.safetensors")
}

fn chat(arguments: &[&str], typed: &str) -> Output {
    let mut child = Command::new(PROGRAM)
        .arg("chat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that has ended already says why.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &[u8] {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    &output.stdout
}

/// What a command says when nobody reads its output.
fn unread(arguments: &[&str]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

/// What each JSON line says.
fn answers(arguments: &[&str], typed: &str) -> Vec<Value> {
    let arguments = [arguments, &["--json"]].concat();
    let output = chat(&arguments, typed);
    let lines = stdout(&output).split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn tokens(answer: &Value) -> Vec<u32> {
    serde_json::from_value(answer["output_tokens"].clone()).unwrap()
}

fn sampling(temperature_milli: u32, max_tokens: u32) -> SamplingParams {
    SamplingParams {
        temperature_milli,
        top_k: 0,
        top_p_milli: 1000,
        max_tokens,
    }
}

/// What the engine answers to a prompt.
fn expected(model: &Arc<Model>, prompt: &str, sampling: SamplingParams, seed: u8) -> Vec<u32> {
    let mut bytes = [0; 32];
    bytes[31] = seed;
    let request = Request {
        prompt_tokens: model.encode(prompt.as_bytes()).unwrap(),
        sampling,
        seed: bytes,
        stop: StopSequences::default(),
        constraint: None,
    };
    run(&Runtime::new(1).unwrap(), model, request)
        .unwrap()
        .tokens
}

/// A random model with a template, in a file.
fn talker(folder: &Path, dim: usize, context_tokens: usize) -> (String, Arc<Model>) {
    let arch = Architecture {
        dim,
        hidden_dim: 2 * dim,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: dim / 4,
        vocabulary: 258,
        context_tokens,
        norm_epsilon_q32: 42_950,
        tied_head: false,
        attention_bias: false,
        mixed_down: true,
        turn: 1,
    };
    let parts = Parts {
        chat_template: TEMPLATE.to_owned(),
        ..tiny::parts(arch, "talker", 3).unwrap()
    };
    let file = folder.join("talker.safetensors");
    parts.write(&file).unwrap();
    let model = Arc::new(Model::load(&file).unwrap());
    (file.to_str().unwrap().to_owned(), model)
}

/// The prompt after these messages, each with its role.
fn prompt(messages: &[(&str, &str)]) -> String {
    let messages: Vec<Message> = messages
        .iter()
        .map(|(role, content)| Message::new(*role, *content))
        .collect();
    let chat = Chat {
        messages: &messages,
        add_generation_prompt: true,
        ..Chat::default()
    };
    render(TEMPLATE, &chat).unwrap()
}

#[test]
fn a_command_whose_output_nobody_reads_ends_without_a_complaint() {
    let clerk = clerk();
    let output = unread(&["model", "inspect", clerk.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(141), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn clerk_answers_what_the_engine_answers_drawn_or_not() {
    let file = clerk();
    let model = Arc::new(Model::load(&file).unwrap());
    let file = file.to_str().unwrap();
    let greedy = expected(&model, INVOICE, sampling(0, 4096), 0);
    let fenced = format!("\"\"\"\n{INVOICE}\"\"\"\n");
    let output = chat(&["--model", file], &fenced);
    let text = [model.decode(&greedy), b"\n".to_vec()].concat();
    assert_eq!(stdout(&output), text);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("tokens/s") && told.contains("reused"),
        "{told}"
    );
    // The whole input is one message, and its answer comes without a line's end of ours.
    let output = chat(&["--model", file, "--whole"], INVOICE);
    assert_eq!(stdout(&output), model.decode(&greedy));

    let drawn = expected(&model, INVOICE, sampling(900, 24), 7);
    for threads in ["1", "3"] {
        let arguments = [
            "--model",
            file,
            "--threads",
            threads,
            "--temperature",
            "0.9",
            "--seed",
            "7",
            "--max-tokens",
            "24",
        ];
        // Clerk has no template: the second message is answered like the first.
        let answers = answers(&arguments, &format!("{fenced}{fenced}"));
        assert_eq!(answers.len(), 2);
        for answer in &answers {
            assert_eq!(tokens(answer), drawn);
        }
        let prompt_tokens = answers[0]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(answers[0]["reused_tokens"], 0);
        assert_eq!(answers[1]["reused_tokens"], prompt_tokens - 1);
    }
}

#[test]
fn a_conversation_goes_on_reuses_what_is_known_and_forgets_on_reset() {
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = talker(folder.path(), 64, 1024);
    let arguments = [
        "--model",
        &file,
        "--system",
        "Be brief.",
        "--max-tokens",
        "20",
        "--temperature",
        "0.8",
        "--seed",
        "5",
    ];
    let answers = answers(&arguments, "hello there\nand then?\n/reset\nhello there\n");
    let sampling = sampling(800, 20);
    let first = expected(
        &model,
        &prompt(&[("system", "Be brief."), ("user", "hello there")]),
        sampling,
        5,
    );
    let said = String::from_utf8(model.decode(&first)).unwrap();
    let second = prompt(&[
        ("system", "Be brief."),
        ("user", "hello there"),
        ("assistant", &said),
        ("user", "and then?"),
    ]);
    let second = expected(&model, &second, sampling, 5);
    let given: Vec<_> = answers.iter().map(tokens).collect();
    assert_eq!(given, [first.clone(), second, first]);
    // Of the second prompt all is known but what stands behind the first answer's last token.
    let known = answers[0]["prompt_tokens"].as_u64().unwrap() + 19;
    assert_eq!(answers[1]["reused_tokens"], known);
    assert_eq!(
        answers[2]["reused_tokens"],
        answers[2]["prompt_tokens"].as_u64().unwrap() - 1
    );
}

#[test]
fn an_answer_ends_at_a_stop_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = talker(folder.path(), 64, 1024);
    let all = expected(&model, &prompt(&[("user", "hi")]), sampling(0, 40), 0);
    let text = String::from_utf8(model.decode(&all)).unwrap();
    let stop = &text[9..12];
    let end = text.find(stop).unwrap() + 3;
    let answers = answers(
        &["--model", &file, "--stop", stop, "--max-tokens", "40"],
        "hi\n",
    );
    assert_eq!(answers[0]["text"], text[..end]);
    assert_eq!(answers[0]["finish_reason"], "stop");
}

#[test]
fn a_full_context_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = talker(folder.path(), 64, 96);
    let long = "x".repeat(200);
    let output = chat(&["--model", &file], &format!("{long}\n"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("shorten it"),
        "{told}"
    );
    // The first answer fills the context.
    let output = chat(&["--model", &file], "hello\nhello again\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("the context is full"), "{told}");
    assert!(
        !output.status.success() && told.contains("/reset begins a new one"),
        "{told}"
    );
}

#[test]
fn a_model_without_a_template_has_no_place_for_an_instruction() {
    let output = chat(
        &["--model", clerk().to_str().unwrap(), "--system", "x"],
        "hello\n",
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("--system"),
        "{told}"
    );
}

#[test]
fn the_configuration_knows_models_by_name_and_id() {
    let folder = tempfile::tempdir().unwrap();
    let example = include_str!("../../../config/dovetail-worker.toml");
    let clerk = clerk().canonicalize().unwrap();
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let tiny = cache.join("tiny.safetensors");
    std::fs::write(&tiny, tiny::generate(1)).unwrap();
    let id = Model::load(&tiny).unwrap().id().to_string();
    let config = folder.path().join("worker.toml");
    let text = example
        .replace("data/models/clerk.safetensors", clerk.to_str().unwrap())
        .replace("data/worker/models", cache.to_str().unwrap());
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    for model in ["clerk", "tiny-1", &id] {
        let arguments = ["--config", config, "--model", model, "--max-tokens", "4"];
        assert_eq!(answers(&arguments, "hello\n").len(), 1, "{model}");
    }
    let output = chat(&["--config", config, "--model", "smol"], "hello\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("no model smol, but these") && told.contains(&id),
        "{told}"
    );
    let output = chat(&["--model", "smol"], "hello\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("add --config"), "{told}");
}

#[test]
fn a_bench_says_how_fast_which_kernel_runs_what() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.safetensors");
    std::fs::write(&file, tiny::generate(1)).unwrap();
    let file = file.to_str().unwrap();
    let bench = |more: &[&str]| {
        let shared = ["bench", "--model", file, "--threads", "2", "--prompt", "20"];
        let output = Command::new(PROGRAM)
            .args(shared)
            .args(["--generate", "6", "--repeat", "2"])
            .args(more)
            .output()
            .unwrap();
        String::from_utf8(stdout(&output).to_vec()).unwrap()
    };
    let report: Value = serde_json::from_str(&bench(&["--json"])).unwrap();
    let best = Runtime::new(2).unwrap().kernel();
    assert_eq!(
        (&report["kernel"], &report["threads"]),
        (&best.name().into(), &2.into())
    );
    let sequences: Vec<_> = report["decode"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["sequences"])
        .collect();
    assert_eq!(sequences, [1, 4, 16]);
    for rate in [
        &report["prefill_tokens_per_s"],
        &report["replay_tokens_per_s"],
        &report["decode"][2]["tokens_per_s"],
    ] {
        assert!(rate.as_f64().unwrap() > 0.0, "{report}");
    }
    let table = bench(&[]);
    for part in [
        "tiny-1",
        best.name(),
        "decode, 16 side by side",
        "replay of 16",
    ] {
        assert!(table.contains(part), "{table}");
    }
}

#[test]
fn at_a_terminal_ctrl_c_ends_the_answer_and_not_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    // Some seconds for an answer.
    let (file, _) = talker(folder.path(), 1024, 4096);
    // util-linux's `script` gives the program a terminal, by way of a shell. A shell that stays would die of
    // the Ctrl-C that the program survives: dash forks where bash does not.
    let command = format!("exec {PROGRAM} chat --model {file}");
    let mut child = Command::new("script")
        .args(["-qfec", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = child.stdin.take().unwrap();
    let mut terminal = Terminal {
        shown: child.stdout.take().unwrap(),
        text: String::new(),
        at: 0,
    };
    terminal.wait_for("> ");
    typed.write_all(b"hello\n").unwrap();
    terminal.wait_for("hello\r\n");
    terminal.wait_for_more();
    typed.write_all(&[3]).unwrap();
    terminal.wait_for("; stopped]");
    terminal.wait_for("> ");
    typed.write_all(&[3]).unwrap();
    terminal.wait_for("[/quit or Ctrl-D ends the program]");
    typed.write_all(b"/help\n").unwrap();
    terminal.wait_for("Ctrl-C ends an answer]");
    typed.write_all(b"/quit\n").unwrap();
    assert!(child.wait().unwrap().success(), "{}", terminal.text);
}

/// What a terminal has shown, and how far it was looked at.
struct Terminal {
    shown: ChildStdout,
    text: String,
    at: usize,
}

impl Terminal {
    /// Waits until this is shown behind what was waited for before.
    fn wait_for(&mut self, what: &str) {
        loop {
            if let Some(found) = self.text[self.at..].find(what) {
                self.at += found + what.len();
                return;
            }
            self.read();
        }
    }

    /// Waits until anything is.
    fn wait_for_more(&mut self) {
        while self.at == self.text.len() {
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 1024];
        let read = self.shown.read(&mut buffer).unwrap();
        assert!(read > 0, "the program ended: {}", self.text);
        self.text
            .push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}
