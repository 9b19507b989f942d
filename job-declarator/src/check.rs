//! What a declared job must be: a coinbase within bounds that pays the pool all it takes in, and a
//! commitment that is well-formed or absent.

use bitcoin::{ScriptBuf, Transaction};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::{CoinbaseError, find_commitment, parse_coinbase};

/// The longest extranonce that Sv2 knows.
const EXTRANONCE_BYTES_MAX: usize = 32;

/// Why a declaration is refused, with the code that the miner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the coinbase: {0}")]
    Coinbase(#[from] CoinbaseError),
    #[error("the extranonce does not fit the coinbase's script")]
    Extranonce,
    #[error("the coinbase does not pay the pool everything")]
    Unpaid,
    #[error("no such batch was registered by this worker, or it is spent or expired")]
    Batch,
}

impl Refusal {
    /// The error code of `DeclareMiningJob.Error`.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Coinbase(_) | Self::Extranonce => "invalid-coinbase-tx",
            Self::Unpaid => "invalid-job-param-value-coinbase_tx_outputs",
            Self::Batch => "invalid-batch-commitment",
        }
    }
}

/// A coinbase that was checked.
#[derive(Debug, Clone)]
pub(crate) struct CheckedCoinbase {
    /// What it pays the pool, in satoshi.
    pub(crate) pool_value_sat: u64,
    /// The batch it commits to.
    pub(crate) batch_root: Option<BatchRoot>,
}

/// Checks a declared coinbase.
pub(crate) fn check_coinbase(
    prefix: &[u8],
    suffix: &[u8],
    payout_script: &ScriptBuf,
) -> Result<CheckedCoinbase, Refusal> {
    let length = extranonce_len(prefix).ok_or(Refusal::Extranonce)?;
    let transaction = parse_coinbase(prefix, &vec![0; length], suffix)?;
    let pool_value_sat = pool_value(&transaction, payout_script).ok_or(Refusal::Unpaid)?;
    Ok(CheckedCoinbase {
        pool_value_sat,
        batch_root: find_commitment(&transaction.output)?,
    })
}

/// What all outputs of the pool's script are worth, if that is everything and not nothing.
fn pool_value(transaction: &Transaction, payout_script: &ScriptBuf) -> Option<u64> {
    let mut pool = 0_u64;
    for output in &transaction.output {
        let value = output.value.to_sat();
        if output.script_pubkey == *payout_script {
            pool = pool.checked_add(value)?;
        } else if value > 0 {
            return None;
        }
    }
    (pool > 0).then_some(pool)
}

/// How many bytes the extranonce has: what the script's length promises beyond the prefix's end.
pub(crate) fn extranonce_len(prefix: &[u8]) -> Option<usize> {
    // Version, then marker and flag where the serialisation has a witness.
    let after_version = prefix.get(4..)?;
    let inputs = match after_version {
        [0, 1, rest @ ..] => rest,
        rest => rest,
    };
    // One input: its count, the outpoint, the script's length in one byte (at most 100).
    let (&count, rest) = inputs.split_first()?;
    let (&script_len, script) = rest.get(36..)?.split_first()?;
    if count != 1 || script_len > 100 {
        return None;
    }
    let missing = usize::from(script_len).checked_sub(script.len())?;
    (missing <= EXTRANONCE_BYTES_MAX).then_some(missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::serialize;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, Sequence, TxIn, TxOut, Witness};
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

    fn check(outputs: Vec<TxOut>) -> Result<(u64, Option<BatchRoot>), Refusal> {
        let mut last = None;
        for witness in [false, true] {
            let (prefix, suffix) = split(outputs.clone(), witness);
            let checked = check_coinbase(&prefix, &suffix, &script())
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
        assert_eq!(check(vec![pays(50, other.clone())]), Err(Refusal::Unpaid));
        assert_eq!(
            check(vec![pays(49, script()), pays(1, other)]),
            Err(Refusal::Unpaid)
        );
        assert_eq!(check(vec![pays(0, script())]), Err(Refusal::Unpaid));
        let huge = u64::MAX / 2 + 1;
        assert_eq!(
            check(vec![pays(huge, script()), pays(huge, script())]),
            Err(Refusal::Unpaid)
        );
    }

    #[test]
    fn two_commitments_are_refused() {
        let output = commitment_output(BatchRoot::from_bytes([3; 32]));
        assert_eq!(
            check(vec![pays(1, script()), output.clone(), output]),
            Err(Refusal::Coinbase(CoinbaseError::Doubled))
        );
    }

    proptest! {
        #[test]
        fn hostile_prefixes_and_suffixes_never_panic(prefix: Vec<u8>, suffix: Vec<u8>) {
            let _ = check_coinbase(&prefix, &suffix, &script());
        }

        #[test]
        fn a_damaged_coinbase_never_panics(at in 0_usize..60, byte: u8, cut in 0_usize..60) {
            let (mut prefix, suffix) = split(vec![pays(50, script())], true);
            let len = prefix.len();
            prefix[at % len] = byte;
            let _ = check_coinbase(&prefix, &suffix, &script());
            let _ = check_coinbase(&prefix[..cut % len], &suffix, &script());
        }
    }
}
