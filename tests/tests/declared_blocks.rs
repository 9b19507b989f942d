//! A declared block reaches Bitcoin Core's chain when the miner's own node is dead: as a pushed
//! solution, and as a share at the pool. `cargo xtask test` names the programs and runs these.

#![allow(clippy::unwrap_used)]

mod declaration;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Transaction};
use declaration::coins::{mine_to_anybody, spend_coinbase};
use declaration::{DeclaratorClient, Job, Mining, TIME_MAX};
use dovetail_templates::{SourceConfig, TemplateHandle, WorkSnapshot};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::scenario::{Options, Scenario};
use tokio_util::sync::CancellationToken;

/// A coinbase can be spent in the 100th block after it.
const BLOCKS: u32 = 101;

/// The miner's node: another one than the pool's, with the same chain, and a transaction that the
/// pool's has never seen.
struct MinersNode {
    core: BitcoinCore,
    templates: TemplateHandle,
    spend: Transaction,
    stop: CancellationToken,
}

impl MinersNode {
    async fn start(pools: &BitcoinCore, parts: &CoreParts, dir: &Path) -> Self {
        let core = BitcoinCore::start(parts, &dir.join("miner"), &dir.join("miner-logs")).unwrap();
        let height: u32 = pools.rpc(&["getblockcount"]).unwrap().parse().unwrap();
        for height in 1..=height {
            let hash = pools.rpc(&["getblockhash", &height.to_string()]).unwrap();
            let block = pools.rpc(&["getblock", &hash, "0"]).unwrap();
            core.rpc(&["submitblock", &block]).unwrap();
        }
        // The pool's own first block is the one before.
        let spend = spend_coinbase(&core, 2, 100_000);
        core.rpc(&["sendrawtransaction", &serialize_hex(&spend)])
            .unwrap();
        let stop = CancellationToken::new();
        let source = SourceConfig::bitcoin_core(core.socket());
        Self {
            templates: dovetail_templates::start(source, stop.clone()).unwrap(),
            core,
            spend,
            stop,
        }
    }

    /// The template with the transaction.
    async fn work(&self) -> (Arc<WorkSnapshot>, Vec<Vec<u8>>) {
        let mut work = self.templates.subscribe();
        let work = work
            .wait_for(|work| {
                work.as_ref()
                    .is_some_and(|work| !work.merkle_path().is_empty())
            })
            .await
            .unwrap()
            .clone()
            .unwrap();
        let id = work.template_id();
        let data = self.templates.transaction_data(id).await.unwrap();
        assert_eq!(
            data.transactions,
            [bitcoin::consensus::serialize(&self.spend)]
        );
        (work, data.transactions)
    }

    async fn kill(mut self) {
        self.core.daemon().kill();
        self.stop.cancel();
        self.templates.stopped().await;
    }
}

fn wait_for_block(scenario: &Scenario, height: u32, spend: &Transaction) {
    let core = scenario.network.bitcoin_core().unwrap();
    let deadline = Instant::now() + TIME_MAX;
    while core.rpc(&["getblockcount"]).unwrap() != height.to_string() {
        assert!(
            Instant::now() < deadline,
            "no block came; the pool:\n{}\nthe declarator:\n{}",
            scenario.pool.log_tail(),
            scenario.declarator.log_tail()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let hash = core.rpc(&["getbestblockhash"]).unwrap();
    let block = core.rpc(&["getblock", &hash]).unwrap();
    assert!(block.contains(&spend.compute_txid().to_string()), "{block}");
}

/// Declares a job with a transaction of its own, kills the miner's node, solves the block and
/// publishes it by `publish`.
async fn with_the_miners_node_dead(by_share: bool) {
    let parts = CoreParts::from_environment().unwrap();
    let options = Options {
        worker: false,
        hasher: false,
        core: Some(parts.clone()),
        ..Options::default()
    };
    let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let pools = scenario.network.bitcoin_core().unwrap();
    mine_to_anybody(pools, BLOCKS);
    let node = MinersNode::start(pools, &parts, dir.path()).await;
    let mut declarator = DeclaratorClient::full_template(&scenario.declaration).await;
    let mut mining = Mining::open(&scenario.mining, "alice").await;
    let token = declarator.token("alice").await;
    let (work, transactions) = node.work().await;
    let spend = node.spend.clone();
    let job = Job::new(work, transactions, &token, &mining.channel, |_| {});
    // A value that the fees do not cover: only the node can tell.
    let greedy = Job::new(
        job.work.clone(),
        job.transactions.clone(),
        &token,
        &mining.channel,
        |outputs| outputs[0].value += Amount::from_sat(1),
    );
    let refused = declarator.declare(&token, &greedy).await.unwrap_err();
    assert!(
        refused.contains("invalid-job") && refused.contains("bad-cb-amount"),
        "{refused}"
    );
    let token = declarator.token("alice").await;
    let job_token = declarator.declare(&token, &job).await.unwrap();
    node.kill().await;

    let height = job.work.height();
    let target =
        bitcoin::Target::from_compact(bitcoin::CompactTarget::from_consensus(job.work.nbits()));
    if by_share {
        let message = job.custom(&mining.channel, &job_token);
        let job_id = mining.set_custom_job(&message).await.unwrap();
        let found = job.search(&mining.channel, mining.channel.target).await;
        mining.submit(job_id, &job, &found).await.unwrap();
    } else {
        let found = job.search(&mining.channel, target.to_le_bytes()).await;
        let solution = job.solution(&mining.channel, &found);
        declarator.peer.send(&solution).await;
        drop(declarator);
    }
    wait_for_block(&scenario, height, &spend);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn a_pushed_solution_reaches_the_chain_without_the_miners_node() {
    with_the_miners_node_dead(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core: cargo xtask test"]
async fn a_solving_share_reaches_the_chain_without_the_miners_node() {
    with_the_miners_node_dead(true).await;
}
