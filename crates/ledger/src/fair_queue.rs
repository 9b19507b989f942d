//! A queue with a lane for each source. The lanes are taken from in turn, and each holds a few items only: a source that
//! brings more waits for itself, and nobody else is refused or comes later for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Nothing is taken from the queue any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// One source's place in the queue. Clones share it.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    queue: Arc<Sources<T>>,
    number: u64,
    /// The room that is left in the lane.
    room: Arc<Semaphore>,
}

/// The one end at which items are taken out.
#[derive(Debug)]
pub(crate) struct Outlet<T>(Arc<Shared<T>>);

/// All sources. When the last of them is gone, nothing more will come.
#[derive(Debug)]
struct Sources<T> {
    shared: Arc<Shared<T>>,
    lane_max: usize,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something came, or nothing more will.
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    /// The lanes in which something waits, with the room that each item takes.
    waiting: HashMap<u64, VecDeque<(T, OwnedSemaphorePermit)>>,
    /// Their numbers, in the order of their turns.
    turns: VecDeque<u64>,
    next_lane: u64,
    is_closed: bool,
}

/// A queue whose lanes hold so many items each, with one lane.
pub(crate) fn fair_queue<T>(lane_max: usize) -> (Lane<T>, Outlet<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            next_lane: 0,
            is_closed: false,
        }),
        changed: Notify::new(),
    });
    let outlet = Outlet(Arc::clone(&shared));
    let sources = Arc::new(Sources { shared, lane_max });
    (sources.open(), outlet)
}

impl<T> Sources<T> {
    fn open(self: &Arc<Self>) -> Lane<T> {
        let mut state = self.shared.state();
        let number = state.next_lane;
        state.next_lane += 1;
        Lane {
            queue: Arc::clone(self),
            number,
            room: Arc::new(Semaphore::new(self.lane_max)),
        }
    }
}

impl<T> Drop for Sources<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            number: self.number,
            room: Arc::clone(&self.room),
        }
    }
}

impl<T> Lane<T> {
    /// The lane of another source.
    pub(crate) fn another(&self) -> Self {
        self.queue.open()
    }

    /// Queues an item, once there is room for it in the lane.
    ///
    /// # Errors
    /// [`Closed`]; the item is gone.
    pub(crate) async fn push(&self, item: T) -> Result<(), Closed> {
        let room = Arc::clone(&self.room).acquire_owned();
        let room = room.await.map_err(|_| Closed)?;
        let shared = &self.queue.shared;
        let mut state = shared.state();
        if state.is_closed {
            return Err(Closed);
        }
        state.push(self.number, item, room);
        drop(state);
        shared.changed.notify_one();
        Ok(())
    }
}

impl<T> Outlet<T> {
    /// The next item; `None` once nothing more will come. Cancellation-safe.
    pub(crate) async fn next(&mut self) -> Option<T> {
        loop {
            {
                let mut state = self.0.state();
                match state.pop() {
                    Some(item) => return Some(item),
                    None if state.is_closed => return None,
                    None => {}
                }
            }
            // What comes in between is remembered by it.
            self.0.changed.notified().await;
        }
    }

    /// Takes nothing more in. What waits is still to be taken out.
    pub(crate) fn close(&mut self) {
        self.0.close();
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }
}

impl<T> State<T> {
    fn push(&mut self, lane: u64, item: T, room: OwnedSemaphorePermit) {
        let waiting = self.waiting.entry(lane).or_default();
        if waiting.is_empty() {
            self.turns.push_back(lane);
        }
        waiting.push_back((item, room));
    }

