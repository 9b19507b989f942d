//! How many jobs for batches a worker may ask for.

use std::time::{Duration, Instant};

/// How many jobs a worker may ask for at once, and how soon it may ask for one more. A batch needs
/// one job; what a worker computes in less time than this belongs into one batch.
const REQUESTS_BURST: u32 = 16;
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// Requests that a worker may make now: it fills up with time.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    counted_at: Instant,
}

impl Allowance {
    pub(super) fn full(now: Instant) -> Self {
        Self {
            left: REQUESTS_BURST,
            counted_at: now,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < REQUESTS_BURST && now.duration_since(self.counted_at) >= REQUEST_INTERVAL
        {
            self.left += 1;
            self.counted_at += REQUEST_INTERVAL;
        }
        if self.left == REQUESTS_BURST {
            self.counted_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_asks_without_end_gets_a_job_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let taken = (0..1_000).filter(|_| allowance.take(start));
        assert_eq!(taken.count() as u32, REQUESTS_BURST);
        assert!(allowance.take(start + REQUEST_INTERVAL));
        assert!(!allowance.take(start + REQUEST_INTERVAL));
        let later = start + 1_000 * REQUEST_INTERVAL;
        let taken = (0..1_000).filter(|_| allowance.take(later));
        assert_eq!(taken.count() as u32, REQUESTS_BURST);
    }
}
