//! How fast the engine generates and replays.

use std::sync::Arc;
use std::time::Instant;

use dovetail_commitment::{SamplingParams, StopSequences};
use dovetail_engine::{Claim, EngineError, Generation, Model, Request, Runtime, replay};
use serde::Serialize;

use crate::memory::peak_rss_bytes;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) prompt: usize,
    pub(crate) generate: u32,
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
/// If the model's context is too short for the work.
pub(crate) fn measure(
    model: &Arc<Model>,
    threads: usize,
    work: &Work,
) -> Result<Measured, EngineError> {
    let runtime = Runtime::new(threads)?;
    let rounds = (0..work.repeat.max(1))
        .map(|_| round(&runtime, model, work))
        .collect::<Result<Vec<_>, _>>()?;
    let best = |value: fn(&Round) -> f64| rounds.iter().map(value).fold(f64::INFINITY, f64::min);
    let arch = &model.manifest().architecture;
    let positions = work.prompt + work.generate as usize;
    let cache_bytes = (positions * arch.cache_bytes_per_position()) as u64;
    let weights_bytes = model.memory_bytes() as u64;
    let peak = peak_rss_bytes();
    #[allow(clippy::cast_precision_loss)]
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

fn round(runtime: &Runtime, model: &Arc<Model>, work: &Work) -> Result<Round, EngineError> {
    let greedy = |tokens: Vec<u32>, max_tokens| Request {
        prompt_tokens: tokens,
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens,
        },
        seed: [1; 32],
        stop: StopSequences::default(),
    };
    let begun = Instant::now();
    let request = greedy(vec![5; work.prompt.max(1)], work.generate);
    let mut generation = Generation::new(model, request.clone())?;
    generation.next_token(runtime);
    let decoding = Instant::now();
    while generation.next_token(runtime).is_some() {}
    let generate_s = begun.elapsed().as_secs_f64();
    let output = generation.finish();
    // One token came with the prompt.
    let decoded = output.tokens.len().saturating_sub(1).max(1);
    #[allow(clippy::cast_precision_loss)]
    let decode_s_per_token = decoding.elapsed().as_secs_f64() / decoded as f64;

    let claim = Claim {
        request,
        tokens: output.tokens.clone(),
    };
    let begun = Instant::now();
    let replayed = replay(runtime, model, &[claim]);
    let replay_s = begun.elapsed().as_secs_f64();
    assert!(
        matches!(&replayed[..], [Ok(replayed)] if *replayed == output),
        "the replay gave other bits than the generation"
    );

    let prompt = vec![7; 256.min(model.context_tokens() - 1)];
    let begun = Instant::now();
    let mut prefill = Generation::new(model, greedy(prompt.clone(), 1))?;
    prefill.next_token(runtime);
    #[allow(clippy::cast_precision_loss)]
    let prefill_s_per_token = begun.elapsed().as_secs_f64() / prompt.len() as f64;
    Ok(Round {
        decode_s_per_token,
        prefill_s_per_token,
        generate_s,
        replay_s,
    })
}
