//! Submitted shares (Sv2 specification, sections 5.3.11 to 5.3.14): the header hash is checked
//! here and now; the audit and the ledger follow in a task of their own, and only what they made
//! durable is acknowledged.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{Encodable, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Transaction, TxMerkleNode, VarInt};
use dovetail_commitment::{BatchRoot, HeaderHash, coinbase};
use dovetail_sv2::extension::{BatchOutcome, codes, find_claim};
use dovetail_sv2::tlv::Tlv;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{
    self, CloseChannelOwned, SubmitSharesErrorOwned, SubmitSharesExtendedOwned,
    SubmitSharesStandardOwned, SubmitSharesSuccessOwned,
};
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;

use super::channel::{ShareRefusal, SolvedBlock, ValidShare};
use super::connection::{Connection, Ended};
use super::custom::AcceptedJob;
use super::open::{code_text, owned};
use crate::credit;
use crate::events::Event;
use crate::settle::{BatchReport, Claim, ProvenShare, Settled};

/// How many claims of one connection may be under way. They take an audit each, and must not use up
/// what its other shares need to go on.
const CLAIMS_IN_FLIGHT_MAX: usize = 16;

/// A share whose settlement is under way.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) channel_id: u32,
    pub(super) sequence_number: u32,
    pub(super) difficulty: u64,
    pub(super) account: String,
    /// The batch that the share claims.
    pub(super) claimed: Option<BatchRoot>,
    pub(super) settled: Settled,
}

/// The fields of a share that name a header.
struct HeaderFields {
    version: u32,
    ntime: u32,
    nonce: u32,
}

