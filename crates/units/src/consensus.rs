//! Bounds of Bitcoin's consensus that more than one crate checks. The checks stand where the data is read.

use std::ops::RangeInclusive;

/// How many bytes the script of a coinbase's input may have (`bad-cb-length`).
pub const COINBASE_SCRIPT_BYTES: RangeInclusive<usize> = 2..=COINBASE_SCRIPT_BYTES_MAX;
/// The longest script of a coinbase's input.
pub const COINBASE_SCRIPT_BYTES_MAX: usize = 100;
/// A block's transactions have at most this many bytes together: a longer block's weight exceeds the limit.
pub const BLOCK_BYTES_MAX: usize = 4_000_000;
/// How the script of the output with a block's witness commitment begins (BIP 141): `OP_RETURN`, a push of 36 bytes,
/// and four bytes that say what it is.
pub const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The hash in a witness commitment's script, if the script is one. What stands behind the hash has no meaning yet
/// and is allowed.
pub fn witness_commitment(script: &[u8]) -> Option<&[u8; 32]> {
    script
        .strip_prefix(&WITNESS_COMMITMENT_PREFIX)?
        .first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_commitment_is_its_prefix_and_at_least_a_hash() {
        let script = [&WITNESS_COMMITMENT_PREFIX[..], &[7; 33]].concat();
        assert_eq!(witness_commitment(&script), Some(&[7; 32]));
        assert_eq!(witness_commitment(&script[..38]), Some(&[7; 32]));
        assert_eq!(witness_commitment(&script[..37]), None);
        assert_eq!(witness_commitment(&script[1..]), None);
    }
}
