//! Finished tasks that wait for their reward: transcripts from delivery to claim. They
//! outlive connections; a transcript that nobody pays for any more is dropped.

use std::collections::VecDeque;
use std::time::Instant;

use dovetail_commitment::{BATCH_TOKENS_MAX, Batch, BatchRoot, LeafHash, TaskId, Transcript};

/// The most transcripts in one batch.
pub const BATCH_TRANSCRIPTS_MAX: usize = 64;
/// The most that wait. More can only pile up while no share is found for a long time; then the
/// oldest go, which expire first.
pub const WAITING_MAX: usize = 1024;

/// A finished task.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What will be committed to.
    pub transcript: Transcript,
    /// How many tokens its prompt has.
    pub input_tokens: usize,
    /// When the pool stops paying for it.
    pub expires: Instant,
    /// Whether the pool has accepted it.
    pub accepted: bool,
}

impl Finished {
    /// What it takes in and gives: so many tokens are replayed if it is sampled.
    fn tokens(&self) -> u64 {
        let input = u64::try_from(self.input_tokens).unwrap_or(u64::MAX);
        input.saturating_add(self.transcript.output_tokens.into())
    }
}

/// Some transcripts under one root.
#[derive(Debug, Clone)]
pub struct ReadyBatch {
    /// What the coinbase carries.
    pub root: BatchRoot,
    /// The tasks in the order of their leaves.
    pub task_ids: Vec<TaskId>,
    items: Vec<Finished>,
}

impl ReadyBatch {
    /// A batch of these, in this order.
    ///
    /// `None` if they are none, too many, or two have the same leaf.
    pub fn new(items: Vec<Finished>) -> Option<Self> {
        let leaves: Vec<LeafHash> = items.iter().map(|i| i.transcript.leaf()).collect();
        let batch = Batch::new(leaves).ok()?;
        Some(Self {
            root: batch.root(),
            task_ids: items.iter().map(|i| i.transcript.task_id).collect(),
            items,
        })
    }

    /// Output tokens of all its transcripts.
    pub fn output_tokens(&self) -> u64 {
        let tokens = self.items.iter().map(|item| item.transcript.output_tokens);
        tokens.map(u64::from).sum()
    }

    /// When its first transcript expires: then the whole root is worthless.
    pub fn expires(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.expires).min()
    }
}

/// Transcripts in the order in which they were finished.
#[derive(Debug)]
pub struct Transcripts {
    waiting: VecDeque<Finished>,
    /// How many go into a batch now.
    batch_max: usize,
}

impl Default for Transcripts {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            batch_max: BATCH_TRANSCRIPTS_MAX,
        }
    }
}

impl Transcripts {
    /// Keeps a finished task. Returns what had to go for it, if anything: the oldest if too many wait, or this
    /// one itself if its task waits already. One task has one leaf, and no batch has a leaf twice.
    pub fn push(
        &mut self,
        transcript: Transcript,
        input_tokens: usize,
        expires: Instant,
    ) -> Option<Finished> {
        let finished = Finished {
            transcript,
            input_tokens,
            expires,
            accepted: false,
        };
        if self.contains(&finished.transcript.task_id) {
            return Some(finished);
        }
        let is_full = self.waiting.len() >= WAITING_MAX;
        let dropped = is_full.then(|| self.waiting.pop_front()).flatten();
        self.waiting.push_back(finished);
        dropped
    }

