//! The numbers of one session's requests and shares, and which shares the pool has not answered yet.
//!
//! A pool acknowledges good shares in their order, so one that it audits holds those behind it back; that is no fault,
//! for as long as an audit may take.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Unanswered shares that are remembered. The oldest count; a pool that is this far behind has long been left.
const UNANSWERED_MAX: usize = 1_024;

/// How long a pool may take to answer shares.
#[derive(Debug, Clone, Copy)]
pub struct AnswerTimes {
    /// For some answer, while several shares wait.
    pub some: Duration,
    /// For the answer to any one share.
    pub each: Duration,
    /// For the answer to a share with a claim, whose batch is audited first.
    pub claim: Duration,
}

/// Fewer unanswered shares may be lost on the way out of somewhere, and are waited for longer.
const SEVERAL: usize = 3;

/// A share that was submitted.
#[derive(Debug, Clone, Copy)]
struct Submitted {
    number: u32,
    at: Instant,
    claims: bool,
}

/// The numbers of a session. Whoever sends something on it takes them here.
#[derive(Debug)]
pub struct ShareNumbers {
    next: AtomicU32,
    unanswered: Mutex<Unanswered>,
    /// The pool took a job beside its own plain ones since this was last asked.
    took_job: AtomicBool,
}

#[derive(Debug, Default)]
struct Unanswered {
    shares: VecDeque<Submitted>,
    answered_at: Option<Instant>,
}

impl Default for ShareNumbers {
    fn default() -> Self {
        Self {
            next: AtomicU32::new(1),
            unanswered: Mutex::default(),
            took_job: AtomicBool::new(false),
        }
    }
}

impl ShareNumbers {
    /// A number for a request or a share.
    pub fn take(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The pool takes shares on a job that we asked for.
    pub fn job_accepted(&self) {
        self.took_job.store(true, Ordering::Relaxed);
    }

    /// Whether the pool took such a job since this was last asked.
    pub fn has_accepted_job(&self) -> bool {
        self.took_job.swap(false, Ordering::Relaxed)
    }

    /// A share with this number was sent; `claims` says whether it claims a batch.
    pub fn submitted(&self, number: u32, claims: bool, now: Instant) {
        let mut unanswered = self.unanswered();
        if unanswered.shares.len() < UNANSWERED_MAX {
            unanswered.shares.push_back(Submitted {
                number,
                at: now,
                claims,
            });
        }
    }

    /// The pool took all good shares up to this one.
    pub fn accepted(&self, last: u32, now: Instant) {
        self.answered(now, |share| share.number <= last);
    }

    /// The pool refused a share.
    pub fn refused(&self, number: u32, now: Instant) {
        self.answered(now, |share| share.number == number);
    }

    /// How many shares wait too long for an answer; 0 if the pool does its part.
    pub fn overdue(&self, times: &AnswerTimes, now: Instant) -> usize {
        let unanswered = self.unanswered();
        let shares = &unanswered.shares;
        let waits = |share: &Submitted| now.duration_since(share.at);
        let claims = || shares.iter().filter(|share| share.claims);
        if claims().any(|share| waits(share) >= times.claim) {
            return shares.len();
        }
        let Some(oldest) = shares.front().filter(|_| claims().next().is_none()) else {
            return 0;
        };
        // After an answer those behind it have their time anew.
        let heard = unanswered
            .answered_at
            .map_or(oldest.at, |at| at.max(oldest.at));
        let none_came = shares.len() >= SEVERAL && now.duration_since(heard) >= times.some;
        match none_came || waits(oldest) >= times.each {
            true => shares.len(),
            false => 0,
        }
    }

    fn answered(&self, now: Instant, is_answered: impl Fn(&Submitted) -> bool) {
        let mut unanswered = self.unanswered();
        let before = unanswered.shares.len();
        unanswered.shares.retain(|share| !is_answered(share));
        if unanswered.shares.len() < before {
            unanswered.answered_at = Some(now);
        }
    }

    fn unanswered(&self) -> MutexGuard<'_, Unanswered> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: AnswerTimes = AnswerTimes {
        some: Duration::from_secs(120),
        each: Duration::from_secs(600),
        claim: Duration::from_secs(240),
    };

    /// The numbers of a session, and its clock.
    struct Fixture {
        numbers: ShareNumbers,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                numbers: ShareNumbers::default(),
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn overdue(&self, seconds: u64) -> usize {
            self.numbers.overdue(&TIMES, self.at(seconds))
        }
    }

    #[test]
    fn several_shares_without_any_answer_are_silence_and_an_answer_ends_it() {
        let fixture = Fixture::new();
        let numbers = &fixture.numbers;
        assert_eq!((numbers.take(), numbers.take()), (1, 2));
        for number in 1..=5 {
            numbers.submitted(number, false, fixture.at(0));
        }
        assert_eq!(fixture.overdue(119), 0);
        assert_eq!(fixture.overdue(120), 5);
        numbers.accepted(2, fixture.at(120));
        assert_eq!(fixture.overdue(239), 0);
        // The answer to a share that nobody sent is none.
        numbers.refused(9, fixture.at(239));
        assert_eq!(fixture.overdue(240), 3);
        numbers.refused(4, fixture.at(240));
        // Two are left, and one of them may be waited for.
        assert_eq!(fixture.overdue(599), 0);
        assert_eq!(fixture.overdue(600), 2);
        numbers.accepted(u32::MAX, fixture.at(600));
        assert_eq!(fixture.overdue(10_000), 0);
    }

    #[test]
    fn an_own_claim_under_audit_is_no_fault_within_its_bound() {
        let fixture = Fixture::new();
        for number in 1..=9 {
            fixture
                .numbers
                .submitted(number, number == 1, fixture.at(0));
        }
        assert_eq!(fixture.overdue(239), 0);
        assert_eq!(fixture.overdue(240), 9);
        // It is answered in time: those behind it have theirs from then on.
        fixture.numbers.refused(1, fixture.at(239));
        assert_eq!(fixture.overdue(358), 0);
        assert_eq!(fixture.overdue(359), 8);
    }

    #[test]
    fn what_is_remembered_of_a_silent_pool_is_bounded() {
        let fixture = Fixture::new();
        for number in 0..100_000 {
            fixture.numbers.submitted(number, false, fixture.at(0));
        }
        assert_eq!(fixture.overdue(120), UNANSWERED_MAX);
    }
}
