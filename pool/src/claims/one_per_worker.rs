//! One at a time of each worker, across its connections. Of claims: so those of one batch do not race, the worker's
//! held credit is not counted on twice, and nothing of it is audited while a batch of it is suspect. And of registrations of
//! batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_commitment::WorkerKey;
use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

/// How many of one worker may stand in line, the one under way included. An honest worker has
/// one; a few more cover a reconnection.
const IN_LINE_MAX: usize = 4;

#[derive(Default)]
struct Line {
    gate: Arc<Gate<()>>,
    in_line: usize,
}

/// The lines of all workers; clones share them.
#[derive(Clone, Default)]
pub(crate) struct OnePerWorker(Arc<Mutex<HashMap<WorkerKey, Line>>>);

/// A worker's turn. Dropping it lets the next one in.
pub(crate) struct Turn {
    // First: the claim that is next must find the line still there.
    _gate: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in a line, given up when it is dropped.
struct Place {
    one_per_worker: OnePerWorker,
    worker: WorkerKey,
}

impl OnePerWorker {
    /// Waits for the worker's turn, first come, first served; `None` if too many are in line.
    pub(crate) async fn take(&self, worker: WorkerKey) -> Option<Turn> {
        let gate = {
            let mut lines = self.lines();
            let line = lines.entry(worker).or_default();
            if line.in_line >= IN_LINE_MAX {
                return None;
            }
            line.in_line += 1;
            Arc::clone(&line.gate)
        };
        let place = Place {
            one_per_worker: self.clone(),
            worker,
        };
        let gate = gate.lock_owned().await;
        Some(Turn {
            _gate: gate,
            _place: place,
        })
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<WorkerKey, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.one_per_worker.lines();
        if let Some(line) = lines.get_mut(&self.worker) {
            line.in_line -= 1;
            if line.in_line == 0 {
                lines.remove(&self.worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_has_one_turn_at_a_time_and_others_do_not_wait_for_it() {
        let one_per_worker = OnePerWorker::default();
        let (a, b) = (
            WorkerKey::from_bytes([1; 32]),
            WorkerKey::from_bytes([2; 32]),
        );
        let first = one_per_worker.take(a).await.unwrap();
        assert!(one_per_worker.take(b).await.is_some());
        let second = {
            let one_per_worker = one_per_worker.clone();
            tokio::spawn(async move { one_per_worker.take(a).await.is_some() })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap());
        assert!(one_per_worker.lines().is_empty());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_turns_away() {
        let one_per_worker = OnePerWorker::default();
        let worker = WorkerKey::from_bytes([1; 32]);
        let first = one_per_worker.take(worker).await.unwrap();
        let waiting: Vec<_> = (1..IN_LINE_MAX)
            .map(|_| {
                let one_per_worker = one_per_worker.clone();
                tokio::spawn(async move { one_per_worker.take(worker).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(one_per_worker.take(worker).await.is_none());
        // Those who stop waiting give their place up.
        for task in waiting {
            task.abort();
            let _ = task.await;
        }
        drop(first);
        assert!(one_per_worker.lines().is_empty());
    }
}
