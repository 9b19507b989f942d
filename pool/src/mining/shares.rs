//! Submitted shares (Sv2 specification, sections 5.3.11 to 5.3.14): the header hash is checked
//! here and now; the audit and the ledger follow in a task of their own, and only what they made
//! durable is acknowledged, in the order of `acks.rs`.

use std::collections::BTreeSet;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use dovetail_commitment::{BatchRoot, HeaderHash};
use dovetail_ledger::Msat;
use dovetail_sv2::extension::{BatchOutcome, MSAT_UNKNOWN, codes, find_claim};
use dovetail_sv2::tlv::Tlv;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{
    self, CloseChannelOwned, SubmitSharesErrorOwned, SubmitSharesExtendedOwned,
    SubmitSharesStandardOwned, SubmitSharesSuccessOwned,
};

use super::acks::{Difficulty, Place};
use super::channel::{ShareRefusal, ValidShare};
use super::connection::{Connection, Ended};
use super::custom::AcceptedJob;
use super::jobs::is_declared;
use super::open::{code_text, owned};
use super::solved::{HeaderFields, merkle_path};
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
    /// Where it stands among its channel's shares.
    pub(super) place: Place,
    pub(super) difficulty: Difficulty,
    pub(super) account: String,
    /// The batch that the share claims.
    pub(super) claimed: Option<BatchRoot>,
    pub(super) settled: Settled,
}

impl Connection {
    pub(super) fn on_submit_standard(
        &mut self,
        share: SubmitSharesStandardOwned,
    ) -> Result<(), Ended> {
        let (channel_id, sequence_number) = (share.channel_id, share.sequence_number);
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return self.refuse_unknown(channel_id, sequence_number);
        };
        match channel.validate_standard(share) {
            Ok(mut valid) => {
                let proven = self.prove(channel_id, &valid, None);
                self.publish(&proven, valid.block.take(), None);
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
        let header = HeaderFields::from(&share);
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return self.refuse_unknown(channel_id, sequence_number);
        };
        let mut valid = match channel.validate_extended(share) {
            Ok(valid) => valid,
            Err(refusal) => return self.refuse(channel_id, sequence_number, refusal),
        };
        let accepted = self.accepted.get(channel_id, job_id).cloned();
        if accepted.is_none() && is_declared(job_id) {
            // What its coinbase pays is not known any more, so neither is what the share is worth.
            let stale = ShareRefusal::Code(mining_sv2::ERROR_CODE_SUBMIT_SHARES_STALE_SHARE);
            return self.refuse(channel_id, sequence_number, stale);
        }
        let proven = self.prove(channel_id, &valid, accepted.as_ref());
        self.publish(&proven, valid.block.take(), accepted.as_ref());
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
            credit_msat = credit::for_declared(credit_msat, job.pool_value_sat, job.reference_sat);
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
        let header = fields.header(tip.prev_hash().into_array(), tip.nbits(), merkle_root);
        if header.block_hash().to_byte_array() != valid.header_hash {
            return None;
        }
        Some(Claim {
            root,
            worker: self.worker?,
            header: serialize(&header).try_into().ok()?,
            coinbase,
            merkle_path: merkle_path(job),
            share_target: valid.target.to_le_bytes(),
        })
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
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return;
        };
        let place = channel.acks.enter();
        let settler = self.shared.settler.clone();
        let account = proven.account.clone();
        let difficulty = Difficulty::of(valid.target);
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
                place,
                difficulty,
                account,
                claimed,
                settled: task
                    .await
                    .unwrap_or(Settled::Refused(codes::INTERNAL, None)),
            }
        });
    }

    /// Settlements have ended, this one and maybe more: what can be acknowledged by now is, with one
    /// message per channel.
    pub(super) fn on_settled(&mut self, done: InFlight) -> Result<(), Ended> {
        let mut reports = Vec::new();
        let mut channels = BTreeSet::from([done.channel_id]);
        reports.extend(self.decide(done)?);
        while let Some(done) = self.in_flight.try_join_next() {
            let done = done.map_err(|_| Ended::Fault("a settlement did not end"))?;
            channels.insert(done.channel_id);
            reports.extend(self.decide(done)?);
        }
        for channel_id in channels {
            self.acknowledge(channel_id)?;
        }
        if self.extension {
            for report in &reports {
                self.send(&outcome(report))?;
            }
        }
        Ok(())
    }

    /// Notes how a share ended, and says so at once if it was refused. Of a channel that has been closed
    /// since there is nothing left to be said but a batch's outcome.
    fn decide(&mut self, done: InFlight) -> Result<Option<BatchReport>, Ended> {
        let (channel_id, number) = (done.channel_id, done.sequence_number);
        self.claims_in_flight -= usize::from(done.claimed.is_some());
        if let (Some(root), true) = (&done.claimed, is_final(&done.settled)) {
            self.batch_jobs.drop_batch(root);
        }
        let acks = self
            .channels
            .get_mut(&channel_id)
            .map(|channel| &mut channel.acks);
        match done.settled {
            Settled::Accepted(report) => {
                if let Some(acks) = acks {
                    acks.accept(done.place, number, done.difficulty);
                }
                Ok(report)
            }
            Settled::Refused(code, report) => {
                Event::ShareRejected {
                    worker: &done.account,
                    code,
                }
                .emit();
                if acks.is_some() {
                    // The shares before it first, and it before those behind it.
                    self.acknowledge(channel_id)?;
                    self.send_share_error(channel_id, number, code)?;
                }
                if let Some(channel) = self.channels.get_mut(&channel_id) {
                    channel.acks.refuse(done.place);
                }
                Ok(report)
            }
        }
    }

    fn acknowledge(&mut self, channel_id: u32) -> Result<(), Ended> {
        let channel = self.channels.get_mut(&channel_id);
        let Some(ack) = channel.and_then(|channel| channel.acks.take()) else {
            return Ok(());
        };
        self.send(&SubmitSharesSuccessOwned {
            channel_id,
            last_sequence_number: ack.last_sequence_number,
            new_submits_accepted_count: ack.accepted,
            new_shares_sum: ack.difficulty,
        })
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

/// Whether no later share can claim the batch either.
fn is_final(settled: &Settled) -> bool {
    match settled {
        Settled::Accepted(_) => true,
        Settled::Refused(code, _) => codes::is_final_for_batch(code),
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

fn outcome(report: &BatchReport) -> BatchOutcome {
    // No amount of the ledger is negative here, and none is as large as the word for "not known".
    let msat = |amount: Msat| u64::try_from(amount.get()).unwrap_or(MSAT_UNKNOWN);
    BatchOutcome {
        root: report.root,
        header_hash: report.header_hash,
        accepted: report.accepted,
        beacon_step: report.step,
        preimage: report.preimage,
        code: report.code.to_owned(),
        credit_msat: msat(report.credit),
        held_msat: report.held.map_or(MSAT_UNKNOWN, msat),
    }
}
