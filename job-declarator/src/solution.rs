//! A solved declared job as a whole block, for the case that the miner's own node does not get it
//! out.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{Encodable, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Transaction, TxMerkleNode, VarInt};
use dovetail_commitment::block::merkle_root;
use dovetail_commitment::coinbase::parse_coinbase;
use dovetail_sv2::messages::PushSolution;

use crate::rules::{WholeJob, complete_witness};

/// A block that was put together.
#[derive(Debug)]
pub(crate) struct SolvedBlock {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: BlockHash,
}

/// The block that `solution` completes, if it is one of this job: built on the job's tip, and with
/// the work that the network asks for there. Cheap where it is not.
pub(crate) fn solve(whole: &WholeJob, solution: &PushSolution) -> Option<SolvedBlock> {
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
    let txid = coinbase.compute_txid().to_byte_array();
    let root = merkle_root(txid, &whole.path);
    let header = Header {
        version: Version::from_consensus(solution.version.cast_signed()),
        prev_blockhash: BlockHash::from_byte_array(job.prev_hash),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: solution.ntime,
        bits: CompactTarget::from_consensus(job.nbits),
        nonce: solution.nonce,
    };
    let hash = header.validate_pow(header.target()).ok()?;
    let transactions = whole.transactions.iter();
    let raw = transactions.map(|transaction| transaction.raw.as_slice());
    Some(SolvedBlock {
        bytes: block_bytes(&header, &coinbase, raw)?,
        hash,
    })
}

/// A serialised block: header, coinbase with its witness, the other serialised transactions in order.
pub fn block_bytes<'a>(
    header: &Header,
    coinbase: &Transaction,
    transactions: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Option<Vec<u8>> {
    let count = u64::try_from(transactions.len()).ok()?.checked_add(1)?;
    let mut block = serialize(header);
    VarInt(count).consensus_encode(&mut block).ok()?;
    block.extend_from_slice(&serialize(coinbase));
    for transaction in transactions {
        block.extend_from_slice(transaction);
    }
    Some(block)
}
