//! One at a time of each: of each worker across its connections, of each host across its requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

#[derive(Default)]
struct Line {
    gate: Arc<Gate<()>>,
    in_line: usize,
}

/// The lines of all keys; clones share them.
pub(crate) struct OneEach<K: Copy + Eq + Hash> {
    lines: Arc<Mutex<HashMap<K, Line>>>,
    in_line_max: usize,
}

/// A key's turn. Dropping it lets the next one in.
pub(crate) struct Turn<K: Copy + Eq + Hash> {
    // First: whoever is next must find the line still there.
    _gate: OwnedMutexGuard<()>,
    _place: Place<K>,
}

/// A place in a line, given up when it is dropped.
struct Place<K: Copy + Eq + Hash> {
    one_each: OneEach<K>,
    key: K,
}

impl<K: Copy + Eq + Hash> Clone for OneEach<K> {
    fn clone(&self) -> Self {
        Self {
            lines: Arc::clone(&self.lines),
            in_line_max: self.in_line_max,
        }
    }
}

impl<K: Copy + Eq + Hash> OneEach<K> {
    /// At most `in_line_max` of one key stand in line, the one under way included.
    pub(crate) fn new(in_line_max: usize) -> Self {
        Self {
            lines: Arc::default(),
            in_line_max,
        }
    }

    /// Waits for the key's turn, first come, first served; `None` if too many are in line.
    pub(crate) async fn take(&self, key: K) -> Option<Turn<K>> {
        let gate = {
            let mut lines = self.lines();
            let line = lines.entry(key).or_default();
            if line.in_line >= self.in_line_max {
                return None;
            }
            line.in_line += 1;
            Arc::clone(&line.gate)
        };
        let place = Place {
            one_each: self.clone(),
            key,
        };
        let gate = gate.lock_owned().await;
        Some(Turn {
            _gate: gate,
            _place: place,
        })
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<K, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut lines = self.one_each.lines();
        if let Some(line) = lines.get_mut(&self.key) {
            line.in_line -= 1;
            if line.in_line == 0 {
                lines.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_LINE_MAX: usize = 4;

    #[tokio::test]
    async fn a_key_has_one_turn_at_a_time_and_others_do_not_wait_for_it() {
        let one_each = OneEach::new(IN_LINE_MAX);
        let (a, b) = (1, 2);
        let first = one_each.take(a).await.unwrap();
        assert!(one_each.take(b).await.is_some());
        let second = {
            let one_each = one_each.clone();
            tokio::spawn(async move { one_each.take(a).await.is_some() })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap());
        assert!(one_each.lines().is_empty());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_turns_away() {
        let one_each = OneEach::new(IN_LINE_MAX);
        let key = 1;
        let first = one_each.take(key).await.unwrap();
        let waiting: Vec<_> = (1..IN_LINE_MAX)
            .map(|_| {
                let one_each = one_each.clone();
                tokio::spawn(async move { one_each.take(key).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(one_each.take(key).await.is_none());
        // Those who stop waiting give their place up.
        for task in waiting {
            task.abort();
            let _ = task.await;
        }
        drop(first);
        assert!(one_each.lines().is_empty());
    }
}
