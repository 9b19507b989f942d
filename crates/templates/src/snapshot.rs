//! What to work on now: a template together with the tip that it builds on.

use std::time::{Duration, Instant};

use bitcoin::consensus::Decodable;
use bitcoin::opcodes::all::{OP_PUSHNUM_1, OP_PUSHNUM_16};
use bitcoin::{Amount, CompactTarget, Target, TxOut};
use dovetail_commitment::block::merkle_root;
use dovetail_units::header::Tip;
use stratum_core::template_distribution_sv2::{NewTemplateOwned, SetNewPrevHashOwned};

/// The most outputs that a template may prescribe. Core prescribes one; a list this long would not
/// fit the bytes of the message anyway.
const OUTPUTS_MAX: u32 = 4_096;
/// Script numbers are at most this long, which reaches height 2^31 - 1.
const HEIGHT_BYTES_MAX: usize = 4;

/// A template and the previous block hash it is valid on; always a consistent pair, and parsed:
/// its height and outputs are known to make sense.
#[derive(Debug, Clone)]
pub struct WorkSnapshot {
    /// The template. `future_template` is false: it can be mined at once.
    pub template: NewTemplateOwned,
    /// The tip; its `template_id` is that of [`template`](Self::template).
    pub prev_hash: SetNewPrevHashOwned,
    /// When the source gave the template.
    pub received_at: Instant,
    /// Counts the snapshots of one handle, from 1.
    pub sequence: u64,
    height: u32,
    required_outputs: Vec<TxOut>,
}

/// Why a template is not one that can be worked on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the coinbase prefix does not start with a block height (BIP 34)")]
    Height,
    #[error("the coinbase outputs do not parse")]
    Outputs,
    #[error("the coinbase may pay {0} sat, which is more than there are")]
    Value(u64),
    #[error("{0:#010x} is no compact target that a header can have")]
    Target(u32),
}

impl WorkSnapshot {
    pub(crate) fn new(
        mut template: NewTemplateOwned,
        mut prev_hash: SetNewPrevHashOwned,
        sequence: u64,
    ) -> Result<Self, SnapshotError> {
        let height = height_of(template.coinbase_prefix.as_bytes()).ok_or(SnapshotError::Height)?;
        let required_outputs = outputs_of(&template)?;
        let value_sat = template.coinbase_tx_value_remaining;
        if Amount::from_sat(value_sat) > Amount::MAX_MONEY {
            return Err(SnapshotError::Value(value_sat));
        }
        if !is_target(prev_hash.n_bits) {
            return Err(SnapshotError::Target(prev_hash.n_bits));
        }
        template.future_template = false;
        prev_hash.template_id = template.template_id;
        Ok(Self {
            template,
            prev_hash,
            received_at: Instant::now(),
            sequence,
            height,
            required_outputs,
        })
    }

    /// The source's number for the template.
    pub fn template_id(&self) -> u64 {
        self.template.template_id
    }

    /// The height of the block to be found.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The previous block's hash, in the byte order of the header.
    pub fn prev_hash(&self) -> [u8; 32] {
        *self.prev_hash.prev_hash.as_array()
    }

    /// The compact target of the block.
    pub fn nbits(&self) -> u32 {
        self.prev_hash.n_bits
    }

    /// The least timestamp that the header may have, in Unix seconds.
    pub fn min_ntime(&self) -> u32 {
        self.prev_hash.header_timestamp
    }

    /// The tip that the template builds on.
    pub fn tip(&self) -> Tip {
        Tip {
            prev_hash: self.prev_hash(),
            nbits: self.nbits(),
            min_ntime: self.min_ntime(),
        }
    }

    /// The same work under another number of its template, given as the handle's next.
    pub(crate) fn renumbered(&self, template_id: u64, sequence: u64) -> Self {
        let mut renewed = self.clone();
        renewed.template.template_id = template_id;
        renewed.prev_hash.template_id = template_id;
        renewed.sequence = sequence;
        renewed
    }

    /// The header's version.
    pub fn version(&self) -> u32 {
        self.template.version
    }

