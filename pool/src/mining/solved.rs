//! The block that a share solves, put together from the very bytes that were hashed.
//!
//! `channels_sv2` hands out a coinbase with a solved share too, but builds it anew from the job's outputs. On
//! standard channels (8.0.0, `ExtendedJob::into_standard_job`) it appends the template's outputs a second time,
//! so that every such block has another merkle root than its header and is lost. So its coinbase is not used,
//! and no block leaves here whose parts do not hash to the header that was proven.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Transaction, TxMerkleNode};
use stratum_core::channels_sv2::chain_tip::ChainTip;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path_;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{SubmitSharesExtendedOwned, SubmitSharesStandardOwned};
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;

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

/// What is needed to publish a block. Its coinbase is the one that its header commits to.
#[derive(Debug)]
pub(crate) struct SolvedBlock {
    /// The template, or `None` for a declared job.
    pub(crate) template_id: Option<u64>,
    pub(crate) header: Header,
    /// The coinbase with its witness.
    pub(crate) coinbase: Transaction,
}

/// A solved block that cannot be put together. Its reward is lost unless somebody repairs it by hand, so the
/// log gets all that is known of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssemblyError {
    #[error("the channel has no job {0}")]
    NoJob(u32),
    #[error("the channel has no chain tip")]
    NoTip,
    #[error("the job's coinbase does not parse: {0}")]
    Coinbase(String),
    #[error(
        "the job's coinbase {coinbase} hashes to the header {assembled}, but the share's is {proven}"
    )]
    OtherHeader {
        /// The serialised coinbase, in hex.
        coinbase: String,
        /// The header that the parts hash to.
        assembled: BlockHash,
        /// The header of the share.
        proven: BlockHash,
    },
}

impl SolvedBlock {
    /// Puts the block of a share together: the job's coinbase around `extranonce` (all of it, the channel's
    /// prefix included), and the header over it.
    ///
    /// # Errors
    /// The parts do not hash to `proven`, the header hash of the share.
    pub(crate) fn assemble(
        job: &ExtendedJob,
        extranonce: &[u8],
        fields: &HeaderFields,
        tip: &ChainTip,
        template_id: Option<u64>,
        proven: BlockHash,
    ) -> Result<Self, AssemblyError> {
        let mut bytes = job.get_coinbase_tx_prefix_with_bip141();
        bytes.extend_from_slice(extranonce);
        bytes.extend_from_slice(&job.get_coinbase_tx_suffix_with_bip141());
        let coinbase: Transaction =
            deserialize(&bytes).map_err(|error| AssemblyError::Coinbase(error.to_string()))?;
        let txid = coinbase.compute_txid().to_byte_array();
        let path: Vec<[u8; 32]> = merkle_path(job);
        let root = merkle_root_from_path_(txid, &path);
        let header = fields.header(tip.prev_hash().into_array(), tip.nbits(), root);
        let assembled = header.block_hash();
        if assembled != proven {
            return Err(AssemblyError::OtherHeader {
                coinbase: hex::encode(bytes),
                assembled,
                proven,
            });
        }
        Ok(Self {
            template_id,
            header,
            coinbase,
        })
    }

    /// The coinbase's id, in the order in which it is hashed on.
    pub(crate) fn txid(&self) -> [u8; 32] {
        self.coinbase.compute_txid().to_byte_array()
    }

    /// The message that solves a template with this block; `None` for a coinbase that no message holds.
    pub(crate) fn solution(&self, template_id: u64) -> Option<SubmitSolutionOwned> {
        let version = self.header.version.to_consensus().cast_unsigned();
        Some(SubmitSolutionOwned {
            template_id,
            version,
            header_timestamp: self.header.time,
            header_nonce: self.header.nonce,
            coinbase_tx: serialize(&self.coinbase).try_into().ok()?,
        })
    }
}

/// The merkle path of the job's coinbase, deepest node first.
pub(crate) fn merkle_path(job: &ExtendedJob) -> Vec<[u8; 32]> {
    job.get_merkle_path()
        .as_slice()
        .iter()
        .map(|node| node.clone().into_array())
        .collect()
}
