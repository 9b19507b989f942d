//! What waits to be replayed, and which validator may take it. Bounded: a claim that finds the queue
//! full is told so at once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_audit::{Evidence, Verdict};
use dovetail_commitment::{BATCH_TOKENS_MAX, ModelId};
use tokio::sync::Notify;

use super::ReplayPace;
use super::sample::{Pending, Replayed, TRIES_MAX, Waiting};

/// A sample that was not taken in: too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueFull;

/// A validator as the queue knows it.
struct Member {
    /// Whether it is part of the pool's own process.
    is_local: bool,
    /// What it can replay; `None` while it is away.
    serves: Option<HashSet<ModelId>>,
}

struct State {
    waiting: VecDeque<Waiting>,
    members: Vec<Member>,
}

/// The queue. Its lock is never held across an await.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    transcripts_max: usize,
    batch_max: usize,
    pace: Option<ReplayPace>,
}

impl Queue {
    /// At most `transcripts_max` transcripts wait; at most `batch_max` of different claims are
    /// replayed together.
    pub(super) fn new(transcripts_max: usize, batch_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                members: Vec::new(),
            }),
            changed: Notify::new(),
            transcripts_max,
            batch_max,
            pace: None,
        }
    }

    /// Also puts only so much together as is replayed in time at this pace.
    pub(super) fn with_pace(self, pace: ReplayPace) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    /// A new validator, away until [`Queue::is_back`]; returns its number.
    pub(super) fn add_member(&self, is_local: bool) -> usize {
        let mut state = self.state();
        state.members.push(Member {
            is_local,
            serves: None,
        });
        state.members.len() - 1
    }

    pub(super) fn is_back(&self, member: usize, serves: HashSet<ModelId>) {
        if let Some(member) = self.state().members.get_mut(member) {
            member.serves = Some(serves);
        }
        self.changed.notify_waiters();
    }

    pub(super) fn is_away(&self, member: usize) {
        if let Some(member) = self.state().members.get_mut(member) {
            member.serves = None;
        }
        // Others may take now what was better left to it.
        self.changed.notify_waiters();
    }

    /// Puts a sample at the end.
    pub(super) fn push(
        &self,
        model: ModelId,
        evidence: Vec<Arc<Evidence>>,
    ) -> Result<Pending, QueueFull> {
        let mut state = self.state();
        state.waiting.retain(Waiting::is_wanted);
        let queued: usize = state.waiting.iter().map(|w| w.evidence.len()).sum();
        if queued + evidence.len() > self.transcripts_max {
            return Err(QueueFull);
        }
        let (waiting, answered) = Waiting::new(model, evidence, None);
        state.waiting.push_back(waiting);
        drop(state);
        self.changed.notify_waiters();
        Ok(answered)
    }

    /// Puts the one transcript that a finding is about at the front. There is always room: each audit has one at most.
    pub(super) fn push_first(
        &self,
        model: ModelId,
        evidence: Arc<Evidence>,
        avoid: Option<usize>,
    ) -> Pending {
        let (waiting, answered) = Waiting::new(model, vec![evidence], avoid);
        self.state().waiting.push_front(waiting);
        self.changed.notify_waiters();
        answered
    }

    /// The next work for this validator, once there is any: the oldest sample that is its to take, and
    /// others of the same model behind it. Cancellation-safe.
    pub(super) async fn take(&self, member: usize) -> (ModelId, Vec<Waiting>) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before looking, so that nothing that comes in between is missed.
            changed.as_mut().enable();
            if let Some(work) = self.take_now(member) {
                return work;
            }
            changed.await;
        }
    }

    fn take_now(&self, member: usize) -> Option<(ModelId, Vec<Waiting>)> {
        let mut state = self.state();
        let State { waiting, members } = &mut *state;
        waiting.retain(Waiting::is_wanted);
        let first = waiting
            .iter()
            .position(|waiting| may_take(members, member, waiting))?;
        let first = waiting.remove(first)?;
        let model = first.model;
        let (mut count, mut tokens) = (first.evidence.len(), first.tokens());
        // What a validator failed with goes alone: of what was replayed together, one part may have been too much for it.
        let is_alone = !first.failed.is_empty();
        let mut taken = vec![first];
        let mut rest = VecDeque::with_capacity(waiting.len());
        for next in waiting.drain(..) {
            let fits = !is_alone
                && next.model == model
                && next.failed.is_empty()
                && count + next.evidence.len() <= self.batch_max
                && tokens.saturating_add(next.tokens()) <= BATCH_TOKENS_MAX
                && self.in_time(&taken, &next);
            if fits && may_take(members, member, &next) {
                count += next.evidence.len();
                tokens += next.tokens();
                taken.push(next);
            } else {
                rest.push_back(next);
            }
        }
        *waiting = rest;
        taken.iter().for_each(Waiting::take);
        Some((model, taken))
    }

    /// Whether one more sample still leaves time enough for all that are replayed together.
    fn in_time(&self, taken: &[Waiting], next: &Waiting) -> bool {
        let together = taken.iter().chain([next]);
        let together = together.flat_map(|waiting| &waiting.evidence);
        let pace = self.pace.as_ref();
        pace.is_none_or(|pace| pace.fit_together(&next.model, together))
    }

    /// The validator failed: what it had taken goes to the front again, for another one if there is.
    /// A sample that has failed too often is dropped, which tells the audit that waits for it.
    pub(super) fn give_back(&self, member: usize, taken: Vec<Waiting>) {
        let mut state = self.state();
        for mut waiting in taken.into_iter().rev() {
            waiting.give_back(member);
            if waiting.failed.len() < TRIES_MAX && waiting.is_wanted() {
                state.waiting.push_front(waiting);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out verdicts of samples that were replayed together: `[sum of their lengths]`.
pub(super) fn answer(member: usize, taken: Vec<Waiting>, verdicts: Vec<Verdict>) {
    let mut verdicts = verdicts.into_iter();
    for waiting in taken {
        let verdicts = verdicts.by_ref().take(waiting.evidence.len()).collect();
        waiting.answer(Replayed {
            verdicts,
            by: member,
        });
    }
}

/// Whether nobody who is here and has the model is better suited.
fn may_take(members: &[Member], member: usize, waiting: &Waiting) -> bool {
    // Whoever has found something is no second opinion on it, nor is another thread of the same process.
    let found_it = |index: usize| {
        let is_local = |index: usize| members.get(index).is_some_and(|of| of.is_local);
        let is_of_process = |by: usize| by == index || (is_local(by) && is_local(index));
        waiting.avoid.is_some_and(is_of_process)
    };
    // One that is away comes back: what the pool's own machine got wrong must not count because of a restart elsewhere.
    let may_serve = |of: &Member| {
        let serves = of.serves.as_ref();
        serves.is_none_or(|serves| serves.contains(&waiting.model))
    };
    let others = members.iter().enumerate();
    let has_other = others.filter(|(index, _)| !found_it(*index));
    let has_other = has_other.map(|(_, of)| of).any(may_serve);
    let rank = |index: usize| {
        let known = members.get(index)?;
        let serves = known.serves.as_ref()?.contains(&waiting.model);
        // The pool's own threads may, where nobody else has the model.
        let is_excluded = found_it(index) && (has_other || !known.is_local);
        // In this order: one that has not failed with it, another than gave the first verdict, and
        // a process of its own rather than the pool's.
        (serves && !is_excluded).then_some((
            waiting.failed.contains(&index),
            waiting.avoid == Some(index),
            known.is_local,
        ))
    };
    let best = (0..members.len()).filter_map(rank).min();
    best.is_some() && rank(member) == best
}

#[cfg(test)]
mod tests {
    use super::super::validators::NotReplayed;
    use super::*;
    use crate::models::Models;
    use dovetail_audit::Mismatch;
    use dovetail_commitment::EncodedPrompt;
    use std::time::Duration;

    const A: ModelId = ModelId::from_bytes([1; 32]);
    const B: ModelId = ModelId::from_bytes([2; 32]);

    fn sample(count: usize) -> Vec<Arc<Evidence>> {
        let evidence = crate::claims::audit::tests::evidence_without_meaning();
        let evidence = Arc::new(evidence);
        vec![evidence; count]
    }

    fn lens(taken: &[Waiting]) -> Vec<usize> {
        taken.iter().map(|waiting| waiting.evidence.len()).collect()
    }

    fn queue(locals: &[bool]) -> Queue {
        let queue = Queue::new(100, 8);
        for is_local in locals {
            let member = queue.add_member(*is_local);
            queue.is_back(member, HashSet::from([A, B]));
        }
        queue
    }

    #[test]
    fn samples_of_one_model_are_taken_together_up_to_the_limit() {
        let queue = queue(&[true]);
        let mut answers = Vec::new();
        for (model, count) in [(A, 3), (B, 1), (A, 4), (A, 5), (A, 1)] {
            answers.push(queue.push(model, sample(count)).unwrap());
        }
        let (model, taken) = queue.take_now(0).unwrap();
        assert_eq!((model, lens(&taken)), (A, vec![3, 4, 1]));
        let verdicts: Vec<Verdict> = (0..8)
            .map(|place| match place {
                3 => Err(Mismatch::Trace.into()),
                _ => Ok(()),
            })
            .collect();
        answer(0, taken, verdicts);
        let mut verdicts = |place: usize| answers[place].now().unwrap().unwrap().verdicts;
        assert_eq!(verdicts(0), [Ok(()); 3]);
        let of_second = verdicts(2);
        assert_eq!(of_second[0], Err(Mismatch::Trace.into()));
        assert_eq!(of_second[1..], [Ok(()); 3]);
        assert_eq!(queue.take_now(0).unwrap().0, B);
        assert_eq!(lens(&queue.take_now(0).unwrap().1), [5]);
        assert!(queue.take_now(0).is_none());
    }

    /// Else one claim's long transcripts take another claim's time.
    #[test]
    fn samples_that_are_taken_together_have_no_more_tokens_than_one_batch() {
        let queue = queue(&[true]);
        let mut long = crate::claims::audit::tests::evidence_without_meaning();
        long.prompt = EncodedPrompt::new(b"a prompt", vec![97; 40_000]).unwrap();
        let _long = [(); 2].map(|()| queue.push(A, vec![Arc::new(long.clone())]));
        let _short = queue.push(A, sample(2));
        assert_eq!(lens(&queue.take_now(0).unwrap().1), [1, 2]);
        assert_eq!(lens(&queue.take_now(0).unwrap().1), [1]);
    }

    #[test]
    fn a_full_queue_refuses_and_forgets_those_who_gave_up() {
        let queue = queue(&[true]);
        let kept = queue.push(A, sample(60)).unwrap();
        assert_eq!(queue.push(A, sample(41)).err(), Some(QueueFull));
        drop(kept);
        assert!(queue.push(A, sample(41)).is_ok());
    }

    #[test]
    fn the_pools_own_thread_steps_in_only_for_a_process_that_is_away_or_failed() {
        let queue = queue(&[true, false]);
        let _first = queue.push(A, sample(1)).unwrap();
        assert!(queue.take_now(0).is_none());
        let (_, taken) = queue.take_now(1).unwrap();
        queue.give_back(1, taken);
        // It is back at once, and still not asked again.
        assert!(queue.take_now(1).is_none());
        assert_eq!(queue.take_now(0).unwrap().1.len(), 1);

        let _second = queue.push(A, sample(1)).unwrap();
        queue.is_away(1);
        assert_eq!(queue.take_now(0).unwrap().1.len(), 1);
    }

    #[test]
    fn a_finding_of_another_process_is_confirmed_by_anybody_but_that_process() {
        let queue = queue(&[false, false]);
        let _confirmation = queue.push_first(A, sample(1).remove(0), Some(0));
        assert!(queue.take_now(0).is_none());
        queue.is_away(1);
        // It is no second opinion, although nobody else is there.
        assert!(queue.take_now(0).is_none());
        queue.is_back(1, HashSet::from([A]));
        assert!(queue.take_now(1).is_some());
    }

    #[test]
    fn the_pools_own_thread_confirms_what_it_found_where_it_is_alone() {
        let alone = queue(&[true]);
        let _confirmation = alone.push_first(A, sample(1).remove(0), Some(0));
        assert!(alone.take_now(0).is_some());
        let with_another = queue(&[true, true]);
        let _confirmation = with_another.push_first(A, sample(1).remove(0), Some(0));
        assert!(with_another.take_now(0).is_none());
        assert!(with_another.take_now(1).is_some());
    }

    /// Else a fault of the pool's own machine punishes whoever claims while the other validators restart.
    #[test]
    fn the_pools_own_thread_does_not_confirm_what_it_found_while_another_validator_is_away() {
        let queue = queue(&[true, false]);
        queue.is_away(1);
        let _confirmation = queue.push_first(A, sample(1).remove(0), Some(0));
        assert!(queue.take_now(0).is_none());
        // It is there again, without this model.
        queue.is_back(1, HashSet::from([B]));
        assert!(queue.take_now(0).is_some());
        let _confirmation = queue.push_first(A, sample(1).remove(0), Some(0));
        queue.is_back(1, HashSet::from([A]));
        assert!(queue.take_now(0).is_none());
        assert!(queue.take_now(1).is_some());
    }

    #[test]
    fn nor_does_another_thread_of_the_pool() {
        let queue = queue(&[true, true, false]);
        queue.is_away(2);
        let _confirmation = queue.push_first(A, sample(1).remove(0), Some(0));
        assert!(queue.take_now(0).is_none());
        assert!(queue.take_now(1).is_none());
        queue.is_back(2, HashSet::from([A]));
        assert!(queue.take_now(2).is_some());
    }

    /// Else whoever has claims that are too much for validators takes the claims of others with it.
    #[test]
    fn what_a_validator_failed_with_is_tried_again_sample_by_sample() {
        let queue = queue(&[true]);
        let _waiting: Vec<_> = [3, 2, 1].map(|count| queue.push(A, sample(count))).into();
        let (_, taken) = queue.take_now(0).unwrap();
        assert_eq!(lens(&taken), [3, 2, 1]);
        let _new = queue.push(A, sample(1));
        queue.give_back(0, taken);
        for count in [3, 2, 1] {
            assert_eq!(lens(&queue.take_now(0).unwrap().1), [count]);
        }
        assert_eq!(lens(&queue.take_now(0).unwrap().1), [1]);
    }

    #[test]
    fn a_confirmation_goes_before_all_samples_and_needs_no_room() {
        let queue = queue(&[true]);
        let _waiting = queue.push(B, sample(100)).unwrap();
        let _confirmation = queue.push_first(A, sample(1).remove(0), None);
        let (model, taken) = queue.take_now(0).unwrap();
        assert_eq!((model, lens(&taken)), (A, vec![1]));
    }

    #[test]
    fn what_breaks_every_validator_is_dropped_in_the_end() {
        let queue = queue(&[true]);
        let mut answer = queue.push(A, sample(1)).unwrap();
        for _ in 0..TRIES_MAX {
            let (_, taken) = queue.take_now(0).unwrap();
            queue.give_back(0, taken);
        }
        assert!(queue.take_now(0).is_none());
        assert!(answer.now().is_some_and(|answer| answer.is_none()));
    }

    const SHORT: Duration = Duration::from_millis(300);

    /// A validator that is restarted is not the batch's fault.
    #[tokio::test]
    async fn a_sample_that_waits_again_is_not_being_replayed() {
        let queue = queue(&[true]);
        let pending = queue.push(A, sample(1)).unwrap();
        let pending = tokio::spawn(pending.within(SHORT));
        let (_, taken) = queue.take_now(0).unwrap();
        tokio::time::sleep(SHORT / 6).await;
        queue.give_back(0, taken);
        assert!(matches!(pending.await.unwrap(), Err(NotReplayed::Crowded)));
        assert!(queue.take_now(0).is_none());
    }

    /// Else it comes before what others wait for.
    #[tokio::test]
    async fn what_nobody_waits_for_is_not_tried_again() {
        let queue = queue(&[true]);
        let pending = queue.push(A, sample(1)).unwrap();
        let (_, taken) = queue.take_now(0).unwrap();
        let Err(NotReplayed::Late(mut late)) = pending.within(SHORT / 6).await else {
            panic!("it was not given up");
        };
        queue.give_back(0, taken);
        assert!(queue.take_now(0).is_none());
        assert!(late.verdicts().await.is_none());
    }

    /// Else a long one takes the time of others.
    #[test]
    fn long_samples_of_unknown_cost_go_alone() {
        let queue = queue(&[true]).with_pace(ReplayPace::new(Models::default(), SHORT));
        let mut long = sample(1);
        Arc::make_mut(&mut long[0]).prompt =
            EncodedPrompt::new(b"a prompt", vec![97; 1_024]).unwrap();
        let _waiting = [sample(1), sample(2), long].map(|sample| queue.push(A, sample));
        assert_eq!(lens(&queue.take_now(0).unwrap().1), [1, 2]);
        assert_eq!(lens(&queue.take_now(0).unwrap().1), [1]);
    }

    #[tokio::test]
    async fn a_validator_that_waits_for_work_hears_of_it() {
        let queue = Arc::new(queue(&[true]));
        let taking = {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.take(0).await.1.len() })
        };
        tokio::task::yield_now().await;
        let _answer = queue.push(A, sample(2)).unwrap();
        assert_eq!(taking.await.unwrap(), 1);
    }
}
