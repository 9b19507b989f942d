//! `cargo xtask bench agent`: how long an agent waits for tokens that come through a pool and its worker, beside the engine
//! alone.

use std::process::Command;

use clap::{Args, ValueEnum};
use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use dovetail_tests::{program, use_release_programs};
use serde_json::{Value, json};

use super::report::{number, report};
use crate::setup;
use crate::steps::{Steps, cargo, run};

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
    let postgres = steps.step("Postgres", setup::postgres)?;
    let measured = steps.step("answers through the pool", || {
        let dir = dovetail_tests::root().join(".data").join("bench-agent");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let options = options(arguments.model);
        let scenario =
            Scenario::start(&dir, &postgres, "dovetail_bench_agent", &options, |_, _| {})?;
        ask(&scenario, arguments)
    });
    postgres.stop();
    let mut measured = measured?;
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

/// A pool and a worker, and nobody who hashes: processors are the engine's.
fn options(model: AgentModel) -> Options {
    Options {
        model: match model {
            AgentModel::Tiny => ServedModel::Tiny,
            AgentModel::Clerk => ServedModel::Clerk,
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

fn show(report: &Value) {
    let number = |key, digits| number(report, key, digits);
    eprintln!(
        "\n{} tasks of {}, {} tokens, {} threads\n\n{:<24} {:>12} {:>12} {:>12}",
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
        ("each token after it", ["", "", "overhead_ms_per_token"]),
    ];
    for (name, [pool, engine, overhead]) in rows {
        eprintln!(
            "{name:<24} {:>12} {:>12} {:>12}",
            number(pool, 2),
            number(engine, 2),
            number(overhead, 3)
        );
    }
    eprintln!("overhead: the median of pairs of the same answer, one after the other");
}
