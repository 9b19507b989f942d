//! Where in the chain a batch is, or what contradicts it. Blocks are searched for its transactions, or for one of somebody
//! else's that spends what all of them spend: what a node remembers, and whether an output was spent since, does not matter.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use dovetail_ledger::OnchainBatch;
use dovetail_onchain::{ChainTip, Node};

use super::OnchainError;

/// The deepest reorganisation in which a batch is found again. A batch this deep is not looked at any more.
pub(super) const DEPTH_MAX: u32 = 100;
/// How many blocks are searched in one round.
const BLOCKS_MAX: u32 = 200;

/// A transaction in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) txid: Txid,
    pub(super) block: BlockHash,
    pub(super) height: u32,
}

/// What is searched for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// One of the batch's transactions.
    Its,
    /// One that spends one of these and is none of the batch's.
    SpenderOf(&'a [OutPoint]),
}

/// Whether the chain has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    At(Place),
    /// None of the blocks, up to the tip, has.
    Nowhere,
    /// Not all were looked at.
    NotYet,
}

/// Up to where the chain was searched for one batch.
#[derive(Debug, Default)]
pub(super) struct Search {
    batch: Option<i64>,
    /// The last block that was searched: all up to it do not have what is searched for.
    searched: Option<(u32, BlockHash)>,
    found: Option<Place>,
}

impl Search {
    /// Searches on; always for the same of one batch. A transaction that is made later cannot be in a block that was searched
    /// before.
    pub(super) async fn find(
        &mut self,
        node: &Node,
        batch: &OnchainBatch,
        wanted: Wanted<'_>,
        tip: ChainTip,
    ) -> Result<Found, OnchainError> {
        if self.batch != Some(batch.number) {
            *self = Self {
                batch: Some(batch.number),
                ..Self::default()
            };
        }
        let seen = match (self.found, self.searched) {
            (Some(place), _) => Some((place.height, place.block)),
            (None, searched) => searched,
        };
        if let Some((height, block)) = seen
            && node.block_at(height).await? != Some(block)
        {
            // The chain has changed below.
            self.found = None;
            self.searched = None;
        }
        if let Some(place) = self.found {
            return Ok(Found::At(place));
        }
        let txids: Vec<Txid> = batch
            .transactions
            .iter()
            .map(|transaction| Txid::from_byte_array(transaction.txid))
            .collect();
        // A reorganisation may bring it in below the height at which it was made.
        let lowest = batch.since_height.saturating_sub(DEPTH_MAX) + 1;
        let first = self
            .searched
            .map_or(lowest, |(height, _)| height.saturating_add(1));
        let last = tip.height.min(first.saturating_add(BLOCKS_MAX - 1));
        for height in first..=last {
            let Some(block) = node.block_at(height).await? else {
                return Ok(Found::NotYet);
            };
            let (previous, found) = look_into(node, block, &txids, wanted).await?;
            if let Some((_, before)) = self.searched
                && previous != Some(before)
            {
                // The chain has changed between two blocks: those below are others now.
                self.searched = None;
                return Ok(Found::NotYet);
            }
            if let Some(txid) = found {
                let place = Place {
                    txid,
                    block,
                    height,
                };
                self.found = Some(place);
                return Ok(Found::At(place));
            }
            self.searched = Some((height, block));
        }
        // What was searched last has to be the tip itself, or a block was missed.
        let is_at_tip = match self.searched {
            Some((height, block)) => height >= tip.height && block == tip.hash,
            None => tip.height < lowest,
        };
        Ok(match is_at_tip {
            true => Found::Nowhere,
            false => Found::NotYet,
        })
    }
}

/// The block before this one, and what in it was searched for.
async fn look_into(
    node: &Node,
    block: BlockHash,
    txids: &[Txid],
    wanted: Wanted<'_>,
) -> Result<(Option<BlockHash>, Option<Txid>), OnchainError> {
    match wanted {
        Wanted::Its => {
            let block = node.block(block).await?;
            let found = txids.iter().find(|txid| block.txids.contains(txid));
            Ok((block.previous, found.copied()))
        }
        Wanted::SpenderOf(outpoints) => {
            let block = node.whole_block(block).await?;
            let spends = |transaction: &&bitcoin::Transaction| {
                let mut inputs = transaction.input.iter();
                inputs.any(|input| outpoints.contains(&input.previous_output))
            };
            let spenders = block.txdata.iter().filter(spends);
            let found = spenders
                .map(bitcoin::Transaction::compute_txid)
                .find(|txid| !txids.contains(txid));
            Ok((Some(block.header.prev_blockhash), found))
        }
    }
}
