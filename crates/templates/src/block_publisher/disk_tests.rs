//! Blocks and a disk that hangs, is full, is damaged, or is shared with another process; and how much of it blocks take.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash};
use tempfile::TempDir;
use tokio::time::timeout;

use super::store::WAITING_MAX;
use super::tests::{
    PATIENCE, Provider, embedded, files, of_template, publisher, solved, until, verdict,
};
use super::*;
use crate::error::TemplateError;
use crate::handle::channel;
use crate::snapshot::WorkSnapshot;
use crate::test_work::{block, coinbase, mined, search};
use crate::tests::work_at;

/// Work, and a source that is away from then on.
async fn away(stop: &CancellationToken) -> (Arc<WorkSnapshot>, TemplateHandle) {
    let (handle, mut port) = channel();
    let work = work_at(&embedded(stop), 1).await;
    let (template, tip) = (work.template.clone(), work.prev_hash.clone());
    port.publisher.publish(template, tip).unwrap();
    tokio::spawn(async move {
        while let Some(request) = port.requests.recv().await {
            request.refuse(TemplateError::Unavailable);
        }
    });
    (work, handle)
}

fn file(dir: &TempDir, hash: BlockHash, ending: &str) -> PathBuf {
    dir.path().join(format!("{hash}.{ending}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_on_a_share_waits_until_its_block_is_on_disk() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (work, handle) = away(&stop).await;
    let (blocks, _) = publisher(&handle, dir.path(), &stop).await;
    let found = mined(&work);
    // Whoever writes into a pipe waits until somebody reads from it: the disk hangs.
    let pipe = file(&dir, found.block_hash(), "new");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let publication = blocks.publish(of_template(&found, &work));
    let mut keeping = tokio::spawn(publication.keeping().done());
    tokio::task::yield_now().await;
    assert!(!keeping.is_finished());
    let written = tokio::task::spawn_blocking(move || fs::read(pipe).unwrap());
    timeout(PATIENCE, &mut keeping).await.unwrap().unwrap();
    assert!(!written.await.unwrap().is_empty());
    stop.cancel();
}

#[tokio::test]
async fn a_block_is_on_disk_when_its_share_may_be_acknowledged() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (work, handle) = away(&stop).await;
    let (blocks, _) = publisher(&handle, dir.path(), &stop).await;
    let found = mined(&work);
    let publication = blocks.publish(of_template(&found, &work));
    publication.keeping().done().await;
    // A kill now: the next run has it.
    assert!(file(&dir, found.block_hash(), "json").exists());
    let (_next, left) = publisher(&handle, dir.path(), &stop).await;
    assert_eq!(left.len(), 1);
    stop.cancel();
}

#[tokio::test]
async fn a_full_disk_costs_no_block_and_it_is_written_down_once_there_is_room() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let mut provider = Provider::start(&stop).await;
    let client = provider.client(&stop);
    let work = work_at(&client, 1).await;
    let (blocks, _) = publisher(&client, dir.path(), &stop).await;
    provider.away(&client).await;
    let found = mined(&work);
    // No space is left on this device. What a failed write leaves is removed, and with it the device.
    symlink("/dev/full", file(&dir, found.block_hash(), "new")).unwrap();
    let publication = blocks.publish(of_template(&found, &work));
    publication.keeping().done().await;
    let written = file(&dir, found.block_hash(), "json");
    assert!(!written.exists());
    until("it is written down", || written.exists()).await;
    provider.back().await;
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    stop.cancel();
}

#[tokio::test]
async fn two_processes_on_one_folder_lose_no_block() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let mut provider = Provider::start(&stop).await;
    let client = provider.client(&stop);
    let work = work_at(&client, 1).await;
    let (first, _) = publisher(&client, dir.path(), &stop).await;
    provider.away(&client).await;
    let found = mined(&work);
    let publication = first.publish(of_template(&found, &work));
    publication.keeping().done().await;
    // The first one is writing another.
    fs::write(dir.path().join("another.new"), "{").unwrap();
    let (_second, mut left) = publisher(&client, dir.path(), &stop).await;
    assert!(dir.path().join("another.new").exists());
    let other = left.pop().unwrap();
    provider.back().await;
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    assert_eq!(verdict(other).await, Some(Verdict::Accepted));
    until("the file is gone", || files(dir.path()) == ["another.new"]).await;
    stop.cancel();
}

