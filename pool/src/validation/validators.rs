//! The validators at work: a task for each, that takes samples from the queue and hands out verdicts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_audit::{Evidence, Verdict};
use dovetail_commitment::ModelId;
use dovetail_engine::Model;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pace::{PROBE_TIME_MIN, ReplayPace, probe, probe_lengths};
use super::queue::{Queue, QueueFull, answer};
use super::sample::{Late, Replayed, Waiting};
use super::{Validator, ValidatorError, Work};

/// The waits before a validator that failed is asked again.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(15);

/// A validator that had nothing to do for so long is measured again.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Bounds of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValidatorsConfig {
    /// How many transcripts may wait.
    pub(crate) queue_max: usize,
    /// How many transcripts of different claims are replayed together.
    pub(crate) batch_max: usize,
    /// How long a validator in another process may take for one replay.
    pub(crate) validator_timeout: Duration,
}

/// A validator, and where it runs.
pub(crate) struct Member {
    pub(crate) validator: Arc<dyn Validator>,
    /// In this process: it cannot be cut off, and steps in only for others.
    pub(crate) is_local: bool,
}

/// Why a sample was not replayed.
#[derive(Debug)]
pub(crate) enum NotReplayed {
    /// Too much waits, or no validator has taken it in time.
    Crowded,
    /// No validator could do it.
    Failed,
    /// It was begun and has not come to an end in time.
    Late(Late),
}

/// The pool's validators; clones share them.
#[derive(Clone)]
pub(crate) struct Validators {
    queue: Arc<Queue>,
    names: ValidatorNames,
    pace: ReplayPace,
}

impl Validators {
    /// Starts a task for each validator; they end at `shutdown`, and what waits then is dropped. How fast they are goes into
    /// `pace`.
    pub(crate) fn start(
        members: Vec<Member>,
        config: ValidatorsConfig,
        pace: ReplayPace,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let queue = Queue::new(config.queue_max, config.batch_max).with_pace(pace.clone());
        let queue = Arc::new(queue);
        let mut names = Vec::with_capacity(members.len());
        for member in members {
            names.push(member.validator.name().to_owned());
            let worker = ValidatorTask {
                number: queue.add_member(member.is_local),
                queue: Arc::clone(&queue),
                pace: pace.clone(),
                // A thread of this process cannot be stopped; the claims that wait for it give up by themselves.
                time_max: (!member.is_local).then_some(config.validator_timeout),
                validator: member.validator,
            };
            let shutdown = shutdown.clone();
            tracker.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = worker.run() => {}
                }
            });
        }
        Self {
            queue,
            names: ValidatorNames(Arc::new(names)),
            pace,
        }
    }

    /// How fast they are.
    pub(crate) fn pace(&self) -> &ReplayPace {
        &self.pace
    }

    /// Has a sample of one model replayed. The replay may take `time_max` from when a validator takes it, and wait as long
    /// before that.
    ///
    /// # Errors
    /// Why it was not.
    pub(crate) async fn replay(
        &self,
        model: ModelId,
        evidence: Vec<Arc<Evidence>>,
        time_max: Duration,
    ) -> Result<Replayed, NotReplayed> {
        let pending = self.queue.push(model, evidence);
        let pending = pending.map_err(|QueueFull| NotReplayed::Crowded)?;
        pending.within(time_max).await
    }

    /// Begins to have one transcript replayed a second time, ahead of all samples, by another validator than the one of this
    /// name. Only a thread of the pool itself may confirm what it has found. There is no time limit here.
    pub(crate) fn confirm(&self, model: ModelId, evidence: Arc<Evidence>, not_by: &str) -> Late {
        let not_by = self.names.of(not_by);
        self.queue.push_first(model, evidence, not_by).late()
    }

    /// What they are called.
    pub(crate) fn names(&self) -> &ValidatorNames {
        &self.names
    }
}

/// What the validators of a pool are called, by their numbers; clones share it.
#[derive(Clone)]
pub(crate) struct ValidatorNames(Arc<Vec<String>>);

impl ValidatorNames {
    /// What the validator of this number is called.
    pub(crate) fn get(&self, number: usize) -> &str {
        self.0.get(number).map_or("", String::as_str)
    }

    fn of(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }
}

/// One validator's work.
struct ValidatorTask {
    number: usize,
    queue: Arc<Queue>,
    pace: ReplayPace,
    validator: Arc<dyn Validator>,
    time_max: Option<Duration>,
}

