//! The live tasks alone: who is given what, and what becomes of tasks that come back.

use std::sync::Arc;
use std::time::Instant;

use dovetail_api::codes::Code;
use dovetail_commitment::{EncodedPrompt, SamplingParams, StopSequences, WorkerKey};
use tokio::sync::mpsc;

use super::pairing::Pair;
use super::progress::StreamRefusal;
use super::reassign::Next;
use super::refusal::REFUSAL_PAUSE;
use super::*;
use crate::assignment::Assignment;
use crate::mailboxes::{COMMANDS_MAX, WorkerCommand};

fn assignment(n: u8) -> Assignment {
    Assignment {
        id: TaskId::from_bytes([n; 32]),
        model: ModelId::from_bytes([7; 32]),
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
        expires_at_unix: u64::MAX,
    }
}

fn with_worker(tasks_max: usize) -> (LiveTasks, WorkerKey, mpsc::Receiver<WorkerCommand>) {
    let live = LiveTasks::default();
    let key = WorkerKey::from_bytes([9; 32]);
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    live.register(
        key,
        1,
        vec![ModelId::from_bytes([7; 32])],
        tasks_max,
        sender,
    );
    (live, key, receiver)
}

#[test]
fn a_task_goes_to_a_worker_that_is_free_and_serves_its_model() {
    let (live, key, mut commands) = with_worker(1);
    assert!(live.enqueue(assignment(1), 10));
    assert!(live.enqueue(assignment(2), 10));
    let pairs = live.pair().pairs;
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].worker, key);
    assert!(live.start(pairs[0]));
    assert!(matches!(commands.try_recv(), Ok(WorkerCommand::Assign(_))));
    assert!(live.pair().pairs.is_empty());
    live.complete(&pairs[0].task, &[1]);
    assert_eq!(live.pair().pairs.len(), 1);
}

#[test]
fn tokens_must_follow_each_other_and_stay_within_the_limit() {
    let (live, key, _commands) = with_worker(1);
    live.enqueue(assignment(1), 10);
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
    assert!(live.enqueue(assignment(1), 1));
    assert!(!live.has_room(1));
    assert!(!live.enqueue(assignment(2), 1));
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
fn join(live: &LiveTasks, n: u8, tasks_max: usize) -> mpsc::Receiver<WorkerCommand> {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    let model = ModelId::from_bytes([7; 32]);
    let key = WorkerKey::from_bytes([n; 32]);
    live.register(key, u64::from(n), vec![model], tasks_max, sender);
    receiver
}

/// Gives the next waiting task to whoever is to have it.
fn give(live: &LiveTasks) -> Pair {
    let pair = live.pair().pairs[0];
    assert!(live.start(pair));
    pair
}

#[test]
fn a_task_that_a_full_worker_gives_back_goes_to_another_and_the_full_one_is_left_alone() {
    let (live, first, mut commands) = with_worker(4);
    live.enqueue(assignment(1), 10);
    let busy = give(&live);
    live.enqueue(assignment(2), 10);
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
    live.enqueue(assignment(3), 10);
    assert!(live.pair().pairs.is_empty());
    live.complete(&busy.task, &[1]);
    assert_eq!(give(&live).worker, first);
    while commands.try_recv().is_ok() {}
}

#[test]
fn a_full_worker_is_offered_a_task_again_once_it_has_finished_one() {
    let (live, key, _commands) = with_worker(4);
    live.enqueue(assignment(1), 10);
    let busy = give(&live);
    live.enqueue(assignment(2), 10);
    let pair = give(&live);
    let next = live.give_back(&pair.task, &key, GivenBack::Full);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&pair.task);
    assert!(live.pair().hopeless.is_empty());
    live.complete(&busy.task, &[1]);
    assert_eq!(give(&live).task, pair.task);
}

#[test]
fn a_worker_that_is_full_with_nothing_of_ours_is_asked_again_after_a_while_and_not_for_ever() {
    let (live, key, _commands) = with_worker(1);
    live.enqueue(assignment(1), 10);
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
        live.enqueue(assignment(1), 10);
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
    live.enqueue(assignment(1), 10);
    live.enqueue(assignment(2), 10);
    let pairs = live.pair().pairs;
    assert!(pairs.iter().all(|pair| live.start(*pair)));
    let mine = pairs.iter().find(|pair| pair.worker == key).unwrap();
    let next = live.give_back(&mine.task, &key, GivenBack::Unable);
    assert_eq!(next, Some(Next::Another));
    live.requeue(&mine.task);
    live.unregister(&WorkerKey::from_bytes([8; 32]), 8);
    live.enqueue(assignment(3), 10);
    let found = live.pair();
    assert_eq!(found.hopeless, [(mine.task, Code::WorkerFailed)]);
    assert!(found.pairs.is_empty(), "the worker that refused has a rest");
}

#[test]
fn tries_are_bounded_however_many_workers_there_are() {
    let live = LiveTasks::default();
    let _commands: Vec<_> = (1..=20).map(|n| join(&live, n, 1)).collect();
    live.enqueue(assignment(1), 10);
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
fn a_task_of_which_tokens_were_read_stays_with_its_worker() {
    let (live, key, _commands) = with_worker(1);
    let _others = join(&live, 8, 0);
    live.enqueue(assignment(1), 10);
    let pair = give(&live);
    live.stream(&key, &pair.task, 0, &[1]).unwrap();
    let next = live.give_back(&pair.task, &key, GivenBack::Lost);
    assert_eq!(next, Some(Next::Fail(Code::WorkerLost)));
}

#[test]
fn a_newer_connection_inherits_what_was_begun_and_not_what_was_not() {
    let (live, key, _commands) = with_worker(2);
    live.enqueue(assignment(1), 10);
    let begun = give(&live);
    live.stream(&key, &begun.task, 0, &[1]).unwrap();
    live.enqueue(assignment(2), 10);
    let waiting = give(&live);
    let (sender, mut newer) = mpsc::channel(COMMANDS_MAX);
    live.register(key, 2, vec![ModelId::from_bytes([7; 32])], 2, sender);
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
    live.enqueue(assignment(1), 10);
    let pair = live.pair().pairs[0];
    assert!(live.unregister(&key, 1).is_empty());
    assert!(!live.start(pair));
    let _others = join(&live, 8, 1);
    let next = live.give_back(&pair.task, &key, GivenBack::Lost);
    assert_eq!(next, Some(Next::Another));
}
