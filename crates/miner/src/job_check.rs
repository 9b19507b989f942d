//! Whether a job is one: every job is looked at before a device sees it, whoever built it.

use dovetail_commitment::coinbase::{CoinbaseError, parse_coinbase};
use dovetail_sv2::connection::PAYLOAD_BYTES_DEFAULT;

use crate::job::{EXTRANONCE_BYTES, JobParts};

/// Why no device gets a job, whoever built it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnfitJob {
    /// The upstream's extranonce is too small to be shared.
    #[error("the upstream grants {0} bytes of extranonce, {EXTRANONCE_BYTES} are needed")]
    Extranonce(usize),
    /// What is to be hashed is no coinbase of any block.
    #[error(transparent)]
    Coinbase(#[from] CoinbaseError),
    /// The coinbase is written with its witness.
    #[error("the coinbase is written with its witness")]
    Witness,
    /// The message that brings it to devices would be too long for them.
    #[error("the job has {0} bytes, devices take {PAYLOAD_BYTES_DEFAULT}")]
    TooLong(usize),
}

/// Looks at a job whose coinbase begins with `prefix` up to the part of the extranonce that devices share.
pub(crate) fn check(parts: &JobParts, prefix: &[u8]) -> Result<(), UnfitJob> {
    let bytes = message_bytes(parts, prefix.len());
    if bytes > PAYLOAD_BYTES_DEFAULT {
        return Err(UnfitJob::TooLong(bytes));
    }
    let coinbase = parse_coinbase(prefix, &[0; EXTRANONCE_BYTES], &parts.coinbase_suffix)?;
    // Its hash would not be the one that a block commits to.
    if coinbase.input.iter().any(|input| !input.witness.is_empty()) {
        return Err(UnfitJob::Witness);
    }
    Ok(())
}

/// Bytes of `NewExtendedMiningJob`, in which extended channels get the job: its fixed fields, the path, and the two
/// parts of the coinbase with their lengths.
fn message_bytes(parts: &JobParts, prefix_bytes: usize) -> usize {
    const FIXED: usize = 4 + 4 + 1 + 4 + 4 + 1;
    let path = 1 + 32 * parts.merkle_path.len();
    FIXED + path + 2 + prefix_bytes + 2 + parts.coinbase_suffix.len()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::job::HashJob;
    use bitcoin::consensus::serialize;
    use bitcoin::{
        Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
        transaction,
    };
    use tokio::sync::mpsc;

    /// A coinbase with this script and room for `extranonce_bytes` behind it, before and after the extranonce.
    pub(crate) fn coinbase(script: &[u8], extranonce_bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let script_sig = [script, &vec![0; extranonce_bytes]].concat();
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from_bytes(script_sig),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_int_btc(50),
                script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
            }],
        };
        let bytes = serialize(&transaction);
        // Version, number of inputs, outpoint, length of the script.
        let before = 4 + 1 + 36 + 1 + script.len();
        (
            bytes[..before].to_vec(),
            bytes[before + extranonce_bytes..].to_vec(),
        )
    }

    /// The parts of a job on a tip, whose upstream's part of the extranonce is `[9; 4]`.
    pub(crate) fn parts(tip: u8, extranonce_size: usize) -> JobParts {
        let (coinbase_prefix, coinbase_suffix) = coinbase(&[1, 2], 4 + extranonce_size);
        JobParts {
            upstream_job_id: Some(7),
            version: 0x2000_0000,
            version_rolling: true,
            prev_hash: [tip; 32],
            min_ntime: 1_000_000,
            nbits: 0x1900_ffff,
            coinbase_prefix,
            coinbase_suffix,
            merkle_path: vec![],
            extranonce_prefix: vec![9; 4],
            extranonce_size,
            target: [0xff; 32],
            blocks: None,
        }
    }

    fn job(change: impl FnOnce(&mut JobParts)) -> Result<HashJob, UnfitJob> {
        let mut parts = parts(1, 8);
        change(&mut parts);
        HashJob::new(1, parts, mpsc::channel(1).0)
    }

    fn with_script(bytes: usize) -> impl FnOnce(&mut JobParts) {
        move |parts| {
            let room = bytes - 12;
            (parts.coinbase_prefix, parts.coinbase_suffix) = coinbase(&vec![1; room], 12);
        }
    }

    #[test]
    fn what_no_block_could_have_as_its_coinbase_is_no_job() {
        assert!(job(|_| {}).is_ok());
        assert!(job(with_script(100)).is_ok());
        for (unfit, change) in [
            (
                CoinbaseError::ScriptSig,
                Box::new(with_script(101)) as Box<dyn FnOnce(&mut JobParts)>,
            ),
            (
                CoinbaseError::TrailingBytes,
                Box::new(|parts: &mut JobParts| parts.coinbase_suffix.push(0)),
            ),
            (
                CoinbaseError::NotATransaction,
                Box::new(|parts: &mut JobParts| {
                    parts.coinbase_suffix.pop();
                }),
            ),
            (
                CoinbaseError::NotATransaction,
                Box::new(|parts: &mut JobParts| parts.coinbase_prefix = vec![0; 65_400]),
            ),
            (
                CoinbaseError::NotACoinbase,
                // It spends something.
                Box::new(|parts: &mut JobParts| parts.coinbase_prefix[5] = 1),
            ),
        ] {
            assert_eq!(job(change).unwrap_err(), UnfitJob::Coinbase(unfit));
        }
    }

    #[test]
    fn a_coinbase_that_is_written_with_its_witness_is_no_job() {
        let with_witness = |parts: &mut JobParts| {
            let (prefix, suffix) = (&mut parts.coinbase_prefix, &mut parts.coinbase_suffix);
            // Marker and flag behind the version, and one item of 32 bytes before the lock time.
            prefix.splice(4..4, [0, 1]);
            let at = suffix.len() - 4;
            suffix.splice(at..at, [[1, 32].as_slice(), &[0; 32]].concat());
        };
        assert_eq!(job(with_witness).unwrap_err(), UnfitJob::Witness);
    }

    #[test]
    fn a_job_that_devices_could_not_be_told_of_is_none() {
        // A long payout list fits ..
        let outputs = |bytes: usize| {
            move |parts: &mut JobParts| {
                let output = TxOut {
                    value: Amount::ZERO,
                    script_pubkey: ScriptBuf::from_bytes(vec![0x51; bytes]),
                };
                let (_, suffix) = coinbase(&[1, 2], 12);
                let (sequence, rest) = suffix.split_at(4);
                let locktime = &rest[rest.len() - 4..];
                parts.coinbase_suffix = [sequence, &[1], &serialize(&output), locktime].concat();
            }
        };
        let fixed = job(outputs(60_000)).unwrap();
        let bytes = message_bytes(fixed.parts(), fixed.coinbase_prefix().len()) - 60_000;
        let room = PAYLOAD_BYTES_DEFAULT - bytes;
        assert!(job(outputs(room)).is_ok());
        // .. until the message is longer than any that devices have to take.
        assert_eq!(
            job(outputs(room + 1)).unwrap_err(),
            UnfitJob::TooLong(PAYLOAD_BYTES_DEFAULT + 1)
        );
        let path = |parts: &mut JobParts| parts.coinbase_prefix = vec![0; 65_500];
        assert!(matches!(job(path), Err(UnfitJob::TooLong(_))));
    }
}
