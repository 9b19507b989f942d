//! Claims on a real Postgres: what waits for an audit and what does not, and what a lie costs whom.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dovetail_audit::Verdict;
use dovetail_commitment::ModelId;
use dovetail_commitment::receipt::Receipt;
use dovetail_engine::Runtime;
use dovetail_ledger::Ledger;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::sample_input;
use dovetail_units::{KeptCredit, Msat};

use crate::claims::claim::Claim;
use crate::claims::settle::{BatchReport, Settled};
use crate::test_support::{Database, Finished, Pool, Worker, hash_share, prices, validator};
use crate::validation::tests::tiny_model;
use crate::validation::{Validator, ValidatorError, Work};

/// A database, a folder for the log and workers of one model.
struct Fixture {
    database: Database,
    ledger: Ledger,
    log: tempfile::TempDir,
    worker: Worker,
}

impl Fixture {
    async fn start() -> Self {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        Self {
            database,
            ledger,
            log: tempfile::tempdir().unwrap(),
            worker: Worker {
                model: tiny_model(1),
                runtime: Arc::new(Runtime::new(1).unwrap()),
                number: 0,
                output_tokens: 8,
            },
        }
    }

    fn worker(&self, number: usize) -> Worker {
        Worker {
            number,
            ..self.worker.clone()
        }
    }

    /// A pool with one validator, or with none.
    async fn pool(&self, is_validated: bool, audit_time_max: Duration) -> Arc<Pool> {
        let one: Arc<dyn Validator> = Arc::new(validator(0, &self.worker.model));
        let validators = Vec::from_iter(is_validated.then_some(one));
        let log = self.log.path();
        Arc::new(Pool::start(&self.database, log, validators, audit_time_max).await)
    }

    async fn honest(&self, number: usize, batch: usize) -> Finished {
        let worker = self.worker(number);
        worker.finish(&self.ledger, batch, 2, |_, _| {}).await
    }

    /// What is available and what is held.
    async fn balance(&self, number: usize) -> (i64, i64) {
        let key = self.worker(number).key().to_string();
        let balance = self.ledger.balance(&key).await.unwrap();
        (balance.available.get(), balance.held.get())
    }
}

async fn claim(pool: &Pool, finished: &Finished) -> Settled {
    let (share, claim) = finished.share();
    pool.claim(share, claim).await.unwrap()
}

/// Whether the sample of the batch is proven to be drawn from the header that is named.
fn is_proven(pool: &Pool, finished: &Finished, report: &BatchReport) -> bool {
    let drawn = report.drawn.unwrap();
    let input = sample_input(&drawn.sample_header, &finished.root);
    let key = pool.settler.vrf_key();
    key.verify(&input, &drawn.proof).is_ok()
}

/// What a refusal says of the batch.
fn reported(settled: Settled) -> BatchReport {
    match settled {
        Settled::Refused(_, Some(report)) => report,
        other => panic!("{other:?}"),
    }
}

fn refused_with(settled: &Settled) -> &'static str {
    match settled {
        Settled::Refused(refusal, _) => refusal.as_str(),
        Settled::Accepted(_) => "accepted",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hash_shares_do_not_wait_for_an_audit_and_a_claim_that_waited_too_long_loses_nothing() {
    let fixture = Fixture::start().await;
    let finished = fixture.honest(0, 0).await;
    let pool = fixture.pool(false, Duration::from_secs(60)).await;
    let waiting = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { claim(&pool, &finished).await })
    };
    for _ in 0..20 {
        // Of the same account: the same connection.
        let share = hash_share(&finished.worker.to_string());
        let settled = pool.settler.settle_hash(share).await;
        assert!(matches!(settled, Settled::Accepted(None)));
    }
    assert!(!waiting.is_finished(), "hash shares waited");
    waiting.abort();
    pool.kill().await;

    let pool = fixture.pool(false, Duration::from_millis(100)).await;
    let settled = claim(&pool, &finished).await;
    assert_eq!(refused_with(&settled), Code::AuditUnavailable.as_str());
    let Settled::Refused(_, Some(report)) = settled else {
        panic!("nothing is told");
    };
    // Whoever saw the sample could claim again only if it suited.
    assert_eq!(report.drawn, None);
    assert_eq!(fixture.balance(0).await, (20, 0));
    pool.kill().await;

    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    let settled = claim(&pool, &finished).await;
    assert!(matches!(settled, Settled::Accepted(Some(_))));
    assert_eq!(fixture.balance(0).await, (21, 160));
    pool.kill().await;
    fixture.database.drop().await;
}

