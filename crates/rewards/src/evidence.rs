//! The shares that an account's weight in a slice is made of, bound by one hash that grows with each share: so the pool
//! keeps 32 bytes an account while a slice is open, and can later show no other list.

use std::collections::BTreeSet;
use std::fmt;

use dovetail_commitment::{HeaderHash, tagged_hash};

use crate::account::AccountId;
use crate::encoding::{DecodeError, Reader};
use crate::weight::{Weight, WeightTooLarge};

/// The first half of a share's header hash in the byte order of the header, as the ledger keeps it: the low digits, which
/// no target makes zero. Another header with the same half would take 2^128 hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub [u8; 16]);

impl ShareId {
    /// Of a header.
    pub fn of(header: &HeaderHash) -> Self {
        let (half, _) = header.as_bytes().split_first_chunk().expect("32 bytes");
        Self(*half)
    }
}

/// A share, as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedShare {
    /// Which it is.
    pub id: ShareId,
    /// [`ShareTerms::weight`](crate::ShareTerms::weight) of it.
    pub weight: Weight,
}

impl CountedShare {
    /// The bytes of the encoding.
    pub const ENCODED_LEN: usize = 32;

    /// The id, then the weight, little-endian.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut bytes = [0; Self::ENCODED_LEN];
        bytes[..16].copy_from_slice(&self.id.0);
        bytes[16..].copy_from_slice(&self.weight.to_bytes());
        bytes
    }
}

/// Reads a list of encoded shares, and nothing else.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_shares(bytes: &[u8]) -> Result<Vec<CountedShare>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut shares = Vec::with_capacity(bytes.len() / CountedShare::ENCODED_LEN);
    while !reader.is_at_end() {
        shares.push(CountedShare {
            id: ShareId(reader.take()?),
            weight: reader.weight()?,
        });
    }
    Ok(shares)
}

/// The hash over an account's shares in a slice, in the order in which they were accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Evidence([u8; 32]);

impl Evidence {
    /// Before the first share of the account in the slice of this number.
    pub fn none(slice: u64, account: &AccountId) -> Self {
        let parts: [&[u8]; 2] = [&slice.to_le_bytes(), account.as_bytes()];
        Self(tagged_hash("dovetail/reward-evidence", &parts))
    }

    /// After one share more.
    #[must_use]
    pub fn and(self, share: &CountedShare) -> Self {
        let parts: [&[u8]; 2] = [&self.0, &share.encode()];
        Self(tagged_hash("dovetail/reward-share", &parts))
    }

    /// From where it was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evidence(")?;
        crate::chain::write_hex(f, &self.0)?;
        f.write_str(")")
    }
}

/// What an account did in a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The weight of its shares together; never nothing.
    pub weight: Weight,
    /// How many shares.
    pub shares: u64,
    /// The hash over them.
    pub evidence: Evidence,
}

/// A list of shares is not what a tally was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Another number of shares.
    #[error("the list has another number of shares")]
    Count,
    /// They weigh more or less.
    #[error("the shares do not add up to the weight")]
    Sum,
    /// A share stands in the list twice.
    #[error("a share is counted twice")]
    Repeated,
    /// Other shares, or another order.
    #[error("the hash is over other shares")]
    Hash,
}

impl Tally {
    /// Before the first share.
    pub(crate) fn none(slice: u64, account: &AccountId) -> Self {
        Self {
            weight: Weight::ZERO,
            shares: 0,
            evidence: Evidence::none(slice, account),
        }
    }

    /// With one share more.
    ///
    /// # Errors
    /// [`WeightTooLarge`].
    pub(crate) fn with(self, share: &CountedShare) -> Result<Self, WeightTooLarge> {
        Ok(Self {
            weight: self.weight.checked_add(share.weight)?,
            // Each share takes a hash to find, so there are fewer than 2^64.
            shares: self.shares.saturating_add(1),
            evidence: self.evidence.and(share),
        })
    }

    /// Whether the account had exactly these shares in the slice of this number, in this order. O(n log n).
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn check(
        &self,
        slice: u64,
        account: &AccountId,
        shares: &[CountedShare],
    ) -> Result<(), EvidenceError> {
        if u64::try_from(shares.len()) != Ok(self.shares) {
            return Err(EvidenceError::Count);
        }
        let ids: BTreeSet<_> = shares.iter().map(|share| share.id).collect();
        if ids.len() != shares.len() {
            return Err(EvidenceError::Repeated);
        }
        let mut found = Self::none(slice, account);
        for share in shares {
            found = found.with(share).map_err(|_| EvidenceError::Sum)?;
        }
        if found.weight != self.weight {
            return Err(EvidenceError::Sum);
        }
        if found.evidence != self.evidence {
            return Err(EvidenceError::Hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn share(n: u8, weight: u128) -> CountedShare {
        CountedShare {
            id: ShareId([n; 16]),
            weight: Weight::new(weight).unwrap(),
        }
    }

    fn tally(account: &AccountId, shares: &[CountedShare]) -> Tally {
        shares.iter().fold(Tally::none(7, account), |tally, share| {
            tally.with(share).unwrap()
        })
    }

    #[test]
    fn a_share_is_named_by_the_half_of_its_hash_that_no_target_makes_zero() {
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&[5; 16]);
        assert_eq!(ShareId::of(&HeaderHash::from_bytes(hash)), ShareId([5; 16]));
    }

    #[test]
    fn only_the_same_shares_of_the_same_account_and_slice_pass() {
        let [a, b] = ["a", "b"].map(|name| AccountId::new(name).unwrap());
        let shares = [share(1, 10), share(2, 20), share(3, 30)];
        let tally = tally(&a, &shares);
        assert_eq!(tally.check(7, &a, &shares), Ok(()));
        let check = |shares: &[CountedShare]| tally.check(7, &a, shares);
        assert_eq!(check(&shares[..2]), Err(EvidenceError::Count));
        let other = [share(1, 10), share(2, 20), share(3, 31)];
        assert_eq!(check(&other), Err(EvidenceError::Sum));
        let twice = [share(1, 10), share(1, 20), share(3, 30)];
        assert_eq!(check(&twice), Err(EvidenceError::Repeated));
        let order = [share(2, 20), share(1, 10), share(3, 30)];
        assert_eq!(check(&order), Err(EvidenceError::Hash));
        let moved = [share(1, 11), share(2, 19), share(3, 30)];
        assert_eq!(check(&moved), Err(EvidenceError::Hash));
        assert_eq!(tally.check(7, &b, &shares), Err(EvidenceError::Hash));
        assert_eq!(tally.check(8, &a, &shares), Err(EvidenceError::Hash));
        let huge = [share(1, Weight::MAX.get()), share(2, 1), share(3, 1)];
        assert_eq!(check(&huge), Err(EvidenceError::Sum));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_read_one_way_only(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(shares) = decode_shares(&bytes) {
                let again: Vec<u8> = shares.iter().flat_map(CountedShare::encode).collect();
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn a_list_survives_its_encoding(parts in vec((any::<[u8; 16]>(), 0_u128..=1 << 120), 0..20), cut in 1_usize..32) {
            let shares: Vec<_> = parts
                .into_iter()
                .map(|(id, weight)| CountedShare { id: ShareId(id), weight: Weight::new(weight).unwrap() })
                .collect();
            let bytes: Vec<u8> = shares.iter().flat_map(CountedShare::encode).collect();
            prop_assert_eq!(decode_shares(&bytes), Ok(shares));
            if !bytes.is_empty() {
                prop_assert_eq!(decode_shares(&bytes[..bytes.len() - cut]), Err(DecodeError::Length));
            }
        }
    }
}
