//! The live tasks alone: who is given what, and what becomes of tasks that come back.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use dovetail_api::codes::Code;
use dovetail_commitment::{EncodedPrompt, SamplingParams, StopSequences, WorkerKey};
use dovetail_ledger::{NewTask, Payer, Standing};
use dovetail_units::{Msat, TokenPrices};
use tokio::sync::mpsc;

use super::live_tasks::{Arrival, Joining};
use super::pairing::Pair;
use super::progress::StreamRefusal;
use super::queue::NoRoom;
use super::reassign::Next;
use super::refusal::REFUSAL_PAUSE;
use super::*;
use crate::assignment::Assignment;
use crate::mailboxes::{COMMANDS_MAX, WorkerCommand};
use crate::test_support::BUDGET;

/// What a task may earn: four tokens.
pub(super) const WORTH: Msat = Msat::new(40);
/// A worker that may have as many tasks as it takes.
const PROVEN: Standing = Standing {
    has_settled: true,
    held: Msat::new(1_000_000),
};

pub(super) fn assignment(n: u8) -> Assignment {
    new_task(n).into()
}

fn new_task(n: u8) -> NewTask {
    NewTask {
        id: TaskId::from_bytes([n; 32]),
        model_id: ModelId::from_bytes([7; 32]),
        prompt: EncodedPrompt::new(b"secret", b"secret".map(u32::from).to_vec()).unwrap(),
        stop: StopSequences::default(),
        constraint: None,
        salt: [0; 32],
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: 4,
        },
        seed: [0; 32],
        prices: TokenPrices::new(0, 10_000_000).unwrap(),
        payer: Payer::Operator(BUDGET),
        created_at_unix: 0,
        expires_at_unix: u64::MAX,
    }
}

/// Who orders what is not about callers: each task comes from a host of its own.
pub(super) fn caller(n: u8) -> Caller {
    Caller::new(u64::from(n), Ipv4Addr::new(10, n, 0, 1).into())
}

pub(super) fn enqueue_of(
    live: &LiveTasks,
    n: u8,
    caller: Caller,
    most: usize,
) -> Result<(), NoRoom> {
    let arrival = Arrival {
        task: new_task(n),
        caller,
        hold: None,
    };
    live.enqueue(arrival, most)
}

pub(super) fn enqueue(live: &LiveTasks, n: u8) {
    enqueue_of(live, n, caller(n), 100).unwrap();
}

/// Connects a worker that nobody knows; its commands.
pub(super) fn join_new(
    live: &LiveTasks,
    key: WorkerKey,
    connection: u64,
    tasks_max: usize,
) -> mpsc::Receiver<WorkerCommand> {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    live.register(Joining {
        key,
        connection,
        models: vec![ModelId::from_bytes([7; 32])],
        tasks_max,
        commands,
    });
    receiver
}

pub(super) fn with_worker(
    tasks_max: usize,
) -> (LiveTasks, WorkerKey, mpsc::Receiver<WorkerCommand>) {
    let live = LiveTasks::default();
    let key = WorkerKey::from_bytes([9; 32]);
    let receiver = join_new(&live, key, 1, tasks_max);
    live.set_standing(&key, PROVEN);
    (live, key, receiver)
}

#[test]
fn a_task_goes_to_a_worker_that_is_free_and_serves_its_model() {
    let (live, key, mut commands) = with_worker(1);
    enqueue(&live, 1);
    enqueue(&live, 2);
    let pairs = live.pair().pairs;
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].worker, key);
    assert!(live.start(pairs[0]));
    assert!(matches!(commands.try_recv(), Ok(WorkerCommand::Assign(_))));
    assert!(live.pair().pairs.is_empty());
    live.complete(&pairs[0].task, &key);
    assert_eq!(live.pair().pairs.len(), 1);
}

#[test]
fn tokens_must_follow_each_other_and_stay_within_the_limit() {
    let (live, key, _commands) = with_worker(1);
    enqueue(&live, 1);
    let pair = live.pair().pairs[0];
    live.start(pair);
    let other = WorkerKey::from_bytes([1; 32]);
    assert_eq!(
        live.stream(&other, &pair.task, 0, &[1]),
        Err(StreamRefusal::NotYours)
    );
    assert_eq!(live.stream(&key, &pair.task, 0, &[1, 2]), Ok(()));
    assert_eq!(
        live.stream(&key, &pair.task, 1, &[3]),
        Err(StreamRefusal::OutOfOrder)
    );
    assert_eq!(
        live.stream(&key, &pair.task, 2, &[3, 4, 5]),
        Err(StreamRefusal::TooLong)
    );
    assert_eq!(live.watch(&pair.task).unwrap().borrow().tokens, vec![1, 2]);
}

#[test]
fn the_queue_is_bounded_and_a_lost_worker_hands_its_tasks_back() {
    let (live, key, _commands) = with_worker(1);
    assert_eq!(enqueue_of(&live, 1, caller(1), 1), Ok(()));
    assert_eq!(live.room(&caller(2), 1), Err(NoRoom::All));
    assert_eq!(enqueue_of(&live, 2, caller(2), 1), Err(NoRoom::All));
    let pair = live.pair().pairs[0];
    assert!(live.start(pair));
    assert!(live.unregister(&key, 2).is_empty());
    assert_eq!(live.unregister(&key, 1), vec![pair.task]);
}

