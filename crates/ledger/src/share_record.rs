//! A share as the log keeps it: numbers little-endian, in a fixed order, behind a byte for the format.

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{ShareProof, Weight};
use dovetail_units::{ShareCredit, Work};

use crate::shares::{ACCOUNT_BYTES_MAX, Share};

/// The first byte of each record. Another release that changes what follows takes another number.
const FORMAT: u8 = 2;
/// The same of a record that has the account's length before the account, and behind it what shows the share.
const FORMAT_SHOWN: u8 = 3;
const IS_BLOCK: u8 = 1;
const IS_COINBASE_ONLY: u8 = 2;
const IS_INFERENCE: u8 = 4;
const FLAGS: u8 = IS_BLOCK | IS_COINBASE_ONLY | IS_INFERENCE;
/// Format, flags, height, time, header hash, work, credit, weight, reward.
const FIXED_BYTES: usize = 1 + 1 + 4 + 8 + 32 + 16 + 16 + 16 + 8;

/// What the ledger keeps of a share. Its batch, if it had one, was settled before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedShare {
    pub(crate) header_hash: HeaderHash,
    pub(crate) height: u32,
    /// When it was found good, in seconds since 1970.
    pub(crate) unix: u64,
    pub(crate) account: String,
    pub(crate) work: Work,
    pub(crate) credit: ShareCredit,
    pub(crate) weight: Weight,
    pub(crate) reward_sat: u64,
    pub(crate) is_block: bool,
    pub(crate) is_coinbase_only: bool,
    pub(crate) is_inference: bool,
    /// What shows it, if that is kept.
    pub(crate) proof: Option<Box<ShareProof>>,
}

impl LoggedShare {
    pub(crate) fn new(share: &Share, unix: u64) -> Self {
        Self {
            header_hash: share.header_hash,
            height: share.height,
            unix,
            account: share.account.clone(),
            work: share.work,
            credit: share.credit,
            weight: share.weight,
            reward_sat: share.reward_sat,
            is_block: share.is_block,
            is_coinbase_only: share.is_coinbase_only,
            is_inference: share.batch.is_some(),
            proof: share.proof.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(self.is_block, IS_BLOCK)
            | flag(self.is_coinbase_only, IS_COINBASE_ONLY)
            | flag(self.is_inference, IS_INFERENCE);
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.account.len());
        let format = match self.proof {
            Some(_) => FORMAT_SHOWN,
            None => FORMAT,
        };
        bytes.extend_from_slice(&[format, flags]);
        bytes.extend_from_slice(&self.height.to_le_bytes());
        bytes.extend_from_slice(&self.unix.to_le_bytes());
        bytes.extend_from_slice(self.header_hash.as_bytes());
        bytes.extend_from_slice(&self.work.get().to_le_bytes());
        bytes.extend_from_slice(&self.credit.get().to_le_bytes());
        bytes.extend_from_slice(&self.weight.to_bytes());
        bytes.extend_from_slice(&self.reward_sat.to_le_bytes());
        if let Some(proof) = &self.proof {
            let length = u8::try_from(self.account.len()).expect("checked before it was logged");
            bytes.push(length);
            bytes.extend_from_slice(self.account.as_bytes());
            bytes.extend_from_slice(&proof.encode());
        } else {
            bytes.extend_from_slice(self.account.as_bytes());
        }
        bytes
    }

    /// Whether another release wrote the record, in a format that this one does not know.
    pub(crate) fn is_of_another_release(record: &[u8]) -> bool {
        record
            .first()
            .is_some_and(|format| ![FORMAT, FORMAT_SHOWN].contains(format))
    }

