//! How long an agent waits for tokens: answers through a pool and its worker, over gRPC and over HTTP, each beside the same
//! answer of the engine alone in this process. All take turns, so that what else the machine does hits all.

mod http;
pub(crate) mod idle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_agent::{AgentClient, Question};
use dovetail_clerk::{World, documents};
use dovetail_commitment::{ModelId, SamplingParams, StopSequences};
use dovetail_engine::{Generation, Model, Prefixes, Request, Runtime, step};
use serde::Serialize;

use crate::percentile::percentile;

/// What a worker keeps of prompts, as it is set up.
const PREFIX_BYTES_MAX: usize = 256 << 20;
/// Answers before the first one that counts: connections are made, and memory is taken.
const WARM_UP: usize = 3;
/// The documents' seed.
const SEED: u64 = 1;

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct Work {
    /// The gRPC address of a pool with one model, whose worker runs nothing else and has answered nothing yet.
    #[arg(long)]
    pool: String,
    /// Answers that count.
    #[arg(long, default_value_t = 100)]
    tasks: usize,
    /// Tokens of each answer at most.
    #[arg(long, default_value_t = 64)]
    generate: u32,
}

/// What it took, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    kernel: &'static str,
    threads: usize,
    model: String,
    tasks: usize,
    output_tokens: usize,
    /// From the agent's call to the first token that it has.
    ttft_ms_p50: f64,
    ttft_ms_p99: f64,
    /// From the prompt's text to the first token.
    engine_ttft_ms_p50: f64,
    engine_ttft_ms_p99: f64,
    /// What the way through the pool adds to the first token: the median of all pairs.
    overhead_ttft_ms: f64,
    /// And to each token after it.
    overhead_ms_per_token: f64,
    /// The same of as many other answers over HTTP, as a stream: from the request to the first text.
    http_ttft_ms_p50: f64,
    http_ttft_ms_p99: f64,
    http_overhead_ttft_ms: f64,
    http_overhead_ms_per_token: f64,
    /// What the engine alone takes for each token after the first: the median.
    engine_ms_per_token: f64,
}

/// One answer.
struct Timed {
    tokens: Vec<u32>,
    until_first: Duration,
    /// From the first token to the last one.
    after_first: Duration,
}

/// Asks, one task after the other.
///
/// # Errors
/// If the pool does not answer, or with other tokens than the engine.
pub(crate) fn measure(model: &Arc<Model>, threads: usize, work: &Work) -> anyhow::Result<Measured> {
    ensure!(work.tasks > 0, "at least one task has to be asked");
    let mut alone = Alone {
        runtime: Runtime::new(threads)?,
        model: Arc::clone(model),
        prefixes: Prefixes::new(PREFIX_BYTES_MAX),
    };
    let sampling = likeliest(work.generate);
    // The connection lives on a thread of its own: it is at rest while the engine alone runs.
    let connection = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let client = connection.block_on(AgentClient::connect(&work.pool))?;
    let mut over_http = connection.block_on(http::Client::connect(&work.pool))?;
    let (mut pairs, mut http_pairs) = (Vec::new(), Vec::new());
    // Invoices and stock sheets, none of them twice: a worker keeps what it has computed of a prompt.
    let documents = documents(SEED, World::Unseen, 2 * (WARM_UP + work.tasks));
    for (number, document) in documents.enumerate() {
        let by_engine = alone.answer(&document.prompt, sampling)?;
        let pair = if number % 2 == 0 {
            let asked = ask(&client, model.id(), &document.prompt, sampling);
            let by_pool = connection.block_on(asked)?;
            ensure!(
                by_pool.tokens == by_engine.tokens,
                "the pool gave other tokens than the engine"
            );
            (by_pool, by_engine)
        } else {
            let asked = over_http.ask(model, &document.prompt, sampling);
            let (by_pool, text) = connection.block_on(asked)?;
            ensure!(
                text.as_bytes() == model.decode(&by_engine.tokens),
                "the pool gave another text than the engine"
            );
            (by_pool, by_engine)
        };
        if number >= 2 * WARM_UP {
            match number % 2 {
                0 => pairs.push(pair),
                _ => http_pairs.push(pair),
            }
        }
    }
    Ok(summary(&alone, work, &pairs, &http_pairs))
}

/// The likeliest token each time, up to so many.
fn likeliest(max_tokens: u32) -> SamplingParams {
    SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1000,
        max_tokens,
    }
}

