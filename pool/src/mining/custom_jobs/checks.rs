//! What `SetCustomMiningJob` (Sv2 specification, section 5.3.18) must be, from any miner: on the
//! pool's tip, within bounds, and the very job that was declared where one was.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::Decodable;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use dovetail_commitment::coinbase::parse_coinbase;
use dovetail_jd::transactions::merkle_path;
use dovetail_ledger::DeclaredJob;
use dovetail_templates::WorkSnapshot;
use dovetail_units::consensus::COINBASE_SCRIPT_BYTES;
use stratum_core::mining_sv2::{self, SetCustomMiningJobOwned};

use crate::mining::fields::StandardCode;

/// How far a job's least time may lie before that of the pool's own template. Both are a node's clock
/// when it made its template, and the miner's may have made it minutes earlier; the time that the
/// chain really asks for (the median of eleven blocks) lies about an hour back.
const NTIME_PAST_MAX_S: u32 = 600;
/// How far it may lie ahead of the pool's clock: as far as two clocks that are set differ. Miners
/// count up from there, and a block two hours ahead is refused by every node.
const NTIME_FUTURE_MAX_S: u32 = 300;

/// Checks the header's fields against the tip that the pool works on. `now` is Unix seconds.
///
/// # Errors
/// The code for `SetCustomMiningJob.Error`.
pub(super) fn check_header(
    message: &SetCustomMiningJobOwned,
    work: &WorkSnapshot,
    now: u32,
) -> Result<(), StandardCode> {
    if message.prev_hash != work.prev_hash.prev_hash {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_STALE_CHAIN_TIP);
    }
    if message.nbits != work.nbits() {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_NBITS);
    }
    if !is_near(message.min_ntime, work.min_ntime(), now) {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MIN_NTIME);
    }
    if !dovetail_jd::is_version(message.version) {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_VERSION);
    }
    Ok(())
}

/// Whether a job may start at this time, by the pool's own template and clock.
fn is_near(min_ntime: u32, template_ntime: u32, now: u32) -> bool {
    let latest = now.max(template_ntime).saturating_add(NTIME_FUTURE_MAX_S);
    (template_ntime.saturating_sub(NTIME_PAST_MAX_S)..=latest).contains(&min_ntime)
}

/// The coinbase that the message describes, with zeros for the extranonce and without a witness.
///
/// # Errors
/// The code for `SetCustomMiningJob.Error`.
pub(super) fn coinbase_of(
    message: &SetCustomMiningJobOwned,
    full_extranonce_size: usize,
) -> Result<Transaction, StandardCode> {
    let mut script = message.coinbase_prefix.as_bytes().to_vec();
    let script_len = script.len().saturating_add(full_extranonce_size);
    if script_len > *COINBASE_SCRIPT_BYTES.end() {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_PREFIX);
    }
    script.resize(script_len, 0);
    let mut bytes = message.coinbase_tx_outputs.as_bytes();
    let outputs = Vec::<TxOut>::consensus_decode(&mut bytes)
        .ok()
        .filter(|outputs| bytes.is_empty() && !outputs.is_empty())
        .ok_or(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_OUTPUTS)?;
    Ok(Transaction {
        version: Version::non_standard(message.coinbase_tx_version.cast_signed()),
        lock_time: LockTime::from_consensus(message.coinbase_tx_locktime),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence(message.coinbase_tx_input_n_sequence),
            witness: Witness::new(),
        }],
        output: outputs,
    })
}

/// Checks that the message names the very job that was declared, field by field.
///
/// # Errors
/// The code for `SetCustomMiningJob.Error`, which names the first field that differs.
pub(super) fn check_declared(
    message: &SetCustomMiningJobOwned,
    coinbase: &Transaction,
    declared: &DeclaredJob,
    full_extranonce_size: usize,
) -> Result<(), StandardCode> {
    if declared.prev_hash != *message.prev_hash.as_array() {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_STALE_CHAIN_TIP);
    }
    if message.version != declared.version {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_VERSION);
    }
    let theirs = parse_coinbase(
        &declared.coinbase_prefix,
        &vec![0; full_extranonce_size],
        &declared.coinbase_suffix,
    )
    .map_err(|_| mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX)?;
    if let Some(code) = first_difference(coinbase, &theirs) {
        return Err(code);
    }
    if !is_path(message, &merkle_path(&declared.txids)) {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MERKLE_PATH);
    }
    Ok(())
}

/// The code of the first field in which two coinbases differ, whatever their witnesses.
fn first_difference(ours: &Transaction, declared: &Transaction) -> Option<StandardCode> {
    let (input, theirs) = (ours.input.first()?, declared.input.first()?);
    let fields = [
        (
            ours.version == declared.version,
            mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_VERSION,
        ),
        (
            input.script_sig == theirs.script_sig,
            mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_PREFIX,
        ),
        (
            input.sequence == theirs.sequence,
            mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_INPUT_N_SEQUENCE,
        ),
        (
            ours.output == declared.output,
            mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_OUTPUTS,
        ),
        (
            ours.lock_time == declared.lock_time,
            mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_LOCKTIME,
        ),
        (
            // Whatever a future field might be: the ids are what is hashed.
            ours.compute_txid() == declared.compute_txid(),
            mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX,
        ),
    ];
    fields
        .into_iter()
        .find(|(same, _)| !same)
        .map(|(_, code)| code)
}

/// Whether the message has this merkle path.
pub(super) fn is_path(message: &SetCustomMiningJobOwned, path: &[[u8; 32]]) -> bool {
    let given = message.merkle_path.as_slice();
    given.len() == path.len()
        && given
            .iter()
            .zip(path)
            .all(|(node, wanted)| node.as_array() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_starts_near_the_template_and_the_clock() {
        let (template, now) = (1_000_000, 1_000_060);
        for near in [
            template,
            template - NTIME_PAST_MAX_S,
            now,
            now + NTIME_FUTURE_MAX_S,
        ] {
            assert!(is_near(near, template, now), "{near}");
        }
        for far in [
            0,
            template - NTIME_PAST_MAX_S - 1,
            now + NTIME_FUTURE_MAX_S + 1,
            u32::MAX,
        ] {
            assert!(!is_near(far, template, now), "{far}");
        }
        // A chain whose blocks are ahead of the clock has its own time.
        assert!(is_near(template, template, template - 3_600));
    }
}
