//! How fast this pool's validators replay, and what follows: how much a task may ask for, and how large a batch may be.
//!
//! The unit is a model's work, in multiply-adds: a position costs the more the more stand before it. The speed is what
//! replays took that happened, the last ones most; it begins with measurements when a validator comes. Both bounds are
//! for what is *sure* to be too much: near them an audit decides, since no estimate is that good.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dovetail_audit::Evidence;
use dovetail_commitment::{
    EncodedPrompt, FinishReason, ModelId, OUTPUT_TOKENS_MAX, PROMPT_TOKENS_MAX, SamplingParams,
    StopSequences, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
};
use dovetail_engine::{ENGINE_VERSION, Model};

use crate::models::Models;

/// Replays of about this time make the estimate; what lies further back counts ever less.
const WINDOW: Duration = Duration::from_secs(60);
/// Replays of fewer positions say more about what a replay costs besides.
const POSITIONS_MIN: u64 = 32;
/// So many positions are replayed in time by any validator that is worth the name.
const SHORT_POSITIONS: u64 = 1_024;
/// The first measurement of a validator has so many tokens of prompt, and as many of output. Short ones are slower for each
/// position than long ones, so the estimate begins on the safe side.
const PROBE_TOKENS: usize = 32;
/// How many times longer the prompt of the next one is, where this one took too little time to say anything.
const PROBE_GROWTH: usize = 4;
/// A measurement that takes less says more about what a replay costs besides, and about what else the machine did.
pub(super) const PROBE_TIME_MIN: Duration = Duration::from_millis(250);
/// A product of the attention takes some times as long as one of a matrix.
const ATTENTION_FACTOR: u64 = 4;
/// What following a constraint may take besides, at the budget of an answer (`dovetail_guide::ANSWER_STEPS_MAX`). Hostile
/// ones take that long, so it counts for all.
const CONSTRAINT_TIME: Duration = Duration::from_secs(1);
/// And for each token of the answer: a mask may look at every token of the vocabulary, which no step counts.
const MASK_TIME: Duration = Duration::from_millis(1);

/// How much of a transcript is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Tokens of the prompt.
    pub(crate) input: u64,
    /// Tokens of the output.
    pub(crate) output: u64,
    /// Whether it follows a constraint.
    pub(crate) constrained: bool,
}

impl Extent {
    fn of(evidence: &Evidence) -> Self {
        Self {
            input: evidence.prompt.tokens().len() as u64,
            output: evidence.output_tokens.len() as u64,
            constrained: evidence.constraint.is_some(),
        }
    }

    fn positions(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Multiply-adds of replaying it with this model.
    fn work(self, model: &Model) -> u64 {
        let arch = &model.manifest().architecture;
        let positions = self.positions();
        let head = (arch.dim * arch.vocabulary) as u64;
        // A look-up in the embedding is no product.
        let tables = if arch.tied_head { head } else { 2 * head };
        let body = (arch.parameters() as u64).saturating_sub(tables);
        // Every position looks at those before it, with keys and with values.
        let pairs = positions.saturating_mul(positions) / 2;
        let attention = (2 * arch.layers * arch.query_dim()) as u64 * ATTENTION_FACTOR;
        let matrices = positions.saturating_mul(body);
        let logits = self.output.saturating_mul(head);
        let attention = pairs.saturating_mul(attention);
        matrices.saturating_add(logits).saturating_add(attention)
    }
}

/// The task is too large: its replay might not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskTooLarge {
    /// So many tokens are taken, of prompt and output together.
    pub(crate) tokens_max: u64,
}

/// The batch is too large: a replay of all of it would not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchTooCostly;

/// The lengths of the prompts to measure with, as far as the model's context lets them.
pub(super) fn probe_lengths(model: &Model) -> Vec<usize> {
    let quarter = model.manifest().architecture.context_tokens / 4;
    let longest = quarter.clamp(1, PROMPT_TOKENS_MAX);
    let longer = |length: &usize| length.checked_mul(PROBE_GROWTH);
    std::iter::successors(Some(PROBE_TOKENS.min(longest)), longer)
        .take_while(|length| *length <= longest)
        .collect()
}

