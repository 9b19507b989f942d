//! What a declared coinbase must be: a coinbase within bounds that pays the pool all it takes in,
//! with a commitment that is well-formed or absent.

use bitcoin::Transaction;
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::{CoinbaseError, find_commitment, parse_coinbase};
use dovetail_sv2::EXTRANONCE_BYTES_MAX;
use dovetail_templates::{Payout, height_of};
use dovetail_units::consensus::COINBASE_SCRIPT_BYTES_MAX;

/// Why a coinbase is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoinbaseRefusal {
    /// It is no coinbase within bounds, or its commitment is malformed or doubled.
    #[error("the coinbase: {0}")]
    Coinbase(#[from] CoinbaseError),
    /// The prefix's script and the extranonce do not fit together.
    #[error("the extranonce does not fit the coinbase's script")]
    Extranonce,
    /// Its script does not start with a height (BIP 34).
    #[error("the coinbase's script does not start with the height")]
    Height,
    /// It pays somebody else than the pool and those whom a payout list names, or nothing.
    #[error(
        "the coinbase must pay the pool's script everything that it pays, but for outputs of the token it was declared with"
    )]
    Unpaid,
}

/// A coinbase that was checked.
#[derive(Debug, Clone)]
pub struct CheckedCoinbase {
    /// With zeros for the extranonce.
    pub transaction: Transaction,
    /// What it pays the pool and those whom a payout list names, in satoshi; never 0.
    pub pool_value_sat: u64,
    /// The batch it commits to.
    pub batch_root: Option<BatchRoot>,
    /// The height of the block that it is for.
    pub height: u32,
}

/// Checks a coinbase that was declared as what stands before and behind its extranonce, in either
/// serialisation.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_coinbase(
    prefix: &[u8],
    suffix: &[u8],
    payout: &Payout,
) -> Result<CheckedCoinbase, CoinbaseRefusal> {
    let extranonce_len = extranonce_len(prefix).ok_or(CoinbaseRefusal::Extranonce)?;
    let transaction = parse_coinbase(prefix, &vec![0; extranonce_len], suffix)?;
    let script = transaction
        .input
        .first()
        .map(|input| input.script_sig.as_bytes());
    let height = script.and_then(height_of).ok_or(CoinbaseRefusal::Height)?;
    let pool_value_sat = payout
        .taken(&transaction.output, height)
        .ok_or(CoinbaseRefusal::Unpaid)?;
    let batch_root = find_commitment(&transaction.output)?;
    Ok(CheckedCoinbase {
        transaction,
        pool_value_sat,
        batch_root,
        height,
    })
}

