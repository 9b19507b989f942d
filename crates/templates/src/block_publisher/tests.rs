//! What becomes of blocks when the source is away, forgetful or silent, and the disk full or damaged.

use std::fs;
use std::path::Path;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, Network, Transaction};
use dovetail_sv2::AuthorityKeys;
use stratum_core::template_distribution_sv2::{NewTemplateOwned, SetNewPrevHashOwned};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::store::WAITING_MAX;
use super::task::MINERS_TIME_MAX_S;
use super::*;
use crate::block_door::{BlockDoor, BlockRequest};
use crate::chain::RegtestChain;
use crate::handle::{Publisher, channel};
use crate::request::{Request, TransactionData};
use crate::snapshot::WorkSnapshot;
use crate::test_work::{EASY_BITS, block, coinbase, mined, search};
use crate::tests::work_at;
use crate::{SourceConfig, TemplateError, start, tdp_server};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn embedded(stop: &CancellationToken) -> TemplateHandle {
    start(SourceConfig::embedded_with_bits(EASY_BITS), stop.clone()).unwrap()
}

pub(super) async fn publisher(
    templates: &TemplateHandle,
    dir: &Path,
    shutdown: &CancellationToken,
) -> (BlockPublisher, Vec<Publication>) {
    BlockPublisher::start(PublisherOptions {
        templates: templates.clone(),
        sinks: Vec::new(),
        dir: Some(dir.to_owned()),
        solves_templates: true,
        shutdown: shutdown.clone(),
    })
    .await
}

pub(super) fn parts(block: &Block, work: &WorkSnapshot, transactions: Transactions) -> BlockParts {
    BlockParts {
        header: block.header,
        coinbase: serialize(&block.txdata[0]),
        merkle_path: work.merkle_path(),
        transactions,
        finder: Finder {
            account: "alice".to_owned(),
            declared: false,
        },
    }
}

pub(super) fn solved(
    block: &Block,
    work: &WorkSnapshot,
    transactions: Transactions,
) -> SolvedBlock {
    SolvedBlock::assemble(parts(block, work, transactions), block.block_hash()).unwrap()
}

pub(super) fn of_template(block: &Block, work: &WorkSnapshot) -> SolvedBlock {
    let template = Transactions::Template(Some(work.template_id()));
    solved(block, work, template)
}

pub(super) fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect(what);
}

pub(super) async fn verdict(mut publication: Publication) -> Option<Verdict> {
    timeout(PATIENCE, publication.verdict()).await.unwrap()
}

/// An embedded chain, and a template provider in front of it that comes and goes.
pub(super) struct Provider {
    pub(super) chain: TemplateHandle,
    keys: AuthorityKeys,
    address: String,
    serving: CancellationToken,
}

impl Provider {
    pub(super) async fn start(stop: &CancellationToken) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut provider = Self {
            chain: embedded(stop),
            keys: AuthorityKeys::generate(),
            address: listener.local_addr().unwrap().to_string(),
            serving: stop.child_token(),
        };
        provider.serve(listener);
        provider
    }

    fn serve(&mut self, listener: TcpListener) {
        self.serving = CancellationToken::new();
        let (keys, chain) = (self.keys, self.chain.clone());
        tokio::spawn(tdp_server::serve(
            listener,
            keys,
            chain,
            self.serving.clone(),
        ));
    }

    pub(super) async fn back(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.serve(listener);
    }

    pub(super) fn client(&self, stop: &CancellationToken) -> TemplateHandle {
        let config =
            SourceConfig::template_provider(self.address.clone(), Some(self.keys.public()));
        start(config, stop.clone()).unwrap()
    }

    pub(super) async fn away(&self, client: &TemplateHandle) {
        self.serving.cancel();
        until("the provider goes", || !client.is_connected()).await;
    }
}

#[tokio::test]
async fn a_block_found_while_the_source_is_away_is_in_the_chain_when_it_is_back() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let mut provider = Provider::start(&stop).await;
    let client = provider.client(&stop);
    let work = work_at(&client, 1).await;
    let (blocks, left) = publisher(&client, dir.path(), &stop).await;
    assert!(left.is_empty());
    provider.away(&client).await;

    let found = mined(&work);
    let publication = blocks.publish(of_template(&found, &work));
    let name = format!("{}.json", found.block_hash());
    until("the block is on disk", || {
        files(dir.path()) == [name.as_str()]
    })
    .await;
    provider.back().await;
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    let next = work_at(&provider.chain, 2).await;
    assert_eq!(next.prev_hash(), found.block_hash().to_byte_array());
    until("the file is gone", || files(dir.path()).is_empty()).await;
    stop.cancel();
}

