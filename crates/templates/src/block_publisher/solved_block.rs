//! A solved block, put together from the very bytes that were hashed.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::{Encodable, deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction, TxMerkleNode, VarInt};
use dovetail_commitment::block::merkle_root;
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;

use crate::rewards::Payout;
use crate::snapshot::height_of;

/// Where a block's transactions are, its coinbase aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transactions {
    /// In this template of this process's source; `None`: in a template of an earlier process, and they were not
    /// known when the block was written down.
    Template(Option<u64>),
    /// Here: the whole serialised block.
    Here(Arc<Vec<u8>>),
    /// With the block's miner alone (coinbase-only mode): only the miner can publish it.
    Miners,
}

/// Who found a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finder {
    /// The account that its share was credited to; empty where nobody is credited.
    pub account: String,
    /// Whether its job was declared by the miner.
    pub declared: bool,
}

/// What a solved block is put together from.
#[derive(Debug, Clone)]
pub struct BlockParts {
    /// The header. Its merkle root is set by [`SolvedBlock::assemble`].
    pub header: Header,
    /// The serialised coinbase with its witness.
    pub coinbase: Vec<u8>,
    /// From the coinbase to the root, deepest node first.
    pub merkle_path: Vec<[u8; 32]>,
    /// The other transactions.
    pub transactions: Transactions,
    /// Who found it.
    pub finder: Finder,
}

/// A block whose coinbase and merkle path hash to its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolvedBlock {
    pub(super) header: Header,
    pub(super) coinbase: Transaction,
    pub(super) merkle_path: Vec<[u8; 32]>,
    pub(super) transactions: Transactions,
    pub(super) finder: Finder,
}

/// A solved block whose parts do not hash to the header that was proven. Its reward is lost unless a person repairs
/// it, so all that is known of it is kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the block {proven} cannot be put together: {reason}")]
pub struct BrokenBlock {
    /// The hash of the header that was proven.
    pub proven: BlockHash,
    /// What does not fit.
    pub reason: String,
    /// The parts, as far as they are known.
    pub parts: BlockParts,
}

impl SolvedBlock {
    /// Puts a block together.
    ///
    /// # Errors
    /// The parts do not hash to `proven`, the hash of the header that was found.
    pub fn assemble(mut parts: BlockParts, proven: BlockHash) -> Result<Self, Box<BrokenBlock>> {
        let broken = |parts: BlockParts, reason: String| {
            Box::new(BrokenBlock {
                proven,
                reason,
                parts,
            })
        };
        let coinbase: Transaction = match deserialize(&parts.coinbase) {
            Ok(coinbase) => coinbase,
            Err(error) => {
                return Err(broken(
                    parts,
                    format!("its coinbase does not parse: {error}"),
                ));
            }
        };
        let txid = coinbase.compute_txid().to_byte_array();
        let root = merkle_root(txid, &parts.merkle_path);
        parts.header.merkle_root = TxMerkleNode::from_byte_array(root);
        let assembled = parts.header.block_hash();
        if assembled != proven {
            return Err(broken(parts, format!("its parts hash to {assembled}")));
        }
        Ok(Self {
            header: parts.header,
            coinbase,
            merkle_path: parts.merkle_path,
            transactions: parts.transactions,
            finder: parts.finder,
        })
    }

    /// The same block with its other transactions, serialised and in their order.
    #[must_use]
    pub fn with_transactions<'a>(self, raw: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let bytes = block_bytes(&self.header, &self.coinbase, raw);
        Self {
            transactions: Transactions::Here(Arc::new(bytes)),
            ..self
        }
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        self.header.block_hash()
    }

    /// Its coinbase's id, in the order in which it is hashed on.
    pub fn coinbase_txid(&self) -> [u8; 32] {
        self.coinbase.compute_txid().to_byte_array()
    }

    /// What its coinbase pays the pool, in satoshi.
    pub fn pays(&self, payout: &Payout) -> u64 {
        payout.paid_by(&self.coinbase, self.height().unwrap_or_default())
    }

    /// Its height, as the coinbase says it (BIP 34).
    pub fn height(&self) -> Option<u32> {
        let input = self.coinbase.input.first()?;
        height_of(input.script_sig.as_bytes())
    }

    /// Who found it.
    pub fn finder(&self) -> &Finder {
        &self.finder
    }

    /// Whether only its miner can publish it.
    pub fn is_miners(&self) -> bool {
        self.transactions == Transactions::Miners
    }

    /// The message that solves a template with this block; `None` for a coinbase that no message holds.
    pub(crate) fn solution(&self, template_id: u64) -> Option<SubmitSolutionOwned> {
        solution_of(&self.header, &self.coinbase, template_id)
    }
}

/// The message that solves a template with this header and coinbase; `None` for a coinbase that no message holds.
pub(crate) fn solution_of(
    header: &Header,
    coinbase: &Transaction,
    template_id: u64,
) -> Option<SubmitSolutionOwned> {
    Some(SubmitSolutionOwned {
        template_id,
        version: header.version.to_consensus().cast_unsigned(),
        header_timestamp: header.time,
        header_nonce: header.nonce,
        coinbase_tx: serialize(coinbase).try_into().ok()?,
    })
}

/// A serialised block: header, coinbase with its witness, the other serialised transactions in order.
pub(super) fn block_bytes<'a>(
    header: &Header,
    coinbase: &Transaction,
    transactions: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let count = (transactions.len() as u64).saturating_add(1);
    let mut block = serialize(header);
    VarInt(count)
        .consensus_encode(&mut block)
        .expect("writing to memory does not fail");
    block.extend_from_slice(&serialize(coinbase));
    for transaction in transactions {
        block.extend_from_slice(transaction);
    }
    block
}
