//! The template of the next block, in the form of the Template Distribution Protocol and with the
//! fields that Bitcoin Core 31 would choose.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{Block, Sequence, Transaction, TxMerkleNode};
use stratum_core::template_distribution_sv2::{
    NewTemplateOwned, SetNewPrevHashOwned, SubmitSolutionOwned,
};

use super::rules::{commitment_output, height_push};
use super::{BlockRejection, RegtestChain, serialized_outputs, wire};

/// BIP 9's versions, with no deployment signalled.
const BLOCK_VERSION: u32 = 0x2000_0000;
const COINBASE_VERSION: u32 = 2;

impl RegtestChain {
    /// The template of the next block, and the tip to mine it on. `now` is Unix seconds.
    pub fn template(&self, template_id: u64, now: u32) -> (NewTemplateOwned, SetNewPrevHashOwned) {
        let height = self.next_height();
        let outputs = [commitment_output()];
        let template = NewTemplateOwned {
            template_id,
            future_template: false,
            version: BLOCK_VERSION,
            coinbase_tx_version: COINBASE_VERSION,
            coinbase_prefix: height_push(height)
                .try_into()
                .expect("a height is a few bytes"),
            // Locked to the height before, so that no two coinbases are equal.
            coinbase_tx_input_sequence: Sequence::ENABLE_LOCKTIME_NO_RBF.to_consensus_u32(),
            coinbase_tx_locktime: LockTime::from_consensus(self.height()).to_consensus_u32(),
            coinbase_tx_value_remaining: self.next_subsidy().to_sat(),
            coinbase_tx_outputs_count: 1,
            coinbase_tx_outputs: serialized_outputs(&outputs)
                .try_into()
                .expect("one output is a few bytes"),
            merkle_path: Vec::new().try_into().expect("an empty path has a length"),
        };
        let tip = SetNewPrevHashOwned {
            template_id,
            prev_hash: wire(self.tip()).into(),
            header_timestamp: now.max(self.median_time_past().saturating_add(1)),
            n_bits: self.bits().to_consensus(),
            target: self.target().to_le_bytes().into(),
        };
        (template, tip)
    }
}

/// The block of a solution to a template on `prev_hash`.
///
/// # Errors
/// [`BlockRejection::Malformed`] if the coinbase is not a transaction.
pub(crate) fn solved_block(
    solution: &SubmitSolutionOwned,
    tip: &SetNewPrevHashOwned,
) -> Result<Block, BlockRejection> {
    let coinbase: Transaction =
        deserialize(solution.coinbase_tx.as_bytes()).map_err(|_| BlockRejection::Malformed)?;
    let header = Header {
        version: Version::from_consensus(i32::from_le_bytes(solution.version.to_le_bytes())),
        prev_blockhash: bitcoin::BlockHash::from_byte_array(*tip.prev_hash.as_array()),
        // The templates here have no other transactions, so their path is empty.
        merkle_root: TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
        time: solution.header_timestamp,
        bits: bitcoin::CompactTarget::from_consensus(tip.n_bits),
        nonce: solution.header_nonce,
    };
    Ok(Block {
        header,
        txdata: vec![coinbase],
    })
}
