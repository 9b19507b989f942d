//! A solved declared job as a whole block, for the case that the miner's own node does not get it
//! out.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};
use dovetail_commitment::block::merkle_root;
use dovetail_commitment::coinbase::parse_coinbase;
use dovetail_sv2::messages::PushSolution;
use dovetail_templates::block_publisher::{
    BlockParts, BrokenBlock, Finder, SolvedBlock, Transactions,
};

use crate::rules::{WholeJob, complete_witness};

/// The block that `solution` completes, if it is one of this job: built on the job's tip, and with
/// the work that the network asks for there. Cheap where it is not.
pub(crate) fn solve(
    whole: &WholeJob,
    solution: &PushSolution,
) -> Option<Result<SolvedBlock, Box<BrokenBlock>>> {
    let job = &whole.job;
    // The miner's word for the target is not taken: on the tip it has one value.
    if solution.prev_hash.as_array() != &job.prev_hash || solution.nbits != job.nbits {
        return None;
    }
    let mut coinbase = parse_coinbase(
        &job.coinbase_prefix,
        solution.extranonce.as_bytes(),
        &job.coinbase_suffix,
    )
    .ok()?;
    complete_witness(&mut coinbase);
    let root = merkle_root(coinbase.compute_txid().to_byte_array(), &whole.path);
    let header = Header {
        version: Version::from_consensus(solution.version.cast_signed()),
        prev_blockhash: BlockHash::from_byte_array(job.prev_hash),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: solution.ntime,
        bits: CompactTarget::from_consensus(job.nbits),
        nonce: solution.nonce,
    };
    let hash = header.validate_pow(header.target()).ok()?;
    let parts = BlockParts {
        header,
        coinbase: serialize(&coinbase),
        merkle_path: whole.path.clone(),
        transactions: Transactions::Miners,
        finder: Finder {
            account: job.identity.clone(),
            declared: true,
        },
    };
    let transactions = whole.transactions.iter();
    let transactions = transactions.map(|transaction| transaction.raw.as_slice());
    let block = SolvedBlock::assemble(parts, hash);
    Some(block.map(|block| block.with_transactions(transactions)))
}
