//! The theorem of docs/audit.md on the real ledger: batches of any composition, in any order, of several keys of one
//! owner, some of their leaves lies. What a claim brings is what the formula says, and no lie is worth anything.

use dovetail_audit::{Stake, WeighedLeaf, sample};
use dovetail_commitment::{
    Batch, BatchRoot, EncodedPrompt, FinishReason, HeaderHash, ModelId, SamplingParams,
    StopSequences, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
};
use dovetail_ledger::{
    DrawnSample, FailedAudit, InferenceSettlement, Ledger, MaturityWindow, NewTask, Payer, Share,
};
use dovetail_rewards::Weight;
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, ShareCredit, SplitMix64, TokenPrices, Work};
use dovetail_vrf::VrfProof;

use crate::test_support::{BUDGET, Database, Pool};

const SEED_VARIABLE: &str = "DOVETAIL_TEST_SEED";
const CLAIMS: u32 = 120;
const KEYS: u64 = 3;
/// Credit matures as soon as later credit worth as much is held.
const WINDOW: MaturityWindow = MaturityWindow {
    seconds: 0,
    seconds_max: 3_600,
};

/// A leaf that its worker delivered.
struct Delivered {
    transcript: Transcript,
    value: Msat,
    is_lie: bool,
}

/// A task of this worth that the worker has delivered; what it says is no matter here.
async fn deliver(ledger: &Ledger, worker: WorkerKey, random: &mut SplitMix64) -> Delivered {
    // From trifles to what is worth more than all the others together.
    let thousands = u32::try_from(1 + random.below(9)).unwrap().pow(4);
    let task = NewTask {
        id: TaskId::from_bytes(random.bytes32()),
        model_id: ModelId::from_bytes([1; 32]),
        prompt: EncodedPrompt::new(b"?", vec![1]).unwrap(),
        stop: StopSequences::new(Vec::new()).unwrap(),
        constraint: None,
        salt: [2; 32],
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1_000,
            max_tokens: 1,
        },
        seed: [3; 32],
        prices: TokenPrices::new(u64::from(thousands) * 1_000_000_000, 0).unwrap(),
        payer: Payer::Operator(BUDGET),
        created_at_unix: unix_now(),
        expires_at_unix: u64::try_from(i64::MAX).unwrap() / 2,
    };
    let transcript = Transcript {
        task_id: task.id,
        worker_key: worker,
        model_id: task.model_id,
        engine_version: 1,
        prompt_commitment: prompt_commitment(&task.salt, &task.stop, None, &task.prompt),
        sampling: task.sampling,
        seed: task.seed,
        output_tokens: 1,
        output_digest: output_digest(&[7]),
        trace_root: [0; 32],
        finish_reason: FinishReason::Length,
    };
    assert!(ledger.create_task(&task).await.unwrap());
    assert!(ledger.assign_task(task.id, worker).await.unwrap());
    ledger
        .finish_task(task.id, worker, &transcript, &[7])
        .await
        .unwrap();
    Delivered {
        transcript,
        value: ledger.task(task.id).await.unwrap().unwrap().price,
        is_lie: random.below(3) == 0,
    }
}

/// What a key has for inference, paid out or not.
async fn worth(ledger: &Ledger, worker: WorkerKey) -> i64 {
    let balance = ledger.balance(&worker.to_string()).await.unwrap();
    balance.available.get() + balance.held.get()
}

/// What was expected of a claim and how far it may be from it.
struct Bet {
    expected: f64,
    variance: f64,
}

impl Bet {
    /// Of a batch with these leaves, drawn against this stake.
    fn on(leaves: &[Delivered], held: Msat) -> Self {
        let stake = Stake::new(held);
        let of = |is_lie| -> f64 {
            let some = leaves.iter().filter(|leaf| leaf.is_lie == is_lie);
            some.map(|leaf| leaf.value.get() as f64).sum()
        };
        let missed: f64 = leaves
            .iter()
            .filter(|leaf| leaf.is_lie)
            .map(|leaf| 1.0 - stake.probability(leaf.value).threshold() as f64 / 2_f64.powi(64))
            .product();
        let (honest, lied, held) = (of(false), of(true), held.get() as f64);
        let expected = missed * (honest + lied) - (1.0 - missed) * held;
        assert!(
            lied == 0.0 || expected < honest || (held == 0.0 && expected == 0.0),
            "{lied} msat of lies beside {honest}, {held} held: {expected}"
        );
        let spread = honest + lied + held;
        Self {
            expected,
            variance: missed * (1.0 - missed) * spread * spread,
        }
    }
}