impl ValidatorTask {
    async fn run(self) {
        let name = self.validator.name();
        let mut wait = *BACKOFF.start();
        loop {
            let serves = match self.in_time(self.validator.describe()).await {
                Ok(serves) => {
                    self.measure(&serves).await;
                    tracing::info!(validator = name, models = serves.len(), "validator at work");
                    self.queue.is_back(self.number, serves.clone());
                    serves
                }
                Err(error) => {
                    tracing::warn!(validator = name, %error, "a validator is away; asking again");
                    sleep(wait).await;
                    wait = (wait * 2).min(*BACKOFF.end());
                    continue;
                }
            };
            let error = self.until_it_fails(&serves, &mut wait).await;
            self.queue.is_away(self.number);
            self.pace.leave(self.number);
            tracing::warn!(validator = name, %error, "a validator failed; its work goes to another");
            // One that answers but fails at every replay is not asked in a tight loop either.
            sleep(wait).await;
            wait = (wait * 2).min(*BACKOFF.end());
        }
    }

    /// Has something short replayed with each model, to know how fast it is. It goes to work without an estimate, too.
    async fn measure(&self, serves: &HashSet<ModelId>) {
        for id in serves {
            let Some(model) = self.pace.model(id) else {
                continue;
            };
            if let Err(error) = self.measure_with(*id, &model).await {
                tracing::warn!(validator = self.validator.name(), model = %id, %error, "the speed of replays is not known yet");
            }
        }
    }

    /// Measures with ever longer prompts, until one takes long enough to say something. That one is replayed twice, and the
    /// faster replay counts: the machine may have had something else to do.
    async fn measure_with(&self, id: ModelId, model: &Model) -> Result<(), ValidatorError> {
        let lengths = probe_lengths(model);
        for (place, length) in lengths.iter().enumerate() {
            let work = Work {
                model: id,
                evidence: vec![Arc::new(probe(model, *length))],
            };
            if place == 0 {
                // The model's weights have yet to come into memory.
                self.time_of(&work).await?;
            }
            let is_last = place + 1 == lengths.len();
            let mut took = self.time_of(&work).await?;
            if took >= PROBE_TIME_MIN || is_last {
                took = took.min(self.time_of(&work).await?);
            }
            if took >= PROBE_TIME_MIN || is_last {
                self.pace.measured(self.number, &id, &work.evidence, took);
                return Ok(());
            }
        }
        Ok(())
    }

    async fn time_of(&self, work: &Work) -> Result<Duration, ValidatorError> {
        let started = Instant::now();
        self.in_time(self.validator.replay(work)).await?;
        Ok(started.elapsed())
    }

    async fn until_it_fails(
        &self,
        serves: &HashSet<ModelId>,
        wait: &mut Duration,
    ) -> ValidatorError {
        loop {
            let taken = timeout(IDLE_MAX, self.queue.take(self.number)).await;
            let Ok((model, taken)) = taken else {
                self.measure(serves).await;
                continue;
            };
            let held = Held {
                task: self,
                taken: Some(taken),
            };
            let work = Work {
                model,
                evidence: held.evidence(),
            };
            let started = Instant::now();
            let replayed = self.in_time(self.validator.replay(&work)).await;
            match replayed {
                Ok(verdicts) if verdicts.len() == work.evidence.len() => {
                    if verdicts.iter().all(Result::is_ok) {
                        let took = started.elapsed();
                        self.pace.note(self.number, &model, &work.evidence, took);
                    }
                    held.answer(verdicts);
                    *wait = *BACKOFF.start();
                }
                Ok(_) => return ValidatorError::Malformed,
                Err(error) => return error,
            }
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, ValidatorError>>,
    ) -> Result<T, ValidatorError> {
        match self.time_max {
            None => work.await,
            Some(time_max) => timeout(time_max, work)
                .await
                .unwrap_or(Err(ValidatorError::TimeOut)),
        }
    }
}

/// Samples in a validator's hands; unless they are answered, they go back to the queue.
struct Held<'a> {
    task: &'a ValidatorTask,
    taken: Option<Vec<Waiting>>,
}

impl Held<'_> {
    fn evidence(&self) -> Vec<Arc<Evidence>> {
        let taken = self.taken.iter().flatten();
        taken.flat_map(|waiting| waiting.evidence.clone()).collect()
    }

    fn answer(mut self, verdicts: Vec<Verdict>) {
        if let Some(taken) = self.taken.take() {
            answer(self.task.number, taken, verdicts);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.task.queue.give_back(self.task.number, taken);
        }
    }
}
