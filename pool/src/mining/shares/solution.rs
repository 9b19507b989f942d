//! A share that solves a block: how the block is handed over depends on the job that was hashed.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_templates::block_publisher::{Keeping, SolvedBlock};
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path_;

use crate::blocks::{AssemblyError, publish};
use crate::claims::settle::ProvenShare;
use crate::mining::connection::Connection;
use crate::mining::custom_jobs::accepted_jobs::{AcceptedJob, DeclaredBlock};

impl Connection {
    /// Publishes a solved block at once: nothing that follows may delay it. The pool's own goes as its template's
    /// solution, a declared one whole. In coinbase-only mode the transactions are the miner's secret, and the block is
    /// the miner's to publish, unless the pool's own template has the very same ones. What is returned waits until the block
    /// survives a crash.
    pub(super) fn publish(
        &self,
        proven: &ProvenShare,
        block: Result<SolvedBlock, AssemblyError>,
        custom: Option<&AcceptedJob>,
    ) -> Option<Keeping> {
        let hash = BlockHash::from_byte_array(proven.header_hash.to_bytes());
        let height = self.work.as_ref().map_or(0, |work| work.height());
        let declared = custom.and_then(|job| job.block.as_deref());
        let block = block.map(|block| match declared {
            Some(declared) => with_declared(block, declared),
            None => block,
        });
        publish(&self.shared, block, hash, height, &proven.account)
    }
}

/// The whole block of a declared job, if its transactions are those that were hashed.
fn with_declared(block: SolvedBlock, declared: &DeclaredBlock) -> SolvedBlock {
    let root = merkle_root_from_path_(block.coinbase_txid(), &declared.path);
    if root != block.header().merkle_root.to_byte_array() {
        tracing::error!(hash = %block.hash(), "the declared transactions are not those of the solved header");
        return block;
    }
    let transactions = declared.transactions.iter();
    block.with_transactions(transactions.map(|transaction| transaction.raw.as_slice()))
}
