//! Work whose time is taken: greedy completions side by side, and their replay. It is the way that tasks and
//! audits take through the engine; what the times come to is for others to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::{SamplingParams, StopSequences};

use crate::completion::{Output, Request};
use crate::generation::{Generation, step};
use crate::replay::{ReplayInput, replay};
use crate::{EngineError, Model, Runtime};

/// How much work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Completions side by side.
    pub sequences: usize,
    /// Tokens of each prompt, 1 at least.
    pub prompt_tokens: usize,
    /// Tokens to generate in each, 1 at least.
    pub output_tokens: u32,
}

/// Completions that were generated, and how long it took.
pub struct Run {
    model: Arc<Model>,
    inputs: Vec<ReplayInput>,
    outputs: Vec<Output>,
    /// Until all had their first token: the prompts are in.
    pub until_first: Duration,
    /// From there to the end.
    pub after_first: Duration,
}

/// A replay gave other bits than the generation: a fault of the engine or of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the replay gave other bits than the generation; do not serve models on this machine")]
pub struct ReplayDiffers;

/// A model for measuring only: its outputs never end of themselves, so that each is as long as it should be.
pub fn endless(mut model: Model) -> Arc<Model> {
    model.manifest.end_tokens.clear();
    Arc::new(model)
}

/// Generates. Each sequence has a prompt of its own, which says nothing.
///
/// # Errors
/// [`EngineError`] where the load does not fit the model's context or the bounds of sampling.
pub fn generate(runtime: &Runtime, model: &Arc<Model>, load: Load) -> Result<Run, EngineError> {
    let requests: Vec<Request> = (0..load.sequences)
        .map(|sequence| request(model, load, sequence))
        .collect();
    let generations = requests.iter();
    let mut generations = generations
        .map(|request| Generation::new(model, request.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut go_on = |until: fn(&Generation) -> bool| {
        let begun = Instant::now();
        while !generations.iter().all(until) {
            step(runtime, &mut generations.iter_mut().collect::<Vec<_>>());
        }
        begun.elapsed()
    };
    let until_first = go_on(|generation| !generation.tokens().is_empty());
    let after_first = go_on(Generation::is_finished);
    let outputs: Vec<Output> = generations.into_iter().map(Generation::finish).collect();
    let inputs = requests.into_iter().zip(&outputs);
    let inputs = inputs.map(|(request, output)| ReplayInput {
        request,
        tokens: output.tokens.clone(),
    });
    Ok(Run {
        inputs: inputs.collect(),
        outputs,
        until_first,
        after_first,
        model: Arc::clone(model),
    })
}

fn request(model: &Model, load: Load, sequence: usize) -> Request {
    let vocabulary = model.manifest().architecture.vocabulary;
    let token = |position: usize| {
        let token = (position + 1) * (2 * sequence + 31) % vocabulary;
        u32::try_from(token).unwrap_or(0)
    };
    Request {
        prompt_tokens: (0..load.prompt_tokens).map(token).collect(),
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: load.output_tokens,
        },
        seed: [1; 32],
        stop: StopSequences::default(),
        constraint: None,
    }
}

impl Run {
    /// Tokens that were generated in [`Run::after_first`], of all sequences together.
    pub fn decoded_tokens(&self) -> usize {
        let tokens = self.outputs.iter().map(|output| output.tokens.len());
        tokens.map(|tokens| tokens.saturating_sub(1)).sum()
    }

    /// All of it.
    pub fn time(&self) -> Duration {
        self.until_first + self.after_first
    }

    /// Tokens of prompts and outputs together.
    pub fn positions(&self) -> usize {
        let prompts = self
            .inputs
            .iter()
            .map(|input| input.request.prompt_tokens.len());
        let outputs = self.outputs.iter().map(|output| output.tokens.len());
        prompts.chain(outputs).sum()
    }

    /// Replays all of it, as an audit does, and returns how long that took.
    ///
    /// # Errors
    /// [`ReplayDiffers`].
    pub fn replay(&self, runtime: &Runtime) -> Result<Duration, ReplayDiffers> {
        let begun = Instant::now();
        let replayed = replay(runtime, &self.model, &self.inputs);
        let time = begun.elapsed();
        let mut pairs = replayed.iter().zip(&self.outputs);
        if pairs
            .all(|(replayed, output)| replayed.as_ref().is_ok_and(|replayed| replayed == output))
        {
            Ok(time)
        } else {
            Err(ReplayDiffers)
        }
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, positions) = (self.outputs.len(), self.positions());
        write!(f, "Run({count} completions, {positions} positions)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_as_long_as_it_should_be_and_the_replay_counts_all_of_it() {
        let model = endless(Model::from_bytes(&crate::tiny::generate(1)).unwrap());
        let runtime = Runtime::new(1).unwrap();
        let mut load = Load {
            sequences: 3,
            prompt_tokens: 20,
            output_tokens: 12,
        };
        let mut run = generate(&runtime, &model, load).unwrap();
        assert_eq!((run.decoded_tokens(), run.positions()), (3 * 11, 3 * 32));
        assert!(run.outputs[0] != run.outputs[1]);
        assert!(run.replay(&runtime).is_ok());
        run.outputs[1].tokens[3] ^= 1;
        assert_eq!(run.replay(&runtime), Err(ReplayDiffers));
        load.prompt_tokens = 2000;
        assert!(generate(&runtime, &model, load).is_err());
    }
}