    /// `None` if this release does not know what it says.
    pub(crate) fn decode(record: &[u8]) -> Option<Self> {
        let ([format, flags], rest) = record.split_first_chunk()?;
        let (height, rest) = rest.split_first_chunk()?;
        let (unix, rest) = rest.split_first_chunk()?;
        let (header_hash, rest) = rest.split_first_chunk()?;
        let (work, rest) = rest.split_first_chunk()?;
        let (credit, rest) = rest.split_first_chunk()?;
        let (weight, rest) = rest.split_first_chunk()?;
        let (reward_sat, rest) = rest.split_first_chunk()?;
        let (account, proof) = match *format {
            FORMAT => (rest, None),
            FORMAT_SHOWN => {
                let (&length, rest) = rest.split_first()?;
                let (account, proof) = rest.split_at_checked(usize::from(length))?;
                (account, Some(Box::new(ShareProof::decode(proof).ok()?)))
            }
            _ => return None,
        };
        let credit = u128::from_le_bytes(*credit);
        let weight = Weight::new(u128::from_le_bytes(*weight)).ok()?;
        if flags & !FLAGS != 0 || credit > ShareCredit::MAX.get() {
            return None;
        }
        let account = std::str::from_utf8(account).ok()?;
        let height = u32::from_le_bytes(*height);
        if account.is_empty() || account.len() > ACCOUNT_BYTES_MAX || i32::try_from(height).is_err()
        {
            return None;
        }
        Some(Self {
            header_hash: HeaderHash::from_bytes(*header_hash),
            height,
            unix: u64::from_le_bytes(*unix),
            account: account.to_owned(),
            work: Work::new(u128::from_le_bytes(*work)),
            credit: ShareCredit::new(credit),
            weight,
            reward_sat: u64::from_le_bytes(*reward_sat),
            is_block: flags & IS_BLOCK != 0,
            is_coinbase_only: flags & IS_COINBASE_ONLY != 0,
            is_inference: flags & IS_INFERENCE != 0,
            proof,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proofs() -> impl Strategy<Value = Option<Box<ShareProof>>> {
        let terms = (any::<u128>(), any::<u64>(), any::<u64>());
        let bytes = (
            any::<[u8; 32]>(),
            0_usize..17,
            prop::collection::vec(any::<u8>(), 0..300),
        );
        let proof = (terms, bytes).prop_map(
            |((work, value_sat, reference_sat), (node, nodes, coinbase))| {
                let mut header = [7; 80];
                header[..32].copy_from_slice(&node);
                Box::new(ShareProof {
                    work: Work::new(work),
                    value_sat,
                    reference_sat,
                    header,
                    merkle_path: vec![node; nodes],
                    coinbase,
                })
            },
        );
        prop::option::of(proof)
    }

    fn shares() -> impl Strategy<Value = LoggedShare> {
        let flags = any::<[bool; 3]>();
        let numbers = (any::<[u8; 32]>(), 0..=i32::MAX as u32, any::<u64>());
        let sums = (any::<u128>(), 0..=ShareCredit::MAX.get());
        let rewards = (0..=Weight::MAX.get(), any::<u64>());
        (numbers, sums, rewards, flags, "[a-zé.]{1,120}", proofs()).prop_map(
            |(
                (hash, height, unix),
                (work, credit),
                (weight, reward_sat),
                flags,
                account,
                proof,
            )| {
                LoggedShare {
                    header_hash: HeaderHash::from_bytes(hash),
                    height,
                    unix,
                    account,
                    work: Work::new(work),
                    credit: ShareCredit::new(credit),
                    weight: Weight::new(weight).unwrap(),
                    reward_sat,
                    is_block: flags[0],
                    is_coinbase_only: flags[1],
                    is_inference: flags[2],
                    proof,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_logged_is_read_again(share in shares()) {
            prop_assert_eq!(LoggedShare::decode(&share.encode()), Some(share));
        }

        #[test]
        fn bytes_of_strangers_are_no_share_or_one_that_encodes_to_them(bytes: Vec<u8>) {
            if let Some(share) = LoggedShare::decode(&bytes) {
                prop_assert_eq!(share.encode(), bytes);
            }
        }

        #[test]
        fn a_record_that_is_cut_off_or_of_another_format_is_none(share in shares(), cut: prop::sample::Index) {
            let bytes = share.encode();
            prop_assert_eq!(LoggedShare::decode(&bytes[..cut.index(FIXED_BYTES + 1)]), None);
            let other = [&[FORMAT_SHOWN + 1][..], &bytes[1..]].concat();
            prop_assert_eq!(LoggedShare::decode(&other), None);
            prop_assert!(LoggedShare::is_of_another_release(&other));
        }
    }
}