/// A transcript that no model gave, for a measurement: computing it again costs what an honest one costs, and what
/// comes out of it does not matter.
pub(super) fn probe(model: &Model, length: usize) -> Evidence {
    let arch = &model.manifest().architecture;
    let known = (0..arch.vocabulary as u32).cycle();
    let prompt: Vec<u32> = known.take(length).collect();
    let tokens: Vec<u32> = prompt.iter().copied().take(PROBE_TOKENS).collect();
    let sampling = SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1_000,
        max_tokens: PROBE_TOKENS as u32 + 1,
    };
    let prompt = EncodedPrompt::new(b"a measurement", prompt);
    let prompt = prompt.expect("a text and some tokens are a prompt");
    let (salt, stop) = ([0; 32], StopSequences::default());
    Evidence {
        transcript: Transcript {
            task_id: TaskId::from_bytes([0; 32]),
            worker_key: WorkerKey::from_bytes([0; 32]),
            model_id: model.id(),
            engine_version: ENGINE_VERSION,
            prompt_commitment: prompt_commitment(&salt, &stop, None, &prompt),
            sampling,
            seed: [0; 32],
            output_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            output_digest: output_digest(&tokens),
            trace_root: [0; 32],
            finish_reason: FinishReason::Length,
        },
        salt,
        prompt,
        stop,
        constraint: None,
        output_tokens: tokens,
    }
}

/// What is known of the speed of replays; clones share it.
#[derive(Clone)]
pub(crate) struct ReplayPace {
    models: Models,
    time_max: Duration,
    speeds: Arc<Mutex<HashMap<(usize, ModelId), Speed>>>,
}

/// Work and the time that it took, of the last replays.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    work: u64,
    took: Duration,
}

impl Speed {
    fn note(&mut self, work: u64, took: Duration) {
        self.work = self.work.saturating_add(work);
        self.took = self.took.saturating_add(took);
        while self.took > WINDOW {
            self.work /= 2;
            self.took /= 2;
        }
    }

