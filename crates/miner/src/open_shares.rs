//! The shares of a session that the pool has not answered. A pool credits what it was sent: its totals are held
//! against this list.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bitcoin::Target;

use crate::search::Hash256;

/// Shares that are remembered: hours of them at a usual rate. An answer to one that was forgotten counts for nothing.
const OPEN_MAX: usize = 4_096;

/// What of a pool's acknowledgement is about shares that it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// How many.
    pub count: u64,
    /// Their difficulty, summed; no more than their targets ask for.
    pub difficulty: u64,
}

/// Shares without an answer, in the order in which they were submitted.
#[derive(Debug, Default)]
pub struct OpenShares {
    shares: Mutex<VecDeque<OpenShare>>,
}

#[derive(Debug)]
struct OpenShare {
    number: u32,
    difficulty: u64,
    since: Instant,
}

impl OpenShares {
    /// A share with this sequence number is about to be sent, which met this target (little-endian).
    pub fn submitted(&self, number: u32, target: &Hash256) {
        let mut shares = self.lock();
        if shares.len() == OPEN_MAX {
            shares.pop_front();
        }
        shares.push_back(OpenShare {
            number,
            difficulty: difficulty(target),
            since: Instant::now(),
        });
    }

    /// The pool accepted `count` shares of this difficulty, up to the sequence number `last`.
    pub fn accepted(&self, last: u32, count: u32, difficulty: u64) -> Acknowledged {
        let mut shares = self.lock();
        let mut left = count;
        let (mut accepted, mut worth) = (0_u64, 0_u64);
        shares.retain(|share| {
            let answered = left > 0 && is_up_to(share.number, last);
            if answered {
                left -= 1;
                accepted += 1;
                worth = worth.saturating_add(share.difficulty);
            }
            !answered
        });
        Acknowledged {
            count: accepted,
            difficulty: difficulty.min(worth),
        }
    }

    /// The pool refused the share with this sequence number. Whether there is one.
    pub fn refused(&self, number: u32) -> bool {
        let mut shares = self.lock();
        let place = shares.iter().position(|share| share.number == number);
        place.and_then(|place| shares.remove(place)).is_some()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// When the oldest was submitted.
    pub fn oldest(&self) -> Option<Instant> {
        self.lock().front().map(|share| share.since)
    }

    /// Their session is over; how many get no answer any more.
    pub fn clear(&self) -> u64 {
        let mut shares = self.lock();
        let lost = shares.len() as u64;
        shares.clear();
        lost
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<OpenShare>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a sequence number is not behind `last`; the numbers of a long session begin anew.
pub fn is_up_to(number: u32, last: u32) -> bool {
    last.wrapping_sub(number) <= u32::MAX / 2
}

/// The difficulty of a share that meets the target, rounded up.
fn difficulty(target: &Hash256) -> u64 {
    let difficulty = Target::from_le_bytes(*target).difficulty_float().ceil();
    // A float beyond the range becomes the largest number, and none becomes 0.
    difficulty as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Difficulty 1, nearly.
    fn target() -> Hash256 {
        Target::MAX.to_le_bytes()
    }

    fn open(numbers: impl IntoIterator<Item = u32>) -> OpenShares {
        let shares = OpenShares::default();
        for number in numbers {
            shares.submitted(number, &target());
        }
        shares
    }

    fn acknowledged(count: u64, difficulty: u64) -> Acknowledged {
        Acknowledged { count, difficulty }
    }

    #[test]
    fn a_pool_accepts_at_most_what_it_was_sent() {
        let shares = open([1, 2, 5]);
        assert_eq!(shares.accepted(0, 9, 9), acknowledged(0, 0));
        assert_eq!(shares.accepted(2, u32::MAX, u64::MAX), acknowledged(2, 2));
        assert_eq!(shares.accepted(5, 1, 0), acknowledged(1, 0));
        assert_eq!(shares.accepted(5, 1, 1), acknowledged(0, 0));
        assert_eq!(shares.oldest(), None);
    }

    #[test]
    fn a_share_is_answered_once() {
        let shares = open([1, 2, 3]);
        assert!(shares.refused(2) && !shares.refused(2) && !shares.refused(9));
        assert_eq!(shares.accepted(3, 3, 3), acknowledged(2, 2));
        assert!(!shares.refused(1));
        assert_eq!(shares.clear(), 0);
    }

    #[test]
    fn numbers_may_begin_anew() {
        let shares = open([u32::MAX, 0, 1]);
        assert_eq!(shares.accepted(0, 5, 5), acknowledged(2, 2));
        assert_eq!(shares.count(), 1);
    }

    #[test]
    fn an_impossible_target_is_a_number_too() {
        assert_eq!(difficulty(&[0; 32]), u64::MAX);
        assert_eq!(difficulty(&[0xff; 32]), 1);
    }

    #[test]
    fn shares_that_nobody_answers_do_not_grow_without_bound() {
        let shares = open(0..10_000);
        assert_eq!(shares.clear(), OPEN_MAX as u64);
    }
}
