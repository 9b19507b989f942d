//! Tasks of which their agents want no more, on a real ledger.

use std::time::{Duration, Instant};

use dovetail_commitment::{FinishReason, Transcript};
use tokio::time::timeout;

use super::life_tests::{FIRST, Fixture, SECOND, given, transcript};
use super::*;
use crate::mailboxes::WorkerCommand;

#[tokio::test]
async fn a_task_that_is_cancelled_while_it_streams_ends_with_what_was_streamed() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    worker.stream(&task.id, 0, &[5, 6]).unwrap();
    let prefix = |tokens: &[u32]| Transcript {
        finish_reason: FinishReason::Cancelled,
        ..transcript(&task, FIRST, tokens)
    };
    // Only its agent may end it early.
    let refused = worker.deliver(task.id, prefix(&[5, 6])).await;
    assert!(matches!(refused, Err(DeliveryError::Mismatch)));
    let delivered = async {
        let Some(WorkerCommand::Cancel(id)) = worker.next_command().await else {
            panic!("the worker is not told to stop");
        };
        assert_eq!(id, task.id);
        // One token was under way; a worker that goes on for long is not paid for that.
        worker.stream(&task.id, 2, &[7]).unwrap();
        assert!(worker.stream(&task.id, 3, &[8; 256]).is_err());
        worker.deliver(task.id, prefix(&[5, 6, 7])).await.unwrap();
    };
    let (cancelled, ()) = tokio::join!(fixture.tasks.cancel(task.id), delivered);
    let cancelled = cancelled.unwrap();
    assert_eq!(cancelled.state, TaskState::Finished);
    assert_eq!(cancelled.output_tokens, Some(vec![5, 6, 7]));
    // 10 msat for each of three tokens.
    assert_eq!(cancelled.price.get(), 30);
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn a_worker_that_does_not_say_what_it_streamed_earns_nothing() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    worker.stream(&task.id, 0, &[5, 6]).unwrap();
    let waiting = fixture.tasks.cancel(task.id).await.unwrap();
    assert_eq!(waiting.state, TaskState::Assigned);
    let late = unix_now() + stopping::PREFIX_TIME_S + 1;
    let ended = fixture.tasks.ledger.expire_tasks(late).await.unwrap();
    assert_eq!(ended, [task.id]);
    let record = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!((record.state, record.prompt), (TaskState::Cancelled, None));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn a_task_whose_agent_hangs_up_and_stays_away_ends_with_what_was_streamed() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    worker.stream(&task.id, 0, &[5, 6]).unwrap();
    let later = || Instant::now() + fixture.tasks.limits.agent_absence;
    let is_stopping = async || {
        let record = fixture.tasks.task(task.id).await.unwrap();
        record.stops_at_unix.is_some()
    };
    // An agent that only asks has left nothing.
    fixture.tasks.show(task.id).await.unwrap();
    fixture.tasks.stop_abandoned(later()).await;
    assert!(!is_stopping().await);
    // This one hangs up, and is back in time.
    fixture.tasks.follow(task.id, 0).await.unwrap().hang_up();
    fixture.tasks.stop_abandoned(Instant::now()).await;
    let back = fixture.tasks.follow(task.id, 2).await.unwrap();
    fixture.tasks.stop_abandoned(later()).await;
    assert!(!is_stopping().await);
    // Now it stays away.
    back.hang_up();
    fixture.tasks.stop_abandoned(later()).await;
    assert!(is_stopping().await);
    let command = timeout(Duration::from_secs(20), worker.next_command());
    assert!(matches!(command.await, Ok(Some(WorkerCommand::Cancel(id))) if id == task.id));
    let prefix = Transcript {
        finish_reason: FinishReason::Cancelled,
        ..transcript(&task, FIRST, &[5, 6])
    };
    worker.deliver(task.id, prefix).await.unwrap();
    let record = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!(record.state, TaskState::Finished);
    assert_eq!(record.output_tokens, Some(vec![5, 6]));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn a_task_that_its_agent_leaves_before_the_first_token_is_cancelled() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    fixture.tasks.follow(task.id, 0).await.unwrap().hang_up();
    let later = Instant::now() + fixture.tasks.limits.agent_absence;
    fixture.tasks.stop_abandoned(later).await;
    let record = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!(record.state, TaskState::Cancelled);
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn a_task_that_is_being_cancelled_goes_to_no_other_worker() {
    let fixture = Fixture::start().await;
    let mut first = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut first).await;
    first.stream(&task.id, 0, &[5, 6]).unwrap();
    let second = fixture.connect(SECOND);
    let waiting = fixture.tasks.cancel(task.id).await.unwrap();
    assert_eq!(waiting.state, TaskState::Assigned);
    // It has no deadline of a worker's any more, whatever still comes.
    first.stream(&task.id, 2, &[7]).unwrap();
    let due = fixture.tasks.live.state().tasks[&task.id].due;
    assert_eq!(due, None);
    drop(first);
    let ended = async {
        while fixture.tasks.task(task.id).await.unwrap().state == TaskState::Assigned {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), ended).await.unwrap();
    let record = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!(
        (record.state, record.prompt.is_none()),
        (TaskState::Cancelled, true)
    );
    drop(second);
    fixture.end().await;
}

#[tokio::test]
async fn a_worker_that_took_over_a_task_is_paid_for_what_it_has_given_itself() {
    let fixture = Fixture::start().await;
    let mut first = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut first).await;
    first.stream(&task.id, 0, &[5, 6, 7]).unwrap();
    let mut second = fixture.connect(SECOND);
    drop(first);
    let again = given(&mut second).await;
    second.stream(&task.id, 0, &[5]).unwrap();
    let short = |finish_reason| Transcript {
        finish_reason,
        ..transcript(&again, SECOND, &[5])
    };
    let delivered = async {
        let Some(WorkerCommand::Cancel(_)) = second.next_command().await else {
            panic!("the worker is not told to stop");
        };
        // It says that the answer ends there, and the one before it had gone on.
        let refused = second.deliver(task.id, short(FinishReason::Stop)).await;
        assert!(matches!(refused, Err(DeliveryError::Mismatch)));
        let prefix = short(FinishReason::Cancelled);
        second.deliver(task.id, prefix).await.unwrap();
    };
    let (cancelled, ()) = tokio::join!(fixture.tasks.cancel(task.id), delivered);
    let cancelled = cancelled.unwrap();
    assert_eq!(cancelled.state, TaskState::Finished);
    assert_eq!(cancelled.output_tokens, Some(vec![5]));
    assert_eq!(fixture.tasks.tokens_so_far(&task.id), Some(1));
    drop(second);
    fixture.end().await;
}
