//! Declarations whose transactions are being gathered: those that only the miner knows, it is asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use dovetail_units::consensus::BLOCK_BYTES_MAX;

use crate::refusal::Refusal;
use crate::rules::Declaration;
use crate::transactions::{BlockTransaction, TransactionStore};

/// Declarations of one connection that may wait for their miner's transactions; a miner answers at once.
const ASSEMBLIES_MAX: usize = 4;

/// A declaration with what is known of its transactions.
pub(crate) struct Assembly {
    pub(crate) request_id: u32,
    declaration: Declaration,
    wtxids: Vec<[u8; 32]>,
    transactions: Vec<Option<Arc<BlockTransaction>>>,
}

impl Assembly {
    pub(crate) fn new(
        request_id: u32,
        declaration: Declaration,
        wtxids: Vec<[u8; 32]>,
        store: &TransactionStore,
    ) -> Self {
        let transactions = wtxids.iter().map(|wtxid| store.get(wtxid)).collect();
        Self {
            request_id,
            declaration,
            wtxids,
            transactions,
        }
    }

    /// The positions of the unknown transactions, which exclude the coinbase.
    pub(crate) fn missing(&self) -> Vec<u16> {
        (0_u16..)
            .zip(&self.transactions)
            .filter(|(_, known)| known.is_none())
            .map(|(position, _)| position)
            .collect()
    }

    /// Takes the missing transactions in the order in which they were asked for (6.4.7). Each has
    /// the id that was declared, or nothing of it is kept.
    pub(crate) fn provide(
        &mut self,
        given: Vec<Vec<u8>>,
        store: &TransactionStore,
    ) -> Result<(), Refusal> {
        let missing = self.missing();
        if given.len() != missing.len() {
            return Err(Refusal::Missing("not as many transactions as were missing"));
        }
        let bytes = given.iter().map(Vec::len).fold(0, usize::saturating_add);
        if bytes > BLOCK_BYTES_MAX {
            return Err(Refusal::Missing("more transactions than fit a block"));
        }
        for (position, raw) in missing.into_iter().map(usize::from).zip(given) {
            let transaction = BlockTransaction::parse(raw)
                .filter(|transaction| transaction.wtxid == self.wtxids[position])
                .ok_or(Refusal::Missing(
                    "a transaction does not have the declared wtxid",
                ))?;
            self.transactions[position] = Some(store.keep(transaction));
        }
        Ok(())
    }

    /// The declaration with all its transactions.
    pub(crate) fn complete(self) -> Result<(Declaration, Vec<Arc<BlockTransaction>>), Refusal> {
        let transactions: Vec<Arc<BlockTransaction>> = self
            .transactions
            .into_iter()
            .collect::<Option<_>>()
            .ok_or(Refusal::Missing("a transaction is missing"))?;
        let bytes = transactions
            .iter()
            .map(|transaction| transaction.raw.len())
            .fold(0, usize::saturating_add);
        if bytes > BLOCK_BYTES_MAX {
            return Err(Refusal::List("has more bytes than fit a block"));
        }
        Ok((self.declaration, transactions))
    }
}

/// Those of one connection, oldest first.
#[derive(Default)]
pub(crate) struct Assemblies(VecDeque<Assembly>);

impl Assemblies {
    /// Keeps one; returns the request that has to give way.
    pub(crate) fn put(&mut self, assembly: Assembly) -> Option<u32> {
        let replaced = match self.take(assembly.request_id) {
            Some(same) => Some(same),
            None if self.0.len() >= ASSEMBLIES_MAX => self.0.pop_front(),
            None => None,
        };
        self.0.push_back(assembly);
        replaced.map(|assembly| assembly.request_id)
    }

    /// Takes out the one of this request.
    pub(crate) fn take(&mut self, request_id: u32) -> Option<Assembly> {
        let index = self
            .0
            .iter()
            .position(|assembly| assembly.request_id == request_id)?;
        self.0.remove(index)
    }
}