#[test]
fn a_prompt_is_never_shown() {
    assert!(!format!("{:?}", assignment(1)).contains("secret"));
    assert!(!format!("{:?}", WorkerCommand::Assign(Arc::new(assignment(1)))).contains("115"));
}

/// Another worker, with its commands.
pub(super) fn join(live: &LiveTasks, n: u8, tasks_max: usize) -> mpsc::Receiver<WorkerCommand> {
    let key = WorkerKey::from_bytes([n; 32]);
    let receiver = join_new(live, key, u64::from(n), tasks_max);
    live.set_standing(&key, PROVEN);
    receiver
}

/// Gives the next waiting task to whoever is to have it.
pub(super) fn give(live: &LiveTasks) -> Pair {
    let pair = live.pair().pairs[0];
    assert!(live.start(pair));
    pair
}

#[test]
fn a_task_that_a_full_worker_gives_back_goes_to_another_and_the_full_one_is_left_alone() {
    let (live, first, mut commands) = with_worker(4);
    enqueue(&live, 1);
    let busy = give(&live);
    enqueue(&live, 2);
    let pair = give(&live);
    let other = WorkerKey::from_bytes([8; 32]);
    // Nobody else may give it back.
    assert_eq!(live.give_back(&pair.task, &other, GivenBack::Full), None);
    let next = live.give_back(&pair.task, &first, GivenBack::Full);
    assert_eq!(next, Some(Next::Another));
    let progress = live.watch(&pair.task).unwrap();
    assert_eq!(progress.borrow().phase, Phase::Queued);
    live.requeue(&pair.task);
    live.requeue(&pair.task);
    // It waits for the other task to end rather than being offered again.
    assert!(live.pair().pairs.is_empty());
    let mut others = join(&live, 8, 1);
    let again = give(&live);
    assert_eq!((again.task, again.worker), (pair.task, other));
    assert!(matches!(others.try_recv(), Ok(WorkerCommand::Assign(_))));
    // What the first one sends of it now is too late.
    let late = live.stream(&first, &pair.task, 0, &[1]);
    assert_eq!(late, Err(StreamRefusal::NotYours));
    assert_eq!(live.stream(&other, &pair.task, 0, &[1]), Ok(()));
    enqueue(&live, 3);
    assert!(live.pair().pairs.is_empty());
    live.complete(&busy.task, &first);
    assert_eq!(give(&live).worker, first);
    while commands.try_recv().is_ok() {}
}

#[test]
fn a_full_worker_is_offered_a_task_again_once_it_has_finished_one() {
    let (live, key, _commands) = with_worker(4);
    enqueue(&live, 1);
    let busy = give(&live);
    enqueue(&live, 2);
    let pair = give(&live);
    let next = live.give_back(&pair.task, &key, GivenBack::Full);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&pair.task);
    assert!(live.pair().hopeless.is_empty());
    live.complete(&busy.task, &key);
    assert_eq!(give(&live).task, pair.task);
}

#[test]
fn a_worker_that_is_full_with_nothing_of_ours_is_asked_again_after_a_while_and_not_for_ever() {
    let (live, key, _commands) = with_worker(1);
    enqueue(&live, 1);
    let mut now = Instant::now();
    for _ in 1..reassign::TRIES_MAX {
        let pair = live.pair_at(now).pairs[0];
        assert!(live.start(pair));
        let next = live.give_back(&pair.task, &key, GivenBack::Full);
        assert_eq!(next, Some(Next::Another));
        live.requeue(&pair.task);
        assert!(live.pair_at(now).pairs.is_empty());
        now = Instant::now() + REFUSAL_PAUSE;
    }
    let pair = live.pair_at(now).pairs[0];
    let next = live.give_back(&pair.task, &key, GivenBack::Full);
    assert_eq!(next, Some(Next::Fail(Code::WorkersFull)));
}

#[test]
fn where_nobody_is_left_a_task_fails_with_the_reason() {
    for (why, code) in [
        (GivenBack::Unable, Code::WorkerFailed),
        (GivenBack::Lost, Code::WorkerLost),
    ] {
        let (live, key, _commands) = with_worker(1);
        enqueue(&live, 1);
        let pair = give(&live);
        if why == GivenBack::Lost {
            assert_eq!(live.unregister(&key, 1), [pair.task]);
        }
        let next = live.give_back(&pair.task, &key, why);
        assert_eq!(next, Some(Next::Fail(code)));
    }
}

#[test]
fn a_task_whose_last_hope_leaves_is_hopeless_and_a_new_one_waits() {
    let (live, key, _commands) = with_worker(1);
    let _others = join(&live, 8, 1);
    enqueue(&live, 1);
    enqueue(&live, 2);
    let pairs = live.pair().pairs;
    assert!(pairs.iter().all(|pair| live.start(*pair)));
    let mine = pairs.iter().find(|pair| pair.worker == key).unwrap();
    let next = live.give_back(&mine.task, &key, GivenBack::Unable);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&mine.task);
    live.unregister(&WorkerKey::from_bytes([8; 32]), 8);
    enqueue(&live, 3);
    let found = live.pair();
    assert_eq!(found.hopeless, [(mine.task, Code::WorkerFailed)]);
    assert!(found.pairs.is_empty(), "the worker that refused has a rest");
}

