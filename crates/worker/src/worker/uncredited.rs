//! The tokens that a pool was given and has not credited: how many have waited for long, and whether the pool gets
//! more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Tokens of this time are counted together.
const PERIOD: Duration = Duration::from_secs(60);
/// After this nobody hopes for credit any more: some tasks are cancelled, and some find no share in time.
const WRITTEN_OFF_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How much a pool may owe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CreditLimit {
    /// The most tokens that may be overdue; `None`: any number.
    pub(super) tokens_max: Option<u64>,
    /// When tokens without credit are overdue.
    pub(super) after: Duration,
}

/// The tokens of one pool, the oldest first. It has as many entries as periods until they are written off.
#[derive(Debug, Default)]
pub(super) struct Uncredited {
    periods: VecDeque<Period>,
}

#[derive(Debug)]
struct Period {
    first: Instant,
    last: Instant,
    tokens: u64,
}

impl Uncredited {
    /// The pool was given tokens.
    pub(super) fn given(&mut self, tokens: u64, now: Instant) {
        match self.periods.back_mut() {
            Some(period) if now.saturating_duration_since(period.first) < PERIOD => {
                period.tokens = period.tokens.saturating_add(tokens);
                period.last = now;
            }
            _ => self.periods.push_back(Period {
                first: now,
                last: now,
                tokens,
            }),
        }
    }

    /// Nothing more is to come for this many tokens. Which they were does not matter: the oldest count as settled.
    pub(super) fn settled(&mut self, tokens: u64) {
        let mut left = tokens;
        while let Some(period) = self.periods.front_mut() {
            let settled = left.min(period.tokens);
            period.tokens -= settled;
            left -= settled;
            if period.tokens > 0 {
                return;
            }
            self.periods.pop_front();
        }
    }

    /// How many have waited for longer than this.
    pub(super) fn overdue(&mut self, after: Duration, now: Instant) -> u64 {
        let age = |period: &Period| now.saturating_duration_since(period.last);
        while self
            .periods
            .front()
            .is_some_and(|period| age(period) > WRITTEN_OFF_AFTER)
        {
            self.periods.pop_front();
        }
        let overdue = self
            .periods
            .iter()
            .take_while(|period| age(period) >= after);
        overdue.fold(0, |sum, period| sum.saturating_add(period.tokens))
    }

    /// Whether more than the limit is overdue.
    pub(super) fn exceeds(&mut self, limit: CreditLimit, now: Instant) -> bool {
        let overdue = self.overdue(limit.after, now);
        limit.tokens_max.is_some_and(|most| overdue > most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LIMIT: CreditLimit = CreditLimit {
        tokens_max: Some(100),
        after: Duration::from_secs(1800),
    };

    #[test]
    fn a_pool_that_credits_everything_within_the_time_owes_nothing() {
        let mut uncredited = Uncredited::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            uncredited.given(1_000, now);
            now += LIMIT.after / 2;
            assert!(!uncredited.exceeds(LIMIT, now));
            uncredited.settled(1_000);
        }
        assert_eq!(uncredited.overdue(Duration::ZERO, now), 0);
    }

    #[test]
    fn what_is_overdue_counts_until_it_is_paid() {
        let (mut uncredited, start) = (Uncredited::default(), Instant::now());
        uncredited.given(150, start);
        uncredited.given(30, start + HOUR);
        let now = start + HOUR;
        assert!(uncredited.exceeds(LIMIT, now));
        uncredited.settled(60);
        assert_eq!(uncredited.overdue(LIMIT.after, now), 90);
        assert!(!uncredited.exceeds(LIMIT, now));
        assert_eq!(uncredited.overdue(LIMIT.after, now + HOUR), 120);
        let unlimited = CreditLimit {
            tokens_max: None,
            ..LIMIT
        };
        assert!(!uncredited.exceeds(unlimited, now + HOUR));
    }

    #[test]
    fn what_never_earns_anything_is_written_off_after_a_day() {
        let (mut uncredited, start) = (Uncredited::default(), Instant::now());
        uncredited.given(500, start);
        assert!(uncredited.exceeds(LIMIT, start + 23 * HOUR));
        assert!(!uncredited.exceeds(LIMIT, start + 25 * HOUR));
        assert!(uncredited.periods.is_empty());
    }

    #[test]
    fn more_credit_than_work_is_not_kept_for_later() {
        let (mut uncredited, start) = (Uncredited::default(), Instant::now());
        uncredited.given(50, start);
        uncredited.settled(u64::MAX);
        uncredited.given(200, start);
        assert_eq!(uncredited.overdue(Duration::ZERO, start), 200);
    }

    #[test]
    fn steady_work_without_credit_takes_bounded_memory() {
        let (mut uncredited, start) = (Uncredited::default(), Instant::now());
        for second in 0..100_000_u64 {
            let now = start + Duration::from_secs(second);
            uncredited.given(1, now);
            uncredited.overdue(LIMIT.after, now);
        }
        assert!(uncredited.periods.len() <= 24 * 60 + 2);
    }
}