#[tokio::test]
async fn a_block_survives_a_restart_and_goes_to_an_equal_template() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let mut provider = Provider::start(&stop).await;
    let first_run = CancellationToken::new();
    let client = provider.client(&first_run);
    let work = work_at(&client, 1).await;
    let (blocks, _) = publisher(&client, dir.path(), &first_run).await;
    provider.away(&client).await;
    let found = mined(&work);
    let publication = blocks.publish(of_template(&found, &work));
    until("the block is on disk", || files(dir.path()).len() == 1).await;
    first_run.cancel();
    timeout(PATIENCE, blocks.stopped()).await.unwrap();
    assert_eq!(verdict(publication).await, None);

    provider.back().await;
    let client = provider.client(&stop);
    let (_blocks, mut left) = publisher(&client, dir.path(), &stop).await;
    let publication = left.pop().unwrap();
    assert_eq!(publication.block().finder().account, "alice");
    assert_eq!(publication.block().height(), Some(1));
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    assert_eq!(work_at(&provider.chain, 2).await.height(), 2);
    until("the file is gone", || files(dir.path()).is_empty()).await;
    stop.cancel();
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_no_block() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let file = dir.path().join("full");
    fs::write(&file, "not a folder").unwrap();
    let chain = embedded(&stop);
    let (blocks, left) = publisher(&chain, &file.join("blocks"), &stop).await;
    assert!(left.is_empty());
    let work = work_at(&chain, 1).await;
    let publication = blocks.publish(of_template(&mined(&work), &work));
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    work_at(&chain, 2).await;
    stop.cancel();
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_keeps_no_other_block_back() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let chain = embedded(&stop);
    let work = work_at(&chain, 1).await;
    let found = of_template(&mined(&work), &work);
    let store = Store::new(dir.path().to_owned());
    store
        .put(found.hash(), &Record::of(&found, unix_now()))
        .unwrap();
    // Half a file, a file of another block, and what a crash left of a third.
    let good = fs::read(dir.path().join(format!("{}.json", found.hash()))).unwrap();
    let other = format!("{}.json", "0".repeat(64));
    fs::write(dir.path().join("half.json"), &good[..good.len() / 2]).unwrap();
    fs::write(dir.path().join(&other), &good).unwrap();
    fs::write(dir.path().join("crash.new"), "{").unwrap();
    let (_blocks, mut left) = publisher(&chain, dir.path(), &stop).await;
    assert_eq!(left.len(), 1);
    assert_eq!(verdict(left.remove(0)).await, Some(Verdict::Accepted));
    work_at(&chain, 2).await;
    assert_eq!(
        files(&dir.path().join("damaged")),
        [other.as_str(), "half.json"]
    );
    until("nothing is left", || files(dir.path()).is_empty()).await;
    stop.cancel();
}

#[tokio::test]
async fn a_block_that_cannot_be_put_together_is_kept_on_disk() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let chain = embedded(&stop);
    let work = work_at(&chain, 1).await;
    let (blocks, _) = publisher(&chain, dir.path(), &stop).await;
    let found = mined(&work);
    let template = Transactions::Template(Some(work.template_id()));
    let mut parts = parts(&found, &work, template);
    parts.merkle_path.push([7; 32]);
    let broken = SolvedBlock::assemble(parts, found.block_hash()).unwrap_err();
    blocks.keep(broken);
    let kept = dir.path().join("broken");
    let name = format!("{}.json", found.block_hash());
    until("the block is on disk", || files(&kept) == [name.as_str()]).await;
    let kept = fs::read_to_string(kept.join(name)).unwrap();
    assert!(kept.contains(&hex::encode(serialize(&found.txdata[0]))));
    // It is a person's affair: the next start does not send it.
    let (_blocks, left) = publisher(&chain, dir.path(), &stop).await;
    assert!(left.is_empty());
    stop.cancel();
}

