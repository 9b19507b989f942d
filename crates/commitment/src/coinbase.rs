//! The coinbase transaction as a carrier: the `OP_RETURN` output that commits to a batch, and
//! reading coinbases that strangers assembled, within bounds.

use bitcoin::consensus::Decodable;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, Instruction};
use bitcoin::{Amount, Transaction, TxOut};

use dovetail_units::consensus::COINBASE_SCRIPT_BYTES;

use crate::ids::BatchRoot;

/// What a commitment starts with.
pub const MAGIC: &[u8; 4] = b"DVTL";
/// The version of the commitment.
pub const VERSION: u8 = 1;
/// The largest coinbase that is looked at, in bytes. Real ones have a few hundred; large payout
/// lists a few ten thousand.
pub const COINBASE_BYTES_MAX: usize = 100_000;
/// The magic, the version, the root.
const COMMITMENT_BYTES: usize = 4 + 1 + 32;

/// Why a coinbase or its commitment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoinbaseError {
    /// More than [`COINBASE_BYTES_MAX`].
    #[error("the coinbase has more than {COINBASE_BYTES_MAX} bytes")]
    TooLong,
    /// The bytes are not one transaction.
    #[error("the coinbase is not a transaction")]
    NotATransaction,
    /// Bytes are left over behind the transaction.
    #[error("bytes are left over behind the coinbase")]
    TrailingBytes,
    /// Not exactly one input that spends nothing.
    #[error("the transaction is not a coinbase")]
    NotACoinbase,
    /// The input's script breaks the consensus limits.
    #[error("the coinbase's script must have 2 to 100 bytes")]
    ScriptSig,
    /// No output at all.
    #[error("the coinbase has no output")]
    NoOutput,
    /// Two outputs claim to commit.
    #[error("the coinbase commits twice")]
    Doubled,
    /// An output starts like a commitment but is none of version 1.
    #[error("the commitment is malformed")]
    Malformed,
    /// The commitment's output burns coins.
    #[error("the commitment's output must have value 0")]
    Value,
}

/// The output that commits to `root`: `OP_RETURN` with one push, value 0.
pub fn commitment_output(root: BatchRoot) -> TxOut {
    let mut data = [0; COMMITMENT_BYTES];
    data[..4].copy_from_slice(MAGIC);
    data[4] = VERSION;
    data[5..].copy_from_slice(root.as_bytes());
    TxOut {
        value: Amount::ZERO,
        script_pubkey: Builder::new()
            .push_opcode(OP_RETURN)
            .push_slice(data)
            .into_script(),
    }
}

/// The one commitment among `outputs`, if there is any. Every `OP_RETURN` that holds the magic at
/// the start of a push counts, so that no second one hides in an odd form.
///
/// # Errors
/// [`CoinbaseError::Doubled`], [`CoinbaseError::Malformed`] or [`CoinbaseError::Value`].
pub fn find_commitment(outputs: &[TxOut]) -> Result<Option<BatchRoot>, CoinbaseError> {
    let mut found = None;
    for output in outputs.iter().filter(|output| names_magic(output)) {
        if found.is_some() {
            return Err(CoinbaseError::Doubled);
        }
        found = Some(parse_commitment(output)?);
    }
    Ok(found)
}

fn names_magic(output: &TxOut) -> bool {
    output.script_pubkey.is_op_return()
        && output
            .script_pubkey
            .instructions()
            .map_while(Result::ok)
            .any(|instruction| match instruction {
                Instruction::PushBytes(push) => push.as_bytes().starts_with(MAGIC),
                Instruction::Op(_) => false,
            })
}

fn parse_commitment(output: &TxOut) -> Result<BatchRoot, CoinbaseError> {
    let bytes = output.script_pubkey.as_bytes();
    // OP_RETURN, one direct push of 37 bytes, nothing else.
    let Some((&[_, push_len, m0, m1, m2, m3, version], root)) = bytes.split_first_chunk::<7>()
    else {
        return Err(CoinbaseError::Malformed);
    };
    let root: [u8; 32] = root.try_into().map_err(|_| CoinbaseError::Malformed)?;
    if usize::from(push_len) != COMMITMENT_BYTES || [m0, m1, m2, m3] != *MAGIC || version != VERSION
    {
        return Err(CoinbaseError::Malformed);
    }
    if output.value != Amount::ZERO {
        return Err(CoinbaseError::Value);
    }
    Ok(BatchRoot::from_bytes(root))
}

/// The coinbase that `prefix`, an extranonce and `suffix` make, in either serialisation (with or
/// without witness).
///
/// # Errors
/// [`CoinbaseError`] for anything that could not stand in a block as its coinbase.
pub fn parse_coinbase(
    prefix: &[u8],
    extranonce: &[u8],
    suffix: &[u8],
) -> Result<Transaction, CoinbaseError> {
    let parts = [prefix, extranonce, suffix];
    let length = parts
        .iter()
        .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    if length > COINBASE_BYTES_MAX {
        return Err(CoinbaseError::TooLong);
    }
    parse(&parts.concat())
}

