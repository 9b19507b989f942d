//! The coinbase of a declared job: the pool's payout with the value of the template, less what the token pays to others, the
//! commitment to a batch, and whatever outputs the template asks for last.
//!
//! The pool builds its own copy from the fields of `SetCustomMiningJob`; the declarator gets the
//! prefix and suffix. All three must be the same bytes, so they are made from one transaction here.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{Decodable, deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_sv2::messages::NewTemplate;
use dovetail_templates::COINBASE_BYTES_ADDITIONAL;
use dovetail_units::consensus::COINBASE_SCRIPT_BYTES_MAX;

/// Bytes of the serialisation with a witness before the scriptSig: version, marker and flag,
/// input count, outpoint, script length.
const BEFORE_SCRIPT_SIG: usize = 4 + 2 + 1 + 36 + 1;
/// The same without marker and flag.
const BEFORE_SCRIPT_SIG_STRIPPED: usize = BEFORE_SCRIPT_SIG - 2;

/// Bytes of the salt of a [salted](JobCoinbase::salted) coinbase.
pub const SALT_BYTES: usize = 8;

/// Why no coinbase can be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The declarator's outputs do not parse, or there is none.
    #[error("the outputs of the job token do not parse or are none")]
    PayoutOutputs,
    /// The declarator's outputs beyond the first ask for as much as the template pays, or more: the first one gets the rest.
    #[error("the job token's outputs leave nothing of what the template pays to the pool's own")]
    PayoutValue,
    /// The template pays somebody.
    #[error("the template has outputs of its own that are paid: the reward is the miner's")]
    TemplateValue,
    /// The template's outputs do not parse.
    #[error("the outputs of the template do not parse")]
    TemplateOutputs,
    /// The outputs that are not the template's own exceed the room that it keeps for them.
    #[error(
        "the pool's outputs and the commitment take {0} bytes, {COINBASE_BYTES_ADDITIONAL} are kept for them"
    )]
    OutputsTooLong(usize),
    /// The prefix and extranonce exceed the scriptSig's limit.
    #[error("the coinbase script would have {0} bytes, {COINBASE_SCRIPT_BYTES_MAX} are allowed")]
    ScriptTooLong(usize),
    /// A field does not fit its message.
    #[error("the coinbase does not fit its message")]
    TooLong,
}

/// A coinbase around an extranonce of a fixed size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCoinbase {
    /// With the witness, up to the extranonce; for the declarator.
    pub prefix: Vec<u8>,
    /// With the witness, after the extranonce; for the declarator.
    pub suffix: Vec<u8>,
    /// The outputs as `SetCustomMiningJob` wants them: a counted array.
    pub outputs: Vec<u8>,
    /// The script up to the extranonce, as `SetCustomMiningJob` wants it.
    pub script_prefix: Vec<u8>,
    stripped_prefix: Vec<u8>,
    stripped_suffix: Vec<u8>,
}

/// The outputs of a declared job. `payout_outputs` is the counted array of the token; its first
/// output is the pool's and takes what the others leave of the template's value. Without `root` the job carries
/// no commitment.
///
/// # Errors
/// Outputs that do not parse, or are more than the template has room for.
pub fn job_outputs(
    template: &NewTemplate,
    payout_outputs: &[u8],
    root: Option<&BatchRoot>,
) -> Result<Vec<TxOut>, BuildError> {
    let mut outputs: Vec<TxOut> =
        deserialize(payout_outputs).map_err(|_| BuildError::PayoutOutputs)?;
    let (payout, others) = outputs.split_first_mut().ok_or(BuildError::PayoutOutputs)?;
    let mut left = template.coinbase_tx_value_remaining;
    for output in others.iter() {
        left = left
            .checked_sub(output.value.to_sat())
            .ok_or(BuildError::PayoutValue)?;
    }
    if left == 0 && others.iter().any(is_paid) {
        return Err(BuildError::PayoutValue);
    }
    payout.value = Amount::from_sat(left);
    outputs.extend(root.map(|root| commitment_output(*root)));
    let added: usize = outputs.iter().map(TxOut::size).sum();
    if added > COINBASE_BYTES_ADDITIONAL as usize {
        return Err(BuildError::OutputsTooLong(added));
    }
    let mut bytes = template.coinbase_tx_outputs.as_bytes();
    for _ in 0..template.coinbase_tx_outputs_count {
        let output =
            TxOut::consensus_decode(&mut bytes).map_err(|_| BuildError::TemplateOutputs)?;
        if is_paid(&output) {
            return Err(BuildError::TemplateValue);
        }
        outputs.push(output);
    }
    if !bytes.is_empty() {
        return Err(BuildError::TemplateOutputs);
    }
    Ok(outputs)
}