#[tokio::test]
async fn a_block_that_the_source_refuses_is_kept_aside() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let chain = embedded(&stop);
    let work = work_at(&chain, 1).await;
    let (blocks, _) = publisher(&chain, dir.path(), &stop).await;
    let mut unsolved = block(&work, coinbase(&work));
    search(&mut unsolved, false);
    let publication = blocks.publish(of_template(&unsolved, &work));
    let refused = verdict(publication).await;
    assert!(matches!(refused, Some(Verdict::Refused(_))), "{refused:?}");
    let judged = dir.path().join("judged");
    until("the file is aside", || files(&judged).len() == 1).await;
    assert!(files(dir.path()).is_empty());
    stop.cancel();
}

#[tokio::test]
async fn no_more_than_the_limit_of_blocks_wait_and_the_newest_are_those() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (away, mut port) = channel();
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (template, tip) = chain.template(1, 1_800_000_000);
    port.publisher.publish(template, tip).unwrap();
    tokio::spawn(async move {
        while let Some(request) = port.requests.recv().await {
            request.refuse(TemplateError::Unavailable);
        }
    });
    let work = work_at(&away, 1).await;
    let (blocks, _) = publisher(&away, dir.path(), &stop).await;
    let mut found = mined(&work);
    let first = blocks.publish(of_template(&found, &work));
    for _ in 0..WAITING_MAX {
        found.header.time += 1;
        drop(blocks.publish(of_template(&found, &work)));
    }
    assert_eq!(verdict(first).await, Some(Verdict::Unknown));
    until("the others wait", || files(dir.path()).len() == WAITING_MAX).await;
    stop.cancel();
}

/// A source whose protocol has no answer to solutions: it takes each one, also that of a block that is known whole by
/// then, and tells of it here.
fn taking_source() -> (TemplateHandle, Publisher, mpsc::UnboundedReceiver<()>) {
    let (handle, mut port) = channel();
    let (got_sender, got) = mpsc::unbounded_channel();
    let mut requests = port.requests;
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Solution(_, reply) | Request::Block(_, reply) => {
                    let _ = reply.send(Ok(()));
                    let _ = got_sender.send(());
                }
                other => other.refuse(TemplateError::Unsupported),
            }
        }
    });
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (template, tip) = chain.template(1, 1_800_000_000);
    port.publisher.publish(template, tip).unwrap();
    (handle, port.publisher, got)
}

#[tokio::test]
async fn a_block_that_was_only_sent_is_sent_again_until_the_chain_shows_it() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (handle, mut source, mut got) = taking_source();
    let work = work_at(&handle, 1).await;
    let (blocks, _) = publisher(&handle, dir.path(), &stop).await;
    let found = mined(&work);
    let mut publication = blocks.publish(of_template(&found, &work));
    for _ in 0..2 {
        let sent = timeout(PATIENCE, got.recv()).await;
        sent.expect("it is not sent again").unwrap();
    }
    assert!(publication.progress.borrow_and_update().verdict.is_none());
    assert_eq!(files(dir.path()).len(), 1);
    let (mut template, mut tip) = (work.template.clone(), work.prev_hash.clone());
    (template.template_id, tip.template_id) = (2, 2);
    tip.prev_hash = found.block_hash().to_byte_array().into();
    source.publish(template, tip).unwrap();
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    until("the file is gone", || files(dir.path()).is_empty()).await;
    stop.cancel();
}

/// A node that has forgotten every template, and gives out one with a transaction.
struct ForgetfulNode {
    handle: TemplateHandle,
    publisher: Publisher,
    /// The whole blocks that it got.
    taken: mpsc::UnboundedReceiver<Vec<u8>>,
}

fn template_with(transaction: &Transaction) -> (NewTemplateOwned, SetNewPrevHashOwned) {
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (mut template, tip) = chain.template(1, 1_800_000_000);
    let txid = transaction.compute_txid().to_byte_array();
    template.merkle_path = vec![txid.into()].try_into().unwrap();
    (template, tip)
}

impl ForgetfulNode {
    fn start(transaction: &Transaction) -> Self {
        let (handle, mut port) = channel();
        let (door, mut questions) = BlockDoor::new();
        let (taken_sender, taken) = mpsc::unbounded_channel();
        let raw = serialize(transaction);
        let mut requests = port.requests;
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                match request {
                    Request::TransactionData(_, reply) => {
                        let data = TransactionData {
                            excess_data: Vec::new(),
                            transactions: vec![raw.clone()],
                        };
                        let _ = reply.send(Ok(data));
                    }
                    Request::Equal(_, reply) => drop(reply.send(Err(TemplateError::Unsupported))),
                    other => other.refuse(TemplateError::UnknownTemplate(1)),
                }
            }
        });
        tokio::spawn(async move {
            while let Some(request) = questions.recv().await {
                match request {
                    BlockRequest::Submit(block, reply) => {
                        let _ = taken_sender.send(block);
                        let _ = reply.send(Ok(()));
                    }
                    other => other.refuse(),
                }
            }
        });
        let (template, tip) = template_with(transaction);
        port.publisher.publish(template, tip).unwrap();
        Self {
            handle: handle.with_node(door),
            publisher: port.publisher,
            taken,
        }
    }
}

