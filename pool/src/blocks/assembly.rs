//! The block that a share solves, put together from the very bytes that were hashed.
//!
//! `channels_sv2` hands out a coinbase with a solved share too, but builds it anew from the job's outputs. On
//! standard channels (8.0.0, `ExtendedJob::into_standard_job`) it appends the template's outputs a second time,
//! so that every such block has another merkle root than its header and is lost. So its coinbase is not used,
//! and no block leaves here whose parts do not hash to the header that was proven.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};
use dovetail_templates::block_publisher::{
    BlockParts, BrokenBlock, Finder, SolvedBlock, Transactions,
};
use stratum_core::channels_sv2::chain_tip::ChainTip;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{SubmitSharesExtendedOwned, SubmitSharesStandardOwned};

/// The fields of a share that name a header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderFields {
    pub(crate) version: u32,
    pub(crate) ntime: u32,
    pub(crate) nonce: u32,
}

impl From<&SubmitSharesStandardOwned> for HeaderFields {
    fn from(share: &SubmitSharesStandardOwned) -> Self {
        Self {
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        }
    }
}

impl From<&SubmitSharesExtendedOwned> for HeaderFields {
    fn from(share: &SubmitSharesExtendedOwned) -> Self {
        Self {
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        }
    }
}

impl HeaderFields {
    /// The header of a share on this tip with this merkle root.
    pub(crate) fn header(&self, prev_hash: [u8; 32], bits: u32, merkle_root: [u8; 32]) -> Header {
        Header {
            version: Version::from_consensus(self.version.cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(prev_hash),
            merkle_root: TxMerkleNode::from_byte_array(merkle_root),
            time: self.ntime,
            bits: CompactTarget::from_consensus(bits),
            nonce: self.nonce,
        }
    }
}

/// A solved block that cannot be put together. Its reward is lost unless somebody repairs it by hand, so all that is
/// known of it is kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssemblyError {
    #[error("the channel has no job {0}")]
    NoJob(u32),
    #[error("the channel has no chain tip")]
    NoTip,
    #[error(transparent)]
    Broken(#[from] Box<BrokenBlock>),
}

/// Puts the block of a share together: the job's coinbase around `extranonce` (all of it, the channel's prefix
/// included), and the header over it. `template_id`: `None` for a declared job.
///
/// # Errors
/// The parts do not hash to `proven`, the header hash of the share.
pub(crate) fn assemble(
    job: &ExtendedJob,
    extranonce: &[u8],
    fields: &HeaderFields,
    tip: &ChainTip,
    template_id: Option<u64>,
    account: &str,
    proven: BlockHash,
) -> Result<SolvedBlock, AssemblyError> {
    let mut coinbase = job.get_coinbase_tx_prefix_with_bip141();
    coinbase.extend_from_slice(extranonce);
    coinbase.extend_from_slice(&job.get_coinbase_tx_suffix_with_bip141());
    let parts = BlockParts {
        // The root is computed from the parts.
        header: fields.header(tip.prev_hash().into_array(), tip.nbits(), [0; 32]),
        coinbase,
        merkle_path: merkle_path(job),
        transactions: match template_id {
            Some(id) => Transactions::Template(Some(id)),
            None => Transactions::Miners,
        },
        finder: Finder {
            account: account.to_owned(),
            declared: template_id.is_none(),
        },
    };
    Ok(SolvedBlock::assemble(parts, proven)?)
}

/// The merkle path of the job's coinbase, deepest node first.
pub(crate) fn merkle_path(job: &ExtendedJob) -> Vec<[u8; 32]> {
    job.get_merkle_path()
        .as_slice()
        .iter()
        .map(|node| node.clone().into_array())
        .collect()
}
