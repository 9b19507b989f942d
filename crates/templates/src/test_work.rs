//! For tests: what a miner does with a template.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction,
    TxIn, TxMerkleNode, TxOut, Witness, transaction,
};
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;

use crate::snapshot::WorkSnapshot;

/// Half of all hashes are blocks.
pub(crate) const EASY_BITS: u32 = 0x207f_ffff;

/// The coinbase of a template, paying everything to a script that anyone can spend.
pub(crate) fn coinbase(work: &WorkSnapshot) -> Transaction {
    let mut script = work.template.coinbase_prefix.as_bytes().to_vec();
    script.extend_from_slice(&[4, 1, 2, 3, 4]);
    let mut output = vec![TxOut {
        value: Amount::from_sat(work.coinbase_value_remaining_sat()),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
    }];
    output.extend(work.required_outputs());
    Transaction {
        version: transaction::Version(2),
        lock_time: LockTime::from_consensus(work.template.coinbase_tx_locktime),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence(work.template.coinbase_tx_input_sequence),
            witness: Witness::from_slice(&[[0_u8; 32]]),
        }],
        output,
    }
}

/// The block of a template with this coinbase and no other transactions, not yet mined.
pub(crate) fn block(work: &WorkSnapshot, coinbase: Transaction) -> Block {
    let root = work.merkle_root(coinbase.compute_txid().to_byte_array());
    Block {
        header: Header {
            version: Version::from_consensus(work.version().cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(work.prev_hash()),
            merkle_root: TxMerkleNode::from_byte_array(root),
            time: work.min_ntime(),
            bits: CompactTarget::from_consensus(work.nbits()),
            nonce: 0,
        },
        txdata: vec![coinbase],
    }
}

/// Finds a nonce whose hash does (or, for a bad block, does not) meet the target.
pub(crate) fn search(block: &mut Block, good: bool) {
    let target = Target::from_compact(block.header.bits);
    while target.is_met_by(block.header.block_hash()) != good {
        block.header.nonce = block.header.nonce.checked_add(1).unwrap();
    }
}

/// A mined block of a template.
pub(crate) fn mined(work: &WorkSnapshot) -> Block {
    let mut block = block(work, coinbase(work));
    search(&mut block, true);
    block
}

/// A mined block as the solution of a template.
pub(crate) fn solution(template_id: u64, block: &Block) -> SubmitSolutionOwned {
    SubmitSolutionOwned {
        template_id,
        version: block.header.version.to_consensus().cast_unsigned(),
        header_timestamp: block.header.time,
        header_nonce: block.header.nonce,
        coinbase_tx: serialize(&block.txdata[0]).try_into().unwrap(),
    }
}
