//! What an audit costs: replaying a worker's batch, over generating it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use dovetail_commitment::{SamplingParams, StopSequences, tagged_hash};
use dovetail_engine::{Generation, Model, Output, ReplayInput, Request, Runtime, replay, step};
use serde::Serialize;

/// At the floor one transcript in this many is replayed on average: 5 %.
const FLOOR_DIVISOR: usize = 20;

/// What is done.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Work {
    /// Transcripts of the batch.
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub(crate) transcripts: usize,
    /// Tokens of each prompt: models of random weights have no text.
    #[arg(long, default_value_t = 64)]
    pub(crate) prompt: usize,
    /// Tokens of each output.
    #[arg(long, default_value_t = 64)]
    pub(crate) generate: u32,
    /// Tasks that the worker runs side by side.
    #[arg(long, default_value_t = 8)]
    pub(crate) side_by_side: usize,
    /// How often; the best counts.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeat: u32,
}

/// What it took. Times are the best of all rounds, in seconds of the same threads.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    kernel: &'static str,
    threads: usize,
    parameters: usize,
    transcripts: usize,
    prompt_tokens: usize,
    output_tokens: usize,
    side_by_side: usize,
    /// Generating the batch as a worker does.
    generate_s: f64,
    /// Replaying all of it, as for a new worker.
    full_replay_s: f64,
    /// Replaying as much as is sampled at the floor, on average and rounded up.
    floor_replay_s: f64,
    floor_transcripts: usize,
    /// At full audit.
    replay_seconds_per_generated_second: f64,
    replay_seconds_per_generated_second_at_floor: f64,
}

/// Generates a batch and replays it, whole and at the floor.
///
/// # Errors
/// If the model's context is too short for the work, or a replay gives other bits.
pub(crate) fn measure(model: &Arc<Model>, threads: usize, work: &Work) -> anyhow::Result<Measured> {
    let runtime = Runtime::new(threads)?;
    let (mut generate_s, mut full_s, mut floor_s) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    let mut output_tokens = 0;
    let floor_transcripts = work.transcripts.div_ceil(FLOOR_DIVISOR);
    for _ in 0..work.repeat.max(1) {
        let begun = Instant::now();
        let batch = generate(&runtime, model, work)?;
        generate_s = generate_s.min(begun.elapsed().as_secs_f64());
        output_tokens = batch.iter().map(|(input, _)| input.tokens.len()).sum();
        full_s = full_s.min(replay_s(&runtime, model, &batch)?);
        floor_s = floor_s.min(replay_s(&runtime, model, &batch[..floor_transcripts])?);
    }
    Ok(Measured {
        kernel: runtime.kernel().name(),
        threads: runtime.threads(),
        parameters: model.manifest().architecture.parameters(),
        transcripts: work.transcripts,
        prompt_tokens: work.transcripts * work.prompt.max(1),
        output_tokens,
        side_by_side: work.side_by_side,
        generate_s,
        full_replay_s: full_s,
        floor_replay_s: floor_s,
        floor_transcripts,
        replay_seconds_per_generated_second: full_s / generate_s,
        replay_seconds_per_generated_second_at_floor: floor_s / generate_s,
    })
}

/// A transcript's input, and what an honest replay of it gives.
type Transcribed = (ReplayInput, Output);

fn replay_s(runtime: &Runtime, model: &Model, batch: &[Transcribed]) -> anyhow::Result<f64> {
    let inputs: Vec<ReplayInput> = batch.iter().map(|(input, _)| input.clone()).collect();
    let begun = Instant::now();
    let replayed = replay(runtime, model, &inputs);
    let seconds = begun.elapsed().as_secs_f64();
    let mut pairs = replayed.into_iter().zip(batch);
    if !pairs.all(|(replayed, (_, output))| replayed.is_ok_and(|replayed| replayed == *output)) {
        bail!("the replay gave other bits than the generation");
    }
    Ok(seconds)
}

/// A batch as a worker makes it: so many tasks at a time, a new one as soon as one has ended.
fn generate(
    runtime: &Runtime,
    model: &Arc<Model>,
    work: &Work,
) -> anyhow::Result<Vec<Transcribed>> {
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: work.generate,
    };
    // Any tokens of the smallest vocabulary, others for each task.
    let token = |task: usize, place: usize| u32::try_from((task * 31 + place * 7) % 200 + 1);
    let mut open: Vec<(Request, Generation)> = Vec::new();
    let mut batch = Vec::with_capacity(work.transcripts);
    let mut next = 0;
    while next < work.transcripts || !open.is_empty() {
        while next < work.transcripts && open.len() < work.side_by_side.max(1) {
            let prompt_tokens = (0..work.prompt.max(1)).map(|place| token(next, place));
            let request = Request {
                prompt_tokens: prompt_tokens.collect::<Result<_, _>>()?,
                sampling,
                seed: tagged_hash("bench", &[&next.to_le_bytes()]),
                stop: StopSequences::default(),
                constraint: None,
            };
            open.push((request.clone(), Generation::new(model, request)?));
            next += 1;
        }
        let mut generations: Vec<&mut Generation> =
            open.iter_mut().map(|(_, generation)| generation).collect();
        step(runtime, &mut generations);
        let (ended, running): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|(_, generation)| generation.is_finished());
        open = running;
        for (request, generation) in ended {
            let output = generation.finish();
            let tokens = output.tokens.clone();
            batch.push((ReplayInput { request, tokens }, output));
        }
    }
    Ok(batch)
}
