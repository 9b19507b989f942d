//! `dovetail-worker bench`: how fast this machine runs a model, alone and with several sequences side by
//! side, as a worker does; what memory that takes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_console::{OutputError, peak_rss_bytes, print_line};
use dovetail_engine::speed::{Load, Run, endless, generate};
use dovetail_engine::{Model, Runtime};
use serde::Serialize;

use super::model_choice::ModelChoice;

/// How many sequences are decoded side by side.
const BATCHES: [usize; 3] = [1, 4, 16];

/// Measure how fast this machine runs a model. The best of several rounds counts: what else a machine does only
/// ever slows it down.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    model: ModelChoice,
    /// Threads; 0: one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Tokens of each prompt; fewer where the context is short.
    #[arg(long, default_value_t = 128)]
    prompt: usize,
    /// Tokens to generate in each sequence; likewise.
    #[arg(long, default_value_t = 64)]
    generate: u32,
    /// How often.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    model_id: String,
    parameters: usize,
    kernel: &'static str,
    threads: usize,
    prompt_tokens: usize,
    output_tokens: u32,
    /// Tokens of one prompt.
    prefill_tokens_per_s: f64,
    /// One entry for each count of sequences.
    decode: Vec<Decode>,
    /// Tokens of prompts and outputs, the largest batch replayed together as in an audit.
    replay_tokens_per_s: f64,
    /// Replaying the largest batch, over generating it.
    replay_cost_ratio: f64,
    /// Weights, scales and tables.
    weights_bytes: usize,
    /// Keys and values of one position.
    cache_bytes_per_token: usize,
    /// The most that this process had in memory; none where the system does not say.
    peak_rss_bytes: Option<u64>,
}

/// Sequences that were generated side by side.
#[derive(Debug, Serialize)]
struct Decode {
    sequences: usize,
    /// Of all together, prompts left out.
    tokens_per_s: f64,
}

/// The best times so far of one batch.
struct Best {
    run: Run,
    replay: Duration,
}

/// Measures and prints.
pub(crate) fn run(arguments: &BenchArguments) -> anyhow::Result<()> {
    ensure!(arguments.prompt > 0, "a prompt has at least 1 token");
    let model = endless(arguments.model.load()?);
    let runtime = Runtime::new(arguments.threads)?;
    let report = measure(arguments, &runtime, &model)?;
    if arguments.json {
        print_line(serde_json::to_string(&report)?)?;
    } else {
        print(&report, &model)?;
    }
    Ok(())
}

fn measure(
    arguments: &BenchArguments,
    runtime: &Runtime,
    model: &Arc<Model>,
) -> anyhow::Result<Report> {
    let arch = &model.manifest().architecture;
    let prompt_tokens = arguments.prompt.min(arch.context_tokens / 2).max(1);
    let room = u32::try_from(arch.context_tokens - prompt_tokens).unwrap_or(u32::MAX);
    let output_tokens = arguments.generate.min(room);
    ensure!(
        output_tokens > 1,
        "at least 2 tokens have to be generated, and the context must have room for them"
    );
    let [alone, some, most] = BATCHES.map(|sequences| {
        let load = Load {
            sequences,
            prompt_tokens,
            output_tokens,
        };
        best(arguments.repeat, runtime, model, load)
    });
    let (alone, some, most) = (alone?, some?, most?);
    let decode = BATCHES.into_iter().zip([&alone, &some, &most]);
    Ok(Report {
        model: model.name().to_owned(),
        model_id: model.id().to_string(),
        parameters: arch.parameters(),
        kernel: runtime.kernel().name(),
        threads: runtime.threads(),
        prompt_tokens,
        output_tokens,
        prefill_tokens_per_s: per_second(prompt_tokens, alone.run.until_first),
        replay_tokens_per_s: per_second(most.run.positions(), most.replay),
        replay_cost_ratio: most.replay.as_secs_f64() / most.run.time().as_secs_f64(),
        decode: decode
            .map(|(sequences, best)| Decode {
                sequences,
                tokens_per_s: per_second(best.run.decoded_tokens(), best.run.after_first),
            })
            .collect(),
        weights_bytes: model.memory_bytes(),
        cache_bytes_per_token: arch.cache_bytes_per_position(),
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// The best of each time over some rounds.
fn best(repeat: u32, runtime: &Runtime, model: &Arc<Model>, load: Load) -> anyhow::Result<Best> {
    let mut best: Option<Best> = None;
    for _ in 0..repeat.max(1) {
        let run = generate(runtime, model, load)?;
        let replay = run.replay(runtime)?;
        match &mut best {
            Some(best) => {
                best.run.until_first = best.run.until_first.min(run.until_first);
                best.run.after_first = best.run.after_first.min(run.after_first);
                best.replay = best.replay.min(replay);
            }
            None => best = Some(Best { run, replay }),
        }
    }
    best.context("there is at least one round")
}

fn per_second(tokens: usize, time: Duration) -> f64 {
    let tokens = tokens as f64;
    tokens / time.as_secs_f64().max(1e-9)
}

fn print(report: &Report, model: &Model) -> Result<(), OutputError> {
    let megabytes = |bytes: usize| format!("{:.1} MB", per_million(bytes));
    print_line(format_args!(
        "model      {} ({}), {:.1} M parameters, context of {} tokens",
        report.model,
        report.model_id,
        per_million(report.parameters),
        model.context_tokens()
    ))?;
    print_line(format_args!(
        "kernel     {}, {} threads",
        report.kernel, report.threads
    ))?;
    print_line(format_args!(
        "weights    {}",
        megabytes(report.weights_bytes)
    ))?;
    let cache = report.cache_bytes_per_token;
    print_line(format_args!("cache      {cache} bytes per token"))?;
    if let Some(peak) = report
        .peak_rss_bytes
        .and_then(|peak| usize::try_from(peak).ok())
    {
        print_line(format_args!("peak       {}", megabytes(peak)))?;
    }
    print_line("")?;
    print_line(format_args!("{:<28}{:>12}", "tokens per second", ""))?;
    let line = |what: &str, rate: f64| print_line(format_args!("{what:<28}{rate:>12.1}"));
    line(
        &format!("prompt of {} tokens", report.prompt_tokens),
        report.prefill_tokens_per_s,
    )?;
    for decode in &report.decode {
        let what = match decode.sequences {
            1 => "decode, alone".to_owned(),
            count => format!("decode, {count} side by side"),
        };
        line(&what, decode.tokens_per_s)?;
    }
    let count = report.decode.last().map_or(1, |decode| decode.sequences);
    line(
        &format!("replay of {count} transcripts"),
        report.replay_tokens_per_s,
    )?;
    print_line(format_args!(
        "\nReplaying them took {:.2} of the time that generating them took, and gave the same bits.",
        report.replay_cost_ratio
    ))
}

fn per_million(count: usize) -> f64 {
    let count = count as f64;
    count / 1e6
}