fn is_paid(output: &TxOut) -> bool {
    output.value != Amount::ZERO
}

impl JobCoinbase {
    /// The coinbase of a template with these outputs and room for `extranonce_size` bytes (the
    /// channel's prefix and the rolled part together) at the end of the scriptSig.
    ///
    /// # Errors
    /// A script over the limit.
    pub fn new(
        template: &NewTemplate,
        outputs: Vec<TxOut>,
        extranonce_size: usize,
    ) -> Result<Self, BuildError> {
        let script_prefix = template.coinbase_prefix.to_owned_bytes();
        Self::with_script(template, script_prefix, outputs, extranonce_size)
    }

    /// The same with a salt in the script, which gives the job headers of its own: a pool gives the same headers the same
    /// target for as long as their tip stands.
    ///
    /// # Errors
    /// A script over the limit.
    pub fn salted(
        template: &NewTemplate,
        outputs: Vec<TxOut>,
        extranonce_size: usize,
        salt: [u8; SALT_BYTES],
    ) -> Result<Self, BuildError> {
        let push = u8::try_from(SALT_BYTES).expect("a salt is a few bytes");
        let script_prefix = [template.coinbase_prefix.as_bytes(), &[push], &salt].concat();
        Self::with_script(template, script_prefix, outputs, extranonce_size)
    }

