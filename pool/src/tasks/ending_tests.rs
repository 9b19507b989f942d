//! Agents that follow tasks past their output, on a real ledger.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_engine::Runtime;
use tokio::time::timeout;

use super::life_tests::{FIRST, Fixture, given, transcript};
use super::*;
use crate::claims::settle::Settled;
use crate::test_support::{Database, Pool, Worker, validator};
use crate::validation::Validator;
use crate::validation::tests::tiny_model;

/// Less than the time after which the ledger is asked without a reason.
const SOON: Duration = Duration::from_secs(20);

fn agent() -> Caller {
    Caller::new(1, Ipv4Addr::new(192, 0, 2, 1).into())
}

/// The next state; tokens before it are left out.
async fn next_state(follower: &mut Follower) -> Option<TaskState> {
    loop {
        match follower.next().await.unwrap()? {
            TaskEvent::State(record) => return Some(record.state),
            TaskEvent::Tokens { .. } => {}
        }
    }
}

/// The next state, which is waited for elsewhere.
fn waiting(mut follower: Follower) -> tokio::task::JoinHandle<Option<TaskState>> {
    tokio::spawn(async move {
        let state = next_state(&mut follower).await;
        assert_eq!(next_state(&mut follower).await, None, "it is the last");
        state
    })
}

/// None of its tasks is live, as after a restart of the pool between the output and the share.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_when_a_share_settles_its_task_also_if_the_pool_was_restarted_meanwhile() {
    let database = Database::create().await;
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    let worker = Worker {
        model: tiny_model(1),
        runtime: Arc::new(Runtime::new(1).unwrap()),
        number: 0,
        output_tokens: 8,
    };
    let finished = worker.finish(&ledger, 0, 2, |_, _| {}).await;
    let id = ledger.batch(finished.root).await.unwrap().unwrap().tasks[0].id;
    let log = tempfile::tempdir().unwrap();
    let validators: Vec<Arc<dyn Validator>> = vec![Arc::new(validator(0, &worker.model))];
    let pool = Pool::start(&database, log.path(), validators, SOON).await;
    let tasks = &pool.settler.tasks;
    let follow = async || tasks.follow(id, usize::MAX).await.unwrap();

    // Who does not ask for more hears of the output's end.
    let mut plain = follow().await;
    assert_eq!(next_state(&mut plain).await, Some(TaskState::Finished));
    assert_eq!(next_state(&mut plain).await, None);

    let mut follower = follow().await.until_settled(agent());
    assert!(!follower.is_past_output());
    assert_eq!(next_state(&mut follower).await, Some(TaskState::Finished));
    assert!(follower.is_past_output());
    let settled = waiting(follower);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!settled.is_finished());
    let (share, claim) = finished.share();
    let claimed = pool.claim(share, claim).await;
    assert!(matches!(claimed, Some(Settled::Accepted(_))), "{claimed:?}");
    let settled = timeout(SOON, settled).await.unwrap().unwrap();
    assert_eq!(settled, Some(TaskState::Settled));
    assert!(tasks.receipt(id).await.is_ok());

    // Who comes later is told at once.
    let late = waiting(follow().await.until_settled(agent()));
    assert_eq!(late.await.unwrap(), Some(TaskState::Settled));
    pool.kill().await;
    drop(pool);
    database.drop().await;
}

#[tokio::test]
async fn an_agent_that_waits_holds_no_output_and_is_told_that_its_task_has_expired() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    let follower = fixture.tasks.follow(task.id, 0).await.unwrap();
    let mut follower = follower.until_settled(agent());
    worker.stream(&task.id, 0, &[5, 6, 7]).unwrap();
    let whole = transcript(&task, FIRST, &[5, 6, 7]);
    worker.deliver(task.id, whole).await.unwrap();
    let mut read = Vec::new();
    while !follower.is_past_output() {
        if let Some(TaskEvent::Tokens { tokens, .. }) = follower.next().await.unwrap() {
            read.extend(tokens);
        }
    }
    assert_eq!(read, [5, 6, 7]);
    assert!(follower.holds_nothing());
    let expired = waiting(follower);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!expired.is_finished());
    let ended = fixture.tasks.ledger.expire_tasks(u64::MAX).await.unwrap();
    assert_eq!(ended, [task.id]);
    fixture.tasks.live.finish(&task.id, Phase::Failed);
    let expired = timeout(SOON, expired).await.unwrap().unwrap();
    assert_eq!(expired, Some(TaskState::Expired));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn an_agent_that_gives_up_waiting_has_not_left_its_task_unless_it_was_reading() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    worker.stream(&task.id, 0, &[5]).unwrap();
    for (from, is_stopped) in [(u32::MAX, false), (0, true)] {
        let follower = fixture.tasks.follow(task.id, from as usize).await.unwrap();
        let mut follower = follower.until_settled(agent());
        assert_eq!(next_state(&mut follower).await, Some(TaskState::Assigned));
        follower.hang_up();
        let later = Instant::now() + fixture.tasks.limits.agent_absence;
        fixture.tasks.stop_abandoned(later).await;
        let record = fixture.tasks.task(task.id).await.unwrap();
        assert_eq!(record.stops_at_unix.is_some(), is_stopped, "from {from}");
    }
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn where_too_many_wait_a_stream_ends_with_the_output_and_another_party_still_finds_a_place() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    worker.stream(&task.id, 0, &[5]).unwrap();
    let whole = transcript(&task, FIRST, &[5]);
    worker.deliver(task.id, whole).await.unwrap();
    let endings = &fixture.tasks.live.endings;
    let crowd = std::iter::from_fn(|| endings.wait_for(task.id, &agent()));
    let crowd: Vec<_> = crowd.collect();
    assert_eq!(crowd.len(), 256);
    let follow = async |caller| {
        let follower = fixture.tasks.follow(task.id, 0).await.unwrap();
        follower.until_settled(caller)
    };
    // The state comes before the output and after it.
    let mut refused = follow(agent()).await;
    for _ in 0..2 {
        assert_eq!(next_state(&mut refused).await, Some(TaskState::Finished));
    }
    assert_eq!(next_state(&mut refused).await, None);
    let other = Caller::new(2, Ipv4Addr::new(192, 0, 2, 2).into());
    let mut taken = follow(other).await;
    for _ in 0..2 {
        assert_eq!(next_state(&mut taken).await, Some(TaskState::Finished));
    }
    assert!(taken.is_past_output());
    drop((crowd, taken, worker));
    fixture.end().await;
}
