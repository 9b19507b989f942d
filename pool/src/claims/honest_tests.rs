//! An honest worker is never punished: more than ten thousand replayed transcripts against a real
//! Postgres, with a pool that is killed and started again, validators that are slow, die and miscompute,
//! and answers that are lost.

mod faulty;

use std::sync::Arc;
use std::time::Duration;

use dovetail_engine::{Model, Runtime};
use dovetail_ledger::Ledger;
use dovetail_sv2::extension::codes::Code;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::faulty::{Faulty, Random};
use crate::claims::settle::{SettleRefusal, Settled};
use crate::test_support::{Database, Finished, Pool, WINDOW, Worker, validator};
use crate::validation::Validator;
use crate::validation::tests::tiny_model;

/// The first batch of each is replayed whole, the second at the floor.
const WORKERS: usize = 160;
const BATCHES_PER_WORKER: usize = 2;
const LEAVES: usize = 64;
const OUTPUT_TOKENS: u32 = 4;
/// Workers that are there at once: more than the validators' queue has room for.
const WORKERS_AT_ONCE: usize = 12;
/// Long enough for any machine; on an idle one of two cores it takes a fifth.
const TEST_TIME_MAX: Duration = Duration::from_secs(400);
const RESTART_INTERVAL: Duration = Duration::from_secs(3);
/// Longer than a healthy round of replays takes, shorter than a slow one.
const AUDIT_TIME_MAX: Duration = Duration::from_millis(1_500);

/// A pool whose validators have faults.
async fn start(
    database: &Database,
    log: &std::path::Path,
    model: &Arc<Model>,
    random: &Arc<Random>,
) -> Pool {
    let faulty = |number| -> Arc<dyn Validator> {
        Arc::new(Faulty {
            inner: validator(number, model),
            random: Arc::clone(random),
        })
    };
    Pool::start(database, log, (0..3).map(faulty).collect(), AUDIT_TIME_MAX).await
}

