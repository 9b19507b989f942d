//! Declared transactions, each held once in a process however many jobs of however many miners name
//! it: consecutive templates are nearly the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bitcoin::Transaction;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use dovetail_commitment::block::merkle_parent;
use dovetail_units::consensus::BLOCK_BYTES_MAX;

/// A block of the smallest transactions has fewer than this.
pub(crate) const TRANSACTIONS_MAX: usize = 16_384;
/// The store looks for dead entries each time it has grown by this many.
const SWEEP_EVERY: usize = 16_384;

/// A transaction as it stands in a block, with its ids.
#[derive(Debug)]
pub struct BlockTransaction {
    /// With witness.
    pub raw: Vec<u8>,
    /// Its id.
    pub txid: [u8; 32],
    /// Its id with witness.
    pub wtxid: [u8; 32],
}

impl BlockTransaction {
    /// Reads a transaction that can stand behind a block's coinbase; `None` for anything else.
    pub fn parse(raw: Vec<u8>) -> Option<Self> {
        if raw.len() > BLOCK_BYTES_MAX {
            return None;
        }
        let transaction: Transaction = deserialize(&raw).ok()?;
        // Without inputs the serialisation means something else to a node.
        if transaction.is_coinbase()
            || transaction.input.is_empty()
            || transaction.output.is_empty()
        {
            return None;
        }
        Some(Self {
            txid: transaction.compute_txid().to_byte_array(),
            wtxid: transaction.compute_wtxid().to_byte_array(),
            raw,
        })
    }
}

/// The transactions of all jobs that somebody in this process still holds. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct TransactionStore {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    by_wtxid: HashMap<[u8; 32], Weak<BlockTransaction>>,
    swept_len: usize,
}

impl TransactionStore {
    /// The transaction with this id with witness, if any job holds it.
    pub fn get(&self, wtxid: &[u8; 32]) -> Option<Arc<BlockTransaction>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_wtxid.get(wtxid)?.upgrade()
    }

    /// The one copy of this transaction: an earlier one if there is any, else this.
    pub fn keep(&self, transaction: BlockTransaction) -> Arc<BlockTransaction> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = entries
            .by_wtxid
            .get(&transaction.wtxid)
            .and_then(Weak::upgrade)
        {
            return known;
        }
        if entries.by_wtxid.len() >= entries.swept_len + SWEEP_EVERY {
            entries.by_wtxid.retain(|_, held| held.strong_count() > 0);
            entries.swept_len = entries.by_wtxid.len();
        }
        let transaction = Arc::new(transaction);
        entries
            .by_wtxid
            .insert(transaction.wtxid, Arc::downgrade(&transaction));
        transaction
    }
}

/// The merkle path of the coinbase over the block's other transactions, leaf to root.
pub fn merkle_path(txids: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let mut path = Vec::new();
    // The coinbase stands first at every level; `None` is its place.
    let mut level: Vec<Option<[u8; 32]>> = std::iter::once(None)
        .chain(txids.iter().copied().map(Some))
        .collect();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level[level.len() - 1]);
        }
        path.extend(level[1]);
        level = level
            .chunks(2)
            .map(|pair| Some(merkle_parent(pair[0].as_ref()?, pair[1].as_ref()?)))
            .collect();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Txid, Witness, merkle_tree};
    use dovetail_commitment::block::merkle_root;
    use proptest::prelude::*;

    fn transaction(vout: u32) -> Transaction {
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), vout),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::from(vec![vec![1; 10]]),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(1),
                script_pubkey: ScriptBuf::new(),
            }],
        }
    }

    #[test]
    fn a_transaction_is_held_once_and_as_long_as_somebody_needs_it() {
        let store = TransactionStore::default();
        let raw = serialize(&transaction(0));
        let first = store.keep(BlockTransaction::parse(raw.clone()).unwrap());
        let second = store.keep(BlockTransaction::parse(raw).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert_ne!(first.txid, first.wtxid);
        let wtxid = first.wtxid;
        drop(first);
        assert!(store.get(&wtxid).is_some());
        drop(second);
        assert!(store.get(&wtxid).is_none());
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        let store = TransactionStore::default();
        for vout in 0..2 * SWEEP_EVERY {
            let raw = serialize(&transaction(u32::try_from(vout).unwrap()));
            drop(store.keep(BlockTransaction::parse(raw).unwrap()));
        }
        let entries = store.entries.lock().unwrap();
        assert!(entries.by_wtxid.len() <= SWEEP_EVERY);
    }

    #[test]
    fn what_cannot_stand_behind_a_coinbase_is_refused() {
        let mut coinbase = transaction(0);
        coinbase.input[0].previous_output = OutPoint::null();
        let mut no_outputs = transaction(0);
        no_outputs.output.clear();
        let mut long = serialize(&transaction(0));
        long.push(0);
        for bad in [serialize(&coinbase), serialize(&no_outputs), long, vec![]] {
            assert!(BlockTransaction::parse(bad).is_none());
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(raw: Vec<u8>) {
            let _ = BlockTransaction::parse(raw);
        }

        #[test]
        fn the_path_leads_to_the_root_that_bitcoin_computes(
            coinbase: [u8; 32],
            txids in proptest::collection::vec(any::<[u8; 32]>(), 0..40),
        ) {
            let all = std::iter::once(coinbase).chain(txids.iter().copied()).map(Txid::from_byte_array);
            let expected = merkle_tree::calculate_root(all.map(Txid::to_raw_hash)).map(|h| h.to_byte_array());
            let root = merkle_root(coinbase, &merkle_path(&txids));
            prop_assert_eq!(Some(root), expected);
        }
    }
}
