//! A job declarator that asks for more than there is. It is alone in its process, so that the memory that it costs can
//! be read off the process.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Witness, absolute, transaction,
};
use dovetail_miner::coinbase::{JobCoinbase, job_outputs};
use dovetail_miner::declarator_client::{Declaration, Declarator, DeclaratorOptions, DeclareError};
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::messages::{
    B064KOwned, B0255Owned, NewTemplate, ProvideMissingTransactions, Seq064KOwned, Seq0255Owned,
};
use dovetail_sv2::setup::SetupProtocol;
use support::declarator::{declaration, payout_script, pays};
use support::{Played, listen};

/// What a declarator may cost at most, besides what the template itself takes: an answer of one frame, encoded and
/// encrypted.
const MEMORY_MAX_KIB: u64 = 64 << 10;

fn template() -> NewTemplate {
    let commitment = TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes([vec![0x6a, 0x24], vec![0xaa; 36]].concat()),
    };
    NewTemplate {
        template_id: 1,
        future_template: false,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: B0255Owned::new(vec![0x02, 0x65, 0x00]).unwrap(),
        coinbase_tx_input_sequence: 0xffff_fffe,
        coinbase_tx_value_remaining: 5_000_000_000,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: B064KOwned::new(serialize(&commitment)).unwrap(),
        coinbase_tx_locktime: 100,
        merkle_path: Seq0255Owned::new(vec![]).unwrap(),
    }
}

/// A transaction of about 20 kB.
fn transaction() -> Vec<u8> {
    let transaction = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(vec![0; 20_000]),
            sequence: bitcoin::Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::new(),
        }],
    };
    serialize(&transaction)
}

/// The most memory that this process has had, in KiB.
fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1);
    kib.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_declarator_that_asks_for_one_transaction_65535_times_gets_nothing_and_costs_nothing() {
    let (listener, address, authority) = listen().await;
    let options = DeclaratorOptions {
        address,
        authority: Some(authority.public()),
    };
    let hostile = async {
        let protocol = SetupProtocol::JobDeclarationProtocol;
        let mut played = Played::accept(&listener, &authority, protocol).await;
        let declared = declaration(&mut played).await;
        played
            .send(&ProvideMissingTransactions {
                request_id: declared.request_id,
                unknown_tx_position_list: Seq064KOwned::new(vec![0; 65_535]).unwrap(),
            })
            .await;
        // Nothing comes but the end of the connection.
        assert!(played.reader.read().await.is_err());
    };
    let miner = async {
        let keys = WorkerKeys::generate();
        let mut declarator = Declarator::open(&options, keys.name).await.unwrap();
        let token = declarator.allocate().await.unwrap();
        assert_eq!(token.outputs, pays(payout_script()));
        let outputs = job_outputs(&template(), &token.outputs, None).unwrap();
        let coinbase = JobCoinbase::new(&template(), outputs, 16).unwrap();
        let transactions = vec![transaction()];
        assert!(deserialize::<Transaction>(&transactions[0]).is_ok());
        let job = Declaration {
            version: 0x2000_0000,
            coinbase: &coinbase,
            transactions: &transactions,
            excess_data: &[],
        };
        declarator.declare(&token, &job).await
    };
    let before = memory_peak_kib();
    let (declared, ()) = tokio::join!(miner, hostile);
    assert!(
        matches!(declared, Err(DeclareError::Protocol(_))),
        "{declared:?}"
    );
    let grown = memory_peak_kib() - before;
    assert!(grown < MEMORY_MAX_KIB, "{grown} KiB");
}