    /// The first item of the lane whose turn it is.
    fn pop(&mut self) -> Option<T> {
        let lane = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&lane)?;
        let (item, _room) = waiting.pop_front()?;
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&lane)),
            false => self.turns.push_back(lane),
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    const LANE_MAX: usize = 4;

    /// A lane and a number.
    type Item = (usize, u32);

    fn lanes(count: usize) -> (Vec<Lane<Item>>, Outlet<Item>) {
        let (first, outlet) = fair_queue(LANE_MAX);
        let others: Vec<_> = (1..count).map(|_| first.another()).collect();
        ([vec![first], others].concat(), outlet)
    }

    /// What a future has to say by now.
    fn now<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn next<T>(outlet: &mut Outlet<T>) -> Option<T> {
        now(outlet.next()).flatten()
    }

    #[test]
    fn a_source_that_fills_its_lane_waits_for_itself_and_is_in_nobodys_way() {
        let (lanes, mut outlet) = lanes(2);
        for number in 0..LANE_MAX as u32 {
            now(lanes[0].push((0, number))).unwrap().unwrap();
        }
        let mut fifth = Box::pin(lanes[0].push((0, 4)));
        assert_eq!(now(fifth.as_mut()), None);
        // The other has room, and its turn is the next but one.
        now(lanes[1].push((1, 0))).unwrap().unwrap();
        assert_eq!(next(&mut outlet), Some((0, 0)));
        assert_eq!(next(&mut outlet), Some((1, 0)));
        assert_eq!(now(fifth), Some(Ok(())));
        let rest: Vec<_> = std::iter::from_fn(|| next(&mut outlet)).collect();
        assert_eq!(rest, [(0, 1), (0, 2), (0, 3), (0, 4)]);
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let (lanes, mut outlet) = lanes(2);
        for number in 0..LANE_MAX as u32 {
            now(lanes[0].push((0, number))).unwrap().unwrap();
        }
        let mut waiting = Box::pin(lanes[0].push((0, 9)));
        assert_eq!(now(waiting.as_mut()), None);
        outlet.close();
        assert_eq!(now(lanes[1].push((1, 0))), Some(Err(Closed)));
        for number in 0..LANE_MAX as u32 {
            assert_eq!(now(outlet.next()), Some(Some((0, number))));
        }
        assert_eq!(now(outlet.next()), Some(None));
        assert_eq!(now(waiting), Some(Err(Closed)));
    }

    #[test]
    fn nothing_more_comes_once_all_sources_are_gone() {
        let (lanes, mut outlet) = lanes(3);
        now(lanes[2].push((2, 7))).unwrap().unwrap();
        assert_eq!(next(&mut outlet), Some((2, 7)));
        assert_eq!(now(outlet.next()), None);
        drop(lanes);
        assert_eq!(now(outlet.next()), Some(None));
    }

    proptest! {
        /// Whatever sources do: each lane keeps its order and its bound, and no item waits for more than one of each other
        /// lane once it is the first of its own.
        #[test]
        fn turns_go_round(steps in proptest::collection::vec(0..8_usize, 1..400)) {
            let (lanes, mut outlet) = lanes(4);
            let (mut pushed, mut taken) = ([0_u32; 4], [0_u32; 4]);
            // Those taken from other lanes while something waited in this one.
            let mut passed = [[0_u32; 4]; 4];
            for step in steps {
                if let Some(lane) = lanes.get(step) {
                    let took = now(lane.push((step, pushed[step])));
                    let has_room = ((pushed[step] - taken[step]) as usize) < LANE_MAX;
                    prop_assert_eq!(took, has_room.then_some(Ok(())));
                    pushed[step] += u32::from(has_room);
                    continue;
                }
                let expected = pushed != taken;
                let item = next(&mut outlet);
                prop_assert_eq!(item.is_some(), expected);
                let Some((lane, number)) = item else { continue };
                prop_assert_eq!(number, taken[lane]);
                passed[lane] = [0; 4];
                for other in (0..4).filter(|other| *other != lane) {
                    if pushed[other] > taken[other] {
                        passed[other][lane] += 1;
                        prop_assert!(passed[other][lane] <= 1);
                    }
                }
                taken[lane] += 1;
            }
        }
    }
}
