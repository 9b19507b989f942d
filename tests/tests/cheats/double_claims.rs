//! Roots and headers that were spent before: on the same connection, on another, at the same moment on
//! two, after a restart of the pool, after a reorganisation of the chain.

use std::time::Duration;

use dovetail_tests::scenario::Options;

use crate::fixture::{Case, options};
use crate::scripted_worker::{
    Declared, Job, ScriptedWorker, Share, TestBatch, Verdict, assert_refused,
};

/// A batch that was credited with a share, and a second job for it that was declared before.
pub(crate) struct Spent {
    pub(crate) batch: TestBatch,
    pub(crate) share: Share,
    spare: Declared,
}

/// Has a batch credited, by a share that solves a block if `block`.
pub(crate) async fn spent(case: &Case, block: bool) -> (ScriptedWorker, Spent) {
    let mut cheat = case.worker().await;
    let batch = case.batch(&mut cheat).await;
    let spare = cheat.declare(Some(&batch.root)).await.unwrap();
    let job = cheat.job(Some(&batch.root)).await;
    let share = match block {
        true => cheat.hash_block(&job).await,
        false => cheat.hash(&job).await,
    };
    cheat.submit(&share, Some(&batch.root)).await.credited();
    case.earned_batches(&cheat, 1);
    let spent = Spent {
        batch,
        share,
        spare,
    };
    (cheat, spent)
}