#[tokio::test]
async fn a_block_of_another_network_waits_and_keeps_no_other_back() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let chain = embedded(&stop);
    let work = work_at(&chain, 1).await;
    let mut foreign = block(&work, coinbase(&work));
    foreign.header.prev_blockhash = BlockHash::from_byte_array([9; 32]);
    search(&mut foreign, true);
    let foreign = solved(&foreign, &work, Transactions::Template(None));
    Store::new(dir.path().to_owned())
        .put(foreign.hash(), &Record::of(&foreign, unix_now()))
        .unwrap();
    let (blocks, left) = publisher(&chain, dir.path(), &stop).await;
    assert_eq!(left.len(), 1);
    let publication = blocks.publish(of_template(&mined(&work), &work));
    assert_eq!(verdict(publication).await, Some(Verdict::Accepted));
    let name = format!("{}.json", foreign.hash());
    until("it is alone", || files(dir.path()) == [name.as_str()]).await;
    assert!(left[0].progress.borrow().verdict.is_none());
    stop.cancel();
}

#[tokio::test]
async fn a_kept_block_that_another_one_overtook_is_judged_and_not_found() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let chain = embedded(&stop);
    let work = work_at(&chain, 1).await;
    let kept = of_template(&mined(&work), &work);
    Store::new(dir.path().to_owned())
        .put(kept.hash(), &Record::of(&kept, unix_now()))
        .unwrap();
    let mut other = mined(&work);
    other.header.time += 1;
    search(&mut other, true);
    let other = bitcoin::consensus::serialize(&other);
    chain.submit_block(other).await.unwrap();
    let (_blocks, mut left) = publisher(&chain, dir.path(), &stop).await;
    let word = verdict(left.remove(0)).await;
    assert!(matches!(word, Some(Verdict::Refused(_))), "{word:?}");
    let judged = dir.path().join("judged");
    until("the file is aside", || files(&judged).len() == 1).await;
    stop.cancel();
}

#[tokio::test]
async fn a_block_that_lies_deep_under_others_is_given_up() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let (work, handle) = away(&stop).await;
    let deep = of_template(&mined(&work), &work);
    Store::new(dir.path().to_owned())
        .put(deep.hash(), &Record::of(&deep, unix_now()))
        .unwrap();
    let (chain, mut port) = channel();
    drop(handle);
    let mut regtest = crate::RegtestChain::new(bitcoin::Network::Regtest, 0x207f_ffff).unwrap();
    for id in 1..=102 {
        let now = dovetail_units::time::header_time_now();
        let (template, tip) = regtest.template(id, now);
        let work = WorkSnapshot::new(template.clone(), tip.clone(), id).unwrap();
        if id == 102 {
            port.publisher.publish(template, tip).unwrap();
        }
        regtest.submit(&mined(&work), now).unwrap();
    }
    tokio::spawn(async move {
        while let Some(request) = port.requests.recv().await {
            request.refuse(TemplateError::Unsupported);
        }
    });
    let (_blocks, mut left) = publisher(&chain, dir.path(), &stop).await;
    assert_eq!(verdict(left.remove(0)).await, Some(Verdict::Unknown));
    let judged = dir.path().join("judged");
    until("the file is aside", || files(&judged).len() == 1).await;
    stop.cancel();
}

#[tokio::test]
async fn however_many_blocks_are_refused_the_disk_holds_a_bounded_number() {
    let (stop, dir) = (CancellationToken::new(), TempDir::new().unwrap());
    let chain = embedded(&stop);
    let work = work_at(&chain, 1).await;
    let (blocks, _) = publisher(&chain, dir.path(), &stop).await;
    let mut unsolved: Block = block(&work, coinbase(&work));
    let mut published = Vec::new();
    for _ in 0..3 * WAITING_MAX {
        unsolved.header.time += 1;
        search(&mut unsolved, false);
        published.push(blocks.publish(of_template(&unsolved, &work)));
    }
    for publication in published {
        let word = verdict(publication).await;
        assert!(matches!(word, Some(Verdict::Refused(_))), "{word:?}");
    }
    until("all are aside", || files(dir.path()).is_empty()).await;
    let judged = dir.path().join("judged");
    until("few are kept", || files(&judged).len() == WAITING_MAX).await;
    stop.cancel();
}
