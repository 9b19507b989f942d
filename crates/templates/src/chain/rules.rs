//! What makes a block valid on the embedded chain, in the order in which it is checked: cheap and
//! unforgeable first. Names follow what Bitcoin Core answers where it has an equal rule.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::transaction::TxOut;
use bitcoin::{Amount, Block, BlockHash, Transaction, Weight, WitnessMerkleNode};
use dovetail_units::consensus;

use super::{RegtestChain, subsidy};

/// How far a block's clock may run ahead.
const AHEAD_SECONDS_MAX: u32 = 2 * 60 * 60;
/// BIPs 34, 66 and 65 are in force from the first block, so older versions are refused.
const VERSION_MIN: i32 = 4;

/// The first rule that a block breaks. In parentheses: Bitcoin Core's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockRejection {
    /// The bytes are no block.
    #[error("not a block")]
    Malformed,
    /// Over the limit of weight (bad-blk-weight).
    #[error("over the limit of weight")]
    TooLarge,
    /// The header's target is not the chain's (bad-diffbits).
    #[error("not the chain's target")]
    WrongBits,
    /// The hash exceeds the target (high-hash).
    #[error("the hash exceeds the target")]
    HighHash,
    /// The block is on the chain already (duplicate).
    #[error("already on the chain")]
    Duplicate,
    /// It builds on a block that is no longer the tip. Core would keep it as a fork.
    #[error("it builds on a passed tip")]
    StaleParent,
    /// It builds on a block that was never seen (prev-blk-not-found).
    #[error("it builds on an unknown block")]
    UnknownParent,
    /// Not later than the median of the last eleven (time-too-old).
    #[error("its time is not after the median of the last eleven")]
    TimeTooOld,
    /// More than two hours ahead (time-too-new).
    #[error("its time is more than two hours ahead")]
    TimeTooNew,
    /// A version that soft forks have retired (bad-version).
    #[error("its version is retired")]
    OldVersion,
    /// No transactions, or the first is no coinbase (bad-cb-missing).
    #[error("it has no coinbase")]
    NoCoinbase,
    /// The header commits to other transactions (bad-txnmrklroot).
    #[error("its Merkle root is of other transactions")]
    MerkleRoot,
    /// It spends outputs, of which this chain keeps no account (bad-txns-inputs-missingorspent).
    #[error("it has transactions that spend outputs the chain does not know")]
    UnknownInputs,
    /// The coinbase's script is shorter than 2 or longer than 100 bytes (bad-cb-length).
    #[error("the coinbase's script has a bad length")]
    ScriptLength,
    /// The coinbase's script does not start with the height (bad-cb-height).
    #[error("the coinbase's script does not start with the height")]
    Height,
    /// The coinbase's lock time has not passed (bad-txns-nonfinal).
    #[error("the coinbase is locked")]
    NotFinal,
    /// The coinbase has no outputs (bad-txns-vout-empty).
    #[error("the coinbase has no outputs")]
    NoOutputs,
    /// The witness is not what is committed to (bad-witness-merkle-match, bad-witness-nonce-size),
    /// or there is one without a commitment (unexpected-witness).
    #[error("the witness is not what the coinbase commits to")]
    WitnessCommitment,
    /// It pays more than it may (bad-cb-amount).
    #[error("the coinbase pays more than the subsidy")]
    CoinbaseValue,
}

/// Whether a block's hash is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It must meet the target.
    Required,
    /// The block is yet to be hashed.
    NotYet,
}

impl RegtestChain {
    /// Whether `block` may follow the tip.
    pub(super) fn check(
        &self,
        block: &Block,
        now: u32,
        proof: Proof,
    ) -> Result<BlockHash, BlockRejection> {
        let hash = self.check_header(&block.header, now, proof)?;
        let (coinbase, others) = block
            .txdata
            .split_first()
            .filter(|(first, _)| first.is_coinbase())
            .ok_or(BlockRejection::NoCoinbase)?;
        if !block.check_merkle_root() {
            return Err(BlockRejection::MerkleRoot);
        }
        if block.weight() > Weight::MAX_BLOCK {
            return Err(BlockRejection::TooLarge);
        }
        if !others.is_empty() {
            return Err(BlockRejection::UnknownInputs);
        }
        let height = self.next_height();
        check_coinbase(coinbase, height)?;
        check_witness(coinbase)?;
        check_value(&coinbase.output, subsidy(height))?;
        Ok(hash)
    }