/// Tries every way to spend the root once more on this connection.
async fn cannot_be_spent(case: &Case, spent: &Spent, again: &mut ScriptedWorker) {
    let root = &spent.batch.root;
    assert_refused(again.register_batch(&spent.batch).await, "batch-spent");
    assert_refused(again.declare(Some(root)).await, "invalid-batch-commitment");
    // The job that was declared while the root was good.
    let job = again.set(&spent.spare).await.unwrap();
    for _ in 0..2 {
        let verdict = again.submit_new(&job, Some(root)).await;
        assert_eq!(verdict.refusal(), "batch-spent");
    }
    case.earned_batches(again, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_again_on_the_same_connection() {
    let case = Case::start().await;
    let (mut cheat, spent) = spent(&case, false).await;
    cannot_be_spent(&case, &spent, &mut cheat).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_again_on_the_job_that_spent_it() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let job = cheat.job(Some(&batch.root)).await;
    let share = cheat.hash(&job).await;
    cheat.submit(&share, Some(&batch.root)).await.credited();
    let verdict = cheat.submit(&share, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "duplicate-share");
    let verdict = cheat.submit_new(&job, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "batch-spent");
    // The job itself may be hashed on, without the claim.
    assert_eq!(cheat.submit_new(&job, None).await, Verdict::Hashes);
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_was_credited_for_its_hashes() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let job = cheat.job(Some(&batch.root)).await;
    let share = cheat.hash(&job).await;
    assert_eq!(cheat.submit(&share, None).await, Verdict::Hashes);
    let verdict = cheat.submit(&share, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "duplicate-share");
    case.earned_nothing(&cheat);
    cheat.submit_new(&job, Some(&batch.root)).await.credited();
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_again_on_another_connection() {
    let case = Case::start().await;
    let (cheat, spent) = spent(&case, false).await;
    let mut again = case.again(&cheat.keys).await;
    cannot_be_spent(&case, &spent, &mut again).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_claim_raced_on_two_connections() {
    let (case, mut first) = Case::with_worker().await;
    let mut rounds = 0;
    while rounds < 3 {
        let batch = case.batch(&mut first).await;
        let mut second = case.again(&first.keys).await;
        let root = Some(&batch.root);
        let (one, two) = (first.job(root).await, second.job(root).await);
        let (one, two) = (first.hash(&one).await, second.hash(&two).await);
        let (one, two) = tokio::join!(first.submit(&one, root), second.submit(&two, root));
        let refused = match (one, two) {
            (Verdict::Credited(_), other) | (other, Verdict::Credited(_)) => other.refusal(),
            both => panic!("neither was credited: {both:?}"),
        };
        assert_eq!(refused, "batch-spent");
        rounds += 1;
        case.earned_batches(&first, rounds);
        // Tasks go to the newest connection of a key, which takes none here.
        first = case.renewed(first).await;
    }
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_again_after_a_restart_of_the_pool() {
    let mut case = Case::on_new_pool(options()).await;
    let (cheat, spent) = spent(&case, false).await;
    case.restart_pool(|_| ()).await;
    case.reconnect_bystander().await;
    let mut again = case.again(&cheat.keys).await;
    cannot_be_spent(&case, &spent, &mut again).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_and_a_header_again_after_a_reorganisation() {
    let options = Options {
        // A million hashes a block: it must be found on purpose, and soon.
        bits: "1e0fffff",
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let before = case.tip();
    let (mut cheat, spent) = spent(&case, true).await;
    case.wait_for_tip(|tip| tip != before).await;
    case.fixture.scenario().network.undo_block();
    case.wait_for_tip(|tip| tip == before).await;

    cannot_be_spent_without_its_block(&case, &spent, &mut cheat).await;
    // The header came three times and is one block.
    assert_eq!(announced(&case), 1);
    case.end().await;
}

/// How many blocks this pool has announced since it was started; one is recorded, whoever announced it, and
/// the header has come again.
fn announced(case: &Case) -> usize {
    let mut scenario = case.fixture.scenario();
    let mut found = 0;
    while let Some(line) = scenario.pool.next_line(Duration::from_secs(1)).unwrap() {
        found += usize::from(line["event"] == "block_found");
    }
    let recorded = scenario.query("SELECT count(*) FROM blocks").unwrap();
    assert_eq!(recorded, "1");
    assert!(scenario.pool.log().contains("found before came again"));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_again_after_a_restart_of_the_pool_and_a_reorganisation() {
    let options = Options {
        bits: "1e0fffff",
        ..options()
    };
    let mut case = Case::on_new_pool(options).await;
    let before = case.tip();
    let (cheat, spent) = spent(&case, true).await;
    case.wait_for_tip(|tip| tip != before).await;
    case.restart_pool(|scenario| scenario.network.undo_block())
        .await;
    case.wait_for_tip(|tip| tip == before).await;
    case.reconnect_bystander().await;
    let mut again = case.again(&cheat.keys).await;
    // A pool that starts again gives out other extranonces, so the header cannot be hashed again, and the root is spent.
    let (new, old) = (&again.channel, &cheat.channel);
    assert_ne!(new.extranonce_prefix, old.extranonce_prefix);
    let job = set_soon(&mut again, &spent.spare).await;
    let verdict = again.submit_new(&job, Some(&spent.batch.root)).await;
    assert_eq!(verdict.refusal(), "batch-spent");
    case.earned_batches(&again, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_published_and_credited_while_it_cannot_be_recorded() {
    let options = Options {
        bits: "1e0fffff",
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let before = case.tip();
    let hold = case.hold("LOCK TABLE blocks IN EXCLUSIVE MODE");
    spent(&case, true).await;
    case.wait_for_tip(|tip| tip != before).await;
    let blocks = |case: &Case| case.fixture.number("SELECT count(*) FROM blocks");
    assert_eq!(blocks(&case), 0);
    drop(hold);
    let recorded = async {
        while blocks(&case) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::scripted_worker::TIME_MAX, recorded)
        .await
        .unwrap();
    {
        let mut scenario = case.fixture.scenario();
        let event = scenario
            .pool
            .event("block_found", crate::scripted_worker::TIME_MAX);
        assert_eq!(event.unwrap()["declared"], true);
    }
    case.end().await;
}

/// Tries the header and the root once more on the tip that they were spent on, whose next block they
/// no longer are.
pub(crate) async fn cannot_be_spent_without_its_block(
    case: &Case,
    spent: &Spent,
    cheat: &mut ScriptedWorker,
) {
    // The block is gone, its header is not: the spare job has the same coinbase on the same channel.
    let job = set_soon(cheat, &spent.spare).await;
    for root in [Some(&spent.batch.root), None] {
        let mut same = spent.share.clone();
        same.message.job_id = job.id;
        let refused = cheat.submit(&same, root).await.refusal();
        let code = match root {
            Some(_) => "batch-spent",
            None => "duplicate-share",
        };
        assert_eq!(refused, code);
    }
    let verdict = cheat.submit_new(&job, Some(&spent.batch.root)).await;
    assert_eq!(verdict.refusal(), "batch-spent");
    case.earned_batches(cheat, 1);
}

/// Sets a job on a tip that the pool may yet have to hear of.
async fn set_soon(cheat: &mut ScriptedWorker, declared: &Declared) -> Job {
    loop {
        match cheat.set(declared).await {
            Ok(job) => return job,
            Err(code) => assert_eq!(code, "stale-chain-tip"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