/// As [`parse_coinbase`], from one piece.
///
/// # Errors
/// As there.
pub fn parse(bytes: &[u8]) -> Result<Transaction, CoinbaseError> {
    if bytes.len() > COINBASE_BYTES_MAX {
        return Err(CoinbaseError::TooLong);
    }
    let mut rest = bytes;
    let transaction =
        Transaction::consensus_decode(&mut rest).map_err(|_| CoinbaseError::NotATransaction)?;
    if !rest.is_empty() {
        return Err(CoinbaseError::TrailingBytes);
    }
    if !transaction.is_coinbase() {
        return Err(CoinbaseError::NotACoinbase);
    }
    if !COINBASE_SCRIPT_BYTES.contains(&transaction.input[0].script_sig.len()) {
        return Err(CoinbaseError::ScriptSig);
    }
    if transaction.output.is_empty() {
        return Err(CoinbaseError::NoOutput);
    }
    Ok(transaction)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::serialize;
    use bitcoin::transaction::Version as TxVersion;
    use bitcoin::{OutPoint, ScriptBuf, Sequence, TxIn, Witness};
    use proptest::prelude::*;

    pub(crate) fn example(outputs: Vec<TxOut>) -> Transaction {
        Transaction {
            version: TxVersion::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from(vec![1, 101, 0, 0, 0, 0]),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: outputs,
        }
    }

    fn root() -> BatchRoot {
        BatchRoot::from_bytes([9; 32])
    }

    #[test]
    fn a_commitment_is_found_again() {
        let other = TxOut {
            value: Amount::from_sat(5),
            script_pubkey: ScriptBuf::from(vec![0x51]),
        };
        let outputs = [other, commitment_output(root())];
        assert_eq!(find_commitment(&outputs), Ok(Some(root())));
        assert_eq!(find_commitment(&outputs[..1]), Ok(None));
        assert_eq!(outputs[1].script_pubkey.len(), 39);
    }

    #[test]
    fn a_second_malformed_or_burning_commitment_is_refused() {
        let good = commitment_output(root());
        assert_eq!(
            find_commitment(&[good.clone(), good.clone()]),
            Err(CoinbaseError::Doubled)
        );
        let mut burning = good.clone();
        burning.value = Amount::from_sat(1);
        assert_eq!(find_commitment(&[burning]), Err(CoinbaseError::Value));
        for bad in [
            [b"DVTL".as_slice(), &[2], &[9; 32]].concat(),
            [b"DVTL".as_slice(), &[1], &[9; 31]].concat(),
            b"DVTL".to_vec(),
        ] {
            let push = bitcoin::script::PushBytesBuf::try_from(bad).unwrap();
            let output = TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::new_op_return(push),
            };
            assert_eq!(find_commitment(&[output]), Err(CoinbaseError::Malformed));
        }
        let mut tail = good.clone();
        tail.script_pubkey = ScriptBuf::from([good.script_pubkey.as_bytes(), &[0x51]].concat());
        assert_eq!(find_commitment(&[tail]), Err(CoinbaseError::Malformed));
    }

    #[test]
    fn only_whole_coinbases_parse() {
        let bytes = serialize(&example(vec![commitment_output(root())]));
        assert!(parse_coinbase(&bytes[..40], &bytes[40..46], &bytes[46..]).is_ok());
        assert_eq!(
            parse_coinbase(&bytes, &[], &[0]),
            Err(CoinbaseError::TrailingBytes)
        );
        assert_eq!(
            parse(&bytes[..bytes.len() - 1]),
            Err(CoinbaseError::NotATransaction)
        );
        assert_eq!(
            parse(&vec![0; COINBASE_BYTES_MAX + 1]),
            Err(CoinbaseError::TooLong)
        );
        let mut spending = example(vec![commitment_output(root())]);
        spending.input[0].previous_output.vout = 0;
        assert_eq!(
            parse(&serialize(&spending)),
            Err(CoinbaseError::NotACoinbase)
        );
        let mut long = example(vec![commitment_output(root())]);
        long.input[0].script_sig = ScriptBuf::from(vec![0; 101]);
        assert_eq!(parse(&serialize(&long)), Err(CoinbaseError::ScriptSig));
    }

    proptest! {
        #[test]
        fn junk_never_panics(prefix: Vec<u8>, extranonce in proptest::collection::vec(any::<u8>(), 0..40), suffix: Vec<u8>) {
            let _ = parse_coinbase(&prefix, &extranonce, &suffix);
        }

        #[test]
        fn a_mutated_coinbase_never_panics(at in 0_usize..120, byte: u8) {
            let mut bytes = serialize(&example(vec![commitment_output(root())]));
            let len = bytes.len();
            bytes[at % len] = byte;
            if let Ok(transaction) = parse(&bytes) {
                let _ = find_commitment(&transaction.output);
            }
        }
    }
}
