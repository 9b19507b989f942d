//! Prices, and a receipt of the one batch.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use bitcoin::{
    BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    Witness,
};
use dovetail_commitment::Batch;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_commitment::receipt::{Receipt, ReceiptParts};
use dovetail_units::TokenPrices;

use super::Vectors;
use crate::{PROMPT_TOKENS, root, transcript, vrf_secret};

/// In msat for a million tokens of input and of output.
const PRICES: [u64; 2] = [400_000, 2_000_000];

fn prices() -> TokenPrices {
    TokenPrices::new(PRICES[0], PRICES[1]).unwrap()
}

pub(crate) fn receipts(out: &mut Vectors) {
    out.heading(
        "What tokens cost in msat, at 400,000 msat a million of input and 2,000,000 of output",
    );
    for (input, output) in [(0, 0), (1, 0), (4, 3), (5, 1), (u32::MAX, u32::MAX)] {
        let price = prices().of(input, output).get();
        out.text(
            &format!("price(in={input}, out={output})"),
            &price.to_string(),
        );
    }
    out.heading(
        "A receipt of the transcript above, for the token prices above: secret key 01..01, BIP-340 with auxiliary randomness of zeros left out",
    );
    let receipt = receipt();
    receipt.verify(Some(receipt.pool_key)).unwrap();
    out.text("receipt", &serde_json::to_string(&receipt).unwrap());
}

fn receipt() -> Receipt {
    let secret = SecretKey::from_slice(&[0x01; 32]).unwrap();
    let coinbase = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(vec![0x51; 8]),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![commitment_output(root())],
    };
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        // The block has no other transaction.
        merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
        time: 0x6700_0000,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let input_tokens = u32::try_from(PROMPT_TOKENS.len()).unwrap();
    let transcript = transcript();
    let parts = ReceiptParts {
        leaf_proof: Batch::new(vec![transcript.leaf()])
            .unwrap()
            .proof(0)
            .unwrap(),
        coinbase: serialize(&coinbase),
        merkle_path: Vec::new(),
        header: serialize(&header).try_into().unwrap(),
        share_target: [0xff; 32],
        issued_at_unix: 0x6700_0001,
        vrf_key: vrf_secret().public_key().to_bytes(),
        input_tokens,
        prices: prices(),
        price: prices().of(input_tokens, transcript.output_tokens),
        transcript,
    };
    Receipt::sign(parts, &Keypair::from_secret_key(SECP256K1, &secret))
}
