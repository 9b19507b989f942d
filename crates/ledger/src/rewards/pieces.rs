//! What shows the shares of a slice, many to a row of `slice_shares`: a merkle path that several of them have is kept once, and
//! what their coinbases have in common is left to Postgres, which compresses long rows.

use std::collections::BTreeMap;

use dovetail_rewards::{
    AccountId, CountedShare, HEADER_BYTES, MERKLE_PATH_MAX, SHOWN_COINBASE_BYTES_MAX, ShareId,
    ShareProof, Weight,
};
use dovetail_units::Work;

/// The first byte of each piece.
const VERSION: u8 = 1;
/// A piece ends once it has so many bytes: less is read in vain for one share, and more is held in memory.
const PIECE_BYTES: usize = 256 * 1_024;
/// And once it has so many shares.
const PIECE_SHARES_MAX: usize = 4_096;

/// A share of a slice, and what shows it, if that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptShare {
    pub(super) account: AccountId,
    pub(super) counted: CountedShare,
    pub(super) proof: Option<ShareProof>,
}

/// Shares as one row has them.
pub(super) struct Piece {
    pub(super) shares: i32,
    pub(super) bytes: Vec<u8>,
}

/// Puts shares into as few pieces as their bounds allow, in their order.
pub(super) fn pieces(shares: &[KeptShare]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut writer = Writer::default();
    for share in shares {
        writer.add(share);
        if writer.shares >= PIECE_SHARES_MAX || writer.entries.len() >= PIECE_BYTES {
            pieces.push(std::mem::take(&mut writer).end());
        }
    }
    if writer.shares > 0 {
        pieces.push(writer.end());
    }
    pieces
}

/// Entries first, so that what they have in common comes early; then the paths.
#[derive(Default)]
struct Writer<'a> {
    shares: usize,
    entries: Vec<u8>,
    paths: BTreeMap<&'a [[u8; 32]], u16>,
}

impl<'a> Writer<'a> {
    fn add(&mut self, share: &'a KeptShare) {
        self.shares += 1;
        let entries = &mut self.entries;
        let account = share.account.as_bytes();
        entries.push(u8::try_from(account.len()).expect("an account has at most 255 bytes"));
        entries.extend_from_slice(account);
        entries.extend_from_slice(&share.counted.encode());
        entries.push(u8::from(share.proof.is_some()));
        let Some(proof) = &share.proof else { return };
        let next = u16::try_from(self.paths.len()).expect("at most as many paths as shares");
        let path = *self.paths.entry(&proof.merkle_path).or_insert(next);
        entries.extend_from_slice(&path.to_le_bytes());
        entries.extend_from_slice(&proof.work.get().to_le_bytes());
        entries.extend_from_slice(&proof.value_sat.to_le_bytes());
        entries.extend_from_slice(&proof.reference_sat.to_le_bytes());
        entries.extend_from_slice(&proof.header);
        let coinbase = u16::try_from(proof.coinbase.len());
        entries.extend_from_slice(
            &coinbase
                .expect("at most 16 KiB, as it was checked")
                .to_le_bytes(),
        );
        entries.extend_from_slice(&proof.coinbase);
    }

    /// Version, the length of the entries, these, then each path behind its length.
    fn end(self) -> Piece {
        let mut bytes = vec![VERSION];
        let length = u32::try_from(self.entries.len()).expect("bounded by PIECE_BYTES and a share");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.entries);
        let mut paths: Vec<_> = self.paths.into_iter().collect();
        paths.sort_unstable_by_key(|(_, number)| *number);
        for (path, _) in paths {
            bytes.push(u8::try_from(path.len()).expect("at most 16 nodes, as it was checked"));
            bytes.extend_from_slice(path.as_flattened());
        }
        Piece {
            shares: i32::try_from(self.shares).expect("at most PIECE_SHARES_MAX"),
            bytes,
        }
    }
}

