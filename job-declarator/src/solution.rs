//! A solved declared job as a whole block.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, CompactTarget, Transaction, TxMerkleNode, Witness};
use dovetail_commitment::coinbase::parse_coinbase;
use dovetail_ledger::DeclaredJob;
use dovetail_sv2::messages::PushSolution;

/// Why a pushed solution is not a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SolutionError {
    #[error("the solution does not fit the declared coinbase")]
    Coinbase,
    #[error("a declared transaction does not parse")]
    Transaction,
    #[error("the header does not meet the network's target")]
    Target,
}

/// The block that `solution` completes: its bytes and hash.
pub(crate) fn assemble(
    job: &DeclaredJob,
    solution: &PushSolution,
) -> Result<(Vec<u8>, BlockHash), SolutionError> {
    let mut coinbase = parse_coinbase(
        &job.coinbase_prefix,
        solution.extranonce.as_bytes(),
        &job.coinbase_suffix,
    )
    .map_err(|_| SolutionError::Coinbase)?;
    if coinbase.input[0].witness.is_empty() {
        // The reserved value of BIP 141, which a serialisation without witness leaves out.
        coinbase.input[0].witness = Witness::from(vec![vec![0; 32]]);
    }
    let mut transactions = vec![coinbase];
    for bytes in &job.transactions {
        transactions
            .push(deserialize::<Transaction>(bytes).map_err(|_| SolutionError::Transaction)?);
    }
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(solution.version.cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(solution.prev_hash.clone().into_array()),
            merkle_root: TxMerkleNode::all_zeros(),
            time: solution.ntime,
            bits: CompactTarget::from_consensus(solution.nbits),
            nonce: solution.nonce,
        },
        txdata: transactions,
    };
    block.header.merkle_root = block.compute_merkle_root().ok_or(SolutionError::Coinbase)?;
    let hash = block
        .header
        .validate_pow(block.header.target())
        .map_err(|_| SolutionError::Target)?;
    Ok((serialize(&block), hash))
}
