//! What is paid is weighed: a long lie is not hidden among trifles, and what an agent has read is paid.

use dovetail_audit::{Stake, WeighedLeaf, sample};
use dovetail_commitment::receipt::Receipt;
use dovetail_commitment::{BatchRoot, FinishReason};
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::{CancelTask, sample_input};
use dovetail_tests::scenario::Options;
use dovetail_units::Msat;
use tokio_util::sync::CancellationToken;

use crate::fixture::{BATCH_MSAT, Case, Fixture, TOKENS, options, refusal};
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

/// What a worker that asks its own questions takes from an operator who pays for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_asks_its_own_questions_where_nobody_pays() {
    let options = Options {
        pool_settings: &[
            ("INFERENCE__SUBSIDY__MSAT_PER_DAY", "0"),
            ("INFERENCE__SUBSIDY__MSAT_IN_ALL", "0"),
        ],
        ..options()
    };
    let fixture = tokio::task::spawn_blocking(move || Fixture::start(&options));
    let fixture = fixture.await.unwrap();
    let stop = CancellationToken::new();
    let (endpoints, itself) = fixture.doors(&stop).await;
    let model = fixture.model();
    let keys = WorkerKeys::generate();
    let _cheat = ScriptedWorker::with_keys(&endpoints, keys.clone(), model.id(), 4).await;
    for tokens in [TOKENS, 1, TOKENS] {
        let code = refusal(&itself, model, tokens).await;
        assert_eq!(code, "payment-required");
    }
    assert_eq!(fixture.number("SELECT count(*) FROM tasks"), 0);
    assert_eq!(fixture.number("SELECT count(*) FROM transfers"), 0);
    assert_eq!(fixture.inference_msat(&keys.name), 0);
    stop.cancel();
}

/// What a worker that asks its own questions takes from an operator who pays for a little: that, and no millisatoshi more.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_asks_its_own_questions_until_the_budget_is_used_up() {
    // One batch for the honest worker, and two.
    const BUDGET: &str = "120000";
    assert_eq!(BUDGET.parse::<i64>().unwrap(), 3 * BATCH_MSAT);
    let options = Options {
        pool_settings: &[
            ("INFERENCE__SUBSIDY__MSAT_PER_DAY", BUDGET),
            ("INFERENCE__SUBSIDY__MSAT_IN_ALL", BUDGET),
        ],
        ..options()
    };
    let mut case = Case::on_new_pool(options).await;
    let mut cheat = case.worker().await;
    let first = case.batch(&mut cheat).await;
    // More than is left.
    assert_eq!(case.refusal(TOKENS + 1).await, "payment-required");
    let second = case.batch(&mut cheat).await;
    // All of it is set aside, and then paid.
    assert_eq!(case.refusal(1).await, "payment-required");
    for batch in [&first, &second] {
        cheat.claim(&batch.root).await.credited();
        assert_eq!(case.refusal(1).await, "payment-required");
    }
    case.earned_batches(&cheat, 2);
    // Nor is there more after a restart.
    drop(cheat);
    case.restart_pool(|_| {}).await;
    case.reconnect_bystander().await;
    assert_eq!(case.refusal(1).await, "payment-required");
    let spent = "SELECT debits_posted FROM accounts WHERE name = 'payer:subsidy'";
    assert_eq!(case.fixture.number(spent), 2 * BATCH_MSAT);
    case.end_without_money().await;
}

/// A pool that chose what it replays would be seen: with the outcome and the receipts anybody draws its sample again.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_is_not_the_one_that_anybody_can_draw_again() {
    let (case, mut worker) = Case::with_worker().await;
    let key = worker.vrf_key.unwrap();
    let first = case.batch(&mut worker).await;
    let outcome = worker.claim(&first.root).await.credited();
    // Nothing was held yet.
    assert_eq!(outcome.stake_msat, 0);

    let mut transcripts = Vec::new();
    for tokens in [1, 2, 3, 5, 8, 13] {
        let task = case.task_of_tokens(&mut worker, tokens).await;
        let output = honest(&case.models().asked, &task);
        transcripts.push(worker.deliver_output(&task, &output).await.unwrap());
    }
    let batch = batch_of(&transcripts);
    worker.register_batch(&batch).await.unwrap();
    let outcome = worker.claim(&batch.root).await.credited();
    assert_eq!(i64::try_from(outcome.stake_msat), Ok(BATCH_MSAT));

    let input = sample_input(&outcome.sample_header, &batch.root);
    let output = key.verify(&input, &outcome.proof).unwrap();
    let leaves: Vec<WeighedLeaf> = batch
        .tasks
        .iter()
        .map(|task| {
            let sql = format!("SELECT receipt FROM receipts WHERE task_id = '\\x{task}'");
            let json = case.fixture.scenario().query(&sql).unwrap();
            let receipt: Receipt = serde_json::from_str(&json).unwrap();
            let verified = receipt.verify(None).unwrap();
            assert_eq!(receipt.vrf_key, key.to_bytes());
            WeighedLeaf {
                leaf: verified.transcript.leaf(),
                value: verified.price,
            }
        })
        .collect();
    let stake = Stake::new(Msat::new(i64::try_from(outcome.stake_msat).unwrap()));
    let drawn = sample(&output.seed(), &leaves, stake);
    assert_eq!(drawn, replayed(&case, &batch.root));
    case.end().await;
}

/// The places that the pool has written down as replayed, at the claim that was credited.
fn replayed(case: &Case, root: &BatchRoot) -> Vec<usize> {
    let sql = format!(
        "SELECT array_to_string(sample, ',') FROM audits WHERE root = '\\x{root}' AND verdict = 'passed'"
    );
    let places = case.fixture.scenario().query(&sql).unwrap();
    let places = places.trim().split(',').filter(|place| !place.is_empty());
    places.map(|place| place.parse().unwrap()).collect()
}