    /// Whether a transcript of the task waits.
    pub fn contains(&self, task_id: &TaskId) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|item| &item.transcript.task_id == task_id)
    }

    /// The pool accepted the transcript. Returns whether that is news.
    pub fn accept(&mut self, task_id: &TaskId) -> bool {
        let item = self.find(task_id);
        item.is_some_and(|item| !std::mem::replace(&mut item.accepted, true))
    }

    /// The transcript is worthless. Returns whether it was here.
    pub fn remove(&mut self, task_id: &TaskId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|i| &i.transcript.task_id != task_id);
        self.waiting.len() != before
    }

    /// Those the pool has not accepted, to be delivered on a new connection.
    pub fn undelivered(&self) -> impl Iterator<Item = &Transcript> {
        self.waiting
            .iter()
            .filter(|item| !item.accepted)
            .map(|item| &item.transcript)
    }

    /// Drops what has expired and returns how many that were.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|item| item.expires > now);
        before - self.waiting.len()
    }

    /// How many the pool has accepted.
    pub fn ready(&self) -> usize {
        self.waiting.iter().filter(|item| item.accepted).count()
    }

    /// Takes the oldest accepted ones as a batch, of no more tokens than a batch may have; `None` if there is none.
    pub fn take_batch(&mut self) -> Option<ReadyBatch> {
        let mut items: Vec<Finished> = Vec::new();
        let mut rest = VecDeque::new();
        let mut tokens: u64 = 0;
        for item in self.waiting.drain(..) {
            let with_it = tokens.saturating_add(item.tokens());
            // One that is too long by itself is the pool's matter: it gave the task.
            let fits = items.is_empty() || with_it <= BATCH_TOKENS_MAX;
            if item.accepted && items.len() < self.batch_max && fits {
                tokens = with_it;
                items.push(item);
            } else {
                rest.push_back(item);
            }
        }
        self.waiting = rest;
        // Those that wait are of different tasks, so their leaves are different.
        ReadyBatch::new(items)
    }

    /// Puts a batch back whose claim did not come to an end; it keeps its place at the front.
    pub fn put_back(&mut self, batch: ReadyBatch) {
        for item in batch.items.into_iter().rev() {
            if !self.contains(&item.transcript.task_id) {
                self.waiting.push_front(item);
            }
        }
    }

    /// Puts a batch back that could not be audited, for batches of half its size. `false` if there is no half of it: then it
    /// is dropped.
    pub fn split(&mut self, batch: ReadyBatch) -> bool {
        let half = batch.items.len() / 2;
        if half == 0 {
            return false;
        }
        self.batch_max = half;
        self.put_back(batch);
        true
    }

    /// A batch was audited: the next ones may be larger again.
    pub fn was_audited(&mut self) {
        self.batch_max = self.batch_max.saturating_mul(2).min(BATCH_TRANSCRIPTS_MAX);
    }

    fn find(&mut self, task_id: &TaskId) -> Option<&mut Finished> {
        self.waiting
            .iter_mut()
            .find(|item| &item.transcript.task_id == task_id)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dovetail_commitment::{
        EncodedPrompt, FinishReason, ModelId, SamplingParams, StopSequences, WorkerKey,
        prompt_commitment,
    };
    use std::time::Duration;

    pub(crate) fn transcript(number: u8) -> Transcript {
        Transcript {
            task_id: TaskId::from_bytes([number; 32]),
            worker_key: WorkerKey::from_bytes([1; 32]),
            model_id: ModelId::from_bytes([2; 32]),
            engine_version: 1,
            prompt_commitment: prompt_commitment(
                &[0; 32],
                &StopSequences::default(),
                None,
                &EncodedPrompt::new(b"hello", vec![104]).unwrap(),
            ),
            sampling: SamplingParams {
                temperature_milli: 0,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 8,
            },
            seed: [3; 32],
            output_tokens: 1,
            output_digest: [4; 32],
            trace_root: [5; 32],
            finish_reason: FinishReason::Stop,
        }
    }

    fn filled(count: u8) -> Transcripts {
        let mut waiting = Transcripts::default();
        for number in 0..count {
            let expires = Instant::now() + Duration::from_secs(u64::from(number) + 1);
            waiting.push(transcript(number), 1, expires);
        }
        waiting
    }

    #[test]
    fn only_accepted_transcripts_go_into_a_batch_in_their_order() {
        let mut waiting = filled(5);
        for number in [3, 1] {
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        assert_eq!(waiting.ready(), 2);
        let batch = waiting.take_batch().unwrap();
        assert_eq!(
            batch.task_ids,
            vec![TaskId::from_bytes([1; 32]), TaskId::from_bytes([3; 32])]
        );
        assert_eq!(waiting.undelivered().count(), 3);
        assert!(waiting.take_batch().is_none());
    }

    #[test]
    fn a_batch_has_at_most_64_transcripts_and_the_rest_waits() {
        let mut waiting = filled(100);
        for number in 0..100 {
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        assert_eq!(waiting.take_batch().unwrap().task_ids.len(), 64);
        assert_eq!(waiting.take_batch().unwrap().task_ids.len(), 36);
    }

    #[test]
    fn a_batch_has_at_most_the_tokens_of_the_longest_task() {
        let mut waiting = Transcripts::default();
        let expires = Instant::now() + Duration::from_secs(60);
        let longest = usize::try_from(BATCH_TOKENS_MAX).unwrap() - 1;
        for (number, input_tokens) in [(0, 7), (1, longest - 8), (2, 1), (3, longest), (4, 0)] {
            waiting.push(transcript(number), input_tokens, expires);
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        // Each has one token of output.
        let mut next = || {
            let batch = waiting.take_batch().unwrap();
            let numbers = batch.task_ids.iter().map(|id| id.to_bytes()[0]);
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(next(), [0, 1]);
        assert_eq!(next(), [2, 4]);
        assert_eq!(next(), [3]);
    }

    #[test]
    fn a_batch_that_could_not_be_audited_comes_again_in_halves_and_a_single_transcript_not_at_all()
    {
        let mut waiting = filled(3);
        for number in 0..3 {
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        let batch = waiting.take_batch().unwrap();
        assert!(waiting.split(batch));
        let first = waiting.take_batch().unwrap();
        assert_eq!(first.task_ids, vec![TaskId::from_bytes([0; 32])]);
        assert!(!waiting.split(first));
        // What passes lets the batches grow.
        waiting.was_audited();
        assert_eq!(waiting.take_batch().unwrap().task_ids.len(), 2);
    }

    #[test]
    fn a_batch_that_is_put_back_comes_again_with_the_same_root() {
        let mut waiting = filled(3);
        for number in 0..3 {
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        let batch = waiting.take_batch().unwrap();
        let root = batch.root;
        waiting.put_back(batch);
        assert_eq!(waiting.take_batch().unwrap().root, root);
    }

    #[test]
    fn expired_transcripts_are_dropped() {
        let mut waiting = filled(3);
        let later = Instant::now() + Duration::from_millis(1500);
        assert_eq!(waiting.expire(later), 1);
        assert_eq!(waiting.undelivered().count(), 2);
    }

    #[test]
    fn the_oldest_makes_room_when_too_many_wait() {
        let mut waiting = Transcripts::default();
        let expires = Instant::now() + Duration::from_secs(60);
        let numbered = |number: usize| Transcript {
            task_id: numbered_task(number),
            ..transcript(0)
        };
        for number in 0..WAITING_MAX {
            assert!(waiting.push(numbered(number), 1, expires).is_none());
        }
        let dropped = waiting.push(numbered(WAITING_MAX), 1, expires).unwrap();
        assert_eq!(dropped.transcript.task_id, numbered_task(0));
        assert!(waiting.contains(&numbered_task(WAITING_MAX)));
    }

    fn numbered_task(number: usize) -> TaskId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        TaskId::from_bytes(bytes)
    }

    #[test]
    fn a_task_that_is_finished_twice_loses_nothing_that_waits() {
        let mut waiting = filled(3);
        for number in 0..3 {
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        let expires = Instant::now() + Duration::from_secs(60);
        let again = waiting.push(transcript(1), 1, expires).unwrap();
        assert_eq!(again.transcript.task_id, transcript(1).task_id);
        assert_eq!(waiting.take_batch().unwrap().task_ids.len(), 3);
        assert!(waiting.push(transcript(1), 1, expires).is_none());
    }

    #[test]
    fn a_batch_that_is_put_back_beside_one_of_its_tasks_is_not_doubled() {
        let mut waiting = filled(2);
        for number in 0..2 {
            waiting.accept(&TaskId::from_bytes([number; 32]));
        }
        let batch = waiting.take_batch().unwrap();
        let expires = Instant::now() + Duration::from_secs(60);
        assert!(waiting.push(transcript(1), 1, expires).is_none());
        waiting.put_back(batch);
        assert!(!waiting.accept(&TaskId::from_bytes([0; 32])));
        assert!(waiting.accept(&TaskId::from_bytes([1; 32])));
        assert_eq!(waiting.take_batch().unwrap().task_ids.len(), 2);
    }
}
