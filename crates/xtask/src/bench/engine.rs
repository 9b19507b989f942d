//! `cargo xtask bench engine`: decode, replay and memory, beside a peer's in the same run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use dovetail_tests::cache;
use serde_json::{Value, json};

use super::report::{build_bench, number, report};
use crate::setup;
use crate::steps::{Steps, cargo, run};

/// What to measure the engine on.
#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// Shapes to measure, of 15m, 110m, 1.1b; the JSON's top level is the last one's.
    #[arg(long, value_delimiter = ',', default_value = "15m,110m,1.1b")]
    shapes: Vec<String>,
    /// Tokens to generate.
    #[arg(long, default_value_t = 256)]
    generate: u32,
    /// Rounds; the best counts.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Leave the peer out: building it takes some minutes.
    #[arg(long)]
    no_peer: bool,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &EngineArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    let bench = steps.step("the engine's bench", build_bench)?;
    let peer = if arguments.no_peer {
        None
    } else {
        Some(steps.step("the peer: llama.cpp, some minutes the first time", peer)?)
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut rows = Vec::new();
    for shape in &arguments.shapes {
        let work = Work {
            bench: &bench,
            shape,
            threads,
            generate: arguments.generate,
            repeat: arguments.repeat,
        };
        rows.push(steps.step(&format!("shape {shape}"), || work.measure(peer.as_ref()))?);
    }
    show(&rows);
    if arguments.json {
        let mut report = rows.last().cloned().context("no shape was named")?;
        report["shapes"] = Value::Array(rows);
        println!("{report}");
    }
    Ok(())
}

/// One shape's work, the same for both.
struct Work<'a> {
    bench: &'a Path,
    shape: &'a str,
    threads: usize,
    generate: u32,
    repeat: u32,
}

impl Work<'_> {
    fn measure(&self, peer: Option<&PathBuf>) -> anyhow::Result<Value> {
        let folder = cache().join("bench");
        std::fs::create_dir_all(&folder)?;
        let model = folder.join(format!("{}.safetensors", self.shape));
        let model_name = model.to_string_lossy().into_owned();
        run(Command::new(self.bench).args(["make", "--shape", self.shape, "--out", &model_name]))?;
        let threads = self.threads.to_string();
        let (generate, repeat) = (self.generate.to_string(), self.repeat.to_string());
        let ours = report(Command::new(self.bench).args([
            "engine",
            "--model",
            &model_name,
            "--threads",
            &threads,
            "--generate",
            &generate,
            "--repeat",
            &repeat,
        ]));
        std::fs::remove_file(&model)?;
        let mut ours = ours?;
        ours["shape"] = json!(self.shape);
        if let Some(peer) = peer {
            let theirs = self.measure_peer(peer)?;
            let ratio = ratio(&ours["decode_tokens_per_s"], &theirs["decode_tokens_per_s"]);
            ours["decode_ratio_vs_peer"] = json!(ratio);
            ours["peer"] = theirs["peer"].clone();
            ours["peer_threads"] = theirs["threads"].clone();
            ours["peer_decode_tokens_per_s"] = theirs["decode_tokens_per_s"].clone();
            ours["peer_prefill_tokens_per_s"] = theirs["prefill_tokens_per_s"].clone();
        }
        Ok(ours)
    }

    /// The peer at its best: small shapes are slower on it with more threads.
    fn measure_peer(&self, peer: &PathBuf) -> anyhow::Result<Value> {
        let (generate, repeat) = (self.generate.to_string(), self.repeat.to_string());
        let mut counts = vec![1, self.threads];
        counts.dedup();
        let mut best: Option<Value> = None;
        for threads in counts {
            let mut theirs = report(
                Command::new(peer)
                    .args(peer_shape(self.shape)?)
                    .args(["--vocabulary", "32000", "--prompt", "256"])
                    .args(["--threads", &threads.to_string()])
                    .args(["--generate", &generate, "--repeat", &repeat]),
            )?;
            theirs["threads"] = json!(threads);
            let speed = |value: &Value| value["decode_tokens_per_s"].as_f64();
            if best
                .as_ref()
                .is_none_or(|best| speed(best) < speed(&theirs))
            {
                best = Some(theirs);
            }
        }
        best.context("the peer was not run")
    }
}

fn ratio(ours: &Value, theirs: &Value) -> Option<f64> {
    Some(ours.as_f64()? / theirs.as_f64()?)
}

/// The sizes of `dovetail-bench`'s shapes, as the peer takes them.
fn peer_shape(shape: &str) -> anyhow::Result<impl Iterator<Item = String>> {
    let sizes: [u32; 6] = match shape {
        "15m" => [6, 288, 768, 6, 6, 512],
        "110m" => [12, 768, 2048, 12, 12, 1024],
        "1.1b" => [22, 2048, 5632, 32, 4, 2048],
        _ => bail!("unknown shape {shape}; there are 15m, 110m and 1.1b"),
    };
    let names = ["layers", "dim", "hidden", "heads", "kv-heads", "context"];
    let arguments = names.into_iter().zip(sizes);
    Ok(arguments.flat_map(|(name, size)| [format!("--{name}"), size.to_string()]))
}

/// Builds the peer, which has a workspace of its own.
fn peer() -> anyhow::Result<PathBuf> {
    setup::install(setup::FOR_THE_PEER)?;
    let target = cache().join("engine-peer-target");
    run(cargo(&["build", "--release", "--quiet", "--locked"])
        .current_dir(dovetail_tests::root().join("crates").join("engine-peer"))
        .env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join("release").join("dovetail-engine-peer"))
}

fn show(rows: &[Value]) {
    eprintln!(
        "\n{:>6} {:>12} {:>12} {:>8} {:>12} {:>12} {:>8} {:>8}",
        "shape", "decode t/s", "peer t/s", "ratio", "prefill t/s", "peer t/s", "replay", "memory"
    );
    for row in rows {
        let number = |key, digits| number(row, key, digits);
        eprintln!(
            "{:>6} {:>12} {:>12} {:>8} {:>12} {:>12} {:>8} {:>8}",
            row["shape"].as_str().unwrap_or("-"),
            number("decode_tokens_per_s", 1),
            number("peer_decode_tokens_per_s", 1),
            number("decode_ratio_vs_peer", 2),
            number("prefill_tokens_per_s", 1),
            number("peer_prefill_tokens_per_s", 1),
            number("replay_cost_ratio", 3),
            number("memory_ratio", 2),
        );
    }
    eprintln!("replay: its cost over generating; memory: peak over weights and cache");
}
