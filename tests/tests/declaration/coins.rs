//! Coins of a regtest chain that anybody can spend, for transactions without a wallet.

use bitcoin::absolute::LockTime;
use bitcoin::{
    Address, Amount, Network, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness, transaction,
};
use dovetail_tests::bitcoin_core::BitcoinCore;
use serde_json::Value;

/// A script that anybody can spend, in the form that nodes relay: P2WSH of OP_TRUE.
fn anybody() -> (ScriptBuf, Vec<u8>) {
    let script = vec![0x51];
    (
        ScriptBuf::new_p2wsh(&Script::from_bytes(&script).wscript_hash()),
        script,
    )
}

/// Spends the coinbase of a block that [`mine_to_anybody`] made, with a fee.
pub(crate) fn spend_coinbase(core: &BitcoinCore, height: u32, fee_sat: u64) -> Transaction {
    let hash = core.rpc(&["getblockhash", &height.to_string()]).unwrap();
    let block: Value = serde_json::from_str(&core.rpc(&["getblock", &hash]).unwrap()).unwrap();
    let txid: Txid = block["tx"][0].as_str().unwrap().parse().unwrap();
    let (script_pubkey, script) = anybody();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(txid, 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[script]),
        }],
        output: vec![TxOut {
            value: Amount::from_int_btc(50) - Amount::from_sat(fee_sat),
            script_pubkey,
        }],
    }
}

pub(crate) fn mine_to_anybody(core: &BitcoinCore, blocks: u32) {
    let address = Address::from_script(&anybody().0, Network::Regtest).unwrap();
    core.mine(blocks, &address.to_string()).unwrap();
}
