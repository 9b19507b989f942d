//! When the next declaration may begin: after each failure later than after the one before, and never so often that the declarator
//! ends the connection.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Declarations in any minute. Declarators end connections that take more than 240 tokens in one, by
/// default; new tips come minutes apart, better fees and batches are bounded for themselves.
const PER_MINUTE_MAX: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);
/// The waits after failures.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct DeclarationRate {
    begun: VecDeque<Instant>,
    not_before: Option<Instant>,
    /// Whether the last declaration failed.
    failing: bool,
    wait: Duration,
}

impl Default for DeclarationRate {
    fn default() -> Self {
        Self {
            begun: VecDeque::new(),
            not_before: None,
            failing: false,
            wait: *BACKOFF.start(),
        }
    }
}

impl DeclarationRate {
    /// The earliest time for the next declaration; it may lie in the past.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        let oldest = self.begun.front().copied();
        let full = oldest.filter(|_| self.begun.len() >= PER_MINUTE_MAX);
        let free = full.map_or(now, |oldest| oldest + MINUTE);
        self.not_before.map_or(free, |before| free.max(before))
    }

    /// Whether the last declaration failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// A declaration begins.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.begun.len() >= PER_MINUTE_MAX {
            self.begun.pop_front();
        }
        self.begun.push_back(now);
    }

    /// The pool accepted its job.
    pub(super) fn succeeded(&mut self) {
        self.not_before = None;
        self.failing = false;
        self.wait = *BACKOFF.start();
    }

    /// It failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + self.wait);
        self.failing = true;
        self.wait = (self.wait * 2).min(*BACKOFF.end());
    }

    /// It failed, and nobody is at fault.
    pub(super) fn pause(&mut self, now: Instant) {
        self.not_before = Some(now + *BACKOFF.start());
    }

    /// There is a new tip: the next declaration may begin at once, even if the last one failed.
    pub(super) fn new_tip(&mut self, now: Instant) {
        self.not_before = self.not_before.map(|before| before.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_later_and_a_new_tip_at_once() {
        let (mut rate, now) = (DeclarationRate::default(), Instant::now());
        assert!(rate.earliest(now) <= now && !rate.is_failing());
        let mut waits = Vec::new();
        for _ in 0..10 {
            rate.failed(now);
            waits.push(rate.earliest(now) - now);
        }
        assert_eq!(waits.first(), Some(BACKOFF.start()));
        assert_eq!(waits.last(), Some(BACKOFF.end()));
        rate.new_tip(now);
        assert!(rate.earliest(now) <= now && rate.is_failing());
        rate.succeeded();
        rate.pause(now);
        assert!(rate.earliest(now) > now && !rate.is_failing());
        rate.failed(now);
        assert_eq!(rate.earliest(now) - now, *BACKOFF.start());
    }

    #[test]
    fn a_chain_that_races_does_not_cost_the_connection() {
        let (mut rate, now) = (DeclarationRate::default(), Instant::now());
        for _ in 0..PER_MINUTE_MAX {
            assert_eq!(rate.earliest(now), now);
            rate.begin(now);
            rate.new_tip(now);
        }
        assert_eq!(rate.earliest(now), now + MINUTE);
        assert!(rate.earliest(now + MINUTE) <= now + MINUTE);
    }
}
