//! `cargo xtask bench audit`: what the pool's replays cost beside the worker's generating.

use std::process::Command;

use anyhow::Context;
use clap::Args;
use dovetail_tests::cache;
use serde_json::{Value, json};

use super::report::{build_bench, number, report};
use crate::steps::{Steps, run};

/// What to audit.
#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// Shapes to measure, of 15m, 110m, 1.1b; the JSON's top level is the last one's.
    #[arg(long, value_delimiter = ',', default_value = "15m,110m")]
    shapes: Vec<String>,
    /// Transcripts of the batch.
    #[arg(long, default_value_t = 64)]
    transcripts: usize,
    /// Tokens of each prompt.
    #[arg(long, default_value_t = 64)]
    prompt: usize,
    /// Tokens of each output.
    #[arg(long, default_value_t = 64)]
    generate: u32,
    /// Tasks that the worker runs side by side.
    #[arg(long, default_value_t = 8)]
    side_by_side: usize,
    /// Rounds; the best counts.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &AuditArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    let bench = steps.step("the bench", build_bench)?;
    let folder = cache().join("bench");
    std::fs::create_dir_all(&folder)?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut rows = Vec::new();
    for shape in &arguments.shapes {
        let model = folder.join(format!("{shape}-audit.safetensors"));
        let model_name = model.to_string_lossy().into_owned();
        let numbers = [
            ("--threads", threads.to_string()),
            ("--transcripts", arguments.transcripts.to_string()),
            ("--prompt", arguments.prompt.to_string()),
            ("--generate", arguments.generate.to_string()),
            ("--side-by-side", arguments.side_by_side.to_string()),
            ("--repeat", arguments.repeat.to_string()),
        ];
        let mut row = steps.step(&format!("shape {shape}"), || {
            run(Command::new(&bench).args(["make", "--shape", shape, "--out", &model_name]))?;
            let mut command = Command::new(&bench);
            command.args(["audit", "--model", &model_name]);
            for (name, number) in &numbers {
                command.args([name, number.as_str()]);
            }
            let measured = report(&mut command);
            std::fs::remove_file(&model)?;
            measured
        })?;
        row["shape"] = json!(shape);
        rows.push(row);
    }
    show(&rows);
    if arguments.json {
        let mut report = rows.last().cloned().context("no shape was named")?;
        report["shapes"] = Value::Array(rows);
        println!("{report}");
    }
    Ok(())
}

fn show(rows: &[Value]) {
    eprintln!(
        "\n{:>6} {:>8} {:>12} {:>10} {:>12} {:>12} {:>12}",
        "shape", "threads", "generate s", "replay s", "at floor s", "full ratio", "floor ratio"
    );
    for row in rows {
        let number = |key, digits| number(row, key, digits);
        eprintln!(
            "{:>6} {:>8} {:>12} {:>10} {:>12} {:>12} {:>12}",
            row["shape"].as_str().unwrap_or("-"),
            number("threads", 0),
            number("generate_s", 2),
            number("full_replay_s", 2),
            number("floor_replay_s", 3),
            number("replay_seconds_per_generated_second", 3),
            number("replay_seconds_per_generated_second_at_floor", 4),
        );
    }
    eprintln!("ratio: seconds of replay over seconds of generating, on the same threads");
}
