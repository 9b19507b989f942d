//! A block's Merkle tree, from the coinbase's side.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// The node above two.
pub fn merkle_parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(left);
    engine.input(right);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// The root that a block's header must have, from the coinbase's id and the hashes that it is joined with, leaf to
/// root.
pub fn merkle_root<'a>(
    coinbase_txid: [u8; 32],
    path: impl IntoIterator<Item = &'a [u8; 32]>,
) -> [u8; 32] {
    path.into_iter()
        .fold(coinbase_txid, |node, sibling| merkle_parent(&node, sibling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coinbase_alone_is_the_root_and_a_sibling_stands_to_its_right() {
        assert_eq!(merkle_root([7; 32], &[]), [7; 32]);
        let joined = sha256d::Hash::hash(&[[7; 32], [8; 32]].concat()).to_byte_array();
        assert_eq!(merkle_root([7; 32], &[[8; 32]]), joined);
    }
}
