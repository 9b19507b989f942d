//! A closed slice as it is published: a few bytes that bind its accounts, its sum, and all slices before it.

use std::fmt;

use dovetail_commitment::{HeaderHash, tagged_hash};

use crate::encoding::{DecodeError, Reader};
use crate::slice::SLICE_ACCOUNTS_MAX;
use crate::weight::Weight;

/// The version of the encoding.
const VERSION: u8 = 1;

/// The hash of a slice's header: it names the slice, the next slice's header has it, and it is the 32-byte message that
/// the pool signs (BIP-340, under the key that it signs receipts with). The tag makes it no other message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceRoot([u8; 32]);

impl SliceRoot {
    /// What the header of a pool's slice 0 has as the root before: so no slice of another pool or network, or of another
    /// ledger of this one, fits into the chain. `pool_key` is the x-only key that signs, `first_block` the hash of the
    /// network's block 0, and `ledger` any 32 bytes that were drawn for the ledger.
    pub fn genesis(pool_key: &[u8; 32], first_block: &HeaderHash, ledger: &[u8; 32]) -> Self {
        let parts: [&[u8]; 3] = [pool_key, first_block.as_bytes(), ledger];
        Self(tagged_hash("dovetail/reward-chain", &parts))
    }

    /// Names what these bytes name.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes: what is signed.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SliceRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for SliceRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SliceRoot({self})")
    }
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// What is published of a closed slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceHeader {
    /// Its number; the first is 0.
    pub number: u64,
    /// The root of the slice before; of slice 0, [`SliceRoot::genesis`].
    pub previous: SliceRoot,
    /// How many accounts it has: 1 to [`SLICE_ACCOUNTS_MAX`].
    pub accounts: u32,
    /// What they weigh together.
    pub total: Weight,
    /// The hash of the node at the top of its tree.
    pub top: [u8; 32],
}

/// Two headers are not neighbours in one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slice {number} does not follow on the one before")]
pub struct ChainBroken {
    /// The first slice that does not follow.
    pub number: u64,
}

impl SliceHeader {
    /// The bytes of the encoding.
    pub const ENCODED_LEN: usize = 1 + 8 + 32 + 4 + 16 + 32;

    /// Version, then the fields in their order, integers little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::ENCODED_LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(self.previous.as_bytes());
        bytes.extend_from_slice(&self.accounts.to_le_bytes());
        bytes.extend_from_slice(&self.total.to_bytes());
        bytes.extend_from_slice(&self.top);
        bytes
    }

    /// Reads what [`SliceHeader::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let header = Self {
            number: u64::from_le_bytes(reader.take()?),
            previous: SliceRoot(reader.take()?),
            accounts: u32::from_le_bytes(reader.take()?),
            total: reader.weight()?,
            top: reader.take()?,
        };
        reader.end()?;
        Ok(header)
    }

    /// Its hash.
    pub fn root(&self) -> SliceRoot {
        SliceRoot(tagged_hash("dovetail/reward-slice", &[&self.encode()]))
    }

    /// Whether this may be a slice of a chain, for itself: its number of accounts and its sum have their bounds.
    pub(crate) fn is_plausible(&self) -> bool {
        let accounts = usize::try_from(self.accounts).unwrap_or(usize::MAX);
        (1..=SLICE_ACCOUNTS_MAX).contains(&accounts) && self.total > Weight::ZERO
    }
}

/// Whether the headers follow on each other, from the oldest to the newest. Whoever knows the last root of such a chain
/// to be signed knows it of all.
///
/// # Errors
/// [`ChainBroken`] at the first that does not.
pub fn check_chain<'a>(
    headers: impl IntoIterator<Item = &'a SliceHeader>,
) -> Result<(), ChainBroken> {
    let mut before: Option<&SliceHeader> = None;
    for header in headers {
        let follows = before.is_none_or(|before| {
            before.number.checked_add(1) == Some(header.number) && before.root() == header.previous
        });
        if !follows || !header.is_plausible() {
            return Err(ChainBroken {
                number: header.number,
            });
        }
        before = Some(header);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn header(number: u64, previous: SliceRoot) -> SliceHeader {
        SliceHeader {
            number,
            previous,
            accounts: 3,
            total: Weight::new(1 << 90).unwrap(),
            top: [9; 32],
        }
    }

    fn chain(of: u64) -> Vec<SliceHeader> {
        let mut previous = SliceRoot::from_bytes([1; 32]);
        let next = |number| {
            let header = header(number, previous);
            previous = header.root();
            header
        };
        (0..of).map(next).collect()
    }

    #[test]
    fn a_chain_holds_only_unchanged_and_in_order() {
        let good = chain(5);
        assert_eq!(check_chain(&good), Ok(()));
        assert_eq!(check_chain(&good[2..]), Ok(()));
        assert_eq!(check_chain([]), Ok(()));
        let mut changed = good.clone();
        changed[1].total = Weight::new(7).unwrap();
        assert_eq!(check_chain(&changed), Err(ChainBroken { number: 2 }));
        let mut hole = good.clone();
        hole.remove(3);
        assert_eq!(check_chain(&hole), Err(ChainBroken { number: 4 }));
        let mut skipped = good.clone();
        skipped[4].number = 9;
        assert_eq!(check_chain(&skipped), Err(ChainBroken { number: 9 }));
        let mut empty = good;
        empty[4].accounts = 0;
        assert_eq!(check_chain(&empty), Err(ChainBroken { number: 4 }));
    }

    #[test]
    fn each_pool_network_and_ledger_begins_with_another_root() {
        let block = HeaderHash::from_bytes([2; 32]);
        let roots = [
            SliceRoot::genesis(&[1; 32], &block, &[3; 32]),
            SliceRoot::genesis(&[4; 32], &block, &[3; 32]),
            SliceRoot::genesis(&[1; 32], &HeaderHash::from_bytes([4; 32]), &[3; 32]),
            SliceRoot::genesis(&[1; 32], &block, &[4; 32]),
        ];
        for (n, root) in roots.iter().enumerate() {
            assert!(!roots[..n].contains(root));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_read_one_way_only(bytes in vec(any::<u8>(), 0..120)) {
            if let Ok(header) = SliceHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }

        #[test]
        fn a_header_survives_its_encoding_and_no_changed_one_does(at in 0..SliceHeader::ENCODED_LEN, mask in 1_u8.., cut in 0..SliceHeader::ENCODED_LEN) {
            let header = header(7, SliceRoot::from_bytes([1; 32]));
            let bytes = header.encode();
            prop_assert_eq!(bytes.len(), SliceHeader::ENCODED_LEN);
            prop_assert_eq!(SliceHeader::decode(&bytes), Ok(header));
            prop_assert_eq!(SliceHeader::decode(&bytes[..cut]), Err(DecodeError::Length));
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(SliceHeader::decode(&longer), Err(DecodeError::Length));
            let mut changed = bytes;
            changed[at] ^= mask;
            if let Ok(other) = SliceHeader::decode(&changed) {
                prop_assert_ne!(other.root(), header.root());
            }
        }
    }
}
