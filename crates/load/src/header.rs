//! The headers of one job: valid shares at two compressions of SHA-256 each. Nothing but the nonce changes from one to
//! the next, so that what precedes it is hashed once a job.

use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};

/// A target or a hash, little-endian as on the wire.
pub(crate) type Number = [u8; 32];

/// Bytes of a header before the last block of its first hash.
const HEAD_BYTES: usize = 64;
/// Bytes behind it, the nonce's four among them.
const TAIL_BYTES: usize = 16;
/// Headers that are tried for one share. A target that takes more is not for this generator.
const TRIES_MAX: u32 = 1 << 22;

/// What a header is made of, but for its nonce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderParts {
    pub(crate) version: u32,
    pub(crate) prev_hash: Number,
    pub(crate) merkle_root: Number,
    pub(crate) ntime: u32,
    pub(crate) nbits: u32,
}

/// Headers that are shares of one job.
pub(crate) struct Headers {
    head: sha256::HashEngine,
    tail: [u8; TAIL_BYTES],
    /// What the chain asks of a block.
    network: Number,
}

impl Headers {
    pub(crate) fn new(parts: &HeaderParts) -> Self {
        let mut head = [0; HEAD_BYTES];
        let mut tail = [0; TAIL_BYTES];
        head[..4].copy_from_slice(&parts.version.to_le_bytes());
        head[4..36].copy_from_slice(&parts.prev_hash);
        head[36..].copy_from_slice(&parts.merkle_root[..28]);
        tail[..4].copy_from_slice(&parts.merkle_root[28..]);
        tail[4..8].copy_from_slice(&parts.ntime.to_le_bytes());
        tail[8..12].copy_from_slice(&parts.nbits.to_le_bytes());
        let mut engine = sha256::HashEngine::default();
        engine.input(&head);
        let network = bitcoin::CompactTarget::from_consensus(parts.nbits);
        Self {
            head: engine,
            tail,
            network: bitcoin::Target::from_compact(network).to_le_bytes(),
        }
    }

    /// The first nonce from `nonce` on that makes a share of this target and no block: a block would change the tip in the middle
    /// of a measurement.
    pub(crate) fn share(&self, nonce: u32, target: &Number) -> Option<u32> {
        (0..TRIES_MAX)
            .map(|step| nonce.wrapping_add(step))
            .find(|nonce| {
                let hash = self.hash(*nonce);
                meets(&hash, target) && !meets(&hash, &self.network)
            })
    }

    fn hash(&self, nonce: u32) -> Number {
        let mut tail = self.tail;
        tail[12..].copy_from_slice(&nonce.to_le_bytes());
        let mut engine = self.head.clone();
        engine.input(&tail);
        let first = sha256::Hash::from_engine(engine);
        first.hash_again().to_byte_array()
    }
}

/// The root over the coinbase and the path beside it.
pub(crate) fn merkle_root(coinbase: &[u8], path: &[Number]) -> Number {
    let mut root = sha256d::Hash::hash(coinbase).to_byte_array();
    for beside in path {
        let mut engine = sha256d::Hash::engine();
        engine.input(&root);
        engine.input(beside);
        root = sha256d::Hash::from_engine(engine).to_byte_array();
    }
    root
}

fn meets(hash: &Number, target: &Number) -> bool {
    hash.iter().rev().le(target.iter().rev())
}

#[cfg(test)]
mod tests {
    use bitcoin::block::{Header, Version};
    use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};

    use super::*;

    /// Half of all hashes are blocks, as on regtest.
    const REGTEST: u32 = 0x207f_ffff;

    fn parts() -> HeaderParts {
        HeaderParts {
            version: 0x2000_0000,
            prev_hash: [3; 32],
            merkle_root: [5; 32],
            ntime: 1_700_000_000,
            nbits: REGTEST,
        }
    }

    #[test]
    fn a_hash_is_that_of_the_whole_header() {
        let parts = parts();
        let header = Header {
            version: Version::from_consensus(parts.version.cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(parts.prev_hash),
            merkle_root: TxMerkleNode::from_byte_array(parts.merkle_root),
            time: parts.ntime,
            bits: CompactTarget::from_consensus(parts.nbits),
            nonce: 42,
        };
        let hash = Headers::new(&parts).hash(42);
        assert_eq!(hash, header.block_hash().to_byte_array());
    }

    #[test]
    fn a_share_meets_its_target_and_is_no_block() {
        let headers = Headers::new(&parts());
        let mut easy = [0xff; 32];
        easy[31] = 0xbf;
        for start in 0..50 {
            let nonce = headers.share(start * 100, &easy).unwrap();
            let top = headers.hash(nonce)[31];
            assert!((0x80..=0xbf).contains(&top), "{top:#x}");
        }
    }

    #[test]
    fn a_target_that_cannot_be_met_ends_the_search() {
        // What is not a block on this chain is above it.
        let headers = Headers::new(&HeaderParts {
            nbits: 0x1d00_ffff,
            ..parts()
        });
        assert_eq!(headers.share(0, &[0; 32]), None);
    }

    #[test]
    fn numbers_are_compared_from_their_last_byte() {
        let (mut low, mut high) = ([0xff; 32], [0; 32]);
        low[31] = 1;
        high[31] = 2;
        assert!(meets(&low, &high) && !meets(&high, &low) && meets(&low, &low));
    }

    #[test]
    fn a_root_without_a_path_is_the_coinbases_hash() {
        let own = sha256d::Hash::hash(b"coinbase").to_byte_array();
        assert_eq!(merkle_root(b"coinbase", &[]), own);
        let pair = [own, [9; 32]].concat();
        let root = sha256d::Hash::hash(&pair).to_byte_array();
        assert_eq!(merkle_root(b"coinbase", &[[9; 32]]), root);
    }
}
