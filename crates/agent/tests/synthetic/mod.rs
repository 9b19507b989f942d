//! A share that nobody mined, and the pool that signs receipts for it.

use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness,
    absolute::LockTime,
    block::{Header, Version},
    consensus::serialize,
    hashes::{Hash, sha256d},
    secp256k1::{Keypair, SECP256K1, SecretKey},
};
use dovetail_commitment::{Batch, TaskId, Transcript, coinbase, receipt::ReceiptParts};
use dovetail_units::TokenPrices;

pub(crate) fn pool() -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[8; 32]).unwrap())
}

pub(crate) fn pool_key() -> [u8; 32] {
    pool().x_only_public_key().0.serialize()
}

pub(crate) fn coinbase_with(outputs: Vec<TxOut>) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes(vec![0x51; 8]),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: outputs,
    }
}

/// A receipt as a pool would give it for a share that commits to two transcripts, the first of them this one. A token of
/// input costs 0.4 msat, one of output 2.
pub(crate) fn parts(transcript: Transcript, input_tokens: u32) -> ReceiptParts {
    let other = Transcript {
        task_id: TaskId::from_bytes([1; 32]),
        ..transcript.clone()
    };
    let batch = Batch::new(vec![transcript.leaf(), other.leaf()]).unwrap();
    let reward = TxOut {
        value: Amount::from_sat(50),
        script_pubkey: ScriptBuf::new(),
    };
    let transaction = coinbase_with(vec![reward, coinbase::commitment_output(batch.root())]);
    let sibling = [4; 32];
    let txid = transaction.compute_txid().to_byte_array();
    let root = sha256d::Hash::hash(&[txid, sibling].concat());
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::from_raw_hash(root),
        time: 1,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let prices = TokenPrices::new(400_000, 2_000_000).unwrap();
    ReceiptParts {
        price: prices.of(input_tokens, transcript.output_tokens),
        transcript,
        leaf_proof: batch.proof(0).unwrap(),
        coinbase: serialize(&transaction),
        merkle_path: vec![sibling],
        header: serialize(&header).try_into().unwrap(),
        share_target: [0xff; 32],
        issued_at_unix: 1,
        vrf_key: [9; 32],
        input_tokens,
        prices,
    }
}
