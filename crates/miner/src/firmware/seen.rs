//! Which shares were handed in already, so that none counts twice. What is remembered is bounded for the whole port:
//! every connection has some room of its own, which nobody can take from it, and beyond that all borrow from one
//! budget. A connection that finds it empty, or takes more than its part, floods us.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::search::Hash256;

/// Shares on one tip that every connection may hand in whatever others do: an hour and more of a device's.
const OWN_MAX: usize = 1_024;
/// Shares on one tip of all connections beyond that: the channels of many devices behind one connection have hours.
const BORROWED_MAX: usize = 1 << 19;
/// Shares on one tip of one connection, so that none has more than an eighth of what all share.
const CONNECTION_MAX: usize = 1 << 16;

/// What all connections borrow from.
#[derive(Debug)]
pub(super) struct SeenBudget(AtomicUsize);

impl SeenBudget {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(BORROWED_MAX))
    }

    fn take(&self) -> Result<(), NoRoom> {
        let take = |left: usize| left.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| NoRoom)
    }

    fn give_back(&self, taken: usize) {
        self.0.fetch_add(taken, Ordering::Relaxed);
    }
}

/// There is no room for another share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// The shares of one connection on the newest tip.
#[derive(Debug)]
pub(super) struct SharesSeen {
    /// Half of each hash: nobody can have two shares with the same one.
    hashes: HashSet<u128>,
    budget: Arc<SeenBudget>,
}

impl SharesSeen {
    pub(super) fn new(budget: Arc<SeenBudget>) -> Self {
        Self {
            hashes: HashSet::new(),
            budget,
        }
    }

    /// Remembers a share. Whether it is new.
    pub(super) fn insert(&mut self, hash: &Hash256) -> Result<bool, NoRoom> {
        let (half, _) = hash.split_at(size_of::<u128>());
        let half = u128::from_le_bytes(half.try_into().expect("a hash has two halves"));
        if self.hashes.contains(&half) {
            return Ok(false);
        }
        if self.hashes.len() >= CONNECTION_MAX {
            return Err(NoRoom);
        }
        if self.hashes.len() >= OWN_MAX {
            self.budget.take()?;
        }
        Ok(self.hashes.insert(half))
    }

    /// There is a new tip: no share of before can be handed in again.
    pub(super) fn forget(&mut self) {
        let borrowed = self.hashes.len().saturating_sub(OWN_MAX);
        self.budget.give_back(borrowed);
        // The memory as well.
        self.hashes = HashSet::new();
    }
}

impl Drop for SharesSeen {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> Hash256 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    /// How many shares a connection can hand in.
    fn fill(seen: &mut SharesSeen) -> usize {
        (0..)
            .find(|n| seen.insert(&hash(*n)) == Err(NoRoom))
            .unwrap()
    }

    #[test]
    fn all_connections_together_are_bounded_and_none_takes_the_room_of_another() {
        let budget = Arc::new(SeenBudget::new());
        let connection = || SharesSeen::new(budget.clone());
        let mut flooding: Vec<SharesSeen> = (0..64).map(|_| connection()).collect();
        let all: usize = flooding.iter_mut().map(fill).sum();
        assert_eq!(all, BORROWED_MAX + 64 * OWN_MAX);
        assert_eq!(fill(&mut flooding[0]), CONNECTION_MAX);
        // An honest device beside them has its own.
        let mut honest = connection();
        assert_eq!(fill(&mut honest), OWN_MAX);
        assert_eq!(honest.insert(&hash(0)), Ok(false));
        // What is given back can be borrowed again.
        flooding.truncate(1);
        flooding[0].forget();
        assert_eq!(flooding[0].insert(&hash(0)), Ok(true));
        assert_eq!(fill(&mut connection()), CONNECTION_MAX);
    }
}
