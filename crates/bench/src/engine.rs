//! How fast the engine generates and replays.

use std::sync::Arc;
use std::time::Duration;

use dovetail_console::peak_rss_bytes;
use dovetail_engine::speed::{Load, generate};
use dovetail_engine::{Model, Runtime};
use serde::Serialize;

/// What is done.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Work {
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 8)]
    pub(crate) prompt: usize,
    /// Tokens to generate.
    #[arg(long, default_value_t = 256)]
    pub(crate) generate: u32,
    /// Tokens of the long prompt, which is measured alone.
    #[arg(long, default_value_t = 256)]
    pub(crate) prefill: usize,
    /// How often; the best counts, since what else a machine does only ever slows it down.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeat: u32,
}

/// What it took. Times are the best of all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    kernel: &'static str,
    threads: usize,
    parameters: usize,
    /// Tokens generated one after the other, the prompt left out.
    decode_tokens_per_s: f64,
    /// Tokens of a long prompt.
    prefill_tokens_per_s: f64,
    /// Replaying prompt and output, over generating them.
    replay_cost_ratio: f64,
    /// Weights, scales and tables in memory.
    weights_bytes: u64,
    /// Keys and values of the longest sequence.
    cache_bytes: u64,
    peak_rss_bytes: Option<u64>,
    /// Peak over weights and cache.
    memory_ratio: Option<f64>,
}

/// Times of one round, in seconds.
#[derive(Debug, Clone, Copy)]
struct Round {
    decode_s_per_token: f64,
    prefill_s_per_token: f64,
    generate_s: f64,
    replay_s: f64,
}

/// Generates greedily and replays.
///
/// # Errors
/// If the model's context is too short for the work, or the replay gives other bits.
pub(crate) fn measure(model: &Arc<Model>, threads: usize, work: &Work) -> anyhow::Result<Measured> {
    let runtime = Runtime::new(threads)?;
    let rounds = (0..work.repeat.max(1))
        .map(|_| round(&runtime, model, work))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let best = |value: fn(&Round) -> f64| rounds.iter().map(value).fold(f64::INFINITY, f64::min);
    let arch = &model.manifest().architecture;
    let positions = work.prompt + work.generate as usize;
    let cache_bytes = (positions * arch.cache_bytes_per_position()) as u64;
    let weights_bytes = model.memory_bytes() as u64;
    let peak = peak_rss_bytes();
    let memory_ratio = peak.map(|peak| peak as f64 / (weights_bytes + cache_bytes) as f64);
    Ok(Measured {
        kernel: runtime.kernel().name(),
        threads: runtime.threads(),
        parameters: arch.parameters(),
        decode_tokens_per_s: 1.0 / best(|round| round.decode_s_per_token),
        prefill_tokens_per_s: 1.0 / best(|round| round.prefill_s_per_token),
        replay_cost_ratio: best(|round| round.replay_s) / best(|round| round.generate_s),
        weights_bytes,
        cache_bytes,
        peak_rss_bytes: peak,
        memory_ratio,
    })
}

fn round(runtime: &Runtime, model: &Arc<Model>, work: &Work) -> anyhow::Result<Round> {
    let load = Load {
        sequences: 1,
        prompt_tokens: work.prompt.max(1),
        output_tokens: work.generate,
    };
    let run = generate(runtime, model, load)?;
    let replay = run.replay(runtime)?;
    let prompt = Load {
        prompt_tokens: work.prefill.clamp(1, model.context_tokens() - 1),
        output_tokens: 1,
        ..load
    };
    let prefill = generate(runtime, model, prompt)?;
    let per_token = |time: Duration, tokens: usize| time.as_secs_f64() / tokens.max(1) as f64;
    Ok(Round {
        decode_s_per_token: per_token(run.after_first, run.decoded_tokens()),
        prefill_s_per_token: per_token(prefill.until_first, prompt.prompt_tokens),
        generate_s: run.time().as_secs_f64(),
        replay_s: replay.as_secs_f64(),
    })
}
