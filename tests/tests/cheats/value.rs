//! What is paid is weighed: a long lie is not hidden among trifles, and what an agent has read is paid.

use dovetail_commitment::{FinishReason, Transcript};
use dovetail_sv2::extension::{AssignTask, CancelTask};
use dovetail_tests::scenario::Options;

use crate::fixture::{Case, options};
use crate::scripted_worker::{
    ScriptedWorker, assert_refused, batch_of, honest, rewritten, transcript,
};

/// What broke version 1: the lie is nearly all that the batch is worth, and one leaf of many.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_lie_among_trifles() {
    let (case, mut cheat) = Case::with_worker().await;
    let earned = case.batch(&mut cheat).await;
    cheat.claim(&earned.root).await.credited();
    case.earned_batches(&cheat, 1);

    let mut transcripts = Vec::new();
    for _ in 0..15 {
        let task = case.task_of_tokens(&mut cheat, 1).await;
        let output = honest(&case.models().asked, &task);
        transcripts.push(cheat.deliver_output(&task, &output).await.unwrap());
    }
    let task = case.task(&mut cheat).await;
    let mut output = honest(&case.models().asked, &task);
    output.trace[0][0] ^= 1;
    transcripts.push(cheat.deliver_output(&task, &output).await.unwrap());
    let batch = batch_of(&transcripts);
    cheat.register_batch(&batch).await.unwrap();
    // It is worth as much as all that is held, so it is replayed for certain.
    let outcome = cheat.claim(&batch.root).await.caught();
    assert_eq!((outcome.accepted, outcome.code.as_str()), (false, "trace"));
    assert_eq!(case.fixture.inference_msat(&cheat.keys.name), 0);
    case.end().await;
}

/// Tokens that an agent reads of an answer before it stops it.
const READ: u32 = 16;

/// Streams what the agent reads, and tries to be done with it: a task that goes on does not end in a prefix.
async fn streams_a_part(case: &Case, worker: &mut ScriptedWorker, task: &AssignTask) -> Transcript {
    let mut output = rewritten(&case.models().asked, task, |request| {
        request.sampling.max_tokens = READ;
    });
    output.finish_reason = FinishReason::Cancelled;
    let prefix = transcript(worker.keys.name, task, &output);
    let refused = worker.deliver(&output.tokens, &prefix).await;
    assert_refused(refused, "transcript-not-matching-task");
    prefix
}

/// The pool tells the worker to stop, and takes the prefix then.
async fn hands_in_what_was_read(
    worker: &mut ScriptedWorker,
    task: &AssignTask,
    prefix: &Transcript,
) {
    let told: CancelTask = worker.wire.receive().await;
    assert_eq!(told.task_id, task.task_id);
    let delivered = worker.deliver_bytes(task.task_id, prefix.encode()).await;
    assert_eq!(delivered, Ok(()));
}

async fn is_paid_for_what_was_read(worker: &mut ScriptedWorker, prefix: Transcript) {
    let batch = batch_of(&[prefix]);
    worker.register_batch(&batch).await.unwrap();
    let outcome = worker.claim(&batch.root).await.credited();
    assert_eq!(outcome.credit_msat, u64::from(READ) * 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cancelled_once_it_was_read_is_paid_as_far_as_it_was_streamed() {
    let (case, mut worker) = Case::with_worker().await;
    let task = case.task(&mut worker).await;
    // Nobody has cancelled it yet.
    let prefix = streams_a_part(&case, &mut worker, &task).await;
    let cancelled = case.cancel(task.task_id);
    hands_in_what_was_read(&mut worker, &task, &prefix).await;
    cancelled.await.unwrap();
    is_paid_for_what_was_read(&mut worker, prefix).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_agent_hangs_up_once_it_was_read_is_paid_as_far_as_it_was_streamed() {
    let options = Options {
        pool_settings: &[("INFERENCE__AGENT_ABSENCE_S", "1")],
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let mut worker = case.worker().await;
    let answer = case.answer().await;
    let task = worker.task().await;
    // Its agent is still there.
    let prefix = streams_a_part(&case, &mut worker, &task).await;
    drop(answer);
    hands_in_what_was_read(&mut worker, &task, &prefix).await;
    is_paid_for_what_was_read(&mut worker, prefix).await;
    case.end().await;
}
