//! What an audit costs: replaying a worker's batch, over generating it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use dovetail_audit::{Evidence, replay, sample, sample_size};
use dovetail_commitment::{
    HeaderHash, SamplingParams, StopSequences, TaskId, Transcript, WorkerKey, output_digest,
    prompt_commitment, tagged_hash, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Generation, Model, Request, Runtime, step};
use serde::Serialize;

/// More audited transcripts than any worker needs to be at the floor.
const TRUSTED: u64 = u64::MAX;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Transcripts of the batch, 1 to 64.
    pub(crate) transcripts: usize,
    /// Bytes of each prompt.
    pub(crate) prompt: usize,
    /// Tokens of each output.
    pub(crate) generate: u32,
    /// Tasks that the worker runs side by side.
    pub(crate) side_by_side: usize,
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
    /// Replaying the least that is ever sampled.
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
    let mut evidence = Vec::new();
    let mut prompt_tokens = 0;
    let floor_transcripts = sample_size(TRUSTED, work.transcripts);
    for round in 0..work.repeat.max(1) {
        let begun = Instant::now();
        (evidence, prompt_tokens) = generate(&runtime, model, work)?;
        generate_s = generate_s.min(begun.elapsed().as_secs_f64());
        full_s = full_s.min(replay_s(&runtime, model, &evidence)?);
        let header = HeaderHash::from_bytes(tagged_hash("bench", &[&round.to_le_bytes()]));
        let sampled = sample(&header, &[7; 32], evidence.len(), floor_transcripts);
        let sampled: Vec<Evidence> = sampled.iter().map(|at| evidence[*at].clone()).collect();
        floor_s = floor_s.min(replay_s(&runtime, model, &sampled)?);
    }
    Ok(Measured {
        kernel: runtime.kernel().name(),
        threads: runtime.threads(),
        parameters: model.manifest().architecture.parameters(),
        transcripts: work.transcripts,
        prompt_tokens,
        output_tokens: evidence.iter().map(|one| one.output_tokens.len()).sum(),
        side_by_side: work.side_by_side,
        generate_s,
        full_replay_s: full_s,
        floor_replay_s: floor_s,
        floor_transcripts,
        replay_seconds_per_generated_second: full_s / generate_s,
        replay_seconds_per_generated_second_at_floor: floor_s / generate_s,
    })
}

fn replay_s(runtime: &Runtime, model: &Model, evidence: &[Evidence]) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let verdicts = replay(runtime, model, evidence);
    let seconds = begun.elapsed().as_secs_f64();
    if verdicts.iter().any(Result::is_err) {
        bail!("the replay gave other bits than the generation");
    }
    Ok(seconds)
}

/// A batch as a worker makes it: so many tasks at a time, a new one as soon as one has ended. Also returns
/// how many tokens the prompts have.
fn generate(
    runtime: &Runtime,
    model: &Arc<Model>,
    work: &Work,
) -> anyhow::Result<(Vec<Evidence>, usize)> {
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: work.generate,
    };
    let number = |at: usize| tagged_hash("bench", &[&at.to_le_bytes()]);
    let mut prompt_tokens = 0;
    let mut open: Vec<(usize, Vec<u8>, Generation)> = Vec::new();
    let mut evidence = Vec::with_capacity(work.transcripts);
    let mut next = 0;
    while next < work.transcripts || !open.is_empty() {
        while next < work.transcripts && open.len() < work.side_by_side.max(1) {
            let mut prompt = format!("{next}: an invoice with some lines of text, ").into_bytes();
            prompt = prompt
                .into_iter()
                .cycle()
                .take(work.prompt.max(1))
                .collect();
            let tokens = model.encode(&prompt).context("the prompt is too long")?;
            prompt_tokens += tokens.len();
            let request = Request {
                prompt_tokens: tokens,
                sampling,
                seed: number(next),
                stop: StopSequences::default(),
            };
            open.push((next, prompt, Generation::new(model, request)?));
            next += 1;
        }
        let mut generations: Vec<&mut Generation> = open
            .iter_mut()
            .map(|(_, _, generation)| generation)
            .collect();
        step(runtime, &mut generations);
        let (ended, running): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|(_, _, generation)| generation.is_finished());
        open = running;
        for (at, prompt, generation) in ended {
            let output = generation.finish();
            let (salt, stop) = ([4; 32], StopSequences::default());
            evidence.push(Evidence {
                transcript: Transcript {
                    task_id: TaskId::from_bytes(number(at)),
                    worker_key: WorkerKey::from_bytes([2; 32]),
                    model_id: model.id(),
                    engine_version: ENGINE_VERSION,
                    prompt_commitment: prompt_commitment(&salt, &stop, &prompt),
                    sampling,
                    seed: number(at),
                    output_tokens: u32::try_from(output.tokens.len())?,
                    output_digest: output_digest(&output.tokens),
                    trace_root: trace_root(&output.trace),
                    finish_reason: output.finish_reason,
                },
                salt,
                prompt,
                stop,
                output_tokens: output.tokens,
            });
        }
    }
    Ok((evidence, prompt_tokens))
}
