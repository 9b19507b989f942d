//! What shows a share: the header that was hashed, the coinbase that it commits to, and what its weight was reckoned from.
//! It is the last step of an answer to a point of the line ([`Answer`](crate::Answer) finds the share).

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{Target, Transaction};
use dovetail_commitment::block::merkle_root;
use dovetail_commitment::{HeaderHash, coinbase};
use dovetail_units::Work;

use crate::encoding::{DecodeError, Reader};
use crate::evidence::{CountedShare, ShareId};
use crate::weight::ShareTerms;

/// The version of the encoding.
const VERSION: u8 = 1;
/// The bytes of a header.
pub const HEADER_BYTES: usize = 80;
/// The longest merkle path: blocks have fewer than 2^16 transactions.
pub const MERKLE_PATH_MAX: usize = 16;
/// The longest coinbase that is kept with a share: hundreds of outputs. A share on a longer one weighs nothing where shares
/// can be shown, since this one could not be.
pub const SHOWN_COINBASE_BYTES_MAX: usize = 16 * 1024;

/// What shows a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareProof {
    /// Hashes that are expected for a share of its target.
    pub work: Work,
    /// What its job's coinbase paid the pool, in satoshi; 0 like the reference for a job of the pool's own.
    pub value_sat: u64,
    /// What the pool's own template would have paid it, in satoshi.
    pub reference_sat: u64,
    /// The header, as it was hashed.
    pub header: [u8; HEADER_BYTES],
    /// From the coinbase to the header's merkle root, the deepest node first.
    pub merkle_path: Vec<[u8; 32]>,
    /// The coinbase without its witness.
    pub coinbase: Vec<u8>,
}

/// A share that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownShare {
    /// Its header. Whether its target is the network's is for the caller to know: so is the chain that it builds on.
    pub header: Header,
    /// Its coinbase. Whether it is the pool's is for the caller to know.
    pub coinbase: Transaction,
}

/// Why a share is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShownError {
    /// The header of another share.
    #[error("the header is another share's")]
    Header,
    /// A coinbase that none is, or is too long.
    #[error("the coinbase is none")]
    Coinbase,
    /// The header commits to another coinbase.
    #[error("the header does not commit to the coinbase")]
    MerklePath,
    /// The hash does not prove so much work.
    #[error("the header's hash does not meet the target of its share")]
    Target,
    /// The share weighs something else.
    #[error("the share's work and value come to another weight")]
    Weight,
    /// The coinbase pays less, to all together.
    #[error("the coinbase does not pay as much as the share's weight says")]
    Value,
}

impl ShareProof {
    /// The bytes of the longest encoding.
    pub const ENCODED_LEN_MAX: usize =
        1 + 16 + 8 + 8 + HEADER_BYTES + 1 + 32 * MERKLE_PATH_MAX + SHOWN_COINBASE_BYTES_MAX;

    /// Checks that this shows the share that was counted: the header has its id and proves its work, commits to the coinbase,
    /// and the share weighs what it was counted with.
    ///
    /// # Errors
    /// [`ShownError`], the first thing that does not hold.
    pub fn check(&self, counted: &CountedShare) -> Result<ShownShare, ShownError> {
        let header: Header = deserialize(&self.header).map_err(|_| ShownError::Header)?;
        let hash = header.block_hash().to_byte_array();
        if ShareId::of(&HeaderHash::from_bytes(hash)) != counted.id {
            return Err(ShownError::Header);
        }
        if self.coinbase.len() > SHOWN_COINBASE_BYTES_MAX {
            return Err(ShownError::Coinbase);
        }
        let coinbase = coinbase::parse(&self.coinbase).map_err(|_| ShownError::Coinbase)?;
        let txid = coinbase.compute_txid().to_byte_array();
        let root = merkle_root(txid, &self.merkle_path);
        if self.merkle_path.len() > MERKLE_PATH_MAX || header.merkle_root.to_byte_array() != root {
            return Err(ShownError::MerklePath);
        }
        // The hash is at most the target if, and up to rounding only if, it would be a share of as much work itself.
        if work_of(Target::from_le_bytes(hash)) < self.work {
            return Err(ShownError::Target);
        }
        let terms = ShareTerms {
            work: self.work,
            block_work: work_of(header.target()),
            value_sat: self.value_sat,
            reference_sat: self.reference_sat,
        };
        if terms.weight() != Ok(counted.weight) {
            return Err(ShownError::Weight);
        }
        let paid = coinbase.output.iter().fold(0_u64, |sum, output| {
            sum.saturating_add(output.value.to_sat())
        });
        if paid < self.value_sat {
            return Err(ShownError::Value);
        }
        Ok(ShownShare { header, coinbase })
    }

    /// Version, work, value, reference, header, number of nodes of the path, these, then the coinbase to the end. Integers
    /// are little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(
            Self::ENCODED_LEN_MAX.min(128 + 32 * self.merkle_path.len() + self.coinbase.len()),
        );
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.work.get().to_le_bytes());
        bytes.extend_from_slice(&self.value_sat.to_le_bytes());
        bytes.extend_from_slice(&self.reference_sat.to_le_bytes());
        bytes.extend_from_slice(&self.header);
        // A longer path, made by hand, is one that no reader takes.
        bytes.push(u8::try_from(self.merkle_path.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.merkle_path.as_flattened());
        bytes.extend_from_slice(&self.coinbase);
        bytes
    }

    /// Reads what [`ShareProof::encode`] wrote, and nothing else. Whether it shows anything, [`ShareProof::check`] says.
    ///
    /// # Errors
    /// [`DecodeError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let work = Work::new(u128::from_le_bytes(reader.take()?));
        let value_sat = u64::from_le_bytes(reader.take()?);
        let reference_sat = u64::from_le_bytes(reader.take()?);
        let header = reader.take()?;
        let [nodes] = reader.take()?;
        if usize::from(nodes) > MERKLE_PATH_MAX {
            return Err(DecodeError::Steps);
        }
        let path = (0..nodes).map(|_| reader.take());
        let merkle_path = path.collect::<Result<_, DecodeError>>()?;
        let coinbase = reader.rest();
        match coinbase.len() <= SHOWN_COINBASE_BYTES_MAX {
            true => Ok(Self {
                work,
                value_sat,
                reference_sat,
                header,
                merkle_path,
                coinbase: coinbase.to_vec(),
            }),
            false => Err(DecodeError::Length),
        }
    }
}

/// Hashes that are expected for one that is at most this.
fn work_of(target: Target) -> Work {
    Work::from_be_bytes(target.to_work().to_be_bytes())
}

#[cfg(test)]
mod tests;
