//! What there is to take, and who sees it: a worker that asks its own questions gets the operator's budget and no more, and
//! anybody can draw a batch's sample again.

use dovetail_audit::{Stake, WeighedLeaf, sample};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::receipt::Receipt;
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::sample_input;
use dovetail_tests::scenario::Options;
use dovetail_units::Msat;
use tokio_util::sync::CancellationToken;

use crate::fixture::{BATCH_MSAT, Case, Fixture, TOKENS, options, refusal};
use crate::scripted_worker::{ScriptedWorker, batch_of, honest};

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
    // More than is left. The honest worker's batch holds its part to the end, so there is money that may come back.
    assert_eq!(case.refusal(TOKENS + 1).await, "balance-reserved");
    let second = case.batch(&mut cheat).await;
    // All of it is set aside, and then paid.
    assert_eq!(case.refusal(1).await, "balance-reserved");
    for batch in [&first, &second] {
        cheat.claim(&batch.root).await.credited();
        assert_eq!(case.refusal(1).await, "balance-reserved");
    }
    case.earned_batches(&cheat, 2);
    // Nor is there more after a restart.
    let keys = cheat.keys.clone();
    drop(cheat);
    case.restart_pool(|_| {}).await;
    case.reconnect_bystander().await;
    let _again = case.again(&keys).await;
    assert_eq!(case.refusal(1).await, "balance-reserved");
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
