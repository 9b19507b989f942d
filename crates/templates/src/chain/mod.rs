//! An embedded regtest chain: enough of the consensus rules that a block it takes is a block that
//! was really mined for it, and nothing more.
//!
//! It has no mempool, no peers and no UTXO set: blocks carry a coinbase only. It never
//! reorganises by itself: a block extends the tip or is refused; [`RegtestChain::undo`] takes the tip
//! back. And it is regtest by construction, so nothing on it can be mistaken for money.

pub(crate) mod block_template;
mod rules;

use std::collections::HashMap;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, BlockHash, CompactTarget, Network, Target};
use dovetail_units::consensus::BLOCK_BYTES_MAX;

use crate::snapshot::is_target;
use crate::subsidy::HalvingInterval;

pub use rules::BlockRejection;
use rules::Proof;

/// The compact target of blocks unless configured otherwise: one in about 2^22 hashes is a block,
/// some seconds on one CPU core, so that shares stay much easier than blocks.
pub const DEFAULT_BITS: u32 = 0x1e03_ffff;

/// Headers whose median time bounds the next block's from below.
const MEDIAN_TIME_SPAN: usize = 11;

/// Why a chain cannot have the rules asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Anything else than regtest.
    #[error("the embedded chain is regtest only, not {0}")]
    Network(Network),
    /// A compact target that no block could have, or an easier one than regtest allows.
    #[error("{0:#010x} is no compact target that regtest allows")]
    Bits(u32),
}

/// The chain: its tip, and what validating the next block needs.
#[derive(Debug)]
pub struct RegtestChain {
    bits: CompactTarget,
    target: Target,
    /// Height by hash, for telling a stale block from an unknown one; 40 bytes a block, and a block
    /// is never found faster than somebody hashes.
    heights: HashMap<BlockHash, u32>,
    tip: BlockHash,
    height: u32,
    /// The hash and time of each block from the genesis block to the tip.
    blocks: Vec<(BlockHash, u32)>,
}

impl RegtestChain {
    /// A chain of the regtest genesis block alone, on which every further block must have the
    /// compact target `bits`.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn new(network: Network, bits: u32) -> Result<Self, ChainError> {
        if network != Network::Regtest {
            return Err(ChainError::Network(network));
        }
        let compact = CompactTarget::from_consensus(bits);
        let target = Target::from_compact(compact);
        if !is_target(bits) || target > Target::MAX_ATTAINABLE_REGTEST {
            return Err(ChainError::Bits(bits));
        }
        let genesis = bitcoin::constants::genesis_block(Network::Regtest);
        let tip = genesis.block_hash();
        Ok(Self {
            bits: compact,
            target,
            heights: HashMap::from([(tip, 0)]),
            tip,
            height: 0,
            blocks: vec![(tip, genesis.header.time)],
        })
    }

    /// The hash of the last block.
    pub fn tip(&self) -> BlockHash {
        self.tip
    }

    /// The height of the last block; the genesis block's is 0.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether a block is the tip or under it.
    pub fn contains(&self, hash: BlockHash) -> bool {
        let height = self.heights.get(&hash).copied();
        let at = height.and_then(|height| usize::try_from(height).ok());
        // What was taken back keeps its height.
        at.and_then(|at| self.blocks.get(at))
            .is_some_and(|(block, _)| *block == hash)
    }

    /// The compact target that the next block must have.
    pub fn bits(&self) -> CompactTarget {
        self.bits
    }

    /// The target that the next block's hash must not exceed.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The median timestamp of the last eleven blocks, which the next must exceed.
    pub fn median_time_past(&self) -> u32 {
        let newest = self.blocks.iter().rev().take(MEDIAN_TIME_SPAN);
        let mut times: Vec<u32> = newest.map(|(_, time)| *time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// What the next block's coinbase may pay: the subsidy, as there are no fees.
    pub fn next_subsidy(&self) -> Amount {
        subsidy(self.next_height())
    }

    fn next_height(&self) -> u32 {
        self.height
            .checked_add(1)
            .expect("2^32 blocks of work cannot be done")
    }

    /// Takes a serialised block if it is valid and extends the tip. `now` is Unix seconds.
    ///
    /// # Errors
    /// The first rule it breaks; the chain is as before.
    pub fn submit_bytes(&mut self, block: &[u8], now: u32) -> Result<BlockHash, BlockRejection> {
        self.submit(&parse(block)?, now)
    }

    /// Whether a serialised block would be taken but for its proof of work, at which this does not
    /// look. `now` is Unix seconds.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn check_bytes(&self, block: &[u8], now: u32) -> Result<(), BlockRejection> {
        self.check(&parse(block)?, now, Proof::NotYet).map(drop)
    }

    /// As [`submit_bytes`](Self::submit_bytes), for a parsed block.
    ///
    /// # Errors
    /// The first rule it breaks; the chain is as before.
    pub fn submit(&mut self, block: &Block, now: u32) -> Result<BlockHash, BlockRejection> {
        let hash = self.check(block, now, Proof::Required)?;
        self.height = self.next_height();
        self.tip = hash;
        self.heights.insert(hash, self.height);
        self.blocks.push((hash, block.header.time));
        Ok(hash)
    }

    /// Takes the last block back, as `invalidateblock` does: the tip is its parent again, and
    /// neither it nor a block on it is taken any more. Returns its hash; `None` if only the genesis
    /// block is left, which stays.
    pub fn undo(&mut self) -> Option<BlockHash> {
        let [.., (parent, _), _] = self.blocks[..] else {
            return None;
        };
        let (undone, _) = self.blocks.pop()?;
        self.tip = parent;
        self.height = self.height.saturating_sub(1);
        Some(undone)
    }
}

fn parse(block: &[u8]) -> Result<Block, BlockRejection> {
    if block.len() > BLOCK_BYTES_MAX {
        return Err(BlockRejection::TooLarge);
    }
    deserialize(block).map_err(|_| BlockRejection::Malformed)
}

/// The subsidy at a height, by regtest's schedule.
fn subsidy(height: u32) -> Amount {
    HalvingInterval::REGTEST.subsidy(height)
}

/// A hash as the wire has it.
fn wire(hash: BlockHash) -> [u8; 32] {
    hash.to_byte_array()
}

fn serialized_outputs(outputs: &[bitcoin::TxOut]) -> Vec<u8> {
    outputs.iter().flat_map(serialize).collect()
}

#[cfg(test)]
mod tests;