#[tokio::test]
async fn a_node_that_forgot_the_template_gets_the_whole_block() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let transaction = bitcoin::constants::genesis_block(Network::Regtest).txdata[0].clone();
    let mut node = ForgetfulNode::start(&transaction);
    let (blocks, _) = publisher(&node.handle, dir.path(), &stop).await;
    let work = work_at(&node.handle, 1).await;
    let found = mined(&work);
    let publication = blocks.publish(of_template(&found, &work));
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    let bytes = timeout(PATIENCE, node.taken.recv()).await.unwrap().unwrap();
    let whole: Block = deserialize(&bytes).unwrap();
    assert_eq!(whole.header, found.header);
    assert_eq!(whole.txdata, [found.txdata[0].clone(), transaction]);
    assert!(whole.check_merkle_root());
    stop.cancel();
}

#[tokio::test]
async fn a_block_that_only_its_miner_can_publish_is_left_to_its_miner_unless_the_chain_shows_it() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let transaction = bitcoin::constants::genesis_block(Network::Regtest).txdata[0].clone();
    let mut node = ForgetfulNode::start(&transaction);
    let work = work_at(&node.handle, 1).await;
    let lost = solved(&mined(&work), &work, Transactions::Miners);
    let store = Store::new(dir.path().to_owned());
    let long_ago = unix_now() - MINERS_TIME_MAX_S - 1;
    store
        .put(lost.hash(), &Record::of(&lost, long_ago))
        .unwrap();
    let (blocks, mut left) = publisher(&node.handle, dir.path(), &stop).await;

    let mut found = mined(&work);
    found.header.time += 1;
    search(&mut found, true);
    let publication = blocks.publish(solved(&found, &work, Transactions::Miners));
    let (template, mut tip) = template_with(&transaction);
    tip.prev_hash = found.block_hash().to_byte_array().into();
    node.publisher.publish(template, tip).unwrap();
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    assert_eq!(verdict(left.remove(0)).await, Some(Verdict::LeftToMiner));
    assert!(node.taken.try_recv().is_err(), "nothing was to be sent");
    stop.cancel();
}

#[test]
fn a_record_is_read_back_as_the_block_that_was_written() {
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (template, tip) = chain.template(1, 1_800_000_000);
    let work = WorkSnapshot::new(template, tip, 1).unwrap();
    let found = mined(&work);
    let whole = Transactions::Here(Arc::new(serialize(&found)));
    for transactions in [whole, Transactions::Miners, Transactions::Template(None)] {
        let block = solved(&found, &work, transactions);
        let bytes = Record::of(&block, 5).to_bytes().unwrap();
        assert_eq!(Record::parse(&bytes).unwrap(), (block, 5));
        // No byte of it can change unseen, but for the words around it.
        let text = String::from_utf8(bytes).unwrap();
        let coinbase = hex::encode(serialize(&found.txdata[0]));
        let changed = text.replace(&coinbase, &coinbase.replacen("0", "1", 1));
        assert!(Record::parse(changed.as_bytes()).is_err());
    }
}

#[test]
fn a_record_with_transactions_that_its_header_does_not_commit_to_is_refused() {
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (template, tip) = chain.template(1, 1_800_000_000);
    let work = WorkSnapshot::new(template, tip, 1).unwrap();
    let mut found = mined(&work);
    let whole = Transactions::Here(Arc::new(serialize(&found)));
    let record = Record::of(&solved(&found, &work, whole), 5);
    let mut record: serde_json::Value =
        serde_json::from_slice(&record.to_bytes().unwrap()).unwrap();
    assert_eq!(record["block"], hex::encode(serialize(&found)));
    let genesis = bitcoin::constants::genesis_block(Network::Regtest);
    found.txdata.push(genesis.txdata[0].clone());
    record["block"] = hex::encode(serialize(&found)).into();
    assert!(Record::parse(record.to_string().as_bytes()).is_err());
}