/// Claims a batch until it is credited, as an honest worker does; returns how many shares that took. Of one that could not
/// be audited it makes another one.
async fn claim(
    ledger: &Ledger,
    mut pool: watch::Receiver<Option<Arc<Pool>>>,
    mut finished: Finished,
) -> u64 {
    for tries in 1.. {
        let running = pool
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap();
        let (share, claim) = finished.share();
        let answer = running.claim(share, claim).await;
        drop(running);
        match answer {
            Some(Settled::Accepted(report)) => {
                assert!(report.unwrap().accepted);
                return tries;
            }
            // The answer to an earlier share was lost with the pool.
            Some(Settled::Refused(SettleRefusal::Code(Code::BatchSpent), _)) => return tries,
            Some(Settled::Refused(SettleRefusal::Code(Code::BatchDead), report)) => {
                assert!(report.unwrap().drawn.is_some());
                finished = finished.again(ledger).await;
            }
            Some(Settled::Refused(refusal, report)) => {
                let code = refusal.as_str();
                let may_try_again = [Code::AuditUnavailable, Code::Internal]
                    .map(Code::as_str)
                    .contains(&code);
                assert!(may_try_again, "an honest worker is told {code}");
                assert!(report.is_none_or(|report| report.code == code && report.drawn.is_none()));
            }
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("it tries until it is credited")
}

/// Workers that finish batches and claim each until it is credited; they return how many claims that took.
fn start_workers(
    ledger: &Ledger,
    model: &Arc<Model>,
    pool: &watch::Receiver<Option<Arc<Pool>>>,
) -> Vec<JoinHandle<u64>> {
    let runtime = Arc::new(Runtime::new(1).unwrap());
    let lanes = Arc::new(Semaphore::new(WORKERS_AT_ONCE));
    (0..WORKERS)
        .map(|worker| {
            let worker = Worker {
                model: Arc::clone(model),
                runtime: Arc::clone(&runtime),
                number: worker,
                output_tokens: OUTPUT_TOKENS,
            };
            let (ledger, pool) = (ledger.clone(), pool.clone());
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move {
                let _lane = lanes.acquire_owned().await.unwrap();
                let mut claims = 0;
                for batch in 0..BATCHES_PER_WORKER {
                    let finished = worker.finish(&ledger, batch, LEAVES, |_, _| {}).await;
                    claims += claim(&ledger, pool.clone(), finished).await;
                }
                claims
            })
        })
        .collect()
}

/// What happened on the way.
struct Made {
    claims: u64,
    kills: u32,
}

/// Nobody was punished, everybody was credited once, and the faults were there.
async fn check_ledger(database: &Database, ledger: &Ledger, made: &Made) {
    let Made { claims, kills } = *made;
    let batches = i64::try_from(WORKERS * BATCHES_PER_WORKER).unwrap();
    let count = |sql| database.number(sql);
    // Nobody was punished.
    assert_eq!(count("SELECT count(*) FROM appeals").await, 0);
    assert_eq!(
        count("SELECT count(*) FROM batches WHERE state NOT IN ('settled', 'dead')").await,
        0
    );
    assert_eq!(count("SELECT count(*) FROM findings").await, 0);
    assert_eq!(
        count("SELECT sum(mismatches)::bigint FROM audit_records").await,
        0
    );
    assert_eq!(
        count("SELECT count(*) FROM transfers WHERE reason = 'forfeited'").await,
        0
    );
    // Each batch was credited once, and its worker's first one has matured.
    assert_eq!(
        count("SELECT count(*) FROM batches WHERE settled_by IS NOT NULL").await,
        batches
    );
    assert_eq!(count("SELECT count(*) FROM held_credits").await, batches);
    ledger.mature_credits(WINDOW, None).await.unwrap();
    let matured = count("SELECT count(*) FROM held_credits WHERE state = 'matured'").await;
    assert_eq!(matured, i64::try_from(WORKERS).unwrap());
    // And the faults were there.
    let replayed =
        count("SELECT sum(cardinality(sample))::bigint FROM audits WHERE verdict = 'passed'").await;
    assert!(
        replayed >= 10_000,
        "only {replayed} transcripts were replayed"
    );
    let undone = count("SELECT count(*) FROM audits WHERE verdict = 'audit-unavailable'").await;
    assert!(undone > 0, "no audit ran into a fault");
    assert!(
        claims > u64::try_from(batches).unwrap(),
        "no claim was made again"
    );
    assert!(kills > 1, "the pool was not killed");
    println!(
        "{replayed} replayed, {undone} audits undone, {claims} claims for {batches} batches, {kills} kills"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_worker_is_never_punished() {
    let database = Database::create().await;
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    let log = tempfile::tempdir().unwrap();
    let model = tiny_model(1);
    let random = Arc::new(Random::new(7));
    let (running, pool) = watch::channel(None);
    running.send_replace(Some(Arc::new(
        start(&database, log.path(), &model, &random).await,
    )));

    let workers = start_workers(&ledger, &model, &pool);

    // Killed in the middle, again and again, until all are done.
    let mut kills = 0;
    let restarts = async {
        loop {
            tokio::time::sleep(RESTART_INTERVAL).await;
            let old: Option<Arc<Pool>> = running.send_replace(None);
            if let Some(old) = old {
                old.kill().await;
            }
            kills += 1;
            let new = start(&database, log.path(), &model, &random).await;
            running.send_replace(Some(Arc::new(new)));
        }
    };
    let mut claims = 0;
    let done = async {
        for worker in workers {
            claims += worker.await.unwrap();
        }
    };
    tokio::select! {
        done = tokio::time::timeout(TEST_TIME_MAX, done) => done.unwrap(),
        () = restarts => unreachable!("the restarts do not end"),
    }

    let made = Made { claims, kills };
    check_ledger(&database, &ledger, &made).await;
    drop(pool);
    database.drop().await;
}
