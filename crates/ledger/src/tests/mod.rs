//! Tests against a real Postgres, each in a database of its own.

mod accounts;
mod agent_keys;
mod audits;
mod coinbase_only;
mod coinbase_payouts;
mod collateral;
mod consistency;
mod devices;
mod dumps;
mod findings;
mod hash_credits;
mod kept_credit;
mod kept_slices;
mod log_faults;
mod migration;
mod model;
mod outage;
mod payers;
mod payouts;
mod rewards;
mod samples;
mod schema;
mod sealing;
mod shares;
mod statements;
mod tasks;
mod value;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use dovetail_commitment::{
    Batch, BatchRoot, Constraint, EncodedPrompt, FinishReason, Form, HeaderHash, ModelId,
    SamplingParams, StopSequences, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
};
use dovetail_rewards::Weight;
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, TokenPrices, Work};
use dovetail_vrf::VrfProof;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::{
    CommitRefusal, Committer, CommitterConfig, DrawnSample, FailedAudit, Forfeiture,
    InferenceSettlement, Ledger, LedgerError, MaturityWindow, NewTask, Payer, ReplayedDigests,
    Share, SubsidyBudget,
};

/// What the tests' pools encrypt prompts with.
const CONTENT_KEY: [u8; 32] = [0xc0; 32];
const URL_VARIABLE: &str = "DOVETAIL_TEST_DATABASE_URL";

/// A database that is dropped when its test ends.
#[derive(Clone)]
struct Database {
    server: PgConnectOptions,
    name: String,
}

/// Runs a test in a new, migrated database.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Database, Ledger) -> F) {
    run_empty(|database, ledger| async move {
        ledger.migrate().await.unwrap();
        test(database, ledger).await;
    });
}

/// Runs a test in a new database without a schema.
fn run_empty<F: Future<Output = ()>>(test: impl FnOnce(Database, Ledger) -> F) {
    let url = std::env::var(URL_VARIABLE).unwrap_or_else(|_| {
        panic!(
            "{URL_VARIABLE} is not set: run `cargo xtask test`, which starts a Postgres, or give \
             the URL of a cluster's superuser"
        )
    });
    let server = PgConnectOptions::from_str(&url).unwrap();
    let name = format!("dovetail_test_{:016x}", random());
    let database = Database { server, name };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(database.admin(&format!("CREATE DATABASE {}", database.name)));
    let result = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let ledger = database.ledger().await;
            test(database.clone(), ledger).await;
        });
    }));
    runtime.block_on(database.admin(&format!("DROP DATABASE {} WITH (FORCE)", database.name)));
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

