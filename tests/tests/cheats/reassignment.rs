//! Tasks that a worker does not run: it says that it is full, hangs up, or lets them lie. They go to another worker,
//! which gives the tokens that were read already once more; where there is none, their agent is told so at once. Nobody
//! is paid for a task that another one ran.

use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{AssignTask, AssignTaskError, CancelTask};
use dovetail_tests::scenario::Options;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fixture::{Case, TOKENS, options};
use crate::scripted_worker::{ScriptedWorker, TIME_MAX, assert_refused, honest};

async fn refuse(worker: &mut ScriptedWorker, task: &AssignTask, code: Code) {
    let message = AssignTaskError {
        task_id: task.task_id,
        code: code.to_string(),
    };
    worker.wire.send(&message).await;
}

/// Runs the task and has its batch credited.
async fn run(case: &Case, worker: &mut ScriptedWorker, task: &AssignTask) -> Vec<u32> {
    let output = honest(&case.models().asked, task);
    let batch = worker.batch_output(task, &output).await;
    worker.claim(&batch.root).await.credited();
    output.tokens
}

/// What the agent has read in the end.
async fn read(answer: JoinHandle<Result<Vec<u32>, String>>) -> Result<Vec<u32>, String> {
    timeout(TIME_MAX, answer).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_full_worker_refuses_is_run_and_earned_by_another() {
    let (case, mut full) = Case::with_worker().await;
    let answer = case.ask();
    let task = full.task().await;
    let mut other = case.worker().await;
    refuse(&mut full, &task, Code::TooManyTasks).await;
    let again = other.task().await;
    assert_eq!(again.task_id, task.task_id);
    assert_eq!(again.prompt, task.prompt);
    assert_eq!((again.seed, again.salt), (task.seed, task.salt));
    assert!(again.deadline_ms <= task.deadline_ms);
    // The one that refused has no part in it any more, whatever it sends.
    let output = honest(&case.models().asked, &task);
    assert_refused(full.deliver_output(&task, &output).await, "task-not-yours");
    refuse(&mut full, &task, Code::TooManyTasks).await;
    refuse(&mut full, &task, Code::PromptInvalid).await;

    let tokens = run(&case, &mut other, &again).await;
    assert_eq!(read(answer).await, Ok(tokens));
    case.earned_batches(&other, 1);
    case.earned_nothing(&full);
    drop((full, other));
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_refused_is_offered_more_once_it_has_finished_one() {
    let (case, mut full) = Case::with_worker().await;
    // What it earns by this one lets it have two at a time.
    let earlier = case.ask();
    let task = full.task().await;
    let tokens = run(&case, &mut full, &task).await;
    assert_eq!(read(earlier).await, Ok(tokens));
    let first = case.ask();
    let running = full.task().await;
    let second = case.ask();
    let refused = full.task().await;
    // Nobody else is there, but it is busy and will not be for ever.
    refuse(&mut full, &refused, Code::TooManyTasks).await;
    let output = honest(&case.models().asked, &running);
    full.deliver_output(&running, &output).await.unwrap();
    let again = full.task().await;
    assert_eq!(again.task_id, refused.task_id);
    let tokens = run(&case, &mut full, &again).await;
    for (answer, tokens) in [(first, output.tokens), (second, tokens)] {
        assert_eq!(read(answer).await, Ok(tokens));
    }
    case.earned_batches(&full, 2);
    drop(full);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_worker_is_left_the_agent_is_told_why() {
    let case = Case::start().await;
    // What is full now may not be later, so it is asked again some times.
    for (code, times, told) in [
        (Code::TooManyTasks, 4, "workers-full"),
        (Code::Internal, 1, "worker-failed"),
        (Code::PromptInvalid, 1, "worker-failed"),
    ] {
        let mut only = case.worker().await;
        let answer = case.ask();
        for _ in 0..times {
            let task = only.task().await;
            refuse(&mut only, &task, code).await;
        }
        assert_eq!(read(answer).await, Err(told.to_owned()));
        case.earned_nothing(&only);
    }
    let mut only = case.worker().await;
    let answer = case.ask();
    only.task().await;
    drop(only);
    assert_eq!(read(answer).await, Err("worker-lost".to_owned()));
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_worker_hangs_up_is_anothers_before_the_first_token_and_after_it() {
    let (case, mut gone) = Case::with_worker().await;
    let answer = case.ask();
    let task = gone.task().await;
    let mut other = case.worker().await;
    let keys = gone.keys.clone();
    drop(gone);
    let again = other.task().await;
    assert_eq!(again.task_id, task.task_id);
    // It is back, too late.
    let mut back = case.again(&keys).await;
    let output = honest(&case.models().asked, &task);
    assert_refused(back.deliver_output(&task, &output).await, "task-not-yours");
    let tokens = run(&case, &mut other, &again).await;
    assert_eq!(tokens.len(), TOKENS as usize);
    assert_eq!(read(answer).await, Ok(tokens));
    case.earned_batches(&other, 1);
    case.earned_nothing(&back);

    // Of this one the agent has read a part, and reads on where it was.
    let answer = case.ask();
    let task = other.task().await;
    let output = honest(&case.models().asked, &task);
    other.stream(task.task_id, &output.tokens[..3]).await;
    // Answered after the tokens were taken.
    let junk = other.deliver_bytes(task.task_id, vec![1]).await;
    assert_eq!(junk, Err("transcript-malformed".to_owned()));
    let mut third = case.worker().await;
    drop(other);
    let again = third.task().await;
    assert_eq!(again.task_id, task.task_id);
    let tokens = run(&case, &mut third, &again).await;
    assert_eq!(read(answer).await, Ok(tokens));
    case.earned_batches(&third, 1);
    drop((back, third));
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_gives_other_tokens_than_the_one_before_has_no_part_in_the_task() {
    let (case, mut first) = Case::with_worker().await;
    let answer = case.ask();
    let task = first.task().await;
    let output = honest(&case.models().asked, &task);
    first.stream(task.task_id, &output.tokens[..3]).await;
    let junk = first.deliver_bytes(task.task_id, vec![1]).await;
    assert_eq!(junk, Err("transcript-malformed".to_owned()));
    let mut liar = case.worker().await;
    drop(first);
    let again = liar.task().await;
    let mut made_up = output.tokens.clone();
    made_up[1] ^= 1;
    let mut third = case.worker().await;
    liar.stream(again.task_id, &made_up).await;
    let again = third.task().await;
    assert_eq!(again.task_id, task.task_id);
    let tokens = run(&case, &mut third, &again).await;
    assert_eq!(read(answer).await, Ok(tokens));
    case.earned_batches(&third, 1);
    case.earned_nothing(&liar);
    drop((liar, third));
    case.end().await;
}

/// The time for a first token. Honest workers here take milliseconds.
const FIRST_TOKEN_S: &str = "5";

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_its_worker_lets_lie_is_anothers() {
    let options = Options {
        pool_settings: &[("INFERENCE__FIRST_TOKEN_S", FIRST_TOKEN_S)],
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let mut lazy = case.worker().await;
    let answer = case.ask();
    let task = lazy.task().await;
    let mut other = case.worker().await;
    let again = other.task().await;
    assert_eq!(again.task_id, task.task_id);
    let cancelled: CancelTask = lazy.wire.receive().await;
    assert_eq!(cancelled.task_id, task.task_id);
    // However many tasks there are, it is given none for a while.
    let tokens = run(&case, &mut other, &again).await;
    assert_eq!(read(answer).await, Ok(tokens));
    let next = case.ask();
    let task = other.task().await;
    let output = honest(&case.models().asked, &task);
    other.deliver_output(&task, &output).await.unwrap();
    assert_eq!(read(next).await, Ok(output.tokens));
    case.earned_nothing(&lazy);
    drop((lazy, other));
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_does_not_fill_the_queue_for_others() {
    let options = Options {
        // The agents here hang up at once.
        pool_settings: &[
            ("INFERENCE__QUEUE_MAX", "16"),
            ("INFERENCE__AGENT_ABSENCE_S", "600"),
        ],
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    // It serves the model, and has no room: whatever is asked waits.
    let busy = case.again(&WorkerKeys::generate()).await;
    let (greedy, modest) = (case.client().await, case.client().await);
    for _ in 0..6 {
        assert_eq!(case.order(&greedy).await, Ok(()));
    }
    // That is a third of it.
    assert_eq!(case.order(&greedy).await, Err("queue-full".to_owned()));
    assert_eq!(case.order(&modest).await, Ok(()));
    case.earned_nothing(&busy);
    drop(busy);
    case.end().await;
}