/// Sorted values of pairs.
fn sorted(pairs: &[(Timed, Timed)], value: impl Fn(&(Timed, Timed)) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = pairs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn first_overhead((pool, engine): &(Timed, Timed)) -> f64 {
    ms(pool.until_first) - ms(engine.until_first)
}

fn overhead_per_token((pool, engine): &(Timed, Timed)) -> f64 {
    (ms(pool.after_first) - ms(engine.after_first)) / engine.tokens_after_first()
}

fn summary(
    alone: &Alone,
    work: &Work,
    pairs: &[(Timed, Timed)],
    http_pairs: &[(Timed, Timed)],
) -> Measured {
    let by_pool = sorted(pairs, |(pool, _)| ms(pool.until_first));
    let by_engine = sorted(pairs, |(_, engine)| ms(engine.until_first));
    let by_http = sorted(http_pairs, |(http, _)| ms(http.until_first));
    let each_by_engine = sorted(pairs, |(_, engine)| {
        ms(engine.after_first) / engine.tokens_after_first()
    });
    let median = |values: &[f64]| percentile(values, 50);
    Measured {
        kernel: alone.runtime.kernel().name(),
        threads: alone.runtime.threads(),
        model: alone.model.name().to_owned(),
        tasks: work.tasks,
        output_tokens: pairs.iter().map(|(pool, _)| pool.tokens.len()).sum(),
        ttft_ms_p50: percentile(&by_pool, 50),
        ttft_ms_p99: percentile(&by_pool, 99),
        engine_ttft_ms_p50: percentile(&by_engine, 50),
        engine_ttft_ms_p99: percentile(&by_engine, 99),
        overhead_ttft_ms: median(&sorted(pairs, first_overhead)),
        overhead_ms_per_token: median(&sorted(pairs, overhead_per_token)),
        http_ttft_ms_p50: median(&by_http),
        http_ttft_ms_p99: percentile(&by_http, 99),
        http_overhead_ttft_ms: median(&sorted(http_pairs, first_overhead)),
        http_overhead_ms_per_token: median(&sorted(http_pairs, overhead_per_token)),
        engine_ms_per_token: median(&each_by_engine),
    }
}

impl Timed {
    fn tokens_after_first(&self) -> f64 {
        self.tokens.len().saturating_sub(1).max(1) as f64
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The engine as a worker runs it, with nothing around it.
struct Alone {
    runtime: Runtime,
    model: Arc<Model>,
    prefixes: Prefixes,
}

impl Alone {
    fn answer(&mut self, prompt: &str, sampling: SamplingParams) -> anyhow::Result<Timed> {
        let begun = Instant::now();
        let request = Request {
            prompt_tokens: self.model.encode(prompt.as_bytes())?,
            sampling,
            // Whoever takes the likeliest token draws none.
            seed: [0; 32],
            stop: StopSequences::default(),
            constraint: None,
        };
        let mut generation = Generation::new(&self.model, request)?;
        generation.reuse(&mut self.prefixes);
        let mut clock = Clock::start(begun);
        while !generation.is_finished() {
            let given = step(&self.runtime, &mut [&mut generation]);
            if generation.tokens().len() == 1 {
                generation.keep_prompt(&mut self.prefixes);
            }
            if given.iter().any(Option::is_some) {
                clock.token();
            }
        }
        clock.stop(generation.finish().tokens)
    }
}

async fn ask(
    client: &AgentClient,
    model: ModelId,
    prompt: &str,
    sampling: SamplingParams,
) -> anyhow::Result<Timed> {
    let mut clock = Clock::start(Instant::now());
    let question = Question::new(model, prompt.as_bytes().to_vec(), sampling);
    let mut answer = client.ask(question).await?;
    let mut count = 0;
    while answer.next().await?.is_some() {
        if answer.tokens().len() > count {
            count = answer.tokens().len();
            clock.token();
        }
    }
    clock.stop(answer.tokens().to_vec())
}

/// Takes the times of an answer.
struct Clock {
    begun: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Clock {
    fn start(begun: Instant) -> Self {
        Self {
            begun,
            first: None,
            last: begun,
        }
    }

    /// Tokens have come.
    fn token(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
    }

    fn stop(self, tokens: Vec<u32>) -> anyhow::Result<Timed> {
        let first = self.first.context("an answer has no token")?;
        Ok(Timed {
            until_first: first - self.begun,
            after_first: self.last - first,
            tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values_and_the_highest_at_the_end() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let at = |percent| percentile(&values, percent);
        assert_eq!((at(50), at(99), at(100)), (100.0, 198.0, 200.0));
        assert_eq!(percentile(&[7.0], 50), 7.0);
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn the_pools_way_is_measured_against_the_engine_pair_by_pair() {
        let timed = |first: u64, rest: u64, tokens: usize| Timed {
            tokens: vec![1; tokens],
            until_first: Duration::from_millis(first),
            after_first: Duration::from_millis(rest),
        };
        let pairs = [
            (timed(12, 30, 11), timed(10, 20, 11)),
            // A slow moment of the machine, which both had.
            (timed(104, 220, 11), timed(100, 200, 11)),
            (timed(13, 20, 1), timed(10, 20, 1)),
        ];
        let model = Model::from_bytes(&dovetail_engine::tiny::generate(1)).unwrap();
        let alone = Alone {
            runtime: Runtime::new(1).unwrap(),
            model: Arc::new(model),
            prefixes: Prefixes::new(0),
        };
        let work = Work {
            pool: String::new(),
            tasks: pairs.len(),
            generate: 11,
        };
        let http_pairs = [(timed(15, 40, 11), timed(10, 20, 11))];
        let measured = summary(&alone, &work, &pairs, &http_pairs);
        assert_eq!((measured.tasks, measured.output_tokens), (3, 23));
        assert_eq!((measured.ttft_ms_p50, measured.ttft_ms_p99), (13.0, 104.0));
        assert_eq!(measured.engine_ttft_ms_p50, 10.0);
        assert!((measured.overhead_ttft_ms - 3.0).abs() < 1e-9);
        assert!((measured.overhead_ms_per_token - 1.0).abs() < 1e-9);
        assert_eq!(
            (measured.http_ttft_ms_p50, measured.http_ttft_ms_p99),
            (15.0, 15.0)
        );
        assert!((measured.http_overhead_ttft_ms - 5.0).abs() < 1e-9);
        assert!((measured.http_overhead_ms_per_token - 2.0).abs() < 1e-9);
        assert!((measured.engine_ms_per_token - 20.0).abs() < 1e-9);
    }
}