/// The shares of a piece, in their order; `None` if it is none.
pub(super) fn read(piece: &[u8]) -> Option<Vec<KeptShare>> {
    let ([version], rest) = piece.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (mut entries, mut rest) = rest.split_at_checked(length)?;
    if *version != VERSION {
        return None;
    }
    let mut paths = Vec::new();
    while let Some((&nodes, after)) = rest.split_first() {
        if usize::from(nodes) > MERKLE_PATH_MAX {
            return None;
        }
        let (path, after) = after.split_at_checked(32 * usize::from(nodes))?;
        paths.push(path.as_chunks().0.to_vec());
        rest = after;
    }
    let mut shares = Vec::new();
    while !entries.is_empty() {
        shares.push(read_share(&mut entries, &paths)?);
    }
    Some(shares)
}

fn read_share(entries: &mut &[u8], paths: &[Vec<[u8; 32]>]) -> Option<KeptShare> {
    let [length] = take(entries)?;
    let (account, rest) = entries.split_at_checked(usize::from(length))?;
    *entries = rest;
    let account = AccountId::new(account).ok()?;
    let counted = CountedShare {
        id: ShareId(take(entries)?),
        weight: Weight::new(u128::from_le_bytes(take(entries)?)).ok()?,
    };
    let proof = match take(entries)? {
        [0] => None,
        [1] => Some(read_proof(entries, paths)?),
        _ => return None,
    };
    Some(KeptShare {
        account,
        counted,
        proof,
    })
}

fn read_proof(entries: &mut &[u8], paths: &[Vec<[u8; 32]>]) -> Option<ShareProof> {
    let path = u16::from_le_bytes(take(entries)?);
    let work = Work::new(u128::from_le_bytes(take(entries)?));
    let value_sat = u64::from_le_bytes(take(entries)?);
    let reference_sat = u64::from_le_bytes(take(entries)?);
    let header: [u8; HEADER_BYTES] = take(entries)?;
    let length = usize::from(u16::from_le_bytes(take(entries)?));
    let (coinbase, rest) = entries.split_at_checked(length)?;
    *entries = rest;
    (length <= SHOWN_COINBASE_BYTES_MAX).then_some(())?;
    Some(ShareProof {
        work,
        value_sat,
        reference_sat,
        header,
        merkle_path: paths.get(usize::from(path))?.clone(),
        coinbase: coinbase.to_vec(),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn shares(of: usize, coinbase: usize) -> Vec<KeptShare> {
        let share = |n: usize| KeptShare {
            account: AccountId::new(format!("miner{}", n % 7)).unwrap(),
            counted: CountedShare {
                id: ShareId(u128::try_from(n).unwrap().to_le_bytes()),
                weight: Weight::new(n as u128).unwrap(),
            },
            proof: (n % 5 != 4).then(|| ShareProof {
                work: Work::new(n as u128),
                value_sat: 1,
                reference_sat: 2,
                header: [n as u8; HEADER_BYTES],
                merkle_path: vec![[(n % 3) as u8; 32]; n % 3],
                coinbase: vec![n as u8; coinbase],
            }),
        };
        (0..of).map(share).collect()
    }

    #[test]
    fn shares_are_read_as_they_were_kept_however_many_and_long_they_are() {
        for (of, coinbase) in [
            (0, 9),
            (1, 0),
            (100, 250),
            (9_000, 3),
            (50, SHOWN_COINBASE_BYTES_MAX),
        ] {
            let given = shares(of, coinbase);
            let pieces = pieces(&given);
            let sum: i32 = pieces.iter().map(|piece| piece.shares).sum();
            assert_eq!(usize::try_from(sum).unwrap(), of);
            let read: Vec<KeptShare> = pieces
                .iter()
                .flat_map(|piece| {
                    assert!(piece.bytes.len() < PIECE_BYTES + 64 * 1_024);
                    read(&piece.bytes).unwrap()
                })
                .collect();
            assert_eq!(read, given);
        }
    }

    proptest! {
        #[test]
        fn other_bytes_are_no_piece_and_no_panic(bytes in vec(any::<u8>(), 0..300), at: prop::sample::Index) {
            let _ = read(&bytes);
            let [piece] = &pieces(&shares(20, 30))[..] else { unreachable!() };
            let mut changed = piece.bytes.clone();
            changed[at.index(piece.bytes.len())] ^= 1;
            let _ = read(&changed);
            prop_assert!(read(&piece.bytes[..at.index(piece.bytes.len())]).is_none_or(|read| read.len() < 20));
        }
    }
}