    fn check_header(
        &self,
        header: &Header,
        now: u32,
        proof: Proof,
    ) -> Result<BlockHash, BlockRejection> {
        if header.bits != self.bits {
            return Err(BlockRejection::WrongBits);
        }
        let hash = header.block_hash();
        if proof == Proof::Required && header.validate_pow(self.target).is_err() {
            return Err(BlockRejection::HighHash);
        }
        if self.heights.contains_key(&hash) {
            return Err(BlockRejection::Duplicate);
        }
        if header.prev_blockhash != self.tip {
            return Err(match self.heights.contains_key(&header.prev_blockhash) {
                true => BlockRejection::StaleParent,
                false => BlockRejection::UnknownParent,
            });
        }
        if header.time <= self.median_time_past() {
            return Err(BlockRejection::TimeTooOld);
        }
        if header.time > now.saturating_add(AHEAD_SECONDS_MAX) {
            return Err(BlockRejection::TimeTooNew);
        }
        if header.version.to_consensus() < VERSION_MIN {
            return Err(BlockRejection::OldVersion);
        }
        Ok(hash)
    }
}

/// The push that a coinbase's script starts with (BIP 34), as Bitcoin Core writes it.
pub(super) fn height_push(height: u32) -> Vec<u8> {
    Builder::new().push_int(i64::from(height)).into_bytes()
}

fn check_coinbase(coinbase: &Transaction, height: u32) -> Result<(), BlockRejection> {
    let input = coinbase.input.first().ok_or(BlockRejection::NoCoinbase)?;
    let script = input.script_sig.as_bytes();
    if !consensus::COINBASE_SCRIPT_BYTES.contains(&script.len()) {
        return Err(BlockRejection::ScriptLength);
    }
    if !script.starts_with(&height_push(height)) {
        return Err(BlockRejection::Height);
    }
    let lock = coinbase.lock_time.to_consensus_u32();
    // Locked to a time (rather than a height) is more than a coinbase here needs.
    if input.sequence.enables_absolute_lock_time() && lock >= height {
        return Err(BlockRejection::NotFinal);
    }
    match coinbase.output.is_empty() {
        true => Err(BlockRejection::NoOutputs),
        false => Ok(()),
    }
}

/// BIP 141, for a block of a coinbase alone: the root of the witness tree is then the placeholder
/// that stands for the coinbase itself.
fn check_witness(coinbase: &Transaction) -> Result<(), BlockRejection> {
    let witness = coinbase.input.first().map(|input| &input.witness);
    let committed = coinbase
        .output
        .iter()
        .rev()
        .find_map(|output| consensus::witness_commitment(output.script_pubkey.as_bytes()));
    match (committed, witness) {
        (None, None) => Ok(()),
        (None, Some(witness)) if witness.is_empty() => Ok(()),
        (Some(committed), Some(witness)) if witness.len() == 1 => {
            let reserved = witness.nth(0).filter(|reserved| reserved.len() == 32);
            match reserved.map(witness_commitment) {
                Some(expected) if expected == *committed => Ok(()),
                _ => Err(BlockRejection::WitnessCommitment),
            }
        }
        _ => Err(BlockRejection::WitnessCommitment),
    }
}

/// The commitment of a block without transactions besides the coinbase.
pub(super) fn witness_commitment(reserved: &[u8]) -> [u8; 32] {
    Block::compute_witness_commitment(&WitnessMerkleNode::all_zeros(), reserved).to_byte_array()
}

/// The output that carries [`witness_commitment`] of the usual reserved value.
pub(super) fn commitment_output() -> TxOut {
    let mut script = consensus::WITNESS_COMMITMENT_PREFIX.to_vec();
    script.extend_from_slice(&witness_commitment(&[0; 32]));
    TxOut {
        value: Amount::ZERO,
        script_pubkey: script.into(),
    }
}

fn check_value(outputs: &[TxOut], limit: Amount) -> Result<(), BlockRejection> {
    let paid = outputs
        .iter()
        .try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
    match paid {
        Some(paid) if paid <= limit => Ok(()),
        _ => Err(BlockRejection::CoinbaseValue),
    }
}
