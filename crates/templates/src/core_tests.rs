//! A real Bitcoin Core behind the handle. `DOVETAIL_BITCOIN_NODE` names a `bitcoin-node` of version
//! 31 that was built with IPC; `bitcoin-cli` must lie beside it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::readiness::Standing;
use crate::test_work::{EASY_BITS, block, coinbase, mined, search, solution};
use crate::tests::work_at;
use crate::{
    RegtestChain, SourceConfig, TemplateError, TemplateHandle, WorkSnapshot, start, start_on,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A regtest node in a directory of its own, killed with the value.
struct Node {
    binary: PathBuf,
    directory: PathBuf,
    rpc_port: u16,
    process: Child,
}

impl Node {
    fn start(directory: &Path) -> Self {
        let binary = PathBuf::from(
            std::env::var("DOVETAIL_BITCOIN_NODE")
                .expect("DOVETAIL_BITCOIN_NODE names a bitcoin-node"),
        );
        // Free for a moment is free enough: nothing else takes ports in between here.
        let rpc_port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(&binary)
            .args(["-regtest", "-ipcbind=unix", "-server", "-listen=0"])
            .arg("-printtoconsole=0")
            .arg(format!("-datadir={}", directory.display()))
            .arg(format!("-rpcport={rpc_port}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let node = Self {
            binary,
            directory: directory.to_owned(),
            rpc_port,
            process,
        };
        let patience = Instant::now() + PATIENCE;
        while node.try_cli(&["getblockcount"]).is_none() {
            assert!(Instant::now() < patience, "the node does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        node
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("regtest/node.sock")
    }

    fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(self.binary.with_file_name("bitcoin-cli"))
            .arg("-regtest")
            .arg(format!("-datadir={}", self.directory.display()))
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }

    fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The embedded chain's template at the same height is Core's in everything but time and target.
fn agrees_with_the_embedded_chain(core: &WorkSnapshot) {
    let mut chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    while chain.height() + 1 < core.height() {
        let (template, tip) = chain.template(1, core.min_ntime() - 60);
        let block = mined(&WorkSnapshot::new(template, tip, 1).unwrap());
        chain.submit(&block, core.min_ntime()).unwrap();
    }
    let (mut own, _) = chain.template(core.template_id(), core.min_ntime());
    own.future_template = core.template.future_template;
    assert_eq!(own, core.template);
}

/// A node of 20 blocks, a handle to it, and its first work. It gives no templates before the end of initial block
/// download, which on regtest is the first recent block; some more, since heights to 16 are pushed in another form.
async fn connected(
    directory: &Path,
    stop: &CancellationToken,
) -> (Node, TemplateHandle, Arc<WorkSnapshot>) {
    let node = Node::start(directory);
    node.cli(&["generatetodescriptor", "20", "raw(51)"]);
    let handle = start(SourceConfig::bitcoin_core(node.socket()), stop.clone()).unwrap();
    let work = work_at(&handle, 21).await;
    (node, handle, work)
}

#[tokio::test]
#[ignore = "needs DOVETAIL_BITCOIN_NODE, a bitcoin-node 31 with IPC"]
async fn bitcoin_core_over_ipc_serves_templates_and_takes_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (node, handle, work) = connected(directory.path(), &stop).await;
    agrees_with_the_embedded_chain(&work);
    let data = handle.transaction_data(work.template_id()).await.unwrap();
    assert!(data.transactions.is_empty());

    let block = mined(&work);
    let message = solution(work.template_id(), &block);
    handle.submit_solution(message).await.unwrap();
    let next = work_at(&handle, 22).await;
    assert_eq!(next.prev_hash(), block.block_hash().to_byte_array());
    assert_eq!(
        node.cli(&["getbestblockhash"]),
        block.block_hash().to_string()
    );

    // A whole block of a known template goes the same way.
    let block = mined(&next);
    handle.submit_block(serialize(&block)).await.unwrap();
    let last = work_at(&handle, 23).await;

    // Without the node the last work stands; with it back there is work again.
    drop(node);
    let away = async {
        while handle.is_connected() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, away).await.unwrap();
    assert_eq!(handle.current().unwrap().template_id(), last.template_id());
    let refused = handle.transaction_data(last.template_id()).await;
    assert!(matches!(refused, Err(TemplateError::Unavailable)));
    let node = Node::start(directory.path());
    node.cli(&["generatetodescriptor", "1", "raw(51)"]);
    let mut work = handle.subscribe();
    let newer = work.wait_for(|work| {
        work.as_ref()
            .is_some_and(|work| work.sequence > last.sequence)
    });
    timeout(PATIENCE, newer).await.unwrap().unwrap();

    stop.cancel();
    timeout(PATIENCE, handle.stopped()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs DOVETAIL_BITCOIN_NODE, a bitcoin-node 31 with IPC"]
async fn bitcoin_core_judges_blocks_that_are_yet_to_be_hashed_and_takes_any_that_was() {
    let directory = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (node, handle, work) = connected(directory.path(), &stop).await;

    // A block of no template: an output more. It has no proof of work yet.
    let mut other = coinbase(&work);
    other.output.insert(1, other.output[0].clone());
    other.output[1].value = bitcoin::Amount::ZERO;
    let mut unsolved = block(&work, other);
    search(&mut unsolved, false);
    handle.check_block(serialize(&unsolved)).await.unwrap();
    let refused = handle.submit_block(serialize(&unsolved)).await;
    assert!(matches!(&refused, Err(TemplateError::Refused { reason }) if reason == "high-hash"));

    // It pays too much.
    let mut greedy = unsolved.clone();
    greedy.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
    greedy.header.merkle_root = greedy.compute_merkle_root().unwrap();
    let refused = handle.check_block(serialize(&greedy)).await;
    assert!(
        matches!(&refused, Err(TemplateError::Refused { reason }) if reason == "bad-cb-amount"),
        "{refused:?}"
    );
    // What the node cannot even read costs nobody else an answer.
    let (junk, good) = tokio::join!(
        handle.check_block(vec![0xff; 200]),
        handle.check_block(serialize(&unsolved))
    );
    assert!(junk.is_err());
    assert!(good.is_ok() || matches!(good, Err(TemplateError::Unavailable)));
    handle.check_block(serialize(&unsolved)).await.unwrap();

    let mut solved = unsolved;
    search(&mut solved, true);
    handle.submit_block(serialize(&solved)).await.unwrap();
    let hash = solved.block_hash().to_string();
    assert_eq!(node.cli(&["getbestblockhash"]), hash);
    // Handed in twice, by the declarator and by the pool, it is known.
    handle.submit_block(serialize(&solved)).await.unwrap();
    // The tip has moved on.
    let refused = handle.check_block(serialize(&solved)).await;
    assert!(
        matches!(refused, Err(TemplateError::Refused { .. })),
        "{refused:?}"
    );

    // A node that comes back is found again.
    drop(node);
    let away = handle.check_block(serialize(&greedy)).await;
    assert!(matches!(away, Err(TemplateError::Unavailable)), "{away:?}");
    let node = Node::start(directory.path());
    node.cli(&["generatetodescriptor", "1", "raw(51)"]);
    let back = handle.check_block(serialize(&greedy)).await;
    assert!(
        matches!(back, Err(TemplateError::Refused { .. })),
        "{back:?}"
    );
    stop.cancel();
    timeout(PATIENCE, handle.stopped()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs DOVETAIL_BITCOIN_NODE, a bitcoin-node 31 with IPC"]
async fn bitcoin_core_says_its_network_and_that_it_is_in_initial_block_download() {
    let directory = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let node = Node::start(directory.path());
    let on = |network| {
        let source = SourceConfig::bitcoin_core(node.socket());
        start_on(network, source, stop.clone()).unwrap()
    };
    // Another network is told before there is any work.
    let refused = timeout(PATIENCE, on(Network::Signet).ready(|_| ()))
        .await
        .unwrap();
    let refused = refused.unwrap_err().to_string();
    assert_eq!(
        refused,
        "network = \"signet\" is configured, but the node is on regtest"
    );
    // A regtest node without a recent block counts as syncing.
    let handle = on(Network::Regtest);
    let (tell, mut said) = tokio::sync::mpsc::unbounded_channel();
    let waiting = handle.ready(|reason| tell.send(reason.to_owned()).unwrap());
    let words = tokio::select! {
        words = timeout(PATIENCE, said.recv()) => words.unwrap().unwrap(),
        ready = waiting => panic!("{ready:?}"),
    };
    assert!(
        words.contains("in initial block download (block 0 of 0 known headers)"),
        "{words}"
    );
    node.cli(&["generatetodescriptor", "1", "raw(51)"]);
    let ready = handle.ready(|_| ());
    timeout(PATIENCE, ready).await.unwrap().unwrap();
    stop.cancel();
    timeout(PATIENCE, handle.stopped()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs DOVETAIL_BITCOIN_NODE, a bitcoin-node 31 with IPC"]
async fn bitcoin_core_says_whether_its_chain_has_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (node, handle, _) = connected(directory.path(), &stop).await;
    let at = |height: &str| -> BlockHash { node.cli(&["getblockhash", height]).parse().unwrap() };
    let (tip, replaced, under) = (at("20"), at("19"), at("5"));
    for block in [tip, replaced, under] {
        assert!(handle.is_in_chain(block).await.unwrap(), "{block}");
    }
    let unknown = BlockHash::from_byte_array([7; 32]);
    assert!(!handle.is_in_chain(unknown).await.unwrap());
    node.cli(&["invalidateblock", &replaced.to_string()]);
    assert!(!handle.is_in_chain(replaced).await.unwrap());
    assert!(handle.is_in_chain(under).await.unwrap());
    // It was the tip while somebody watched, and is not now.
    assert!(handle.is_in_chain(tip).await.unwrap());
    assert!(!handle.is_in_chain_now(tip).await.unwrap());
    let lowest = handle.coinbase_at(5).await.unwrap().unwrap();
    assert_eq!(lowest.block, under);
    assert!(lowest.coinbase.is_coinbase());
    assert_eq!(handle.coinbase_at(19).await.unwrap(), None);
    drop(node);
    let away = handle.is_in_chain(unknown).await;
    assert!(matches!(away, Err(TemplateError::Unavailable)), "{away:?}");
    stop.cancel();
    timeout(PATIENCE, handle.stopped()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs DOVETAIL_BITCOIN_NODE, a bitcoin-node 31 with IPC"]
async fn a_node_that_comes_back_on_another_chain_gives_no_work_and_judges_no_block() {
    let directory = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let node = Node::start(directory.path());
    node.cli(&["generatetodescriptor", "20", "raw(51)"]);
    let (socket, source) = (node.socket(), SourceConfig::bitcoin_core(node.socket()));
    let handle = start_on(Network::Regtest, source, stop.clone()).unwrap();
    let work = work_at(&handle, 21).await;
    let solved = mined(&work);
    drop(node);

    let other = tempfile::tempdir().unwrap();
    let mut mainnet = Command::new(std::env::var_os("DOVETAIL_BITCOIN_NODE").unwrap())
        .args(["-chain=main", "-connect=0", "-listen=0", "-server=0"])
        .args(["-printtoconsole=0", "-dnsseed=0"])
        .arg(format!("-ipcbind=unix:{}", socket.display()))
        .arg(format!("-datadir={}", other.path().display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut standing = handle.standing();
    let elsewhere = standing.wait_for(|now| matches!(now, Standing::WrongNetwork { .. }));
    timeout(PATIENCE, elsewhere).await.unwrap().unwrap();
    // It would say high-hash of a regtest block, for good.
    let answer = handle.submit_block(serialize(&solved)).await;
    assert!(
        matches!(answer, Err(TemplateError::Unavailable)),
        "{answer:?}"
    );
    assert_eq!(handle.current().unwrap().sequence, work.sequence);
    mainnet.kill().unwrap();
    mainnet.wait().unwrap();

    let node = Node::start(directory.path());
    // It was killed, and may have lost what it had not written yet.
    node.cli(&["generatetodescriptor", "30", "raw(51)"]);
    // After so many failures it is asked every 15 seconds only, and may be starting just then.
    let mut work = handle.subscribe();
    let is_back =
        |work: &Option<Arc<WorkSnapshot>>| work.as_ref().is_some_and(|work| work.height() >= 22);
    timeout(3 * PATIENCE, work.wait_for(is_back))
        .await
        .unwrap()
        .unwrap();
    stop.cancel();
    timeout(PATIENCE, handle.stopped()).await.unwrap();
}
