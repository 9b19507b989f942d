//! A declarator on a node that cannot judge blocks, as a template provider is.

#![allow(clippy::unwrap_used)]

mod test_support;

use std::sync::Arc;

use bitcoin::Block;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use dovetail_jd::node::{Answer, Node};
use dovetail_templates::{TemplateError, TemplateHandle, WorkSnapshot};
use test_support::{Fixture, Job, Setting};
use tokio::sync::watch;

/// Judges no block. While it is asked about one with [`OVERTAKEN`], somebody finds a block.
struct Provider(TemplateHandle);

const OVERTAKEN: u32 = 0x2000_0010;

impl Node for Provider {
    fn work(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>> {
        self.0.subscribe()
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
