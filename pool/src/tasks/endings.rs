//! Those who wait for tasks to end for good: to be settled, or never to be. They hold nothing of the tasks, and a task need
//! not be live: its pool may have been restarted since it was finished.
//!
//! Whoever asks to be told takes a place. There are few enough that all of them together are no burden, and one party does
//! not take them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_commitment::TaskId;
use tokio::sync::watch;

use super::caller::{Caller, Party};

/// Places in all. Each costs some 20 KB, most of it the stream that is held open.
const PLACES_MAX: usize = 4_096;
/// Places of one party: it may be a gateway with many agents behind it.
const PLACES_OF_A_PARTY_MAX: usize = 256;

/// The places; clones share them.
#[derive(Clone)]
pub(super) struct Endings {
    places: Arc<Mutex<Places>>,
    places_max: usize,
    of_a_party_max: usize,
}

#[derive(Default)]
struct Places {
    /// Dropping a sender tells all who wait for the task.
    awaited: HashMap<TaskId, watch::Sender<()>>,
    parties: HashMap<Party, usize>,
    taken: usize,
}

/// A place, until this is dropped.
pub(super) struct Place {
    // First: who gives a place up looks whether anybody else waits for the task.
    ended: watch::Receiver<()>,
    _seat: Seat,
}

struct Seat {
    endings: Endings,
    task: TaskId,
    party: Party,
}

impl Default for Endings {
    fn default() -> Self {
        Self {
            places: Arc::default(),
            places_max: PLACES_MAX,
            of_a_party_max: PLACES_OF_A_PARTY_MAX,
        }
    }
}

impl Endings {
    /// A place of this caller's to wait for the task's end; `None` if too many are taken. What has ended before is not told:
    /// look at the task once the place is taken.
    pub(super) fn wait_for(&self, task: TaskId, caller: &Caller) -> Option<Place> {
        let party = caller.party();
        let mut guard = self.places();
        let places = &mut *guard;
        let of_party = places.parties.get(&party).copied().unwrap_or(0);
        if places.taken >= self.places_max || of_party >= self.of_a_party_max {
            return None;
        }
        places.taken += 1;
        places.parties.insert(party, of_party + 1);
        let awaited = places.awaited.entry(task);
        let awaited = awaited.or_insert_with(|| watch::Sender::new(()));
        Some(Place {
            ended: awaited.subscribe(),
            _seat: Seat {
                endings: self.clone(),
                task,
                party,
            },
        })
    }

    /// The task has ended for good, in the ledger too.
    pub(super) fn tell(&self, task: &TaskId) {
        self.places().awaited.remove(task);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Each change leaves counts that are whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns once the task has ended for good since the place was taken.
    pub(super) async fn ended(&mut self) {
        // Nothing is ever sent: the sender goes.
        while self.ended.changed().await.is_ok() {}
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guard = self.endings.places();
        let places = &mut *guard;
        places.taken -= 1;
        if let Some(count) = places.parties.get_mut(&self.party) {
            *count -= 1;
            if *count == 0 {
                places.parties.remove(&self.party);
            }
        }
        let awaited = places.awaited.get(&self.task);
        if awaited.is_some_and(|ended| ended.receiver_count() == 0) {
            places.awaited.remove(&self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const TASK: TaskId = TaskId::from_bytes([1; 32]);
    const OTHER: TaskId = TaskId::from_bytes([2; 32]);

    fn caller(connection: u64, host: [u8; 4]) -> Caller {
        Caller::new(connection, IpAddr::from(host))
    }

    fn few() -> Endings {
        Endings {
            places_max: 4,
            of_a_party_max: 2,
            ..Endings::default()
        }
    }

    async fn is_told(place: &mut Place) -> bool {
        let told = timeout(Duration::from_millis(10), place.ended()).await;
        told.is_ok()
    }

    #[tokio::test]
    async fn all_who_wait_for_a_task_are_told_of_its_end_and_nobody_else_is() {
        let endings = few();
        let mut first = endings.wait_for(TASK, &caller(1, [192, 0, 2, 1])).unwrap();
        let mut second = endings.wait_for(TASK, &caller(2, [192, 0, 2, 2])).unwrap();
        let mut other = endings.wait_for(OTHER, &caller(3, [192, 0, 2, 3])).unwrap();
        assert!(!is_told(&mut first).await);
        endings.tell(&TASK);
        assert!(is_told(&mut first).await && is_told(&mut second).await);
        assert!(!is_told(&mut other).await);
        // Who comes later waits for what is told later, whoever gives a place up meanwhile.
        let mut late = endings.wait_for(TASK, &caller(4, [192, 0, 2, 4])).unwrap();
        drop((first, second));
        assert!(!is_told(&mut late).await);
        endings.tell(&TASK);
        assert!(is_told(&mut late).await);
    }

    #[test]
    fn a_party_has_a_few_places_all_have_some_more_and_nothing_is_left_of_those_who_leave() {
        let endings = few();
        let wait = |connection, host| endings.wait_for(TASK, &caller(connection, host));
        // One host, however many connections it has.
        let mut taken: Vec<Place> = (1..=2)
            .map(|connection| wait(connection, [192, 0, 2, 1]).unwrap())
            .collect();
        assert!(wait(3, [192, 0, 2, 1]).is_none());
        // On this machine each connection is a party.
        taken.extend((1..=2).map(|connection| wait(connection, [127, 0, 0, 1]).unwrap()));
        assert!(wait(9, [192, 0, 2, 9]).is_none());
        taken.pop();
        taken.push(wait(9, [192, 0, 2, 9]).unwrap());
        drop(taken);
        let places = endings.places();
        assert!(places.awaited.is_empty() && places.parties.is_empty());
        assert_eq!(places.taken, 0);
    }
}