impl Database {
    async fn admin(&self, sql: &str) {
        let mut connection = self.server.connect().await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Another connection, as another process would have it.
    async fn ledger(&self) -> Ledger {
        let ledger = Ledger::open(self.options(), 8).await.unwrap();
        ledger.with_content_key(&CONTENT_KEY)
    }

    async fn connection(&self) -> PgConnection {
        self.options().connect().await.unwrap()
    }

    /// Postgres is away, as far as this test is concerned.
    async fn go_away(&self) {
        let name = &self.name;
        self.admin(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            .await;
        self.admin(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .await;
    }

    /// Until the connection is closed, a transaction with shares does all its work and then waits
    /// inside its COMMIT.
    async fn hold_commits(&self) -> PgConnection {
        let mut connection = self.connection().await;
        sqlx::raw_sql(
            "CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON shares
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_commit();
             SELECT pg_advisory_lock(1);",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection
    }

    async fn come_back(&self) {
        let name = &self.name;
        self.admin(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
            .await;
    }
}

/// A committer with its own log and switch.
struct Running {
    committer: Written,
    shutdown: CancellationToken,
}

/// A committer that waits until a share that it has acknowledged is in the ledger.
#[derive(Clone)]
struct Written(Committer);

impl Written {
    async fn commit(&self, share: Share) -> Result<(), CommitRefusal> {
        let done = self.0.commit(share).await;
        if done.is_ok() {
            self.0.written().await;
        }
        done
    }
}

/// A small log; what is logged is written and settled at once.
fn config(dir: &Path) -> CommitterConfig {
    CommitterConfig {
        write_interval: Duration::ZERO,
        settle_interval: Duration::ZERO,
        ..CommitterConfig::new(dir.to_owned(), 1 << 20)
    }
}

impl Running {
    async fn start(ledger: &Ledger, dir: &Path) -> Self {
        Self::start_with(ledger, config(dir)).await
    }

    async fn start_with(ledger: &Ledger, config: CommitterConfig) -> Self {
        let shutdown = CancellationToken::new();
        let committer = Committer::start(ledger.clone(), config, shutdown.clone())
            .await
            .unwrap();
        Self {
            committer: Written(committer),
            shutdown,
        }
    }

    /// Acknowledged, and perhaps not in the ledger yet.
    async fn log(&self, share: Share) -> Result<(), CommitRefusal> {
        self.committer.0.commit(share).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.committer.0.stopped().await;
    }
}

fn hash_share(n: u8, account: &str, credit_msat: i64) -> Share {
    Share {
        header_hash: HeaderHash::from_bytes([n; 32]),
        height: 100,
        account: account.to_owned(),
        work: Work::new(1 << 40),
        is_block: false,
        credit: Msat::new(credit_msat).into(),
        weight: Weight::ZERO,
        reward_sat: 0,
        is_coinbase_only: false,
        batch: None,
        proof: None,
    }
}

/// As [`hash_share`], with room for more numbers.
fn numbered_share(n: u16, account: &str, credit_msat: i64) -> Share {
    let mut hash = [0xee; 32];
    hash[..2].copy_from_slice(&n.to_le_bytes());
    Share {
        header_hash: HeaderHash::from_bytes(hash),
        ..hash_share(0, account, credit_msat)
    }
}

fn inference_share(header: u8, root: BatchRoot, tasks: &[TaskId]) -> Share {
    Share {
        batch: Some(InferenceSettlement {
            root,
            credit: Msat::new(1_000),
            sample: sample(header),
            receipts: tasks.iter().map(|id| (*id, "{}".to_owned())).collect(),
        }),
        ..hash_share(header, "miner", 10)
    }
}

/// A sample of the first leaf, drawn from this header.
fn sample(header: u8) -> DrawnSample {
    DrawnSample {
        header_hash: HeaderHash::from_bytes([header; 32]),
        proof: VrfProof::from_bytes([header; VrfProof::BYTES]),
        stake: Msat::new(5_000),
        indices: vec![0],
    }
}

const WORKER: WorkerKey = WorkerKey::from_bytes([0xaa; 32]);
const MODEL: ModelId = ModelId::from_bytes([0xbb; 32]);
/// Enough for all that a test pays.
const BUDGET: SubsidyBudget = SubsidyBudget {
    per_day: Msat::new(1 << 40),
    in_all: Msat::new(1 << 40),
};
const SAMPLING: SamplingParams = SamplingParams {
    temperature_milli: 0,
    top_k: 0,
    top_p_milli: 1_000,
    max_tokens: 8,
};

fn constraint(schema: &str) -> Constraint {
    Constraint::new(Form::JsonSchema(schema.to_owned())).unwrap()
}

fn prompt(text: &[u8], tokens: &[u32]) -> EncodedPrompt {
    EncodedPrompt::new(text, tokens.to_vec()).unwrap()
}

/// A task that costs and earns 1,000 msat, for its input alone.
fn new_task(n: u8) -> NewTask {
    NewTask {
        id: TaskId::from_bytes([n; 32]),
        model_id: MODEL,
        prompt: prompt(b"What is owed?", &[256]),
        stop: StopSequences::new(vec![b"\n\n".to_vec(), b"END".to_vec()]).unwrap(),
        constraint: Some(constraint("{\"type\": \"object\"}")),
        salt: [n; 32],
        sampling: SAMPLING,
        seed: [n; 32],
        prices: TokenPrices::new(1_000_000_000, 0).unwrap(),
        payer: Payer::Operator(BUDGET),
        created_at_unix: unix_now(),
        expires_at_unix: unix_now() + 600,
    }
}

fn transcript(task: &NewTask, tokens: &[u32]) -> Transcript {
    Transcript {
        task_id: task.id,
        worker_key: WORKER,
        model_id: task.model_id,
        engine_version: 1,
        prompt_commitment: prompt_commitment(
            &task.salt,
            &task.stop,
            task.constraint.as_ref(),
            &task.prompt,
        ),
        sampling: task.sampling,
        seed: task.seed,
        output_tokens: u32::try_from(tokens.len()).unwrap(),
        output_digest: output_digest(tokens),
        trace_root: [0; 32],
        finish_reason: FinishReason::Stop,
    }
}

/// Takes a task all the way to finished, and returns its transcript.
async fn finished_task(ledger: &Ledger, n: u8) -> Transcript {
    finish(ledger, &new_task(n)).await
}

async fn finish(ledger: &Ledger, task: &NewTask) -> Transcript {
    let transcript = transcript(task, &[1, 2, 3]);
    assert!(ledger.create_task(task).await.unwrap());
    assert!(ledger.assign_task(task.id, WORKER).await.unwrap());
    ledger
        .finish_task(task.id, WORKER, &transcript, &[1, 2, 3])
        .await
        .unwrap();
    transcript
}

fn root_of(transcripts: &[Transcript]) -> BatchRoot {
    Batch::new(transcripts.iter().map(Transcript::leaf).collect())
        .unwrap()
        .root()
}

/// A registered batch of finished tasks with these numbers.
async fn open_batch(ledger: &Ledger, numbers: &[u8]) -> (BatchRoot, Vec<TaskId>) {
    let mut transcripts = Vec::new();
    for n in numbers {
        transcripts.push(finished_task(ledger, *n).await);
    }
    let root = root_of(&transcripts);
    let ids: Vec<TaskId> = transcripts.iter().map(|of| of.task_id).collect();
    ledger.register_batch(WORKER, root, &ids).await.unwrap();
    (root, ids)
}

/// An audit that found the second token of this transcript of [`WORKER`] different.
fn failed<'a>(
    root: BatchRoot,
    transcript: &'a Transcript,
    sample: &'a DrawnSample,
) -> FailedAudit<'a> {
    static VALIDATORS: std::sync::LazyLock<[String; 2]> =
        std::sync::LazyLock::new(|| ["one".to_owned(), "two".to_owned()]);
    FailedAudit {
        header_hash: sample.header_hash,
        root,
        worker: WORKER,
        sample,
        index: 0,
        transcript,
        mismatch: "tokens",
        position: Some(1),
        replayed: Some(ReplayedDigests {
            tokens: 2,
            output_digest: [0xee; 32],
            trace_root: [0xff; 32],
        }),
        engine_version: 2,
        validators: &*VALIDATORS,
    }
}

/// Fails the batch of the one task of this number, at the claim with this header.
async fn fail(
    ledger: &Ledger,
    root: BatchRoot,
    task: u8,
    header: u8,
) -> Result<Option<Forfeiture>, LedgerError> {
    let (transcript, sample) = (transcript(&new_task(task), &[1, 2, 3]), sample(header));
    ledger.fail_audit(&failed(root, &transcript, &sample)).await
}

/// Credit matures at once.
const AT_ONCE: MaturityWindow = MaturityWindow {
    seconds: 0,
    seconds_max: 0,
};

/// Posts all that is held; returns what it comes to.
async fn mature(ledger: &Ledger) -> i64 {
    let matured = ledger.mature_credits(AT_ONCE, None).await.unwrap();
    matured.iter().map(|matured| matured.amount.get()).sum()
}

async fn available(ledger: &Ledger, account: &str) -> i64 {
    ledger.balance(account).await.unwrap().available.get()
}
