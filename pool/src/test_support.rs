//! What tests of the settling stand on: a real Postgres, the part of a pool that settles claims, and
//! workers with batches to claim.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::{Keypair, SECP256K1};
use dovetail_commitment::{
    Batch, BatchRoot, EncodedPrompt, HeaderHash, PROMPT_BYTES_MAX, SamplingParams, StopSequences,
    TaskId, Transcript, WorkerKey, output_digest, prompt_commitment, tagged_hash, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Generation, Model, Request, Runtime, step};
use dovetail_ledger::{
    Committer, CommitterConfig, Ledger, MaturityWindow, NewTask, Payer, SubsidyBudget,
};
use dovetail_rewards::Weight;
use dovetail_telemetry::Telemetry;
use dovetail_templates::{SourceConfig, WorkSnapshot};
use dovetail_units::time::unix_now;
use dovetail_units::{KeptCredit, Msat, TokenPrices, Work};
use dovetail_vrf::VrfSecret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claims::audit::Auditor;
use crate::claims::claim::Claim;
use crate::claims::settle::{OF_A_WORKER_IN_LINE_MAX, ProvenShare, Settled, Settler};
use crate::mailboxes::Mailboxes;
use crate::models::Models;
use crate::one_each::OneEach;
use crate::tasks::{Patience, Prices, TaskLimits, TaskParts, Tasks};
use crate::validation::{
    Member, ReplayPace, ThreadValidator, Validator, Validators, ValidatorsConfig,
};

/// Credit matures with the next batch that is worth as much.
pub(crate) const WINDOW: MaturityWindow = MaturityWindow {
    seconds: 0,
    seconds_max: 3_600,
};

/// Enough for all that a test pays.
pub(crate) const BUDGET: SubsidyBudget = SubsidyBudget {
    per_day: Msat::new(1 << 40),
    in_all: Msat::new(1 << 40),
};

/// 10 msat for an output token.
pub(crate) fn prices() -> TokenPrices {
    TokenPrices::new(0, 10_000_000).unwrap()
}