impl Connection {
    pub(super) fn on_submit_standard(
        &mut self,
        share: SubmitSharesStandardOwned,
    ) -> Result<(), Ended> {
        let (channel_id, sequence_number) = (share.channel_id, share.sequence_number);
        let fields = HeaderFields {
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        };
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return self.refuse_unknown(channel_id, sequence_number);
        };
        match channel.validate_standard(share) {
            Ok(valid) => {
                let proven = self.prove(channel_id, &valid, None);
                self.publish(&proven, valid.block.as_ref(), &fields, None);
                self.settle(channel_id, sequence_number, proven, &valid, None);
                Ok(())
            }
            Err(refusal) => self.refuse(channel_id, sequence_number, refusal),
        }
    }

    pub(super) fn on_submit_extended(
        &mut self,
        share: SubmitSharesExtendedOwned,
        fields: &[Tlv],
    ) -> Result<(), Ended> {
        let (channel_id, sequence_number, job_id) =
            (share.channel_id, share.sequence_number, share.job_id);
        let extranonce = share.extranonce.as_bytes().to_vec();
        let header = HeaderFields {
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        };
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return self.refuse_unknown(channel_id, sequence_number);
        };
        let valid = match channel.validate_extended(share) {
            Ok(valid) => valid,
            Err(refusal) => return self.refuse(channel_id, sequence_number, refusal),
        };
        let accepted = self.accepted.get(channel_id, job_id).cloned();
        let proven = self.prove(channel_id, &valid, accepted.as_ref());
        self.publish(&proven, valid.block.as_ref(), &header, accepted.as_ref());
        let committed = match &accepted {
            Some(job) => job.batch_root,
            None => self.batch_jobs.root_of(channel_id, job_id),
        };
        let claimed = match self.claimed(fields, &proven.account, committed) {
            Ok(claimed) => claimed,
            Err(code) => {
                return self.refuse(channel_id, sequence_number, ShareRefusal::Code(code));
            }
        };
        let claim = match claimed {
            Some(_) if self.claims_in_flight >= CLAIMS_IN_FLIGHT_MAX => {
                let busy = ShareRefusal::Code(codes::AUDIT_UNAVAILABLE);
                return self.refuse(channel_id, sequence_number, busy);
            }
            Some(root) => {
                let Some(claim) =
                    self.claim(channel_id, job_id, root, &valid, &header, &extranonce)
                else {
                    return self.refuse(
                        channel_id,
                        sequence_number,
                        ShareRefusal::Code(codes::INTERNAL),
                    );
                };
                Some(claim)
            }
            None => None,
        };
        self.settle(channel_id, sequence_number, proven, &valid, claim);
        Ok(())
    }

    /// The batch that the share claims, if it may claim one on this job. A channel that earns for
    /// another account may not: what a batch earns stays with the key that answers for it.
    fn claimed(
        &self,
        fields: &[Tlv],
        account: &str,
        committed: Option<BatchRoot>,
    ) -> Result<Option<BatchRoot>, &'static str> {
        let Some(root) = find_claim(fields).map_err(|_| codes::CLAIM_MALFORMED)? else {
            return Ok(None);
        };
        let Some(worker) = self.worker.filter(|_| self.extension) else {
            return Err(codes::NOT_REGISTERED);
        };
        if account != worker.to_string() {
            return Err(codes::BATCH_NOT_YOURS);
        }
        match committed {
            None => Err(codes::CLAIM_WITHOUT_COMMITMENT),
            Some(committed) if committed != root => Err(codes::CLAIM_MISMATCH),
            Some(committed) => Ok(Some(committed)),
        }
    }

    /// What the share is worth.
    fn prove(
        &self,
        channel_id: u32,
        valid: &ValidShare,
        accepted: Option<&AcceptedJob>,
    ) -> ProvenShare {
        let mut credit_msat = credit::for_hashes(&self.shared.config.credit, valid.work);
        if let Some(job) = accepted {
            credit_msat =
                credit::for_declared(credit_msat, job.declared.pool_value_sat, job.reference_sat);
        }
        ProvenShare {
            account: self
                .channels
                .get(&channel_id)
                .map(|channel| channel.account().to_owned())
                .unwrap_or_default(),
            header_hash: HeaderHash::from_bytes(valid.header_hash),
            work: valid.work,
            credit_msat,
            is_block: valid.block.is_some(),
        }
    }

    /// What the receipt has to show of the share.
    fn claim(
        &self,
        channel_id: u32,
        job_id: u32,
        root: BatchRoot,
        valid: &ValidShare,
        fields: &HeaderFields,
        extranonce: &[u8],
    ) -> Option<Claim> {
        let channel = self.channels.get(&channel_id)?;
        let job = channel.live_job(job_id)?;
        let tip = channel.as_extended()?.get_chain_tip()?;
        let coinbase = coinbase_of(job, extranonce);
        let merkle_root =
            merkle_root_from_path(&coinbase, &[], &[], job.get_merkle_path().as_slice())?;
        let header = header_of(
            fields,
            tip.prev_hash().into_array(),
            tip.nbits(),
            merkle_root,
        );
        if header.block_hash().to_byte_array() != valid.header_hash {
            return None;
        }
        Some(Claim {
            root,
            worker: self.worker?,
            header: serialize(&header).try_into().ok()?,
            coinbase,
            merkle_path: job
                .get_merkle_path()
                .as_slice()
                .iter()
                .map(|node| node.clone().into_array())
                .collect(),
            share_target: valid.target.to_le_bytes(),
        })
    }

    /// Publishes a solved block at once: nothing that follows may delay it.
    fn publish(
        &self,
        proven: &ProvenShare,
        block: Option<&SolvedBlock>,
        fields: &HeaderFields,
        accepted: Option<&AcceptedJob>,
    ) {
        let Some(block) = block else { return };
        let hash = BlockHash::from_byte_array(proven.header_hash.to_bytes());
        Event::BlockFound {
            hash: &hash.to_string(),
            worker: &proven.account,
            declared: accepted.is_some(),
        }
        .emit();
        tracing::info!(%hash, declared = accepted.is_some(), "block found");
        let shared = self.shared.clone();
        let account = proven.account.clone();
        let header_hash = proven.header_hash;
        let height = self.work.as_ref().map_or(0, |work| work.height());
        let submission = match (block.template_id, accepted) {
            (Some(template_id), _) => self.solution(template_id, fields, &block.coinbase),
            (None, Some(job)) => self.declared_block(&block.coinbase, fields, job),
            (None, None) => None,
        };
        self.shared.tracker.spawn(async move {
            let submitted = match submission {
                Some(Submission::Solution(solution)) => {
                    shared.templates.submit_solution(solution).await
                }
                Some(Submission::Block(bytes)) => shared.templates.submit_block(bytes).await,
                None => return tracing::error!("a solved block could not be assembled"),
            };
            let result = match &submitted {
                Ok(()) => "submitted".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Err(error) = &submitted {
                tracing::warn!(%error, "the template source did not take the block");
            }
            if let Err(error) = shared
                .settler
                .ledger
                .record_block(header_hash, height, &account, &result)
                .await
            {
                tracing::error!(%error, "cannot record a block");
            }
        });
    }

    fn solution(
        &self,
        template_id: u64,
        fields: &HeaderFields,
        coinbase: &[u8],
    ) -> Option<Submission> {
        Some(Submission::Solution(SubmitSolutionOwned {
            template_id,
            version: fields.version,
            header_timestamp: fields.ntime,
            header_nonce: fields.nonce,
            coinbase_tx: coinbase.to_vec().try_into().ok()?,
        }))
    }

    /// The whole block of a declared job: header, coinbase, the declared transactions.
    fn declared_block(
        &self,
        coinbase: &[u8],
        fields: &HeaderFields,
        job: &AcceptedJob,
    ) -> Option<Submission> {
        let work = self.work.as_ref()?;
        let transaction: Transaction = bitcoin::consensus::deserialize(coinbase).ok()?;
        let path = super::custom::merkle_path(&job.declared.txids);
        let merkle_root =
            merkle_root_from_path(&serialize_without_witness(&transaction), &[], &[], &path)?;
        let header = header_of(
            fields,
            work.prev_hash.prev_hash.clone().into_array(),
            work.prev_hash.n_bits,
            merkle_root,
        );
        let mut block = serialize(&header);
        let count = job.declared.transactions.len() as u64 + 1;
        VarInt(count).consensus_encode(&mut block).ok()?;
        block.extend_from_slice(coinbase);
        for transaction in &job.declared.transactions {
            block.extend_from_slice(transaction);
        }
        Some(Submission::Block(block))
    }

    /// Hands the share over; its end comes back through [`Connection::on_settled`].
    fn settle(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        proven: ProvenShare,
        valid: &ValidShare,
        claim: Option<Claim>,
    ) {
        let settler = self.shared.settler.clone();
        let account = proven.account.clone();
        let difficulty = difficulty_of(valid);
        let claimed = claim.as_ref().map(|claim| claim.root);
        self.claims_in_flight += usize::from(claimed.is_some());
        let task = self.shared.tracker.spawn(async move {
            match claim {
                Some(claim) => settler.settle_claim(proven, claim).await,
                None => settler.settle_hash(proven).await,
            }
        });
        self.in_flight.spawn(async move {
            InFlight {
                channel_id,
                sequence_number,
                difficulty,
                account,
                claimed,
                settled: task
                    .await
                    .unwrap_or(Settled::Refused(codes::INTERNAL, None)),
            }
        });
    }

    /// A share's settlement has ended: acknowledge or refuse it.
    pub(super) fn on_settled(&mut self, done: InFlight) -> Result<(), Ended> {
        self.claims_in_flight -= usize::from(done.claimed.is_some());
        if let (Some(root), true) = (&done.claimed, is_final(&done.settled)) {
            self.batch_jobs.drop_batch(root);
        }
        let report = match done.settled {
            Settled::Accepted(report) => {
                self.send(&SubmitSharesSuccessOwned {
                    channel_id: done.channel_id,
                    last_sequence_number: done.sequence_number,
                    new_submits_accepted_count: 1,
                    new_shares_sum: done.difficulty,
                })?;
                report
            }
            Settled::Refused(code, report) => {
                Event::ShareRejected {
                    worker: &done.account,
                    code,
                }
                .emit();
                self.send_share_error(done.channel_id, done.sequence_number, code)?;
                report
            }
        };
        match report {
            Some(report) if self.extension => self.send(&outcome(&report)),
            _ => Ok(()),
        }
    }

    fn refuse_unknown(&mut self, channel_id: u32, sequence_number: u32) -> Result<(), Ended> {
        self.send_share_error(
            channel_id,
            sequence_number,
            mining_sv2::ERROR_CODE_SUBMIT_SHARES_INVALID_CHANNEL_ID,
        )
    }

    fn refuse(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        refusal: ShareRefusal,
    ) -> Result<(), Ended> {
        let worker = self
            .channels
            .get(&channel_id)
            .map(|channel| channel.account().to_owned())
            .unwrap_or_default();
        match refusal {
            ShareRefusal::Code(code) => {
                Event::ShareRejected {
                    worker: &worker,
                    code,
                }
                .emit();
                self.send_share_error(channel_id, sequence_number, code)
            }
            ShareRefusal::CloseChannel(reason) => {
                self.channels.remove(&channel_id);
                self.send(&CloseChannelOwned {
                    channel_id,
                    reason_code: code_text(reason)?,
                })
            }
        }
    }

    fn send_share_error(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        code: &str,
    ) -> Result<(), Ended> {
        self.send(&SubmitSharesErrorOwned {
            channel_id,
            sequence_number,
            error_code: owned(code.as_bytes())?,
        })
    }
}

