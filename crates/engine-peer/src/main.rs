//! `dovetail-engine-peer`: llama.cpp's speed on a random Q8_0 Llama of a given shape, on this machine.
//!
//! Prints one line of JSON; the engine's benchmark runs it beside its own. It knows nothing of Dovetail:
//! no model of ours, no exact arithmetic, no network.

mod gguf;
mod random;
mod shape;
mod speed;
mod weights;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use llama_cpp_2::llama_backend::LlamaBackend;
use serde::Serialize;
use shape::Shape;
use speed::Plan;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Measures llama.cpp on a random Q8_0 Llama of a shape, and prints one line of JSON.
///
/// The model file (a byte and a sixteenth per weight) is written to a folder under TMPDIR and deleted once
/// it is loaded. llama.cpp's threads sleep while they wait for each other; OMP_WAIT_POLICY=active lets them
/// spin, which may be faster on an idle machine and is many times slower on a busy one.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    shape: Shape,
    /// Threads that llama.cpp computes with
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: u16,
    /// Random tokens to read in one batch
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to decode after them, one by one
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    generate: u32,
    /// Runs; the best one counts, for prompt and generation each on its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Let llama.cpp log to stderr
    #[arg(long)]
    log: bool,
}

/// The line that is printed.
#[derive(Debug, Serialize)]
struct Report {
    peer: &'static str,
    decode_tokens_per_s: f64,
    prefill_tokens_per_s: f64,
    model_bytes: u64,
    threads: u16,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    choose_wait_policy()?;
    let shape = arguments.shape.checked()?;
    let plan = Plan {
        threads: arguments.threads,
        prompt: arguments.prompt,
        generate: arguments.generate,
        repeat: arguments.repeat,
    };
    ensure!(
        u64::from(plan.prompt) + u64::from(plan.generate) <= u64::from(shape.context),
        "--prompt {} and --generate {} do not fit --context {}",
        plan.prompt,
        plan.generate,
        shape.context
    );

    let folder = tempfile::tempdir().context("no temporary folder for the model file")?;
    let path = folder.path().join("random-q8_0.gguf");
    write_file(&path, &shape)
        .with_context(|| format!("the model file {} cannot be written", path.display()))?;

    let mut backend = LlamaBackend::init()?;
    if !arguments.log {
        backend.void_logs();
    }
    let model = speed::load(&backend, &path)?;
    // Before the measurement, which may be interrupted: llama.cpp has the file mapped.
    folder.close().context("the model file cannot be deleted")?;
    let speed = speed::measure(&backend, &model, &shape, &plan)?;

    let report = Report {
        peer: env!("DOVETAIL_PEER"),
        decode_tokens_per_s: rounded(speed.decode_tokens_per_s),
        prefill_tokens_per_s: rounded(speed.prefill_tokens_per_s),
        model_bytes: speed.model_bytes,
        threads: plan.threads,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Starts this program anew with a wait policy for llama.cpp's threads, if the environment has none.
///
/// By default they spin at every barrier, several per layer. Where something else wants the cores, each
/// then waits for a thread that is not running, and the peer looks ten times slower than it is. OpenMP
/// reads the variable when it is loaded, before `main`: hence the new start.
fn choose_wait_policy() -> Result<()> {
    const POLICY: &str = "OMP_WAIT_POLICY";
    if std::env::var_os(POLICY).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("this program does not find itself")?;
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(POLICY, "passive")
        .exec();
    Err(error).context("this program cannot be started anew")
}

/// Any seed would do; this one is always the same, so that two runs load the same bytes.
fn write_file(path: &Path, shape: &Shape) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    weights::write_model(&mut file, shape, 1)?;
    file.flush()
}

/// To a thousandth: more digits would be noise.
fn rounded(tokens_per_s: f64) -> f64 {
    (tokens_per_s * 1000.0).round() / 1000.0
}
