//! From a judged share to its answer: it goes into the log's queue at once, and only what is durable is acknowledged, in the
//! order of the channel's shares (`acks.rs`). A claim is settled in a task of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use dovetail_commitment::HeaderHash;
use dovetail_sv2::EndReason;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{BatchOutcome, MSAT_UNKNOWN};
use dovetail_telemetry::Event;
use dovetail_units::Msat;
use dovetail_vrf::VrfProof;
use futures::future::BoxFuture;
use stratum_core::mining_sv2::SubmitSharesSuccessOwned;

use super::acks::Difficulty;
use super::judge::Judged;
use super::pending_share::{InFlight, begun};
use super::share::SubmittedShare;
use crate::claims::settle::{BatchReport, Settled};
use crate::mining::connection::Connection;

impl Connection {
    /// Hands the share over; its end comes back through [`Connection::on_settled`].
    pub(super) fn settle(&mut self, share: &SubmittedShare, judged: Judged) {
        let Judged {
            proven,
            target,
            device,
            claim,
            keeping,
        } = judged;
        let pause = self
            .shared
            .share_pace
            .count(&proven.account, Instant::now());
        self.pause_reading(pause.max(self.shared.settler.committer.pause()));
        let Some(channel) = self.channels.get_mut(&share.channel_id) else {
            return;
        };
        let mut in_flight = InFlight {
            channel_id: share.channel_id,
            sequence_number: share.sequence_number,
            place: channel.acks.enter(),
            difficulty: Difficulty::of(target),
            account: proven.account.clone(),
            device,
            work: proven.work,
            claimed: claim.as_ref().map(|claim| claim.root),
            // Unless the settlement says otherwise.
            settled: Settled::Refused(Code::Internal.into(), None),
        };
        self.claims_in_flight += usize::from(in_flight.claimed.is_some());
        let settler = Arc::clone(&self.shared.settler);
        let settling: BoxFuture<'static, InFlight> = match claim {
            // An audit runs to its end, also if the connection does not.
            Some(claim) => {
                let settling = begun(Box::pin(async move {
                    let settled = settler.settle_claim(proven, claim).await;
                    if let Some(keeping) = keeping {
                        keeping.done().await;
                    }
                    settled
                }));
                let task = self.shared.tracker.spawn(settling);
                Box::pin(async move {
                    if let Ok(settled) = task.await {
                        in_flight.settled = settled;
                    }
                    in_flight
                })
            }
            None => begun(Box::pin(async move {
                in_flight.settled = settler.settle_hash(proven).await;
                if let Some(keeping) = keeping {
                    keeping.done().await;
                }
                in_flight
            })),
        };
        self.in_flight.push(settling);
    }

    /// Settlements have ended, this one and maybe more: what can be acknowledged by now is, with one
    /// message per channel.
    pub(in crate::mining) fn on_settled(&mut self, done: InFlight) -> Result<(), EndReason> {
        let mut reports = Vec::new();
        let mut channels = BTreeSet::from([done.channel_id]);
        reports.extend(self.decide(done)?);
        while let Some(done) = self.in_flight.next_ended() {
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
    fn decide(&mut self, done: InFlight) -> Result<Option<BatchReport>, EndReason> {
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
                let device = done.device.as_deref();
                self.shared.devices.count(&done.account, device, done.work);
                if let Some(acks) = acks {
                    acks.accept(done.place, number, done.difficulty);
                    self.proven_channels.insert(channel_id);
                }
                self.on_work_proven(&done.account);
                Ok(report)
            }
            Settled::Refused(refusal, report) => {
                let code = refusal.as_str();
                self.shared.telemetry.emit(&Event::ShareRejected {
                    worker: &done.account,
                    code,
                });
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

    /// A share of this account is durable: the connection has proven work.
    fn on_work_proven(&mut self, account: &str) {
        self.place.prove();
        self.voucher = None;
        self.shared.known_accounts.learn(account);
        // One that has registered elsewhere is a worker there. The place of before is one of many.
        let is_its_own = || {
            self.worker()
                .is_some_and(|worker| worker.to_string() == account)
        };
        if !self.is_superseded && is_its_own() {
            self.place.register(true);
        }
    }

    fn acknowledge(&mut self, channel_id: u32) -> Result<(), EndReason> {
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
}

/// Whether no later share can claim the batch either.
fn is_final(settled: &Settled) -> bool {
    match settled {
        Settled::Accepted(_) => true,
        Settled::Refused(refusal, _) => refusal.is_final_for_batch(),
    }
}

fn outcome(report: &BatchReport) -> BatchOutcome {
    // No amount of the ledger is negative here, and none is as large as the word for "not known".
    let msat = |amount: Msat| u64::try_from(amount.get()).unwrap_or(MSAT_UNKNOWN);
    let (sample_header, proof, stake) = match report.drawn {
        Some(drawn) => (drawn.sample_header, drawn.proof, drawn.stake),
        None => (HeaderHash::from_bytes([0; 32]), VrfProof::NONE, Msat::ZERO),
    };
    BatchOutcome {
        root: report.root,
        header_hash: report.header_hash,
        accepted: report.accepted,
        sample_header,
        proof,
        stake_msat: msat(stake),
        code: report.code.clone().into_owned(),
        credit_msat: msat(report.credit),
        held_msat: report.held.map_or(MSAT_UNKNOWN, msat),
    }
}