#[test]
fn tries_are_bounded_however_many_workers_there_are() {
    let live = LiveTasks::default();
    let _commands: Vec<_> = (1..=20).map(|n| join(&live, n, 1)).collect();
    enqueue(&live, 1);
    let mut given = 0;
    loop {
        let pair = give(&live);
        given += 1;
        match live.give_back(&pair.task, &pair.worker, GivenBack::Full) {
            Some(Next::Another) => live.requeue(&pair.task),
            end => {
                assert_eq!(end, Some(Next::Fail(Code::WorkersFull)));
                break;
            }
        }
    }
    assert_eq!(given, reassign::TRIES_MAX);
}

#[test]
fn a_task_of_which_tokens_were_read_goes_on_at_another_worker_where_it_was() {
    let (live, first, _commands) = with_worker(1);
    enqueue(&live, 1);
    let pair = give(&live);
    let (task, other) = (pair.task, WorkerKey::from_bytes([8; 32]));
    live.stream(&first, &task, 0, &[1, 2]).unwrap();
    let _others = join(&live, 8, 1);
    live.unregister(&first, 1);
    let next = live.give_back(&task, &first, GivenBack::Lost);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&task);
    assert_eq!(give(&live).worker, other);
    let mut read = live.watch(&task).unwrap();
    read.mark_unchanged();
    // It begins at the beginning, and readers hear nothing of what they have.
    let late = live.stream(&other, &task, 2, &[3]);
    assert_eq!(late, Err(StreamRefusal::OutOfOrder));
    live.stream(&other, &task, 0, &[1]).unwrap();
    assert!(!read.has_changed().unwrap());
    live.stream(&other, &task, 1, &[2, 3]).unwrap();
    assert!(read.has_changed().unwrap());
    assert_eq!(read.borrow().tokens, [1, 2, 3]);
    assert!(read.borrow().is_caught_up());
}

#[test]
fn where_nobody_can_take_over_a_task_that_was_read_it_fails() {
    let (live, key, _commands) = with_worker(1);
    let _others = join(&live, 8, 0);
    enqueue(&live, 1);
    let pair = give(&live);
    live.stream(&key, &pair.task, 0, &[1]).unwrap();
    assert_eq!(live.unregister(&key, 1), [pair.task]);
    let next = live.give_back(&pair.task, &key, GivenBack::Lost);
    assert_eq!(next, Some(Next::Fail(Code::WorkerLost)));
}

#[test]
fn tokens_that_differ_from_those_before_are_refused_and_nothing_is_lost() {
    let (live, first, _commands) = with_worker(1);
    let _others = join(&live, 8, 1);
    enqueue(&live, 1);
    let pair = give(&live);
    let one = pair.worker;
    let other = match one == first {
        true => WorkerKey::from_bytes([8; 32]),
        false => first,
    };
    live.stream(&one, &pair.task, 0, &[1, 2]).unwrap();
    live.give_back(&pair.task, &one, GivenBack::Unable).unwrap();
    live.requeue(&pair.task);
    assert_eq!(give(&live).worker, other);
    let differs = live.stream(&other, &pair.task, 0, &[1, 9, 3]);
    assert_eq!(differs, Err(StreamRefusal::Differs));
    assert_eq!(live.watch(&pair.task).unwrap().borrow().tokens, [1, 2]);
    // Whoever has the same tokens goes on.
    live.stream(&other, &pair.task, 0, &[1, 2, 3]).unwrap();
}

#[test]
fn a_newer_connection_inherits_what_was_begun_and_not_what_was_not() {
    let (live, key, _commands) = with_worker(2);
    enqueue(&live, 1);
    let begun = give(&live);
    live.stream(&key, &begun.task, 0, &[1]).unwrap();
    enqueue(&live, 2);
    let waiting = give(&live);
    let mut newer = join_new(&live, key, 2, 2);
    assert_eq!(live.unregister(&key, 1), [waiting.task]);
    let next = live.give_back(&waiting.task, &key, GivenBack::Lost);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&waiting.task);
    assert_eq!(give(&live).worker, key);
    assert!(matches!(newer.try_recv(), Ok(WorkerCommand::Assign(_))));
    assert_eq!(live.stream(&key, &begun.task, 1, &[2]), Ok(()));
}

#[test]
fn a_task_for_a_worker_that_left_meanwhile_is_not_sent() {
    let (live, key, _commands) = with_worker(1);
    enqueue(&live, 1);
    let pair = live.pair().pairs[0];
    assert!(live.unregister(&key, 1).is_empty());
    assert!(!live.start(pair));
    let _others = join(&live, 8, 1);
    let next = live.give_back(&pair.task, &key, GivenBack::Lost);
    assert_eq!(next, Some(Next::Another));
}
