//! Cheats that need Bitcoin Core: blocks with transactions, and a chain with more than one branch.
//! `cargo xtask test` names the programs and runs these.
//!
//! On its regtest every share solves a block, also one whose claim is refused: the tip moves with each.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_tests::bitcoin_core::CoreParts;
use dovetail_tests::scenario::Options;
use serde_json::Value;

use crate::coins::{mine_to_anybody, spend_coinbase};
use crate::double_claims::{cannot_be_spent_without_its_block, spent};
use crate::fixture::{Case, Fixture, options};
use crate::scripted_worker::assert_refused;

/// A coinbase can be spent in the 100th block after it.
const BLOCKS: u32 = 101;
/// The first block that pays anybody; the harness's own is the one before.
const COINS_HEIGHT: u32 = 2;
/// Enough for a new template at once.
const FEE_SAT: u64 = 100_000;

/// A case on a chain whose first coins anybody can spend.
async fn start() -> Case {
    let options = Options {
        core: Some(CoreParts::from_environment().unwrap()),
        ..options()
    };
    let fixture = tokio::task::spawn_blocking(move || {
        let fixture = Fixture::start(&options);
        let scenario = fixture.scenario();
        mine_to_anybody(scenario.network.bitcoin_core().unwrap(), BLOCKS);
        drop(scenario);
        fixture
    });
    let case = Case::on(fixture.await.unwrap()).await;
    // What a miner declares from now on is on the newest tip.
    let tip = best_block(&case).to_byte_array();
    case.wait_for_tip(|seen| seen == tip).await;
    case
}

fn rpc(case: &Case, arguments: &[&str]) -> String {
    let scenario = case.fixture.scenario();
    let core = scenario.network.bitcoin_core().unwrap();
    core.rpc(arguments).unwrap()
}

fn block(case: &Case, hash: &BlockHash) -> Value {
    serde_json::from_str(&rpc(case, &["getblock", &hash.to_string()])).unwrap()
}

fn best_block(case: &Case) -> BlockHash {
    rpc(case, &["getbestblockhash"]).parse().unwrap()
}

/// Puts a transaction with a batch's commitment into the node's pool.
fn commit_in_a_transaction(case: &Case, root: BatchRoot) -> Transaction {
    let scenario = case.fixture.scenario();
    let core = scenario.network.bitcoin_core().unwrap();
    let mut transaction = spend_coinbase(core, COINS_HEIGHT, FEE_SAT);
    transaction.output.push(commitment_output(root));
    core.rpc(&["sendrawtransaction", &serialize_hex(&transaction)])
        .unwrap();
    transaction
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn a_commitment_in_a_transaction_that_is_not_the_coinbase() {
    let case = start().await;
    let mut cheat = case.worker().await;
    let batch = case.batch(&mut cheat).await;
    let carrier = commit_in_a_transaction(&case, batch.root);
    let mut work = case.endpoints.templates.subscribe();
    let carries = work.wait_for(|work| {
        work.as_ref()
            .is_some_and(|work| !work.merkle_path().is_empty())
    });
    let carries = tokio::time::timeout(crate::scripted_worker::TIME_MAX, carries).await;
    drop(carries.unwrap().unwrap());

    let before = case.tip();
    let job = cheat.job(None).await;
    let share = cheat.hash(&job).await;
    let verdict = cheat.submit(&share, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "claim-without-commitment");
    case.earned_nothing(&cheat);
    // The block was a good one all the same, and the commitment stands in it.
    case.wait_for_tip(|tip| tip != before).await;
    assert_eq!(best_block(&case).to_byte_array(), share.hash);
    let transactions = &block(&case, &best_block(&case))["tx"];
    assert_eq!(transactions[1], carrier.compute_txid().to_string());
    // Nor does it count once it is in the chain; in a coinbase the same root does.
    let job = cheat.job(None).await;
    let verdict = cheat.submit_new(&job, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "claim-without-commitment");
    case.earned_nothing(&cheat);
    cheat.claim(&batch.root).await.credited();
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn a_root_again_on_another_branch_of_the_chain() {
    let case = start().await;
    let before = case.tip();
    let (mut cheat, spent) = spent(&case, true).await;
    case.wait_for_tip(|tip| tip != before).await;
    let orphan = BlockHash::from_byte_array(spent.share.hash);
    assert_eq!(best_block(&case), orphan);

    rpc(&case, &["invalidateblock", &orphan.to_string()]);
    case.wait_for_tip(|tip| tip == before).await;
    cannot_be_spent_without_its_block(&case, &spent, &mut cheat).await;

    // The refused share with a new header has solved the first block of the other branch. One more, and
    // the branch that paid for the batch is the shorter one, which nobody has to hold invalid.
    case.wait_for_tip(|tip| tip != before).await;
    {
        let scenario = case.fixture.scenario();
        mine_to_anybody(scenario.network.bitcoin_core().unwrap(), 1);
    }
    rpc(&case, &["reconsiderblock", &orphan.to_string()]);
    let tip = best_block(&case).to_byte_array();
    case.wait_for_tip(|seen| seen == tip).await;
    let confirmations = &block(&case, &orphan)["confirmations"];
    assert_eq!(*confirmations, -1, "it is on no branch that counts");
    let root = &spent.batch.root;
    assert_refused(cheat.register_batch(&spent.batch).await, "batch-spent");
    assert_refused(
        cheat.declare_soon(Some(root)).await,
        "invalid-batch-commitment",
    );
    assert_refused(cheat.pool_job(*root).await, "batch-spent");
    case.earned_batches(&cheat, 1);

    // There and then, work that is new still earns.
    let next = case.batch(&mut cheat).await;
    cheat.claim(&next.root).await.credited();
    case.earned_batches(&cheat, 2);
    case.end().await;
}