/// How many bytes the extranonce has: what the script's length promises beyond the prefix's end.
fn extranonce_len(prefix: &[u8]) -> Option<usize> {
    // Version, then marker and flag where the serialisation has a witness.
    let after_version = prefix.get(4..)?;
    let inputs = match after_version {
        [0, 1, rest @ ..] => rest,
        rest => rest,
    };
    // One input: its count, the outpoint, the script's length in one byte.
    let (&count, rest) = inputs.split_first()?;
    let (&script_len, script) = rest.get(36..)?.split_first()?;
    if count != 1 || usize::from(script_len) > COINBASE_SCRIPT_BYTES_MAX {
        return None;
    }
    let missing = usize::from(script_len).checked_sub(script.len())?;
    (missing <= EXTRANONCE_BYTES_MAX).then_some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::serialize;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
    use dovetail_commitment::coinbase::commitment_output;
    use proptest::prelude::*;

    fn script() -> ScriptBuf {
        ScriptBuf::from(vec![0x51])
    }

    fn pays(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
        TxOut {
            value: Amount::from_sat(sat),
            script_pubkey,
        }
    }

    /// Prefix and suffix around 16 bytes of extranonce, with or without witness.
    fn split(outputs: Vec<TxOut>, witness: bool) -> (Vec<u8>, Vec<u8>) {
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from([vec![1, 101], vec![0; 16]].concat()),
                sequence: Sequence::MAX,
                witness: if witness {
                    Witness::from(vec![vec![0; 32]])
                } else {
                    Witness::new()
                },
            }],
            output: outputs,
        };
        let bytes = serialize(&transaction);
        let at = if witness {
            4 + 2 + 1 + 36 + 1 + 2
        } else {
            4 + 1 + 36 + 1 + 2
        };
        (bytes[..at].to_vec(), bytes[at + 16..].to_vec())
    }

    fn check(outputs: Vec<TxOut>) -> Result<(u64, Option<BatchRoot>), CoinbaseRefusal> {
        let mut last = None;
        for witness in [false, true] {
            let (prefix, suffix) = split(outputs.clone(), witness);
            let checked = check_coinbase(&prefix, &suffix, &Payout::one(script()))
                .map(|checked| (checked.pool_value_sat, checked.batch_root));
            assert!(
                last.is_none() || last == Some(checked),
                "both serialisations agree"
            );
            last = Some(checked);
        }
        last.unwrap()
    }

    #[test]
    fn a_coinbase_that_pays_the_pool_all_is_accepted_in_both_serialisations() {
        let root = BatchRoot::from_bytes([3; 32]);
        assert_eq!(check(vec![pays(50, script())]), Ok((50, None)));
        assert_eq!(
            check(vec![
                commitment_output(root),
                pays(20, script()),
                pays(30, script())
            ]),
            Ok((50, Some(root)))
        );
    }

    #[test]
    fn a_coinbase_that_pays_somebody_else_or_nobody_is_refused() {
        let other = ScriptBuf::from(vec![0x52]);
        assert_eq!(
            check(vec![pays(50, other.clone())]),
            Err(CoinbaseRefusal::Unpaid)
        );
        assert_eq!(
            check(vec![pays(49, script()), pays(1, other)]),
            Err(CoinbaseRefusal::Unpaid)
        );
        assert_eq!(check(vec![pays(0, script())]), Err(CoinbaseRefusal::Unpaid));
        let huge = u64::MAX / 2 + 1;
        assert_eq!(
            check(vec![pays(huge, script()), pays(huge, script())]),
            Err(CoinbaseRefusal::Unpaid)
        );
    }

    #[test]
    fn the_height_and_the_extranonce_are_read() {
        for witness in [false, true] {
            let (prefix, suffix) = split(vec![pays(50, script())], witness);
            let checked = check_coinbase(&prefix, &suffix, &Payout::one(script())).unwrap();
            assert_eq!((checked.height, extranonce_len(&prefix)), (101, Some(16)));
            // A byte more before the extranonce is one less of it.
            let longer = [&prefix[..], &[0]].concat();
            assert!(check_coinbase(&longer, &suffix, &Payout::one(script())).is_ok());
            assert_eq!(extranonce_len(&longer), Some(15));
        }
    }

    #[test]
    fn two_commitments_are_refused() {
        let output = commitment_output(BatchRoot::from_bytes([3; 32]));
        assert_eq!(
            check(vec![pays(1, script()), output.clone(), output]),
            Err(CoinbaseRefusal::Coinbase(CoinbaseError::Doubled))
        );
    }

    proptest! {
        #[test]
        fn hostile_prefixes_and_suffixes_never_panic(prefix: Vec<u8>, suffix: Vec<u8>) {
            let _ = check_coinbase(&prefix, &suffix, &Payout::one(script()));
        }

        #[test]
        fn a_damaged_coinbase_never_panics(at in 0_usize..60, byte: u8, cut in 0_usize..60) {
            let (mut prefix, suffix) = split(vec![pays(50, script())], true);
            let len = prefix.len();
            prefix[at % len] = byte;
            let _ = check_coinbase(&prefix, &suffix, &Payout::one(script()));
            let _ = check_coinbase(&prefix[..cut % len], &suffix, &Payout::one(script()));
        }
    }
}
