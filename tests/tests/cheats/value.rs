//! What is paid is weighed: a long lie is not hidden among trifles, and what an agent has read is paid.

use std::time::{Duration, Instant};

use dovetail_commitment::FinishReason;
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    CancelTask, KeptCredit, RegisterWorker, RegisterWorkerChallenge, RegisterWorkerError,
    RegisterWorkerProof,
};

use crate::fixture::Case;
use crate::scripted_worker::{TIME_MAX, assert_refused, batch_of, honest, rewritten, transcript};

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

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cancelled_once_it_was_read_is_paid_as_far_as_it_was_streamed() {
    let (case, mut worker) = Case::with_worker().await;
    let task = case.task(&mut worker).await;
    let read = 16;
    let mut output = rewritten(&case.models().asked, &task, |request| {
        request.sampling.max_tokens = read;
    });
    output.finish_reason = FinishReason::Cancelled;
    let prefix = transcript(worker.keys.name, &task, &output);
    // Nobody has cancelled it yet.
    let refused = worker.deliver(&output.tokens, &prefix).await;
    assert_refused(refused, "transcript-not-matching-task");

    let cancelled = case.cancel(task.task_id);
    let told: CancelTask = worker.wire.receive().await;
    assert_eq!(told.task_id, task.task_id);
    let delivered = worker.deliver_bytes(task.task_id, prefix.encode()).await;
    assert_eq!(delivered, Ok(()));
    cancelled.await.unwrap();
    let batch = batch_of(&[prefix]);
    worker.register_batch(&batch).await.unwrap();
    let outcome = worker.claim(&batch.root).await.credited();
    assert_eq!(outcome.credit_msat, u64::from(read) * 1_000);
    case.end().await;
}

/// From its first batch on, and what it says last; only whoever has the key can say it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_as_much_held_as_it_said_when_it_registered() {
    let case = Case::start().await;
    let keys = WorkerKeys::generate();
    let registered = async |msat: u64| {
        let mut worker = case.unregistered(&keys).await;
        let registration = RegisterWorker {
            worker_key: keys.name,
            models: vec![case.models().asked.id()],
            max_tasks: 4,
            keep_msat: KeptCredit::new(msat).unwrap(),
        };
        worker.register_as(&registration).await;
        worker
    };
    let wanted = async |msat: u64| {
        let kept = format!(
            "SELECT count(*) FROM audit_records WHERE kept_msat = {msat} AND worker = '\\x{}'",
            keys.name
        );
        let deadline = Instant::now() + TIME_MAX;
        while case.fixture.number(&kept) != 1 {
            assert!(Instant::now() < deadline, "{msat} msat are not kept");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut worker = registered(5_000_000).await;
    let earned = case.batch(&mut worker).await;
    worker.claim(&earned.root).await.credited();
    wanted(5_000_000).await;
    drop(worker);
    let worker = registered(7).await;
    wanted(7).await;
    drop(worker);
    // Nobody proves the key on this connection.
    let mut stranger = case.unregistered(&WorkerKeys::generate()).await;
    let registration = RegisterWorker {
        worker_key: keys.name,
        models: Vec::new(),
        max_tasks: 4,
        keep_msat: KeptCredit::new(KeptCredit::MAX).unwrap(),
    };
    stranger.wire.send(&registration).await;
    let _: RegisterWorkerChallenge = stranger.wire.receive().await;
    let forged = RegisterWorkerProof { signature: [7; 64] };
    stranger.wire.send(&forged).await;
    let refused: RegisterWorkerError = stranger.wire.receive().await;
    assert_eq!(refused.code, Code::BadProof.to_string());
    wanted(7).await;
    drop(registered(0).await);
    wanted(0).await;
    case.end().await;
}