    /// What the coinbase may pay out beyond the required outputs, in satoshis: subsidy and fees.
    pub fn coinbase_value_remaining_sat(&self) -> u64 {
        self.template.coinbase_tx_value_remaining
    }

    /// The hashes to combine the coinbase's txid with, deepest first: `[depth][32]`.
    pub fn merkle_path(&self) -> Vec<[u8; 32]> {
        self.template
            .merkle_path
            .iter()
            .map(|node| *node.as_array())
            .collect()
    }

    /// The header's Merkle root for a coinbase with this txid.
    pub fn merkle_root(&self, coinbase_txid: [u8; 32]) -> [u8; 32] {
        merkle_root(coinbase_txid, &self.merkle_path())
    }

    /// The outputs that must stand last in the coinbase, in this order; among them the witness
    /// commitment.
    pub fn required_outputs(&self) -> Vec<TxOut> {
        self.required_outputs.clone()
    }

    /// How long ago the source gave the template.
    pub fn age(&self) -> Duration {
        self.received_at.elapsed()
    }
}

/// The number that a coinbase script starts with: the height, by BIP 34.
pub fn height_of(prefix: &[u8]) -> Option<u32> {
    let (&opcode, rest) = prefix.split_first()?;
    if (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8()).contains(&opcode) {
        return Some(u32::from(opcode - OP_PUSHNUM_1.to_u8()) + 1);
    }
    let length = usize::from(opcode);
    if !(1..=HEIGHT_BYTES_MAX).contains(&length) {
        return None;
    }
    let number = bitcoin::script::read_scriptint_non_minimal(rest.get(..length)?).ok()?;
    u32::try_from(number).ok()
}

/// Whether a header can have this compact target: neither zero nor negative nor too large for its 256 bits, and in the
/// one spelling that nodes give it.
pub(crate) fn is_target(nbits: u32) -> bool {
    let compact = CompactTarget::from_consensus(nbits);
    let target = Target::from_compact(compact);
    target != Target::ZERO && target.to_compact_lossy() == compact
}

fn outputs_of(template: &NewTemplateOwned) -> Result<Vec<TxOut>, SnapshotError> {
    if template.coinbase_tx_outputs_count > OUTPUTS_MAX {
        return Err(SnapshotError::Outputs);
    }
    let mut bytes = template.coinbase_tx_outputs.as_bytes();
    let outputs = (0..template.coinbase_tx_outputs_count)
        .map(|_| TxOut::consensus_decode(&mut bytes).map_err(|_| SnapshotError::Outputs))
        .collect::<Result<Vec<_>, _>>()?;
    match bytes.is_empty() {
        true => Ok(outputs),
        false => Err(SnapshotError::Outputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::script::Builder;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_height_is_read_back_from_its_push(height in 1_u32..=i32::MAX as u32, tail: [u8; 3]) {
            let mut prefix = Builder::new().push_int(i64::from(height)).into_bytes();
            prefix.extend_from_slice(&tail);
            prop_assert_eq!(height_of(&prefix), Some(height));
        }

        #[test]
        fn junk_prefixes_do_not_panic(prefix: Vec<u8>) {
            let _ = height_of(&prefix);
        }
    }

    #[test]
    fn zero_negative_and_overflowing_targets_are_none() {
        for nbits in [0x207f_ffff, 0x1d00_ffff, 0x1703_4219, 0x1e03_ffff] {
            assert!(is_target(nbits), "{nbits:#010x}");
        }
        let wrong = [
            0,
            1,
            0x1d00_0000,
            // Negative.
            0x0492_3456,
            0x20ff_ffff,
            // Beyond 256 bits.
            0x217f_ffff,
            0xff7f_ffff,
            u32::MAX,
            // Another spelling.
            0x1e00_00ff,
        ];
        for nbits in wrong {
            assert!(!is_target(nbits), "{nbits:#010x}");
        }
    }

    #[test]
    fn a_prefix_without_a_height_is_refused() {
        for prefix in [
            &[][..],
            &[0x00],
            &[0x03, 1, 2],
            &[0x4c, 1, 1],
            &[0x01, 0x81],
        ] {
            assert_eq!(height_of(prefix), None, "{prefix:02x?}");
        }
    }
}
