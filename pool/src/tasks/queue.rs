//! The queue of tasks that wait for a worker. It is bounded, and a task that finds no room is not admitted. No caller can
//! fill it for all: what one may have in it shrinks with what is free. Hosts take turns at the workers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use dovetail_commitment::TaskId;

use super::caller::Caller;

/// Why a task may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The queue is full.
    All,
    /// Its caller has as many in it as it may.
    Caller,
}

/// The tasks that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Waiting>);

#[derive(Debug, Clone, Copy)]
struct Waiting {
    task: TaskId,
    caller: Caller,
    /// Whether it was with a worker before.
    is_back: bool,
}

impl Queue {
    /// Whether this caller may have one more task wait, where `most` may in all.
    ///
    /// Each part is measured against the places that are free: a connection may have half as many tasks in the queue, a
    /// host as many, a network twice as many. So one host alone gets half of the queue, and the fuller the queue, the less
    /// more of it can anybody take.
    pub(super) fn room(&self, caller: &Caller, most: usize) -> Result<(), NoRoom> {
        let free = most.saturating_sub(self.0.len());
        if free == 0 {
            return Err(NoRoom::All);
        }
        let count = |is_same: fn(&Caller, &Caller) -> bool| {
            let same = self.0.iter().filter(|of| is_same(&of.caller, caller));
            same.count()
        };
        let connection = count(|one, other| one.connection == other.connection);
        let host = count(|one, other| one.host == other.host);
        let network = count(|one, other| one.network == other.network);
        let fits =
            connection.saturating_mul(2) < free && host < free && network < free.saturating_mul(2);
        fits.then_some(()).ok_or(NoRoom::Caller)
    }

    /// A new task waits.
    pub(super) fn push(&mut self, task: TaskId, caller: Caller) {
        self.0.push_back(Waiting {
            task,
            caller,
            is_back: false,
        });
    }

    /// A task waits again that was with a worker. Nothing if it waits already.
    pub(super) fn push_back_again(&mut self, task: TaskId, caller: Caller) {
        if self.0.iter().any(|waiting| waiting.task == task) {
            return;
        }
        self.0.push_front(Waiting {
            task,
            caller,
            is_back: true,
        });
    }

    /// Takes out all tasks for which this does not hold.
    pub(super) fn retain(&mut self, stays: impl Fn(&TaskId) -> bool) {
        self.0.retain(|waiting| stays(&waiting.task));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tasks in the order in which they are given to workers: first those that were with one before, then by turns
    /// of hosts. `given` says how many tasks of each host are with workers; whoever has fewer comes first.
    pub(super) fn turns(&self, mut given: HashMap<IpAddr, usize>) -> Vec<TaskId> {
        let rank = |waiting: &Waiting| {
            if waiting.is_back {
                return (0, waiting.task);
            }
            let number = given.entry(waiting.caller.host).or_default();
            *number += 1;
            (*number, waiting.task)
        };
        let mut turns: Vec<(usize, TaskId)> = self.0.iter().map(rank).collect();
        // Of one rank, the one that came first stays first.
        turns.sort_by_key(|(rank, _)| *rank);
        turns.into_iter().map(|(_, task)| task).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn caller(connection: u64, host: [u8; 2]) -> Caller {
        let [network, host] = host;
        Caller::new(connection, Ipv4Addr::new(10, 0, network, host).into())
    }

    fn task(n: u16) -> TaskId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        TaskId::from_bytes(bytes)
    }

    /// Has a caller put in as many as it may; how many those are.
    fn fill(queue: &mut Queue, most: usize, caller: impl Fn(u8) -> Caller) -> u8 {
        for count in 0..u8::MAX {
            let caller = caller(count);
            if queue.room(&caller, most).is_err() {
                return count;
            }
            let number = u16::try_from(queue.0.len()).unwrap();
            queue.push(task(number), caller);
        }
        panic!("a caller takes what it wants");
    }

    #[test]
    fn no_connection_host_or_network_fills_the_queue() {
        let mut queue = Queue::default();
        let one = fill(&mut queue, 256, |_| caller(1, [1, 1]));
        assert_eq!(one, 86, "a third");
        assert_eq!(queue.room(&caller(1, [1, 1]), 256), Err(NoRoom::Caller));
        let host = fill(&mut queue, 256, |n| caller(2 + u64::from(n), [1, 1]));
        assert_eq!(one + host, 128, "half");
        let other_hosts = |n| caller(1_000 + u64::from(n), [1, 2 + n]);
        let network = fill(&mut queue, 256, other_hosts);
        assert_eq!(one + host + network, 171, "two thirds");
        // There is room for everybody else.
        assert_eq!(queue.room(&caller(5_000, [2, 1]), 256), Ok(()));
    }

    #[test]
    fn several_hosts_that_want_everything_leave_a_place_for_the_next() {
        let mut queue = Queue::default();
        for n in 0..8 {
            fill(&mut queue, 64, |_| caller(u64::from(n), [n, 1]));
        }
        assert_eq!(queue.room(&caller(100, [100, 1]), 64), Ok(()));
    }

    #[test]
    fn a_full_queue_takes_nothing_of_anybody() {
        let mut queue = Queue::default();
        queue.push(task(1), caller(1, [1, 1]));
        assert_eq!(queue.room(&caller(2, [2, 1]), 1), Err(NoRoom::All));
        assert_eq!(queue.room(&caller(2, [2, 1]), 2), Ok(()));
    }

    #[test]
    fn hosts_take_turns_and_whoever_has_more_with_workers_waits() {
        let mut queue = Queue::default();
        let (greedy, modest) = (caller(1, [1, 1]), caller(2, [2, 1]));
        for n in 1..=3 {
            queue.push(task(n), greedy);
        }
        queue.push(task(4), modest);
        let turns = |queue: &Queue, given: &[(Caller, usize)]| {
            let given = given.iter().map(|(caller, count)| (caller.host, *count));
            queue.turns(given.collect())
        };
        assert_eq!(turns(&queue, &[]), [task(1), task(4), task(2), task(3)]);
        let given = [(greedy, 2)];
        assert_eq!(turns(&queue, &given), [task(4), task(1), task(2), task(3)]);
        // Whatever came back was waiting before all of them.
        queue.push_back_again(task(5), greedy);
        queue.push_back_again(task(5), greedy);
        let order = turns(&queue, &given);
        assert_eq!(order, [task(5), task(4), task(1), task(2), task(3)]);
        queue.retain(|id| *id != task(4));
        assert_eq!(turns(&queue, &given)[1], task(1));
    }
}