/// One claim, from the draw to its end.
async fn claim(
    pool: &Pool,
    worker: WorkerKey,
    leaves: &[Delivered],
    random: &mut SplitMix64,
) -> Bet {
    let ledger = &pool.settler.ledger;
    let ids: Vec<TaskId> = leaves.iter().map(|leaf| leaf.transcript.task_id).collect();
    let hashes = leaves.iter().map(|leaf| leaf.transcript.leaf()).collect();
    let root = Batch::new(hashes).unwrap().root();
    ledger.register_batch(worker, root, &ids).await.unwrap();
    let held = ledger.stake(worker, root).await.unwrap().unwrap();
    let bet = Bet::on(leaves, held);
    let weighed: Vec<WeighedLeaf> = leaves
        .iter()
        .map(|leaf| WeighedLeaf {
            leaf: leaf.transcript.leaf(),
            value: leaf.value,
        })
        .collect();
    let drawn = drawn(root, sample(&random.bytes32(), &weighed, Stake::new(held)));
    // What the sample is drawn against stays there until the verdict.
    let matured = ledger.mature_credits(WINDOW, Some(worker)).await.unwrap();
    assert!(matured.is_empty(), "{matured:?}");
    match drawn
        .indices
        .iter()
        .copied()
        .find(|index| leaves[*index].is_lie)
    {
        Some(lie) => fail(ledger, worker, root, &drawn, (lie, &leaves[lie].transcript)).await,
        None => settle(pool, worker, root, leaves, drawn).await,
    }
    bet
}

async fn settle(
    pool: &Pool,
    worker: WorkerKey,
    root: BatchRoot,
    leaves: &[Delivered],
    drawn: DrawnSample,
) {
    let credit = leaves.iter().map(|leaf| leaf.value.get()).sum();
    let share = Share {
        header_hash: HeaderHash::from_bytes(root.to_bytes()),
        height: 0,
        account: worker.to_string(),
        work: Work::new(1),
        is_block: false,
        credit: ShareCredit::ZERO,
        weight: Weight::ZERO,
        reward_sat: 0,
        is_coinbase_only: false,
        proof: None,
        batch: Some(InferenceSettlement {
            root,
            credit: Msat::new(credit),
            sample: drawn,
            receipts: leaves
                .iter()
                .map(|leaf| (leaf.transcript.task_id, "{}".to_owned()))
                .collect(),
        }),
    };
    pool.settler.committer.commit(share).await.unwrap();
}

/// What the ledger keeps of a sample. It looks at no proof.
fn drawn(root: BatchRoot, indices: Vec<usize>) -> DrawnSample {
    DrawnSample {
        header_hash: HeaderHash::from_bytes(root.to_bytes()),
        proof: VrfProof::from_bytes([0; VrfProof::BYTES]),
        stake: Msat::ZERO,
        indices,
    }
}

async fn fail(
    ledger: &Ledger,
    worker: WorkerKey,
    root: BatchRoot,
    drawn: &DrawnSample,
    (index, transcript): (usize, &Transcript),
) {
    let validators = ["one".to_owned(), "two".to_owned()];
    let failed = FailedAudit {
        header_hash: HeaderHash::from_bytes(root.to_bytes()),
        root,
        worker,
        sample: drawn,
        index,
        transcript,
        mismatch: "trace",
        position: None,
        replayed: None,
        engine_version: 1,
        validators: &validators,
    };
    ledger.fail_audit(&failed).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_composition_order_or_number_of_keys_makes_lies_worth_anything() {
    let seed =
        std::env::var(SEED_VARIABLE).map_or_else(|_| rand::random(), |of| of.parse().unwrap());
    println!("to run this again: {SEED_VARIABLE}={seed}");
    let mut random = SplitMix64::new(seed);
    let database = Database::create().await;
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    let log = tempfile::tempdir().unwrap();
    let time_max = std::time::Duration::from_secs(60);
    let pool = Pool::start(&database, log.path(), Vec::new(), time_max).await;
    let keys: Vec<WorkerKey> = (0..KEYS)
        .map(|_| WorkerKey::from_bytes(random.bytes32()))
        .collect();
    let (mut off, mut variance) = (0.0, 0.0);
    for _ in 0..CLAIMS {
        let worker = keys[usize::try_from(random.below(KEYS)).unwrap()];
        let mut leaves = Vec::new();
        for _ in 0..=random.below(6) {
            leaves.push(deliver(&ledger, worker, &mut random).await);
        }
        if random.below(2) == 0 {
            for leaf in &mut leaves {
                leaf.is_lie = false;
            }
        }
        let before = worth(&ledger, worker).await;
        let bet = claim(&pool, worker, &leaves, &mut random).await;
        off += (worth(&ledger, worker).await - before) as f64 - bet.expected;
        variance += bet.variance;
        if random.below(3) == 0 {
            ledger.mature_credits(WINDOW, None).await.unwrap();
        }
    }
    assert!(
        off.abs() <= 5.0 * variance.sqrt() + 1.0,
        "{off} msat off, {} allowed, seed {seed}",
        5.0 * variance.sqrt()
    );
    pool.kill().await;
    database.drop().await;
}