/// A database that goes with its test.
pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let url = std::env::var("DOVETAIL_TEST_DATABASE_URL").expect(
            "DOVETAIL_TEST_DATABASE_URL is not set: run `cargo xtask test`, which starts a Postgres",
        );
        let database = Self {
            server: PgConnectOptions::from_str(&url).unwrap(),
            name: format!("dovetail_pool_{:016x}", rand::random::<u64>()),
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

    pub(crate) async fn ledger(&self) -> Ledger {
        let url = self.options().to_url_lossy().to_string();
        let ledger = Ledger::connect(&url, 16).await.unwrap();
        ledger.with_content_key(&[0xc0; 32])
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = self.options().connect().await.unwrap();
        sqlx::query_scalar(sql)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// Whatever statements these are.
    pub(crate) async fn run(&self, sql: &'static str) {
        let mut connection = self.options().connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }

    /// The account has this much more to be paid out.
    pub(crate) async fn credit(&self, account: &str, msat: i64) {
        let mut connection = self.options().connect().await.unwrap();
        sqlx::query(
            "INSERT INTO accounts (name, never_negative)
             VALUES ('pool:hash', false), ('worker:' || $1, true) ON CONFLICT DO NOTHING",
        )
        .bind(account)
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
             SELECT substr(sha256($3), 1, 16), 'posted', p.id, w.id, $2, 'test' FROM accounts p, accounts w
              WHERE p.name = 'pool:hash' AND w.name = 'worker:' || $1",
        )
        .bind(account)
        .bind(msat)
        .bind(rand::random::<[u8; 32]>().to_vec())
        .execute(&mut connection)
        .await
        .unwrap();
    }

    pub(crate) async fn drop(self) {
        self.admin(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await;
    }
}

/// Tasks over a ledger, with these models.
pub(crate) fn live_tasks(ledger: &Ledger, models: Models) -> Tasks {
    Tasks::new(task_parts(ledger, models))
}

/// What they are made of.
pub(crate) fn task_parts(ledger: &Ledger, models: Models) -> TaskParts {
    TaskParts {
        ledger: ledger.clone(),
        pace: ReplayPace::new(models.clone(), Duration::from_secs(120)),
        models,
        mailboxes: Mailboxes::default(),
        limits: TaskLimits {
            prompt_bytes_max: PROMPT_BYTES_MAX,
            queue_max: 16,
            lifetime_s: 600,
            patience: Patience::default(),
            agent_absence: Duration::from_secs(10),
            subsidy_per_address: None,
        },
        prices: Prices::of_all(prices(), BUDGET),
        telemetry: Telemetry::none(),
        tracker: TaskTracker::new(),
    }
}

/// The part of a pool that settles claims, from one start to the next kill.
pub(crate) struct Pool {
    pub(crate) settler: Settler,
    stop: CancellationToken,
    claims: TaskTracker,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Pool {
    /// Starts with these validators; an audit takes `audit_time_max` at most.
    pub(crate) async fn start(
        database: &Database,
        log: &std::path::Path,
        validators: Vec<Arc<dyn Validator>>,
        audit_time_max: Duration,
    ) -> Self {
        let ledger = database.ledger().await;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let config = CommitterConfig {
            write_interval: Duration::ZERO,
            settle_interval: Duration::ZERO,
            ..CommitterConfig::new(log.to_owned(), 1 << 20)
        };
        let committer = Committer::start(ledger.clone(), config, stop.clone())
            .await
            .unwrap();
        // One that is alone is the pool's own thread: no other may confirm what it has found itself.
        let is_local = validators.len() == 1;
        let members = validators.into_iter().map(|validator| Member {
            validator,
            is_local,
        });
        let config = ValidatorsConfig {
            queue_max: 256,
            batch_max: 128,
            validator_timeout: audit_time_max,
        };
        let pace = ReplayPace::new(Models::default(), audit_time_max);
        let validators = Validators::start(members.collect(), config, pace, &tasks, &stop);
        let secret = VrfSecret::from_bytes([3; 32]).unwrap();
        let auditor = Auditor::new(ledger.clone(), secret, validators, audit_time_max);
        let settler = Settler {
            tasks: live_tasks(&ledger, Models::default()),
            ledger,
            telemetry: Telemetry::none(),
            accepted: Arc::default(),
            committer,
            auditor,
            one_per_worker: OneEach::new(OF_A_WORKER_IN_LINE_MAX),
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
    pub(crate) async fn claim(&self, share: ProvenShare, claim: Claim) -> Option<Settled> {
        let (settler, kill) = (self.settler.clone(), self.kill.clone());
        let settling = self.claims.spawn(async move {
            tokio::select! {
                () = kill.cancelled() => None,
                settled = settler.settle_claim(share, claim) => Some(settled),
            }
        });
        let settled = settling.await.ok().flatten();
        if settled.is_some() {
            // The share's hashes come into the ledger behind it.
            self.settler.committer.written().await;
        }
        settled
    }

    /// Ends it in the middle of whatever it does. What was committed stays.
    pub(crate) async fn kill(&self) {
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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) worker: WorkerKey,
    pub(crate) root: BatchRoot,
}

impl Finished {
    /// The same transcripts in another order, and so under another root, as a batch that can be claimed.
    pub(crate) async fn again(self, ledger: &Ledger) -> Self {
        let mut tasks = ledger.batch(self.root).await.unwrap().unwrap().tasks;
        tasks.rotate_left(1);
        let leaves = tasks
            .iter()
            .map(|task| task.transcript.as_ref().unwrap().leaf());
        let root = Batch::new(leaves.collect()).unwrap().root();
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        ledger
            .register_batch(self.worker, root, &ids)
            .await
            .unwrap();
        Self { root, ..self }
    }

    /// A share that claims it, with a header of its own.
    pub(crate) fn share(&self) -> (ProvenShare, Claim) {
        let claim = Claim {
            root: self.root,
            worker: self.worker,
            kept: KeptCredit::NONE,
            header: [0; 80],
            coinbase: Vec::new(),
            merkle_path: Vec::new(),
            share_target: [0xff; 32],
        };
        (hash_share(&self.worker.to_string()), claim)
    }
}

/// The work of a fresh embedded chain with this target.
pub(crate) async fn work(bits: u32) -> Arc<WorkSnapshot> {
    let stop = CancellationToken::new();
    let source = SourceConfig::embedded_with_bits(bits);
    let templates = dovetail_templates::start(source, stop.clone()).unwrap();
    let mut newest = templates.subscribe();
    let work = newest.wait_for(Option::is_some).await.unwrap().clone();
    stop.cancel();
    work.unwrap()
}

/// A share that nobody has seen before.
pub(crate) fn hash_share(account: &str) -> ProvenShare {
    ProvenShare {
        account: account.to_owned(),
        header_hash: HeaderHash::from_bytes(rand::random()),
        height: 0,
        work: Work::new(1 << 20),
        credit: Msat::new(1).into(),
        is_block: false,
        weight: Weight::ZERO,
        reward_sat: 0,
        is_coinbase_only: false,
        proof: None,
    }
}

/// A validator without faults.
pub(crate) fn validator(number: usize, model: &Arc<Model>) -> ThreadValidator {
    let runtime = Arc::new(Runtime::new(1).unwrap());
    ThreadValidator::new(number, runtime, [Arc::clone(model)].into_iter().collect())
}

/// What a worker makes of tasks.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) model: Arc<Model>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) number: usize,
    pub(crate) output_tokens: u32,
}

/// A prompt as the pool encodes it.
pub(crate) fn encoded(model: &Model, text: &str) -> EncodedPrompt {
    let tokens = model.encode(text.as_bytes()).unwrap();
    EncodedPrompt::new(text.as_bytes(), tokens).unwrap()
}

fn id(kind: &str, parts: [usize; 3]) -> [u8; 32] {
    let parts = parts.map(usize::to_le_bytes);
    tagged_hash(kind, &parts.each_ref().map(<[u8; 8]>::as_slice))
}

impl Worker {
    /// Its key.
    pub(crate) fn key(&self) -> WorkerKey {
        WorkerKey::from_bytes(id("worker", [self.number, 0, 0]))
    }

    /// The honest output of so many tasks, side by side.
    fn generate(&self, batch: usize, leaves: usize) -> Vec<(NewTask, Transcript, Vec<u32>)> {
        let (model, worker) = (&self.model, self.number);
        let sampling = SamplingParams {
            temperature_milli: 800,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: self.output_tokens,
        };
        let task = |leaf| NewTask {
            id: TaskId::from_bytes(id("task", [worker, batch, leaf])),
            model_id: model.id(),
            prompt: encoded(model, &format!("{leaf}?")),
            stop: StopSequences::new(vec![b"zz".to_vec()]).unwrap(),
            constraint: None,
            salt: id("salt", [worker, batch, leaf]),
            sampling,
            seed: id("seed", [worker, batch, leaf]),
            prices: prices(),
            payer: Payer::Operator(BUDGET),
            created_at_unix: unix_now(),
            expires_at_unix: u64::try_from(i64::MAX).unwrap() / 2,
        };
        let tasks: Vec<NewTask> = (0..leaves).map(task).collect();
        let request = |task: &NewTask| Request {
            prompt_tokens: task.prompt.tokens().to_vec(),
            sampling,
            seed: task.seed,
            stop: task.stop.clone(),
            constraint: task.constraint.clone(),
        };
        let mut generations: Vec<Generation> = tasks
            .iter()
            .map(|task| Generation::new(model, request(task)).unwrap())
            .collect();
        while !generations.iter().all(Generation::is_finished) {
            step(
                &self.runtime,
                &mut generations.iter_mut().collect::<Vec<_>>(),
            );
        }
        let worker_key = self.key();
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
                    prompt_commitment: prompt_commitment(
                        &task.salt,
                        &task.stop,
                        task.constraint.as_ref(),
                        &task.prompt,
                    ),
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

    /// Takes tasks from the agent's request to a registered batch; `lie` may change what is delivered.
    pub(crate) async fn finish(
        &self,
        ledger: &Ledger,
        batch: usize,
        leaves: usize,
        mut lie: impl FnMut(usize, &mut Transcript),
    ) -> Finished {
        let worker = self.clone();
        let made = tokio::task::spawn_blocking(move || worker.generate(batch, leaves));
        let (mut ids, mut hashes) = (Vec::new(), Vec::new());
        for (index, (task, mut transcript, tokens)) in made.await.unwrap().into_iter().enumerate() {
            lie(index, &mut transcript);
            let key = self.key();
            assert!(ledger.create_task(&task).await.unwrap());
            assert!(ledger.assign_task(task.id, key).await.unwrap());
            ledger
                .finish_task(task.id, key, &transcript, &tokens)
                .await
                .unwrap();
            ids.push(task.id);
            hashes.push(transcript.leaf());
        }
        let root = Batch::new(hashes).unwrap().root();
        ledger.register_batch(self.key(), root, &ids).await.unwrap();
        Finished {
            worker: self.key(),
            root,
        }
    }
}
