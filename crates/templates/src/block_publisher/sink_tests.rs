//! Several nodes get a block: what one of them does or fails to do costs it nothing at the others.

use bitcoin::hashes::Hash;
use bitcoin::{Block, Network};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tests::{PATIENCE, Provider, embedded, files, of_template, until, verdict};
use super::*;
use crate::block_door::{BlockDoor, BlockRequest};
use crate::chain::RegtestChain;
use crate::error::TemplateError;
use crate::handle::{Port, channel};
use crate::test_work::{EASY_BITS, mined};
use crate::tests::work_at;

async fn publisher(
    templates: &TemplateHandle,
    sinks: Vec<Sink>,
    dir: &TempDir,
    shutdown: &CancellationToken,
) -> BlockPublisher {
    let options = PublisherOptions {
        templates: templates.clone(),
        sinks,
        dir: Some(dir.path().to_owned()),
        solves_templates: true,
        shutdown: shutdown.clone(),
    };
    BlockPublisher::start(options).await.0
}

/// A node that takes whole blocks for a chain of its own.
fn node(stop: &CancellationToken) -> (TemplateHandle, Sink) {
    let chain = embedded(stop);
    let (door, mut queue) = BlockDoor::new();
    let takes = chain.clone();
    tokio::spawn(async move {
        while let Some(request) = queue.recv().await {
            match request {
                BlockRequest::Submit(block, reply) => {
                    let _ = reply.send(takes.submit_block(block).await);
                }
                other => other.refuse(),
            }
        }
    });
    (chain, Sink::node("another node".to_owned(), door))
}

/// A node that gives this answer to every block.
fn answering(
    answer: fn() -> Result<(), TemplateError>,
) -> (mpsc::UnboundedReceiver<Vec<u8>>, Sink) {
    let (door, mut queue) = BlockDoor::new();
    let (got_sender, got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(request) = queue.recv().await {
            match request {
                BlockRequest::Submit(block, reply) => {
                    let _ = got_sender.send(block);
                    let _ = reply.send(answer());
                }
                other => other.refuse(),
            }
        }
    });
    (got, Sink::node("a scripted node".to_owned(), door))
}

fn refused() -> Result<(), TemplateError> {
    Err(TemplateError::Refused {
        reason: "high-hash".to_owned(),
    })
}

/// A source that gives work of the first block, and answers nothing.
fn silent_source() -> (TemplateHandle, Port) {
    let (handle, mut port) = channel();
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (template, tip) = chain.template(1, dovetail_units::time::header_time_now());
    port.publisher.publish(template, tip).unwrap();
    (handle, port)
}

async fn found(handle: &TemplateHandle) -> (Block, SolvedBlock) {
    let work = work_at(handle, 1).await;
    let block = mined(&work);
    let solved = of_template(&block, &work);
    (block, solved)
}

#[tokio::test]
async fn if_the_source_dies_with_the_block_unsent_another_node_takes_it() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let mut provider = Provider::start(&stop).await;
    let client = provider.client(&stop);
    let (chain, sink) = node(&stop);
    let blocks = publisher(&client, vec![sink], &dir, &stop).await;
    let (block, solved) = found(&client).await;
    provider.away(&client).await;

    let publication = blocks.publish(solved);
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    let next = work_at(&chain, 2).await;
    assert_eq!(next.prev_hash(), block.block_hash().to_byte_array());
    // Its own source gets it too when it is back, and only then it is forgotten.
    assert_eq!(files(dir.path()).len(), 1);
    provider.back().await;
    assert_eq!(work_at(&provider.chain, 2).await.height(), 2);
    until("the file is gone", || files(dir.path()).is_empty()).await;
    stop.cancel();
}

#[tokio::test]
async fn a_template_provider_gets_the_block_as_the_solution_of_its_own_equal_template() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (own, _port) = silent_source();
    let provider = Provider::start(&stop).await;
    let sink = Sink::source("a provider".to_owned(), provider.client(&stop));
    let blocks = publisher(&own, vec![sink], &dir, &stop).await;
    let (block, solved) = found(&own).await;
    let publication = blocks.publish(solved);
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    let next = work_at(&provider.chain, 2).await;
    assert_eq!(next.prev_hash(), block.block_hash().to_byte_array());
    stop.cancel();
}

#[tokio::test]
async fn a_node_that_hangs_holds_up_no_other() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (own, _port) = silent_source();
    let (door, _unanswered) = BlockDoor::new();
    let hangs = Sink::node("a node that hangs".to_owned(), door);
    let (mut got, takes) = answering(|| Ok(()));
    let blocks = publisher(&own, vec![hangs, takes], &dir, &stop).await;
    let (_, solved) = found(&own).await;
    let publication = blocks.publish(solved);
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    timeout(PATIENCE, got.recv()).await.unwrap().unwrap();
    stop.cancel();
}

#[tokio::test]
async fn one_nodes_refusal_is_not_the_last_word_and_that_of_all_is() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let own = embedded(&stop);
    let (_, solved) = found(&own).await;
    // Refused by one and taken by its own source: it is found.
    let (mut got, refuses) = answering(refused);
    let blocks = publisher(&own, vec![refuses], &dir, &stop).await;
    let publication = blocks.publish(solved);
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    timeout(PATIENCE, got.recv()).await.unwrap().unwrap();

    // Refused by all.
    let work = work_at(&own, 2).await;
    let mut unsolved = crate::test_work::block(&work, crate::test_work::coinbase(&work));
    crate::test_work::search(&mut unsolved, false);
    let publication = blocks.publish(of_template(&unsolved, &work));
    let refused = verdict(publication).await;
    assert!(matches!(refused, Some(Verdict::Refused(_))), "{refused:?}");
    stop.cancel();
}

#[tokio::test]
async fn every_node_gets_the_block_though_its_own_source_has_taken_it() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let own = embedded(&stop);
    let (chain, sink) = node(&stop);
    let (_, second) = node(&stop);
    let blocks = publisher(&own, vec![sink, second], &dir, &stop).await;
    let (_, solved) = found(&own).await;
    let publication = blocks.publish(solved);
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    work_at(&own, 2).await;
    work_at(&chain, 2).await;
    until("the file is gone", || files(dir.path()).is_empty()).await;
    stop.cancel();
}

#[tokio::test]
async fn the_chain_has_the_last_word_over_another_nodes_refusal() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let provider = Provider::start(&stop).await;
    let client = provider.client(&stop);
    let work = work_at(&client, 1).await;
    let (mut got, refuses) = answering(refused);
    let blocks = publisher(&client, vec![refuses], &dir, &stop).await;
    let block = mined(&work);
    let publication = blocks.publish(of_template(&block, &work));
    timeout(PATIENCE, got.recv()).await.unwrap().unwrap();
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    stop.cancel();
}
