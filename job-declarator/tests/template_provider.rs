//! A declarator on a node that cannot judge blocks, as a template provider is.

#![allow(clippy::unwrap_used)]

mod test_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::Block;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use dovetail_jd::node::{Answer, Node};
use dovetail_templates::{TemplateError, TemplateHandle, WorkSnapshot};
use test_support::{Fixture, Job, Setting, TIME_MAX};
use tokio::sync::watch;
use tokio::time::timeout;

/// Judges no block. While it is asked about one with [`OVERTAKEN`], somebody finds a block.
struct Provider(TemplateHandle);

const OVERTAKEN: u32 = 0x2000_0010;

impl Node for Provider {
    fn work(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>> {
        self.0.subscribe()
    }

    fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    fn check_block(&self, block: Vec<u8>) -> Answer<'_> {
        Box::pin(async move {
            let mut block: Block = deserialize(&block).unwrap();
            if block.header.version.to_consensus().cast_unsigned() == OVERTAKEN {
                while block.header.validate_pow(block.header.target()).is_err() {
                    block.header.nonce += 1;
                }
                let mut work = self.0.subscribe();
                self.0.submit_block(serialize(&block)).await.unwrap();
                let found = block.block_hash().to_byte_array();
                let follows = |work: &Option<Arc<WorkSnapshot>>| {
                    work.as_ref().is_some_and(|work| work.prev_hash() == found)
                };
                work.wait_for(follows).await.unwrap();
            }
            Err(TemplateError::Unsupported)
        })
    }
}

#[tokio::test]
async fn a_job_whose_tip_moves_while_it_is_looked_at_is_stale() {
    let fixture = Fixture::start_with(Setting::default(), |chain| {
        Arc::new(Provider(chain.clone()))
    })
    .await;
    let mut miner = fixture.miner().await;
    let mut job = Job::of(fixture.work());
    assert!(miner.declare("miner", &job).await.is_ok());
    job.version = OVERTAKEN;
    let refused = miner.declare("miner", &job).await;
    assert_eq!(refused.unwrap_err(), "stale-chain-tip");
    let job = Job::of(fixture.work());
    assert!(miner.declare("miner", &job).await.is_ok());
}

/// Is away for too long when it is told to be.
struct AwayNode {
    chain: TemplateHandle,
    is_away: Arc<AtomicBool>,
}

impl Node for AwayNode {
    fn work(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>> {
        self.chain.subscribe()
    }

    fn is_stale(&self) -> bool {
        self.is_away.load(Ordering::SeqCst)
    }

    fn check_block(&self, block: Vec<u8>) -> Answer<'_> {
        Box::pin(self.chain.check_block(block))
    }
}

#[tokio::test]
async fn while_the_source_is_away_for_too_long_jobs_are_refused_and_tokens_end_the_connection() {
    let is_away = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_away);
    let fixture = Fixture::start_with(Setting::default(), move |chain| {
        Arc::new(AwayNode {
            chain: chain.clone(),
            is_away: told,
        })
    })
    .await;
    let mut miner = fixture.miner().await;
    let token = miner.token("miner").await;
    is_away.store(true, Ordering::SeqCst);
    let job = Job::of(fixture.work());
    let refused = miner.declare_with(&token, &job).await;
    assert_eq!(refused.unwrap_err(), "template-source-away");
    miner.ask_for_token("miner").await;
    let ended = timeout(TIME_MAX, miner.reader.read()).await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
    is_away.store(false, Ordering::SeqCst);
    let mut miner = fixture.miner().await;
    miner.declare("miner", &job).await.unwrap();
}