enum Submission {
    Solution(SubmitSolutionOwned),
    Block(Vec<u8>),
}

/// Whether no later share can claim the batch either.
fn is_final(settled: &Settled) -> bool {
    match settled {
        Settled::Accepted(_) => true,
        Settled::Refused(code, _) => codes::is_final_for_batch(code),
    }
}

fn header_of(fields: &HeaderFields, prev_hash: [u8; 32], bits: u32, root: [u8; 32]) -> Header {
    Header {
        version: Version::from_consensus(fields.version.cast_signed()),
        prev_blockhash: BlockHash::from_byte_array(prev_hash),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: fields.ntime,
        bits: CompactTarget::from_consensus(bits),
        nonce: fields.nonce,
    }
}

/// The coinbase as it is hashed: without its witness.
fn coinbase_of(job: &ExtendedJob, extranonce: &[u8]) -> Vec<u8> {
    let mut bytes = job.get_coinbase_tx_prefix_without_bip141();
    bytes.extend_from_slice(job.get_extranonce_prefix());
    bytes.extend_from_slice(extranonce);
    bytes.extend_from_slice(&job.get_coinbase_tx_suffix_without_bip141());
    bytes
}

fn serialize_without_witness(transaction: &Transaction) -> Vec<u8> {
    let mut stripped = transaction.clone();
    for input in &mut stripped.input {
        input.witness.clear();
    }
    serialize(&stripped)
}

/// Whole difficulty-1 units, as `new_shares_sum` counts them.
fn difficulty_of(valid: &ValidShare) -> u64 {
    let difficulty = valid.target.difficulty_float();
    // A float-to-integer cast saturates, which is what an absurd difficulty deserves.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = difficulty as u64;
    whole
}

fn outcome(report: &BatchReport) -> BatchOutcome {
    BatchOutcome {
        root: report.root,
        header_hash: report.header_hash,
        accepted: report.accepted,
        beacon_step: report.step,
        preimage: report.preimage,
        code: report.code.to_owned(),
    }
}

/// The one place that decides whether a declared coinbase carries a commitment.
pub(super) fn commitment_of(transaction: &Transaction) -> Option<BatchRoot> {
    coinbase::find_commitment(&transaction.output)
        .ok()
        .flatten()
}
