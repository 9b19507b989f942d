//! What a worker has in hand, and whether it may be given more: a new worker has one task at a time, and after that what
//! it has in hand is covered by what it has to lose.

use dovetail_commitment::TaskId;
use dovetail_ledger::Standing;
use dovetail_units::Msat;

/// The tasks that a worker was given and that have not ended, each with what it may earn.
#[derive(Debug, Clone, Default)]
pub(super) struct Hand(Vec<(TaskId, Msat)>);

impl Hand {
    /// Puts a task in, unless it is there.
    pub(super) fn put(&mut self, task: TaskId, worth: Msat) {
        if !self.tasks().any(|in_hand| in_hand == task) {
            self.0.push((task, worth));
        }
    }

    /// Lets a task go; whether it was there.
    pub(super) fn remove(&mut self, task: &TaskId) -> bool {
        let before = self.0.len();
        self.0.retain(|(in_hand, _)| in_hand != task);
        self.0.len() < before
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.0.iter().map(|(task, _)| *task)
    }

    fn worth(&self) -> Msat {
        let worth = self.0.iter().map(|(_, worth)| worth.get());
        Msat::new(worth.fold(0, i64::saturating_add))
    }

    /// Whether a worker of this standing may be given one more.
    pub(super) fn may_grow(&self, standing: &Standing) -> bool {
        self.is_empty() || (standing.has_settled && self.worth() <= standing.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u8) -> TaskId {
        TaskId::from_bytes([n; 32])
    }

    /// How many tasks of this worth a worker is given at once.
    fn at_once(has_settled: bool, held: i64, worth: i64) -> u8 {
        let standing = Standing {
            has_settled,
            held: Msat::new(held),
        };
        let mut hand = Hand::default();
        (0..100)
            .take_while(|n| {
                let may = hand.may_grow(&standing);
                hand.put(task(*n), Msat::new(worth));
                may
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn a_new_worker_has_one_task_and_later_as_many_as_its_held_credit_covers() {
        assert_eq!(at_once(false, 0, 10), 1);
        // Whatever stands on its account: it has shown nothing.
        assert_eq!(at_once(false, 1_000, 10), 1);
        assert_eq!(at_once(true, 10, 10), 2);
        assert_eq!(at_once(true, 29, 10), 3);
        assert_eq!(at_once(true, 30, 10), 4);
        // All has matured, or was forfeited: there is nothing to lose.
        assert_eq!(at_once(true, 0, 10), 1);
    }

    #[test]
    fn tasks_that_earn_nothing_need_no_cover() {
        assert_eq!(at_once(false, 0, 0), 1);
        assert_eq!(at_once(true, 0, 0), 100);
    }

    #[test]
    fn a_hand_holds_a_task_once_and_no_sum_overflows() {
        let mut hand = Hand::default();
        hand.put(task(1), Msat::new(i64::MAX));
        hand.put(task(1), Msat::new(i64::MAX));
        hand.put(task(2), Msat::new(i64::MAX));
        assert_eq!((hand.len(), hand.worth().get()), (2, i64::MAX));
        assert!(hand.remove(&task(1)));
        assert!(!hand.remove(&task(1)));
        assert_eq!(hand.tasks().collect::<Vec<_>>(), [task(2)]);
    }
}