    fn time_of(self, work: u64) -> Duration {
        let nanos = u128::from(work) * self.took.as_nanos() / u128::from(self.work.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl ReplayPace {
    /// Nothing is known yet; a replay may take `time_max`.
    pub(crate) fn new(models: Models, time_max: Duration) -> Self {
        Self {
            models,
            time_max,
            speeds: Arc::default(),
        }
    }

    /// The model, if it is one whose speed is of interest.
    pub(super) fn model(&self, id: &ModelId) -> Option<Arc<Model>> {
        self.models.get(id)
    }

    /// The validator was measured with this. What was known before is forgotten: else one bad hour would count for as long
    /// as it has all tasks refused, since then nothing is replayed that would show it to be over.
    pub(super) fn measured(
        &self,
        validator: usize,
        model: &ModelId,
        evidence: &[Arc<Evidence>],
        took: Duration,
    ) {
        self.speeds().remove(&(validator, *model));
        self.note(validator, model, evidence, took);
    }

    /// The validator is away. Its speed counts no more, where another one's is known.
    pub(super) fn leave(&self, validator: usize) {
        let mut speeds = self.speeds();
        let of_others = speeds.keys().filter(|(of, _)| *of != validator);
        let known: HashSet<ModelId> = of_others.map(|(_, model)| *model).collect();
        speeds.retain(|(of, model), _| *of != validator || !known.contains(model));
    }

    /// The validator has replayed all of this, and it held: what does not hold may have been computed in part only.
    pub(super) fn note(
        &self,
        validator: usize,
        model: &ModelId,
        evidence: &[Arc<Evidence>],
        took: Duration,
    ) {
        let Some(known) = self.models.get(model) else {
            return;
        };
        let extents = evidence.iter().map(|evidence| Extent::of(evidence));
        let (mut positions, mut work) = (0_u64, 0_u64);
        for extent in extents {
            // What a constraint takes is no matter of the model's speed.
            if extent.constrained {
                return;
            }
            positions = positions.saturating_add(extent.positions());
            work = work.saturating_add(extent.work(&known));
        }
        if positions >= POSITIONS_MIN && work > 0 && took > Duration::ZERO {
            let mut speeds = self.speeds();
            let speed = speeds.entry((validator, *model)).or_default();
            speed.note(work, took);
        }
    }

    /// How long replaying this takes, by the slowest of the validators whose speed is known; `None` if none is.
    pub(crate) fn time_of(&self, model: &ModelId, extents: &[Extent]) -> Option<Duration> {
        let known = self.models.get(model)?;
        let work = extents.iter().map(|extent| extent.work(&known));
        let work = work.fold(0, u64::saturating_add);
        let speeds = self.speeds();
        let of_model = speeds.iter().filter(|((_, of), _)| of == model);
        let slowest = of_model.map(|(_, speed)| speed.time_of(work)).max()?;
        let constrained = extents.iter().filter(|extent| extent.constrained);
        let besides = constrained.map(|extent| {
            let tokens = u32::try_from(extent.output).unwrap_or(u32::MAX);
            CONSTRAINT_TIME.saturating_add(MASK_TIME.saturating_mul(tokens))
        });
        Some(besides.fold(slowest, Duration::saturating_add))
    }

    /// Whether samples of several claims may be replayed in one go: if that takes half of the time for one. Where no speed is
    /// known, only short ones are: a long one must not take the time of others with it.
    pub(super) fn fit_together<'a>(
        &self,
        model: &ModelId,
        evidence: impl Iterator<Item = &'a Arc<Evidence>>,
    ) -> bool {
        let extents: Vec<Extent> = evidence.map(|evidence| Extent::of(evidence)).collect();
        match self.time_of(model, &extents) {
            Some(time) => time <= self.time_max / 2,
            None => {
                let positions = extents.iter().map(|extent| extent.positions());
                positions.fold(0, u64::saturating_add) <= SHORT_POSITIONS
            }
        }
    }

    /// Whether the replay of such a task fits well within the time for one: into half of it. So a task that was admitted is
    /// replayed in time although the speed changes until then.
    ///
    /// # Errors
    /// [`TaskTooLarge`].
    pub(crate) fn check_task(&self, model: &ModelId, task: Extent) -> Result<(), TaskTooLarge> {
        let fits = |extent: Extent| {
            let time = self.time_of(model, &[extent]);
            time.is_none_or(|time| time <= self.time_max / 2)
        };
        if fits(task) {
            return Ok(());
        }
        // Of the same prompt where a shorter output would do, else of a shorter prompt.
        let with = |tokens: u64| Extent {
            input: task.input.min(tokens),
            output: tokens.saturating_sub(task.input),
            ..task
        };
        let (mut least, mut most) = (0, PROMPT_TOKENS_MAX as u64 + u64::from(OUTPUT_TOKENS_MAX));
        while least < most {
            let middle = (least + most).div_ceil(2);
            match fits(with(middle)) {
                true => least = middle,
                false => most = middle - 1,
            }
        }
        Err(TaskTooLarge { tokens_max: least })
    }

    /// Whether all of a batch could be replayed in time, one model after the other. A batch of one transcript is taken in any
    /// case: its task was admitted, and nobody can make it smaller.
    ///
    /// # Errors
    /// [`BatchTooCostly`].
    pub(crate) fn check_batch(&self, batch: &[(ModelId, Extent)]) -> Result<(), BatchTooCostly> {
        let mut by_model: HashMap<ModelId, Vec<Extent>> = HashMap::new();
        for (model, extent) in batch {
            by_model.entry(*model).or_default().push(*extent);
        }
        let times = by_model
            .iter()
            .filter_map(|(model, extents)| self.time_of(model, extents));
        let time = times.fold(Duration::ZERO, Duration::saturating_add);
        if batch.len() > 1 && time > self.time_max {
            return Err(BatchTooCostly);
        }
        Ok(())
    }

    /// As if validator 0 had taken this long for this.
    #[cfg(test)]
    pub(crate) fn assume(&self, model: &ModelId, extents: &[Extent], took: Duration) {
        let known = self.models.get(model).unwrap();
        let work = extents.iter().map(|extent| extent.work(&known)).sum();
        self.speeds().insert((0, *model), Speed { work, took });
    }

    fn speeds(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, ModelId), Speed>> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny_model;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(100);

    fn extent(input: u64, output: u64) -> Extent {
        Extent {
            input,
            output,
            constrained: false,
        }
    }

    /// A pace at which validator 0 takes a second for 100 positions of input and none of output.
    fn pace() -> (ReplayPace, Arc<Model>) {
        let model = tiny_model(1);
        let pace = ReplayPace::new([Arc::clone(&model)].into_iter().collect(), LIMIT);
        pace.assume(&model.id(), &[extent(100, 0)], Duration::from_secs(1));
        (pace, model)
    }

    #[test]
    fn the_speed_follows_the_last_replays_and_one_slow_one_is_no_verdict() {
        let mut speed = Speed::default();
        speed.note(10, Duration::from_secs(10));
        assert_eq!(speed.time_of(7), Duration::from_secs(7));
        // Twice as fast, for a long time.
        for _ in 0..60 {
            speed.note(20, Duration::from_secs(10));
        }
        let now = speed.time_of(100);
        assert!(now < Duration::from_secs(52), "{now:?}");
        // A second of noise in a minute moves it by a few per cent.
        speed.note(0, Duration::from_secs(1));
        assert!(speed.time_of(100) < now.mul_f64(1.07));
    }

    #[test]
    fn a_longer_context_costs_more_for_each_position() {
        let (pace, model) = pace();
        let time = |input| pace.time_of(&model.id(), &[extent(input, 0)]).unwrap();
        assert_eq!(time(100), Duration::from_secs(1));
        assert!(time(1_000) > 11 * time(100));
        // Many short ones cost the sum.
        let many = vec![extent(100, 0); 10];
        let many = pace.time_of(&model.id(), &many).unwrap();
        assert_eq!(many.as_secs(), 10);
        // With a constraint each may take its budget besides.
        let constrained = Extent {
            constrained: true,
            ..extent(100, 0)
        };
        let time = pace.time_of(&model.id(), &[constrained; 2]).unwrap();
        assert_eq!(time, Duration::from_secs(2) + 2 * CONSTRAINT_TIME);
        let answer = |constrained| Extent {
            constrained,
            ..extent(100, 500)
        };
        let time = |constrained| pace.time_of(&model.id(), &[answer(constrained)]).unwrap();
        assert_eq!(time(true), time(false) + CONSTRAINT_TIME + 500 * MASK_TIME);
    }

    #[test]
    fn a_task_fits_into_half_of_the_time_and_a_refusal_names_the_largest_that_does() {
        let (pace, model) = pace();
        let check = |input, output| pace.check_task(&model.id(), extent(input, output));
        assert_eq!(check(500, 100), Ok(()));
        let TaskTooLarge { tokens_max } = check(500, 4_096).unwrap_err();
        assert!(tokens_max > 500, "{tokens_max}");
        assert_eq!(check(500, tokens_max - 500), Ok(()));
        assert_eq!(
            check(500, tokens_max - 499),
            Err(TaskTooLarge { tokens_max })
        );
        // A prompt that is too long by itself.
        let too_long = check(60_000, 1).unwrap_err();
        assert_eq!(check(too_long.tokens_max, 0), Ok(()));
    }

    #[test]
    fn what_was_admitted_is_registered_although_the_validators_became_twice_as_slow() {
        let (pace, model) = pace();
        let largest = pace.check_task(&model.id(), extent(1_000, 4_096));
        let tokens = largest.unwrap_err().tokens_max;
        let task = extent(1_000, tokens - 1_000);
        let batch = |count: usize| vec![(model.id(), task); count];
        // Two of the largest fit, three do not.
        assert_eq!(pace.check_batch(&batch(2)), Ok(()));
        assert_eq!(pace.check_batch(&batch(3)), Err(BatchTooCostly));
        for speed in pace.speeds().values_mut() {
            speed.took *= 2;
        }
        assert_eq!(pace.check_batch(&batch(2)), Err(BatchTooCostly));
        assert_eq!(pace.check_batch(&batch(1)), Ok(()));
        // In no case is a single one refused.
        for speed in pace.speeds().values_mut() {
            speed.took *= 100;
        }
        assert_eq!(pace.check_batch(&batch(1)), Ok(()));
    }

    #[test]
    fn the_slowest_validator_counts_and_without_one_nothing_is_refused() {
        let (pace, model) = pace();
        let whole = [extent(100, 0)];
        let slow = Speed {
            work: extent(100, 0).work(&model),
            took: Duration::from_secs(3),
        };
        pace.speeds().insert((1, model.id()), slow);
        let time = pace.time_of(&model.id(), &whole);
        assert_eq!(time, Some(Duration::from_secs(3)));
        pace.speeds().clear();
        assert_eq!(pace.time_of(&model.id(), &whole), None);
        assert_eq!(pace.check_task(&model.id(), extent(60_000, 4_096)), Ok(()));
        let batch = vec![(model.id(), extent(60_000, 4_096)); 64];
        assert_eq!(pace.check_batch(&batch), Ok(()));
    }

    #[test]
    fn a_validator_that_is_away_counts_no_more_where_another_is_known() {
        let (pace, model) = pace();
        let slow = Speed {
            work: extent(100, 0).work(&model),
            took: Duration::from_secs(3),
        };
        pace.speeds().insert((1, model.id()), slow);
        let time = || pace.time_of(&model.id(), &[extent(100, 0)]);
        pace.leave(1);
        assert_eq!(time(), Some(Duration::from_secs(1)));
        // Of the last one it is better to know what there was.
        pace.leave(0);
        assert_eq!(time(), Some(Duration::from_secs(1)));
    }

    /// Else nothing that is asked for is admitted after it, nor replayed, and the estimate stays what it is.
    #[test]
    fn a_new_measurement_makes_up_for_a_bad_hour() {
        let (pace, model) = pace();
        let evidence = [Arc::new(probe(&model, PROBE_TOKENS))];
        let hour = Duration::from_secs(3_600);
        pace.note(0, &model.id(), &evidence, hour);
        assert!(pace.check_task(&model.id(), extent(500, 100)).is_err());
        pace.measured(0, &model.id(), &evidence, Duration::from_millis(300));
        let measured = [Extent::of(&evidence[0])];
        let time = pace.time_of(&model.id(), &measured);
        assert_eq!(time, Some(Duration::from_millis(300)));
    }

    #[test]
    fn measurements_grow_as_far_as_the_context_lets_them() {
        let model = tiny_model(1);
        let lengths = probe_lengths(&model);
        assert_eq!(lengths, [32, 128]);
        for length in lengths {
            let extent = Extent::of(&probe(&model, length));
            assert_eq!((extent.input, extent.output), (length as u64, 32));
        }
    }
}
