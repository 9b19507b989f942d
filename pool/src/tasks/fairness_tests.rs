//! The live tasks alone: how many tasks each worker has, what becomes of those that stall, and what one caller can do to
//! others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dovetail_commitment::WorkerKey;
use dovetail_ledger::Standing;
use dovetail_units::Msat;

use super::progress::StreamRefusal;
use super::queue::NoRoom;
use super::reassign::Next;
use super::tests::{
    WORTH, assignment, caller, enqueue, enqueue_of, give, join, join_new, with_worker,
};
use super::*;
use crate::mailboxes::WorkerCommand;

#[test]
fn a_new_worker_has_one_task_at_a_time_until_one_is_settled() {
    let live = LiveTasks::default();
    let key = WorkerKey::from_bytes([9; 32]);
    let _commands = join_new(&live, key, 1, 4);
    for n in 1..=9 {
        enqueue(&live, n);
    }
    for _ in 0..2 {
        let pair = give(&live);
        assert!(live.pair().pairs.is_empty());
        live.complete(&pair.task, &key);
    }
    let set = |held| {
        let standing = Standing {
            has_settled: true,
            held: Msat::new(held),
        };
        live.set_standing(&key, standing);
    };
    // What one of them earned is held. It covers one task in hand, so there may be a second.
    set(WORTH.get());
    assert_eq!(live.pair().pairs.len(), 2);
    set(2 * WORTH.get());
    assert_eq!(live.pair().pairs.len(), 1);
    // A newer connection of the same worker begins with what is known.
    let _newer = join_new(&live, key, 2, 9);
    set(3 * WORTH.get());
    assert_eq!(live.pair().pairs.len(), 1);
}

#[test]
fn new_workers_have_a_part_of_the_tasks_while_others_have_room_and_all_of_them_if_not() {
    let (live, proven, _commands) = with_worker(8);
    let _new: Vec<_> = (20..40)
        .map(|n| join_new(&live, WorkerKey::from_bytes([n; 32]), u64::from(n), 1))
        .collect();
    for n in 1..=20 {
        enqueue(&live, n);
    }
    let pairs = live.pair().pairs;
    let given = |first: usize| {
        let of_proven = pairs[..first].iter().filter(|pair| pair.worker == proven);
        of_proven.count()
    };
    assert_eq!((given(4), given(8)), (3, 6));
    assert_eq!((pairs.len(), given(20)), (20, 8));
}

#[test]
fn of_workers_that_are_equal_whoever_has_waited_longest_comes_first() {
    let live = LiveTasks::default();
    let _commands: Vec<_> = (1..=3).map(|n| join(&live, n, 1)).collect();
    let mut given = Vec::new();
    for n in 1..=6 {
        enqueue(&live, n);
        let pair = give(&live);
        given.push(pair.worker);
        live.complete(&pair.task, &pair.worker);
    }
    assert_eq!(given[..3], given[3..]);
    let distinct: BTreeSet<_> = given.iter().map(|key| key.to_bytes()).collect();
    assert_eq!(distinct.len(), 3);
}

#[test]
fn a_task_without_a_first_token_in_time_is_anothers_and_its_worker_rests() {
    let (live, slow, mut commands) = with_worker(4);
    enqueue(&live, 1);
    let pair = give(&live);
    let first_token = live.patience.first_token;
    let now = Instant::now();
    assert!(live.stalled(now).is_empty());
    assert_eq!(live.stalled(now + first_token), [(pair.task, slow)]);
    let _others = join(&live, 8, 1);
    let next = live.give_back(&pair.task, &slow, GivenBack::Stalled);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&pair.task);
    assert!(matches!(commands.try_recv(), Ok(WorkerCommand::Assign(_))));
    assert!(matches!(commands.try_recv(), Ok(WorkerCommand::Cancel(_))));
    assert_eq!(give(&live).worker, WorkerKey::from_bytes([8; 32]));
    // It is given nothing else for a while, however much room it has, and never this one.
    enqueue(&live, 2);
    assert!(live.pair().pairs.is_empty());
    let later = Instant::now() + Duration::from_secs(31);
    assert_eq!(live.pair_at(later).pairs[0].worker, slow);
}

#[test]
fn a_task_whose_tokens_stop_coming_has_stalled_and_one_that_is_handed_in_has_not() {
    let (live, key, _commands) = with_worker(4);
    let progress = live.patience.progress;
    enqueue(&live, 1);
    let task = give(&live).task;
    // As if the time for the first token were long over.
    live.state().tasks.get_mut(&task).unwrap().due = Some(Instant::now());
    live.stream(&key, &task, 0, &[1]).unwrap();
    assert!(live.stalled(Instant::now()).is_empty());
    // Nothing is no token, and gives no time.
    live.state().tasks.get_mut(&task).unwrap().due = Some(Instant::now());
    live.stream(&key, &task, 1, &[]).unwrap();
    assert_eq!(live.stalled(Instant::now()), [(task, key)]);
    let tokens = live.hand_in(&task, &key, false).unwrap();
    assert_eq!(tokens, [1]);
    assert!(live.stalled(Instant::now() + progress).is_empty());
    assert_eq!(live.give_back(&task, &key, GivenBack::Stalled), None);
    let late = live.stream(&key, &task, 1, &[2]);
    assert_eq!(late, Err(StreamRefusal::OutOfOrder));
    assert!(matches!(
        live.hand_in(&task, &key, false),
        Err(DeliveryError::Underway)
    ));
    live.not_taken(&task);
    assert_eq!(live.stalled(Instant::now() + progress), [(task, key)]);
}

#[test]
fn where_the_only_worker_stalls_the_agent_is_told_so() {
    let (live, key, _commands) = with_worker(1);
    enqueue(&live, 1);
    let pair = give(&live);
    let next = live.give_back(&pair.task, &key, GivenBack::Stalled);
    assert_eq!(next, Some(Next::Fail(Code::WorkerStalled)));
}

#[test]
fn one_caller_does_not_fill_the_queue_and_its_tasks_do_not_all_come_first() {
    let (live, _key, _commands) = with_worker(2);
    let greedy = caller(200);
    let mut waiting = 0;
    while enqueue_of(&live, waiting, greedy, 16).is_ok() {
        waiting += 1;
    }
    assert_eq!(live.room(&greedy, 16), Err(NoRoom::Caller));
    assert!((1..16).contains(&waiting));
    enqueue_of(&live, 100, caller(1), 16).unwrap();
    let pairs = live.pair().pairs;
    let first: Vec<TaskId> = pairs.iter().map(|pair| pair.task).collect();
    assert_eq!(first, [assignment(0).id, assignment(100).id]);
}
