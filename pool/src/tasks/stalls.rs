//! Tasks that stall: their worker gives no token for too long. They go to another worker, and count against the first,
//! which rests before it is given tasks again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dovetail_commitment::{TaskId, WorkerKey};

use super::Tasks;
use super::live_tasks::LiveTasks;
use super::refusal::GivenBack;

/// A prompt is taken in at this pace at least.
const PROMPT_TOKENS_PER_S_MIN: u64 = 256;
/// The rest after a first stall. Each further one doubles it ..
const REST_FIRST: Duration = Duration::from_secs(30);
/// .. up to this. A stall is forgotten when the worker has finished a task, or this long after its rest.
const REST_MAX: Duration = Duration::from_secs(3_600);
/// How many workers are remembered. Each entry has cost a task its deadline, so there are few; beyond it those are
/// forgotten whose rest ends first.
const WORKERS_MAX: usize = 4_096;

/// How long a worker may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the assignment to the first token, besides the time for the prompt.
    pub(crate) first_token: Duration,
    /// From one group of tokens to the next, and to the transcript.
    pub(crate) progress: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let half_a_minute = Duration::from_secs(30);
        Self {
            first_token: half_a_minute,
            progress: half_a_minute,
        }
    }
}

impl Patience {
    /// The time for the first token after a prompt of this length.
    pub(super) fn for_first_token(&self, prompt_tokens: usize) -> Duration {
        let tokens = u64::try_from(prompt_tokens).unwrap_or(u64::MAX);
        let prompt = Duration::from_secs(tokens / PROMPT_TOKENS_PER_S_MIN);
        self.first_token.saturating_add(prompt)
    }
}

/// Workers that let tasks lie.
#[derive(Debug, Default)]
pub(super) struct Stalls(HashMap<WorkerKey, Rest>);

#[derive(Debug, Clone, Copy)]
struct Rest {
    stalls: u32,
    until: Instant,
}

impl Stalls {
    /// A task of this worker has stalled.
    pub(super) fn note(&mut self, worker: WorkerKey, now: Instant) {
        self.0
            .retain(|_, rest| now.saturating_duration_since(rest.until) < REST_MAX);
        if self.0.len() >= WORKERS_MAX && !self.0.contains_key(&worker) {
            let first = self.0.iter().min_by_key(|(_, rest)| rest.until);
            if let Some(first) = first.map(|(worker, _)| *worker) {
                self.0.remove(&first);
            }
        }
        let stalls = self.0.get(&worker).map_or(0, |rest| rest.stalls);
        let longer = 2_u32.saturating_pow(stalls.min(16));
        let rest = REST_FIRST.saturating_mul(longer).min(REST_MAX);
        self.0.insert(
            worker,
            Rest {
                stalls: stalls.saturating_add(1),
                until: now + rest,
            },
        );
    }

    /// Whether the worker is given nothing now.
    pub(super) fn rests(&self, worker: &WorkerKey, now: Instant) -> bool {
        self.0.get(worker).is_some_and(|rest| now < rest.until)
    }

    /// The worker has finished a task: one stall is forgotten. Its rest goes on.
    pub(super) fn worked(&mut self, worker: &WorkerKey) {
        if let Some(rest) = self.0.get_mut(worker) {
            rest.stalls = rest.stalls.saturating_sub(1);
        }
    }
}

impl LiveTasks {
    /// The tasks whose worker should have given something by now.
    pub(super) fn stalled(&self, now: Instant) -> Vec<(TaskId, WorkerKey)> {
        let state = self.state();
        let is_late = |id: &TaskId| {
            let due = state.tasks.get(id).and_then(|task| task.due);
            due.is_some_and(|due| due <= now)
        };
        let mut late = Vec::new();
        for (key, worker) in &state.workers {
            let tasks = worker.hand.tasks().filter(is_late);
            late.extend(tasks.map(|id| (id, *key)));
        }
        late
    }
}

impl Tasks {
    /// Gives tasks that have stalled to other workers.
    pub(crate) async fn hand_on_stalled(&self) {
        for (task, worker) in self.live.stalled(Instant::now()) {
            tracing::warn!(%task, %worker, "a worker gave no token for too long");
            self.give_back(&[task], worker, GivenBack::Stalled).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerKey = WorkerKey::from_bytes([9; 32]);

    fn key(n: u32) -> WorkerKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        WorkerKey::from_bytes(bytes)
    }

    #[test]
    fn rests_grow_with_each_stall_and_finished_tasks_make_up_for_them() {
        let mut stalls = Stalls::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!stalls.rests(&WORKER, start));
        stalls.note(WORKER, start);
        assert!(stalls.rests(&WORKER, after(29)) && !stalls.rests(&WORKER, after(30)));
        stalls.note(WORKER, after(30));
        assert!(stalls.rests(&WORKER, after(89)) && !stalls.rests(&WORKER, after(90)));
        stalls.worked(&WORKER);
        stalls.note(WORKER, after(90));
        assert!(stalls.rests(&WORKER, after(149)) && !stalls.rests(&WORKER, after(150)));
        for _ in 0..100 {
            stalls.note(WORKER, after(150));
        }
        assert!(stalls.rests(&WORKER, after(3_749)) && !stalls.rests(&WORKER, after(3_750)));
    }

    #[test]
    fn a_stall_is_forgotten_an_hour_after_its_rest() {
        let mut stalls = Stalls::default();
        let start = Instant::now();
        stalls.note(WORKER, start);
        let later = start + REST_FIRST + REST_MAX;
        stalls.note(key(1), later);
        assert_eq!(stalls.0.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut stalls = Stalls::default();
        let start = Instant::now();
        for n in 0..5_000 {
            stalls.note(key(n), start + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(stalls.0.len(), WORKERS_MAX);
        assert!(stalls.rests(&key(4_999), start) && !stalls.rests(&key(0), start));
    }

    #[test]
    fn a_longer_prompt_has_more_time() {
        let patience = Patience::default();
        let at = |tokens| patience.for_first_token(tokens).as_secs();
        assert_eq!((at(0), at(1_024), at(65_536)), (30, 34, 286));
    }
}
