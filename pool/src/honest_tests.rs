//! An honest worker is never punished: more than ten thousand replayed transcripts against a real
//! Postgres, with a pool that is killed and started again, validators that are slow, die and miscompute,
//! and answers that are lost.

#![allow(clippy::unwrap_used)]

mod faulty;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bitcoin::secp256k1::{Keypair, SECP256K1};
use dovetail_commitment::{
    Batch, BatchRoot, HeaderHash, SamplingParams, StopSequences, TaskId, Transcript, WorkerKey,
    output_digest, prompt_commitment, tagged_hash, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Generation, Model, Request, Runtime, step};
use dovetail_ledger::{Committer, CommitterConfig, Ledger, MaturityWindow, Msat, NewTask};
use dovetail_sv2::extension::codes;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::faulty::{Faulty, Random};
use crate::audit::Auditor;
use crate::config::CreditConfig;
use crate::dispatch::Dispatcher;
use crate::models::Models;
use crate::settle::{Claim, ProvenShare, Settled, Settler};
use crate::turns::Turns;
use crate::validation::tests::tiny_model;
use crate::validation::{Crew, CrewConfig, Member, ThreadValidator};

const WORKERS: usize = 84;
const BATCHES_PER_WORKER: usize = 2;
const LEAVES: usize = 64;
const OUTPUT_TOKENS: u32 = 4;
/// Workers that are there at once: more than the validators' queue has room for.
const WORKERS_AT_ONCE: usize = 12;
/// Long enough for any machine; on an idle one of two cores it takes a fifth.
const TEST_TIME_MAX: Duration = Duration::from_secs(180);
const WINDOW: MaturityWindow = MaturityWindow {
    batches: 1,
    seconds: 0,
    seconds_max: 3_600,
};
const RATES: CreditConfig = CreditConfig {
    hash_msat_per_mebihash: 1,
    inference_msat_per_token: 10,
};
const RESTART_INTERVAL: Duration = Duration::from_secs(3);
/// Longer than a healthy round of replays takes, shorter than a slow one.
const AUDIT_TIME_MAX: Duration = Duration::from_millis(1_500);

struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    async fn create() -> Self {
        let url = std::env::var("DOVETAIL_TEST_DATABASE_URL").expect(
            "DOVETAIL_TEST_DATABASE_URL is not set: run `cargo xtask test`, which starts a Postgres",
        );
        let database = Self {
            server: PgConnectOptions::from_str(&url).unwrap(),
            name: format!("dovetail_honest_{:016x}", rand::random::<u64>()),
        };
        database
            .admin(&format!("CREATE DATABASE {}", database.name))
            .await;
        database
    }

    async fn admin(&self, sql: &str) {
        let mut connection = self.server.connect().await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    async fn ledger(&self) -> Ledger {
        let url = self.options().to_url_lossy().to_string();
        Ledger::connect(&url, 16).await.unwrap()
    }

    async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = self.options().connect().await.unwrap();
        sqlx::query_scalar(sql)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    async fn drop(self) {
        self.admin(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await;
    }
}

/// The part of a pool that settles claims, from one start to the next kill.
struct Pool {
    settler: Settler,
    stop: CancellationToken,
    claims: TaskTracker,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Pool {
    async fn start(
        database: &Database,
        spool: &std::path::Path,
        model: &Arc<Model>,
        random: &Arc<Random>,
    ) -> Self {
        let ledger = database.ledger().await;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let config = CommitterConfig {
            group_max: 16,
            group_wait: Duration::from_millis(2),
            queue_max: 1_000,
            spool_dir: spool.to_owned(),
        };
        let committer = Committer::start(ledger.clone(), config, stop.clone())
            .await
            .unwrap();
        let models: Models = [Arc::clone(model)].into_iter().collect();
        let runtime = Arc::new(Runtime::new(1).unwrap());
        let member = |number| Member {
            validator: Arc::new(Faulty {
                inner: ThreadValidator::new(number, Arc::clone(&runtime), models.clone()),
                random: Arc::clone(random),
            }),
            is_local: false,
        };
        let config = CrewConfig {
            queue_max: 256,
            batch_max: 128,
            validator_timeout: AUDIT_TIME_MAX,
        };
        let crew = Crew::start((0..3).map(member).collect(), config, &tasks, &stop);
        let auditor = Auditor::start(ledger.clone(), crew, AUDIT_TIME_MAX)
            .await
            .unwrap();
        let settler = Settler {
            ledger,
            committer,
            auditor,
            turns: Turns::default(),
            dispatcher: Dispatcher::default(),
            rates: RATES,
            window: WINDOW,
            receipt_key: Keypair::from_seckey_slice(SECP256K1, &[1; 32]).unwrap(),
        };
        Self {
            settler,
            stop,
            claims: TaskTracker::new(),
            kill: CancellationToken::new(),
            tasks,
        }
    }

    /// The answer to the share, unless the pool is killed before it is sent.
    async fn claim(&self, share: ProvenShare, claim: Claim) -> Option<Settled> {
        let (settler, kill) = (self.settler.clone(), self.kill.clone());
        let settling = self.claims.spawn(async move {
            tokio::select! {
                () = kill.cancelled() => None,
                settled = settler.settle_claim(share, claim) => Some(settled),
            }
        });
        settling.await.ok().flatten()
    }

    /// Ends it in the middle of whatever it does. What was committed stays.
    async fn kill(&self) {
        self.kill.cancel();
        self.stop.cancel();
        self.claims.close();
        self.claims.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.settler.committer.stopped().await;
    }
}

/// A batch that a worker has finished and registered.
struct Finished {
    worker: WorkerKey,
    root: BatchRoot,
}

fn id(kind: &str, parts: [usize; 3]) -> [u8; 32] {
    let parts = parts.map(usize::to_le_bytes);
    tagged_hash(kind, &parts.each_ref().map(<[u8; 8]>::as_slice))
}

/// What a worker does: the honest output of 64 tasks, side by side.
fn generate(
    runtime: &Runtime,
    model: &Arc<Model>,
    worker: usize,
    batch: usize,
) -> Vec<(NewTask, Transcript, Vec<u32>)> {
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: OUTPUT_TOKENS,
    };
    let task = |leaf| NewTask {
        id: TaskId::from_bytes(id("task", [worker, batch, leaf])),
        model_id: model.id(),
        prompt: format!("{leaf}?").into_bytes(),
        stop: StopSequences::new(vec![b"zz".to_vec()]).unwrap(),
        salt: id("salt", [worker, batch, leaf]),
        sampling,
        seed: id("seed", [worker, batch, leaf]),
        price: Msat::ZERO,
        expires_at_unix: u64::try_from(i64::MAX).unwrap() / 2,
    };
    let tasks: Vec<NewTask> = (0..LEAVES).map(task).collect();
    let request = |task: &NewTask| Request {
        prompt_tokens: model.encode(&task.prompt).unwrap(),
        sampling,
        seed: task.seed,
        stop: task.stop.clone(),
    };
    let mut generations: Vec<Generation> = tasks
        .iter()
        .map(|task| Generation::new(model, request(task)).unwrap())
        .collect();
    while !generations.iter().all(Generation::is_finished) {
        step(runtime, &mut generations.iter_mut().collect::<Vec<_>>());
    }
    let worker_key = WorkerKey::from_bytes(id("worker", [worker, 0, 0]));
    tasks
        .into_iter()
        .zip(generations)
        .map(|(task, generation)| {
            let output = generation.finish();
            let transcript = Transcript {
                task_id: task.id,
                worker_key,
                model_id: model.id(),
                engine_version: ENGINE_VERSION,
                prompt_commitment: prompt_commitment(&task.salt, &task.stop, &task.prompt),
                sampling,
                seed: task.seed,
                output_tokens: u32::try_from(output.tokens.len()).unwrap(),
                output_digest: output_digest(&output.tokens),
                trace_root: trace_root(&output.trace),
                finish_reason: output.finish_reason,
            };
            (task, transcript, output.tokens)
        })
        .collect()
}

/// Takes 64 tasks of a worker from the agent's request to a registered batch.
async fn finish(
    ledger: Ledger,
    model: Arc<Model>,
    runtime: Arc<Runtime>,
    worker: usize,
    batch: usize,
) -> Finished {
    let made = tokio::task::spawn_blocking(move || generate(&runtime, &model, worker, batch));
    let (mut ids, mut leaves) = (Vec::new(), Vec::new());
    let key = WorkerKey::from_bytes(id("worker", [worker, 0, 0]));
    for (task, transcript, tokens) in made.await.unwrap() {
        assert!(ledger.create_task(&task).await.unwrap());
        assert!(ledger.assign_task(task.id, key).await.unwrap());
        ledger
            .finish_task(task.id, key, &transcript, &tokens)
            .await
            .unwrap();
        ids.push(task.id);
        leaves.push(transcript.leaf());
    }
    let root = Batch::new(leaves).unwrap().root();
    ledger.register_batch(key, root, &ids).await.unwrap();
    Finished { worker: key, root }
}

/// Claims a batch until it is credited, as an honest worker does; returns how many shares that took.
async fn claim(mut pool: watch::Receiver<Option<Arc<Pool>>>, finished: Finished) -> u64 {
    for tries in 1.. {
        let running = pool
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap();
        let header_hash = HeaderHash::from_bytes(rand::random());
        let share = ProvenShare {
            account: finished.worker.to_string(),
            header_hash,
            work: 1 << 20,
            credit_msat: 1,
            is_block: false,
        };
        let claim = Claim {
            root: finished.root,
            worker: finished.worker,
            header: [0; 80],
            coinbase: Vec::new(),
            merkle_path: Vec::new(),
            share_target: [0xff; 32],
        };
        let answer = running.claim(share, claim).await;
        drop(running);
        match answer {
            Some(Settled::Accepted(report)) => {
                assert!(report.unwrap().accepted);
                return tries;
            }
            // The answer to an earlier share was lost with the pool.
            Some(Settled::Refused(code, _)) if code == codes::BATCH_SPENT => return tries,
            Some(Settled::Refused(code, report)) => {
                let may_try_again = code == codes::AUDIT_UNAVAILABLE || code == codes::INTERNAL;
                assert!(may_try_again, "an honest worker is told {code}");
                assert!(report.is_none_or(|report| report.code == code));
            }
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("it tries until it is credited")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_worker_is_never_punished() {
    let database = Database::create().await;
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let model = tiny_model(1);
    let random = Arc::new(Random(AtomicU64::new(7)));
    let (running, pool) = watch::channel(None);
    running.send_replace(Some(Arc::new(
        Pool::start(&database, spool.path(), &model, &random).await,
    )));

    let runtime = Arc::new(Runtime::new(1).unwrap());
    let lanes = Arc::new(Semaphore::new(WORKERS_AT_ONCE));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (ledger, model, runtime) =
                (ledger.clone(), Arc::clone(&model), Arc::clone(&runtime));
            let pool = pool.clone();
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move {
                let _lane = lanes.acquire_owned().await.unwrap();
                let mut claims = 0;
                for batch in 0..BATCHES_PER_WORKER {
                    let (ledger, model) = (ledger.clone(), Arc::clone(&model));
                    let finished = finish(ledger, model, Arc::clone(&runtime), worker, batch);
                    claims += claim(pool.clone(), finished.await).await;
                }
                claims
            })
        })
        .collect();

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
            let new = Pool::start(&database, spool.path(), &model, &random).await;
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

    let batches = i64::try_from(WORKERS * BATCHES_PER_WORKER).unwrap();
    let count = |sql| database.number(sql);
    // Nobody was punished.
    assert_eq!(count("SELECT count(*) FROM appeals").await, 0);
    assert_eq!(
        count("SELECT count(*) FROM batches WHERE state <> 'settled'").await,
        0
    );
    assert_eq!(count("SELECT sum(mismatches)::bigint FROM trust").await, 0);
    assert_eq!(
        count("SELECT count(*) FROM transfers WHERE reason = 'forfeited'").await,
        0
    );
    // Each batch was credited once, and its worker's first one has matured.
    assert_eq!(
        count("SELECT count(*) FROM shares WHERE kind = 'inference'").await,
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
    drop(pool);
    database.drop().await;
}
