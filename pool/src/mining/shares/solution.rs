//! A share that solves a block: how the block is handed over depends on the job that was hashed.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_jd::block_bytes;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path_;

use crate::blocks::{AssemblyError, FoundBlock, SolvedBlock, Submission, publish};
use crate::claims::settle::ProvenShare;
use crate::mining::connection::Connection;
use crate::mining::custom_jobs::accepted_jobs::{AcceptedJob, DeclaredBlock};

impl Connection {
    /// Publishes a solved block at once: nothing that follows may delay it.
    pub(super) fn publish(
        &self,
        proven: &ProvenShare,
        block: Result<SolvedBlock, AssemblyError>,
        custom: Option<&AcceptedJob>,
    ) {
        let found = FoundBlock {
            header_hash: proven.header_hash,
            hash: BlockHash::from_byte_array(proven.header_hash.to_bytes()),
            height: self.work.as_ref().map_or(0, |work| work.height()),
            account: proven.account.clone(),
            declared: custom.is_some(),
        };
        let submission = match block {
            Ok(block) => self.submission(block, custom),
            Err(error) => {
                tracing::error!(hash = %found.hash, %error, "a solved block could not be put together");
                None
            }
        };
        publish(&self.shared, found, submission);
    }

    /// How the block is handed over: the pool's own as its template's solution, a declared one whole. In
    /// coinbase-only mode the transactions are the miner's secret, and the block is the miner's to publish,
    /// unless the pool's own template has the very same ones.
    fn submission(&self, block: SolvedBlock, custom: Option<&AcceptedJob>) -> Option<Submission> {
        if let Some(template_id) = block.template_id {
            return Some(Submission::Solution { template_id, block });
        }
        if let Some(declared) = &custom?.block {
            return declared_block(&block, declared).map(Submission::Block);
        }
        let work = self.work.as_ref()?;
        let same = work.prev_hash() == block.header.prev_blockhash.to_byte_array()
            && work.merkle_root(block.txid) == block.header.merkle_root.to_byte_array();
        Some(match same {
            true => Submission::Solution {
                template_id: work.template_id(),
                block,
            },
            false => Submission::Miners,
        })
    }
}

/// The whole block of a declared job, if its transactions are those that were hashed.
fn declared_block(block: &SolvedBlock, declared: &DeclaredBlock) -> Option<Vec<u8>> {
    let root = merkle_root_from_path_(block.txid, &declared.path);
    if root != block.header.merkle_root.to_byte_array() {
        tracing::error!(hash = %block.header.block_hash(), "the declared transactions are not those of the solved header");
        return None;
    }
    let transactions = declared.transactions.iter();
    let raw = transactions.map(|transaction| transaction.raw.as_slice());
    block_bytes(&block.header, &block.coinbase, raw)
}