    fn with_script(
        template: &NewTemplate,
        script_prefix: Vec<u8>,
        outputs: Vec<TxOut>,
        extranonce_size: usize,
    ) -> Result<Self, BuildError> {
        let script_bytes = script_prefix.len() + extranonce_size;
        // Under the limit the script's length is one byte, which the offsets below rely on.
        if script_bytes > COINBASE_SCRIPT_BYTES_MAX {
            return Err(BuildError::ScriptTooLong(script_bytes));
        }
        let mut script = script_prefix.clone();
        script.resize(script_bytes, 0);
        let mut transaction = Transaction {
            version: Version::non_standard(template.coinbase_tx_version as i32),
            lock_time: LockTime::from_consensus(template.coinbase_tx_locktime),
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from_bytes(script),
                sequence: Sequence(template.coinbase_tx_input_sequence),
                // The reserved value that a witness commitment is made with (BIP 141).
                witness: Witness::from(vec![vec![0; 32]]),
            }],
            output: outputs,
        };
        let with_witness = serialize(&transaction);
        transaction.input[0].witness = Witness::new();
        let stripped = serialize(&transaction);
        let split = |bytes: &[u8], before_script: usize| {
            let at = before_script + script_prefix.len();
            (bytes[..at].to_vec(), bytes[at + extranonce_size..].to_vec())
        };
        let (prefix, suffix) = split(&with_witness, BEFORE_SCRIPT_SIG);
        let (stripped_prefix, stripped_suffix) = split(&stripped, BEFORE_SCRIPT_SIG_STRIPPED);
        if u16::try_from(prefix.len().max(suffix.len())).is_err() {
            return Err(BuildError::TooLong);
        }
        Ok(Self {
            prefix,
            suffix,
            outputs: serialize(&transaction.output),
            script_prefix,
            stripped_prefix,
            stripped_suffix,
        })
    }

    /// The transaction id for a whole extranonce, in internal byte order.
    pub fn txid(&self, extranonce: &[u8]) -> [u8; 32] {
        sha256d::Hash::hash(&self.stripped(extranonce)).to_byte_array()
    }

    /// The coinbase without its witness, for a whole extranonce.
    pub fn stripped(&self, extranonce: &[u8]) -> Vec<u8> {
        [&self.stripped_prefix[..], extranonce, &self.stripped_suffix].concat()
    }

    /// The coinbase without its witness, before and after the extranonce.
    pub fn stripped_parts(&self) -> (&[u8], &[u8]) {
        (&self.stripped_prefix, &self.stripped_suffix)
    }

    /// The coinbase with its witness, for a whole extranonce: what a block carries.
    pub fn with_witness(&self, extranonce: &[u8]) -> Vec<u8> {
        [&self.prefix[..], extranonce, &self.suffix].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dovetail_commitment::coinbase::{find_commitment, parse_coinbase};
    use dovetail_sv2::messages::{
        B064KOwned, B0255Owned, Seq0255Owned, SetCustomMiningJob, U256Owned,
    };
    use stratum_core::channels_sv2::server::jobs::factory::JobFactory;

    pub(crate) fn template() -> NewTemplate {
        let witness_commitment = TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes([vec![0x6a, 0x24], vec![0xaa; 36]].concat()),
        };
        NewTemplate {
            template_id: 1,
            future_template: false,
            version: 0x2000_0000,
            coinbase_tx_version: 2,
            coinbase_prefix: B0255Owned::new(vec![0x02, 0x65, 0x00]).unwrap(),
            coinbase_tx_input_sequence: 0xffff_fffe,
            coinbase_tx_value_remaining: 5_000_000_000,
            coinbase_tx_outputs_count: 1,
            coinbase_tx_outputs: B064KOwned::new(serialize(&witness_commitment)).unwrap(),
            coinbase_tx_locktime: 100,
            merkle_path: Seq0255Owned::new(vec![]).unwrap(),
        }
    }

    fn payout() -> Vec<u8> {
        serialize(&vec![TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes([vec![0x00, 0x14], vec![1; 20]].concat()),
        }])
    }

    fn root() -> BatchRoot {
        BatchRoot::from_bytes([9; 32])
    }

    fn build(extranonce_size: usize) -> JobCoinbase {
        let outputs = job_outputs(&template(), &payout(), Some(&root())).unwrap();
        JobCoinbase::new(&template(), outputs, extranonce_size).unwrap()
    }

    #[test]
    fn the_pool_is_paid_and_the_root_is_committed() {
        let outputs = job_outputs(&template(), &payout(), Some(&root())).unwrap();
        assert_eq!(outputs.len(), 3);
        assert_eq!(outputs[0].value, Amount::from_sat(5_000_000_000));
        assert_eq!(find_commitment(&outputs).unwrap(), Some(root()));
        let plain = job_outputs(&template(), &payout(), None).unwrap();
        assert_eq!(find_commitment(&plain).unwrap(), None);
    }

    #[test]
    fn prefix_extranonce_and_suffix_are_one_transaction_in_both_forms() {
        let coinbase = build(16);
        let extranonce: Vec<u8> = (0..16).collect();
        let whole: Transaction = deserialize(&coinbase.with_witness(&extranonce)).unwrap();
        let stripped: Transaction = deserialize(&coinbase.stripped(&extranonce)).unwrap();
        assert_eq!(whole.compute_txid(), stripped.compute_txid());
        assert_eq!(
            whole.compute_txid().to_byte_array(),
            coinbase.txid(&extranonce)
        );
        assert!(whole.is_coinbase());
        let parsed = parse_coinbase(&coinbase.prefix, &extranonce, &coinbase.suffix).unwrap();
        assert_eq!(parsed.compute_txid(), whole.compute_txid());
    }

    #[test]
    fn the_pool_assembles_the_very_same_coinbase_from_the_custom_job() {
        let coinbase = build(16);
        let template = template();
        let message = SetCustomMiningJob {
            channel_id: 1,
            request_id: 1,
            token: B0255Owned::new(vec![1]).unwrap(),
            version: template.version,
            prev_hash: U256Owned::from([0; 32]),
            min_ntime: 0,
            nbits: 0,
            coinbase_tx_version: template.coinbase_tx_version,
            coinbase_prefix: template.coinbase_prefix.clone(),
            coinbase_tx_input_n_sequence: template.coinbase_tx_input_sequence,
            coinbase_tx_outputs: B064KOwned::new(coinbase.outputs.clone()).unwrap(),
            coinbase_tx_locktime: template.coinbase_tx_locktime,
            merkle_path: template.merkle_path.clone(),
        };
        let mut factory = JobFactory::new(true, None, None);
        let job = factory
            .new_extended_job_from_custom_job(message, vec![0; 8], 16)
            .unwrap();
        assert_eq!(job.get_coinbase_tx_prefix_with_bip141(), coinbase.prefix);
        assert_eq!(job.get_coinbase_tx_suffix_with_bip141(), coinbase.suffix);
        let stripped = [
            job.get_coinbase_tx_prefix_without_bip141(),
            vec![5; 16],
            job.get_coinbase_tx_suffix_without_bip141(),
        ]
        .concat();
        assert_eq!(stripped, coinbase.stripped(&[5; 16]));
    }

    #[test]
    fn a_salt_gives_the_job_headers_of_its_own_and_stands_where_the_pool_is_told() {
        let outputs = || job_outputs(&template(), &payout(), None).unwrap();
        let salted = |salt| JobCoinbase::salted(&template(), outputs(), 16, salt).unwrap();
        let (one, other) = (salted([1; SALT_BYTES]), salted([2; SALT_BYTES]));
        assert_ne!(one.txid(&[0; 16]), other.txid(&[0; 16]));
        let coinbase: Transaction = deserialize(&one.with_witness(&[5; 16])).unwrap();
        let script = coinbase.input[0].script_sig.as_bytes();
        assert_eq!(script, [&one.script_prefix[..], &[5; 16]].concat());
        assert!(one.script_prefix.ends_with(&[8, 1, 1, 1, 1, 1, 1, 1, 1]));
    }

    #[test]
    fn outputs_beyond_the_room_that_a_template_keeps_are_refused() {
        let of = |bytes: usize| {
            serialize(&vec![TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(vec![0x51; bytes]),
            }])
        };
        // Value 8 bytes, length of the script 3, and the commitment's 48.
        let largest = 1_000 - 11 - 48;
        assert!(job_outputs(&template(), &of(largest), Some(&root())).is_ok());
        assert_eq!(
            job_outputs(&template(), &of(largest + 1), Some(&root())),
            Err(BuildError::OutputsTooLong(1_001))
        );
        assert!(job_outputs(&template(), &of(largest + 1), None).is_ok());
    }

    #[test]
    fn the_first_output_of_the_token_takes_what_the_others_leave() {
        let output = |sat: u64, byte: u8| TxOut {
            value: Amount::from_sat(sat),
            script_pubkey: ScriptBuf::from_bytes([vec![0x00, 0x14], vec![byte; 20]].concat()),
        };
        let token = |second: u64| serialize(&vec![output(0, 1), output(second, 2)]);
        let values = |second: u64| {
            let outputs = job_outputs(&template(), &token(second), None);
            outputs.map(|outputs| {
                let values = outputs.iter().map(|output| output.value.to_sat());
                values.collect::<Vec<_>>()
            })
        };
        assert_eq!(values(0), Ok(vec![5_000_000_000, 0, 0]));
        assert_eq!(values(21_000_000), Ok(vec![4_979_000_000, 21_000_000, 0]));
        for all in [5_000_000_000, 5_000_000_001, u64::MAX] {
            assert_eq!(values(all), Err(BuildError::PayoutValue));
        }
        let mut thief = template();
        thief.coinbase_tx_value_remaining = 1;
        thief.coinbase_tx_outputs =
            B064KOwned::new(serialize(&output(4_999_999_999, 0xee))).unwrap();
        assert_eq!(
            job_outputs(&thief, &payout(), None),
            Err(BuildError::TemplateValue)
        );
    }

    #[test]
    fn a_script_over_the_limit_and_bad_outputs_are_refused() {
        let outputs = job_outputs(&template(), &payout(), None).unwrap();
        assert_eq!(
            JobCoinbase::new(&template(), outputs, 98),
            Err(BuildError::ScriptTooLong(101))
        );
        assert_eq!(
            job_outputs(&template(), &[0], None),
            Err(BuildError::PayoutOutputs)
        );
        let mut bad = template();
        bad.coinbase_tx_outputs_count = 2;
        assert_eq!(
            job_outputs(&bad, &payout(), None),
            Err(BuildError::TemplateOutputs)
        );
    }
}
