//! Runs a model file in llama.cpp and takes the time: a prompt in one batch, then token by token.
//!
//! llama.cpp keeps its own defaults (an f16 key-value cache, flash attention where it thinks it helps,
//! micro-batches of 512), since those are what it is tuned for; only the number of threads is ours.

use crate::random::Random;
use crate::shape::Shape;
use anyhow::{Context, Result, ensure};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Threads for both the prompt and the tokens after it.
    pub threads: u16,
    /// Random tokens before the first generated one.
    pub prompt: u32,
    /// Tokens decoded one after the other, each the likeliest after the last.
    pub generate: u32,
    /// Runs, of which the best counts, for prompt and generation each on its own.
    pub repeat: u32,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Generated tokens per second; a token's time holds its logits and the greedy choice.
    pub decode_tokens_per_s: f64,
    /// Prompt tokens per second; their time holds the choice of the first token after them.
    pub prefill_tokens_per_s: f64,
    /// Bytes of the model's tensors, as llama.cpp counts them.
    pub model_bytes: u64,
}

/// Loads the model file at `path`, which is mapped: its name may be deleted then, its bytes not be changed.
///
/// # Errors
/// If llama.cpp refuses the file; its log says why.
pub fn load(backend: &LlamaBackend, path: &Path) -> Result<LlamaModel> {
    LlamaModel::load_from_file(backend, path, &LlamaModelParams::default())
        .context("llama.cpp does not load the model file; --log shows its reasons")
}

/// Measures a model of `shape`.
///
/// A run of the whole prompt and one token comes first and does not count: it brings the file's pages
/// into memory, as in llama.cpp's own benchmark.
///
/// # Errors
/// If llama.cpp refuses the context or a batch (its log says why), or if the model's logits are no numbers.
pub fn measure(
    backend: &LlamaBackend,
    model: &LlamaModel,
    shape: &Shape,
    plan: &Plan,
) -> Result<Speed> {
    let threads = i32::from(plan.threads);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(shape.context))
        .with_n_batch(plan.prompt)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let context = model
        .new_context(backend, params)
        .context("llama.cpp makes no context for the model; --log shows its reasons")?;
    let mut session = Session::new(context, plan.prompt, shape.vocabulary)?;

    session.run(1).context("the run that warms up")?;
    let mut best = session.run(plan.generate)?;
    for _ in 1..plan.repeat {
        let times = session.run(plan.generate)?;
        best.prefill = best.prefill.min(times.prefill);
        best.decode = best.decode.min(times.decode);
    }
    let per_second = |tokens: u32, time: Duration| f64::from(tokens) / time.as_secs_f64();
    Ok(Speed {
        decode_tokens_per_s: per_second(plan.generate, best.decode),
        prefill_tokens_per_s: per_second(plan.prompt, best.prefill),
        model_bytes: model.size(),
    })
}

/// How long one run took.
struct Times {
    prefill: Duration,
    decode: Duration,
}

/// A context and the prompt that each run begins with.
struct Session<'model> {
    context: LlamaContext<'model>,
    prompt: LlamaBatch<'static>,
    step: LlamaBatch<'static>,
}

impl<'model> Session<'model> {
    fn new(context: LlamaContext<'model>, prompt_tokens: u32, vocabulary: u32) -> Result<Self> {
        let mut random = Random::new(2);
        let tokens = (0..prompt_tokens)
            .map(|_| Ok(LlamaToken::new(random.below(vocabulary).try_into()?)))
            .collect::<Result<Vec<_>>>()?;
        let mut prompt = LlamaBatch::new(tokens.len(), 1);
        prompt.add_sequence(&tokens, 0, false)?;
        Ok(Self {
            context,
            prompt,
            step: LlamaBatch::new(1, 1),
        })
    }

    /// The prompt, then `generate` tokens, from an empty key-value cache.
    fn run(&mut self, generate: u32) -> Result<Times> {
        self.context.clear_kv_cache();
        let start = Instant::now();
        self.context
            .decode(&mut self.prompt)
            .context("llama.cpp refuses the prompt")?;
        let prompt_tokens = self.prompt.n_tokens();
        let mut token = likeliest(self.context.get_logits_ith(prompt_tokens - 1))?;
        let prefill = start.elapsed();

        let start = Instant::now();
        for position in (prompt_tokens..).take(usize::try_from(generate)?) {
            self.step.clear();
            self.step.add(token, position, &[0], true)?;
            self.context
                .decode(&mut self.step)
                .context("llama.cpp refuses a token")?;
            token = likeliest(self.context.get_logits_ith(0))?;
        }
        let decode = start.elapsed();
        Ok(Times { prefill, decode })
    }
}

/// The token of the greatest logit, the first of equals.
///
/// By hand and in lanes, since llama.cpp's own sampler copies the vocabulary for every token, which a
/// small model would notice.
fn likeliest(logits: &[f32]) -> Result<LlamaToken> {
    const LANES: usize = 16;
    let (groups, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for group in groups {
        for (lane, logit) in lanes.iter_mut().zip(group) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    let greatest = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    ensure!(
        greatest.is_finite(),
        "the greatest logit is {greatest}, no finite number"
    );
    let token = logits
        .iter()
        .position(|logit| *logit == greatest)
        .context("the greatest logit is none of the logits")?;
    Ok(LlamaToken::new(i32::try_from(token)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::SMALL;
    use crate::weights::write_model;

    #[test]
    fn the_likeliest_token_is_the_first_with_the_greatest_logit() {
        let mut logits = vec![-1.5_f32; 37];
        logits[20] = 2.0;
        logits[36] = 2.0;
        assert_eq!(likeliest(&logits).expect("numbers"), LlamaToken::new(20));
        logits[36] = 3.0;
        assert_eq!(likeliest(&logits).expect("numbers"), LlamaToken::new(36));
        assert!(likeliest(&[f32::NAN; 40]).is_err());
        assert!(likeliest(&[]).is_err());
    }

    #[test]
    fn llama_cpp_runs_a_random_model_to_the_end_of_its_context() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        write_model(&mut file, &SMALL, 1).expect("room for it");
        let mut backend = LlamaBackend::init().expect("the only one in these tests");
        backend.void_logs();
        let plan = Plan {
            threads: 1,
            prompt: 60,
            generate: 4,
            repeat: 2,
        };
        let model = load(&backend, file.path()).expect("a model file");
        file.close().expect("a mapped file needs no name");
        let speed = measure(&backend, &model, &SMALL, &plan).expect("it runs");
        assert!(speed.decode_tokens_per_s > 0.0);
        assert!(speed.prefill_tokens_per_s > 0.0);
        assert!(speed.model_bytes > 0);
    }
}