/// With the value of each leaf and what was at stake, the sample can be drawn again.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_say_what_tasks_have_cost_and_outcomes_what_was_at_stake() {
    let fixture = Fixture::start().await;
    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    for (number, held_before) in [(0, 0), (1, 160)] {
        let finished = fixture.honest(0, number).await;
        let Settled::Accepted(Some(report)) = claim(&pool, &finished).await else {
            panic!("not credited");
        };
        assert_eq!(report.drawn.unwrap().stake, Msat::new(held_before));
        let batch = fixture.ledger.batch(finished.root).await.unwrap().unwrap();
        assert_eq!(batch.stake, Some(Msat::new(held_before)));
        let mut sum = 0;
        for task in &batch.tasks {
            let json = fixture.ledger.receipt(task.id).await.unwrap().unwrap();
            let receipt: Receipt = serde_json::from_str(&json).unwrap();
            // A token in front of "0?".
            assert_eq!(receipt.input_tokens, 3);
            assert_eq!(receipt.prices, prices());
            assert_eq!(receipt.price_msat, Msat::new(80));
            sum += receipt.price_msat.get();
        }
        assert_eq!(report.credit, Msat::new(sum));
    }
    pool.kill().await;
    fixture.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_costs_its_worker_what_is_held_and_leaves_everybody_else_alone() {
    let fixture = Fixture::start().await;
    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    for number in 0..2 {
        for batch in 0..3 {
            let finished = fixture.honest(number, batch).await;
            let settled = claim(&pool, &finished).await;
            assert!(matches!(settled, Settled::Accepted(Some(_))));
        }
        // With each batch the one before has matured.
        assert_eq!(fixture.balance(number).await, (323, 160));
    }

    let liar = fixture.worker(0);
    let lie = liar.finish(&fixture.ledger, 3, 2, |index, transcript| {
        transcript.trace_root[0] ^= u8::from(index == 1);
    });
    let lie = lie.await;
    let settled = claim(&pool, &lie).await;
    assert_eq!(refused_with(&settled), Code::InferenceMismatch.as_str());
    let Settled::Refused(_, Some(report)) = settled else {
        panic!("the sample is not told");
    };
    assert_eq!((report.accepted, report.code.as_ref()), (false, "trace"));
    let drawn = report.drawn.unwrap();
    assert_eq!(drawn.sample_header, report.header_hash);
    assert_eq!(drawn.stake, Msat::new(160));
    assert!(is_proven(&pool, &lie, &report));
    assert_eq!(fixture.balance(0).await, (323, 0));
    assert_eq!(fixture.balance(1).await, (323, 160));
    let record = fixture.ledger.audit_record(&liar.key()).await.unwrap();
    assert_eq!((record.batches, record.mismatches), (3, 1));

    let records = fixture
        .ledger
        .failed_audits(Some(liar.key()), 10)
        .await
        .unwrap();
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!((record.leaf_index, record.mismatch.as_str()), (1, "trace"));
    assert_eq!((record.forfeited_msat, record.forfeited_credits), (160, 1));
    let claimed = Some(record.claimed_output_digest.clone());
    assert_eq!(record.replayed_output_digest, claimed);
    let trace = Some(record.claimed_trace_root.clone());
    assert_ne!(record.replayed_trace_root, trace);
    let proof = hex::encode(drawn.proof.to_bytes());
    assert_eq!(record.vrf_proof, Some(proof));

    // The root is spent; the next honest batch is paid again, and held.
    let settled = claim(&pool, &lie).await;
    assert_eq!(refused_with(&settled), Code::InferenceMismatch.as_str());
    assert_eq!(
        fixture.ledger.failed_audits(None, 10).await.unwrap().len(),
        1
    );
    let finished = fixture.honest(0, 4).await;
    let settled = claim(&pool, &finished).await;
    assert!(matches!(settled, Settled::Accepted(Some(_))));
    assert_eq!(fixture.balance(0).await, (324, 160));
    pool.kill().await;
    fixture.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_leaves_held_stays_there_from_its_first_batch_on_until_it_says_otherwise() {
    let fixture = Fixture::start().await;
    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    let kept = KeptCredit::new(320).unwrap();
    let worker = fixture.worker(0).key();
    // As a registration does, which the ledger passes over: nobody knows the key.
    pool.settler.keep_credit(worker, kept).await;
    for (batch, balance) in [(0, (1, 160)), (1, (2, 320)), (2, (163, 320))] {
        let finished = fixture.honest(0, batch).await;
        let (share, claim) = finished.share();
        let settled = pool.claim(share, Claim { kept, ..claim }).await.unwrap();
        assert!(matches!(settled, Settled::Accepted(Some(_))));
        assert_eq!(fixture.balance(0).await, balance);
    }
    // The next registration.
    pool.settler.keep_credit(worker, KeptCredit::NONE).await;
    pool.settler.mature(None).await;
    assert_eq!(fixture.balance(0).await, (323, 160));
    pool.kill().await;
    fixture.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_claims_that_race_for_one_batch_one_is_credited() {
    let fixture = Fixture::start().await;
    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    let finished = fixture.honest(0, 0).await;
    let racing: Vec<_> = (0..8)
        .map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { claim(&pool, &finished).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in racing {
        answers.push(refused_with(&task.await.unwrap()));
    }
    let count = |code| answers.iter().filter(|answer| **answer == code).count();
    assert_eq!(count("accepted"), 1, "{answers:?}");
    // Too many in line are told so at once; the others find the batch spent.
    let others = count(Code::BatchSpent.as_str()) + count(Code::AuditUnavailable.as_str());
    assert_eq!(others, 7, "{answers:?}");
    assert_eq!(fixture.balance(0).await, (1, 160));
    pool.kill().await;
    fixture.database.drop().await;
}

/// Says that it is away, whoever asks.
struct Away;

#[tonic::async_trait]
impl Validator for Away {
    fn name(&self) -> &str {
        "away"
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        Err(ValidatorError::Unreachable("away".to_owned()))
    }

    async fn replay(&self, _work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        Err(ValidatorError::Unreachable("away".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_that_nobody_can_confirm_in_time_is_kept_and_confirmed_without_another_claim() {
    let fixture = Fixture::start().await;
    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    let first = fixture.honest(0, 0).await;
    assert!(matches!(
        claim(&pool, &first).await,
        Settled::Accepted(Some(_))
    ));
    pool.kill().await;
    assert_eq!(fixture.balance(0).await, (1, 160));

    // The second validator is away: the first one's finding is no proof yet.
    let model = &fixture.worker.model;
    let alone: Vec<Arc<dyn Validator>> = vec![Arc::new(validator(0, model)), Arc::new(Away)];
    let time_max = Duration::from_secs(2);
    let pool = Pool::start(&fixture.database, fixture.log.path(), alone, time_max).await;
    let liar = fixture.worker(0);
    let lie = liar
        .finish(&fixture.ledger, 1, 2, |index, transcript| {
            transcript.trace_root[0] ^= u8::from(index == 1);
        })
        .await;
    for _ in 0..2 {
        let settled = claim(&pool, &lie).await;
        assert_eq!(refused_with(&settled), Code::AuditUnavailable.as_str());
        assert!(
            matches!(&settled, Settled::Refused(_, report) if report.as_ref().is_none_or(|r| r.drawn.is_none()))
        );
    }
    // Nothing else of the key is audited before, and nobody else waits.
    let next = fixture.honest(0, 2).await;
    let settled = claim(&pool, &next).await;
    assert_eq!(refused_with(&settled), Code::AuditUnavailable.as_str());
    let other = fixture.honest(1, 0).await;
    assert!(matches!(
        claim(&pool, &other).await,
        Settled::Accepted(Some(_))
    ));
    pool.kill().await;
    assert_eq!(fixture.balance(0).await, (1, 160));
    assert_eq!(fixture.ledger.suspects(None, 10).await.unwrap().len(), 1);

    // Another validator comes. The liar claims no more, and loses what is held all the same.
    let another: Vec<Arc<dyn Validator>> = vec![Arc::new(validator(1, model))];
    let time_max = Duration::from_secs(30);
    let pool = Pool::start(&fixture.database, fixture.log.path(), another, time_max).await;
    pool.settler.confirm_suspects().await;
    assert_eq!(fixture.balance(0).await, (1, 0));
    let records = fixture.ledger.failed_audits(None, 10).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_ne!(records[0].validators[0], records[0].validators[1]);
    // Whoever asks for the batch is told how it ended, with the sample.
    let settled = claim(&pool, &lie).await;
    assert_eq!(refused_with(&settled), Code::InferenceMismatch.as_str());
    let report = reported(settled);
    assert_eq!(report.code, "trace");
    assert!(is_proven(&pool, &lie, &report));
    assert!(matches!(
        claim(&pool, &next).await,
        Settled::Accepted(Some(_))
    ));
    pool.kill().await;
    fixture.database.drop().await;
}

/// Replays at so slow a pace.
struct Slow {
    replays: Arc<dyn Validator>,
    takes: Duration,
}

fn slow(model: &Arc<dovetail_engine::Model>, takes: Duration) -> Arc<dyn Validator> {
    let replays = Arc::new(validator(0, model));
    Arc::new(Slow { replays, takes })
}

#[tonic::async_trait]
impl Validator for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        self.replays.describe().await
    }

    async fn replay(&self, work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        tokio::time::sleep(self.takes).await;
        self.replays.replay(work).await
    }
}

/// Else a lie beside something long is free: its replay runs out of time. The second replay takes as long, so that no one
/// answer waits for it. Begun anew each time, it would keep the validator from everything else.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replay_finds_after_its_time_is_confirmed_although_that_takes_as_long() {
    let fixture = Fixture::start().await;
    let (takes, time_max) = (Duration::from_secs(2), Duration::from_millis(1_500));
    let slow = slow(&fixture.worker.model, takes);
    let pool = Pool::start(&fixture.database, fixture.log.path(), vec![slow], time_max);
    let pool = Arc::new(pool.await);
    let liar = fixture.worker(0);
    let lie = liar.finish(&fixture.ledger, 0, 2, |_, transcript| {
        transcript.trace_root[0] ^= 1
    });
    let lie = lie.await;
    let settled = claim(&pool, &lie).await;
    assert_eq!(refused_with(&settled), Code::AuditUnavailable.as_str());
    let key = liar.key();
    let mismatches = async || fixture.ledger.audit_record(&key).await.unwrap().mismatches;
    let mut looks = 0;
    while mismatches().await == 0 {
        looks += 1;
        assert!(
            looks < 30,
            "what was found late is lost, or never confirmed"
        );
        pool.settler.confirm_suspects().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(looks > 1, "the second replay had time enough");
    pool.kill().await;
    fixture.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_audited_three_times_is_given_up_and_only_then_is_its_sample_told() {
    let fixture = Fixture::start().await;
    let slow = slow(&fixture.worker.model, Duration::from_secs(1));
    let log = fixture.log.path();
    // Each claim also waits for what the one before has left behind.
    let time_max = Duration::from_millis(900);
    let pool = Pool::start(&fixture.database, log, vec![slow], time_max).await;
    let pool = Arc::new(pool);
    let finished = fixture.honest(0, 0).await;
    let mut first_header = None;
    for _ in 0..2 {
        let settled = claim(&pool, &finished).await;
        assert_eq!(refused_with(&settled), Code::AuditUnavailable.as_str());
        let report = reported(settled);
        assert_eq!(report.drawn, None);
        first_header.get_or_insert(report.header_hash);
    }
    // And once more, after it has ended.
    for _ in 0..2 {
        let settled = claim(&pool, &finished).await;
        assert_eq!(refused_with(&settled), Code::BatchDead.as_str());
        let report = reported(settled);
        assert_eq!(report.code, Code::BatchDead.as_str());
        // All claims of a root have the sample of the first one.
        assert_eq!(Some(report.drawn.unwrap().sample_header), first_header);
        assert!(is_proven(&pool, &finished, &report));
    }
    let record = fixture.ledger.audit_record(&finished.worker).await.unwrap();
    assert_eq!(record.mismatches, 0);
    pool.kill().await;

    // Its transcripts may be claimed in other batches.
    let pool = fixture.pool(true, Duration::from_secs(30)).await;
    let again = finished.again(&fixture.ledger).await;
    assert!(matches!(
        claim(&pool, &again).await,
        Settled::Accepted(Some(_))
    ));
    pool.kill().await;
    fixture.database.drop().await;
}
