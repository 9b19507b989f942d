//! BIP-340 tagged SHA-256: `sha256(sha256(tag) || sha256(tag) || message)`.

use bitcoin::hashes::{Hash, HashEngine, sha256};

/// The tagged hash of `parts`, one after the other. The parts are not delimited: callers give them
/// fixed lengths or put a length first.
pub fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256::Hash::hash(tag.as_bytes());
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_ref());
    engine.input(tag.as_ref());
    for part in parts {
        engine.input(part);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_construction_of_bip_340() {
        let tag = sha256::Hash::hash(b"BIP0340/challenge").to_byte_array();
        let expected = sha256::Hash::hash(&[&tag[..], &tag[..], b"abc"].concat()).to_byte_array();
        assert_eq!(tagged_hash("BIP0340/challenge", &[b"a", b"bc"]), expected);
    }
}
