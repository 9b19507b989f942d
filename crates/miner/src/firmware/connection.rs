//! One firmware connection: a task that owns its channels, follows the current job, and decides in one
//! visible place what happens next.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Target;
use dovetail_sv2::messages::{
    B032Owned, B064KOwned, CloseChannel, NewExtendedMiningJob, NewMiningJob,
    OpenExtendedMiningChannel, OpenStandardMiningChannel, RequestExtensions, Seq0255Owned,
    SetNewPrevHash, SetTarget, Str0255Owned, SubmitSharesError, SubmitSharesExtended,
    SubmitSharesStandard, SubmitSharesSuccess, Sv2OptionOwned, U256Owned, UpdateChannel,
};
use dovetail_sv2::server::{Client, EndReason, MiningClock};
use dovetail_sv2::setup::mining_flags;
use dovetail_sv2::{Frame, FrameReader, Message, Outbox, negotiation};
use dovetail_units::header::{TIME_AHEAD_MAX_S, Tip};
use stratum_core::mining_sv2 as codes;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::FirmwareOptions;
use super::channel::{Channel, Refusal, Submitted};
use crate::current_job::CurrentJob;
use crate::job::{Offered, SharedJob};
use crate::stats;

/// Refused shares in a row, [untimely](is_untimely) ones aside, after which a connection is ended: nothing
/// that hashes our jobs sends that many.
const BAD_SHARES_MAX: u32 = 256;
/// How much earlier a job's least time may be than that of the tip which devices were told. Jobs come from several
/// clocks, the pool's and this machine's. Within this slack devices are told the later time for both, which half of what
/// a header's time may be ahead of its job's allows; beyond it they are told the tip again, at the cost of their work.
const CLOCK_SLACK_S: u32 = TIME_AHEAD_MAX_S / 2;
/// The group that all channels of a connection are in; channels are numbered from the next on.
pub(super) const GROUP_ID: u32 = 1;

/// The connection's state. Nobody else holds any of it.
pub(super) struct Connection {
    outbox: Outbox,
    pub(super) current_job: Arc<CurrentJob>,
    pub(super) options: Arc<FirmwareOptions>,
    /// The firmware takes standard jobs only.
    pub(super) standard_only: bool,
    next_channel_id: u32,
    pub(super) channels: BTreeMap<u32, Channel>,
    /// What its channels were given last.
    given: Option<SharedJob>,
    /// The tip that they were told last. They may be told no least time before its.
    told: Option<Tip>,
    /// Before this no job is given that is not urgent.
    next_job_at: Instant,
    bad_shares: u32,
}

/// Serves one firmware connection to its end.
pub(super) async fn serve(
    client: Client,
    options: Arc<FirmwareOptions>,
    current_job: Arc<CurrentJob>,
) {
    let mut connection = Connection {
        outbox: client.outbox,
        current_job,
        options,
        standard_only: client.flags & mining_flags::REQUIRES_STANDARD_JOBS != 0,
        next_channel_id: GROUP_ID + 1,
        channels: BTreeMap::new(),
        given: None,
        told: None,
        next_job_at: Instant::now(),
        bad_shares: 0,
    };
    tracing::info!(
        standard_only = connection.standard_only,
        "firmware connected"
    );
    match connection.run(client.reader, &client.token).await {
        EndReason::Closed => tracing::info!("firmware disconnected"),
        other => tracing::warn!(error = %other, "a firmware connection was ended"),
    }
    connection.close_all();
}

impl Connection {
    async fn run(&mut self, mut reader: FrameReader, token: &CancellationToken) -> EndReason {
        let mut jobs = self.current_job.subscribe();
        jobs.mark_changed();
        let mut clock = MiningClock::start();
        let mut delayed: Option<SharedJob> = None;
        loop {
            let step = tokio::select! {
                () = token.cancelled() => return EndReason::Closed,
                changed = jobs.changed() => {
                    if changed.is_err() {
                        return EndReason::Closed;
                    }
                    let newest = jobs.borrow_and_update().clone();
                    match newest {
                        Some(job) if self.is_urgent(&job) => {
                            delayed = None;
                            self.give(job)
                        }
                        other => {
                            delayed = other;
                            Ok(())
                        }
                    }
                }
                () = sleep_until(self.next_job_at), if delayed.is_some() => match delayed.take() {
                    Some(job) => self.give(job),
                    None => Ok(()),
                },
                () = clock.tick() => self.on_vardiff(&mut clock),
                frame = reader.read() => match frame {
                    Ok(frame) => self.on_frame(&frame),
                    Err(_) => Err(EndReason::Closed),
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Looks the message up by its header alone.
    fn on_frame(&mut self, frame: &Frame) -> Result<(), EndReason> {
        if frame.is::<RequestExtensions>() {
            // We speak none towards firmware: the answer is an error, the connection stays.
            let request: RequestExtensions = frame.message()?;
            return match negotiation::answer(&request, &[], &[]) {
                Ok(success) => self.send(&success),
                Err(error) => self.send(&error),
            };
        }
        if frame.extension_type != 0 {
            // Unknown extensions are discarded; the connection stays (3.4.1).
            return Ok(());
        }
        if frame.is::<SubmitSharesStandard>() {
            self.on_submit_standard(&frame.message()?)
        } else if frame.is::<SubmitSharesExtended>() {
            self.on_submit_extended(&frame.message()?)
        } else if frame.is::<OpenStandardMiningChannel>() {
            self.on_open_standard(&frame.message()?)
        } else if frame.is::<OpenExtendedMiningChannel>() {
            self.on_open_extended(&frame.message()?)
        } else if frame.is::<UpdateChannel>() {
            self.on_update_channel(&frame.message()?)
        } else if frame.is::<CloseChannel>() {
            self.on_close_channel(&frame.message()?);
            Ok(())
        } else {
            Err(EndReason::Protocol("a message that firmware does not send"))
        }
    }

    /// Whether a job may not wait: the first one, and one on a new tip.
    fn is_urgent(&self, job: &SharedJob) -> bool {
        self.is_new_tip(job) || Instant::now() >= self.next_job_at
    }

    fn is_new_tip(&self, job: &SharedJob) -> bool {
        self.told
            .is_none_or(|told| job.parts().tip().is_news_after(&told, CLOCK_SLACK_S))
    }

    /// Makes a job current on every channel: a future job and its tip if the tip is new, else a job
    /// to be hashed at once, which flushes nothing (5.3.15 to 5.3.17).
    fn give(&mut self, job: SharedJob) -> Result<(), EndReason> {
        let new_tip = self.is_new_tip(&job);
        self.next_job_at = Instant::now() + self.options.job_interval;
        self.given = Some(job.clone());
        let tip = self.tip_told(&job, new_tip);
        // A job on a tip that devices know is hashed at once.
        let (tip, at_once) = match new_tip {
            true => (Some(tip), None),
            false => (None, Some(tip.min_ntime)),
        };
        let changed: Vec<(u32, Target)> = self
            .channels
            .iter_mut()
            .filter_map(|(id, channel)| {
                channel
                    .give(job.clone(), new_tip)
                    .then(|| (*id, channel.target()))
            })
            .collect();
        for (id, target) in changed {
            self.send_target(id, target)?;
        }
        if self.standard_only {
            let ids: Vec<u32> = self.channels.keys().copied().collect();
            for id in &ids {
                self.send_job(*id, &job, at_once)?;
            }
            if let Some(tip) = tip {
                ids.iter()
                    .try_for_each(|id| self.send_tip(*id, &job, &tip))?;
            }
        } else if !self.channels.is_empty() {
            self.send(&extended_message(GROUP_ID, &job, at_once)?)?;
            if let Some(tip) = tip {
                self.send_tip(GROUP_ID, &job, &tip)?;
            }
        }
        Ok(())
    }

    /// The tip of a job as devices are told it from now on: its own if it is news, else the one that they know, with
    /// the job's time where that is later.
    fn tip_told(&mut self, job: &SharedJob, new_tip: bool) -> Tip {
        let mut tip = job.parts().tip();
        if let Some(told) = self.told.filter(|_| !new_tip) {
            tip.min_ntime = tip.min_ntime.max(told.min_ntime);
        }
        self.told = Some(tip);
        tip
    }

    /// The first messages on a new channel: a future job and the tip that activates it (5.3.15).
    pub(super) fn first_job(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let Some(job) = self.given.clone() else {
            // Nothing to hash yet: the first job will reach every channel.
            return Ok(());
        };
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        let changed = channel.give(job.clone(), true);
        let target = channel.target();
        if changed {
            self.send_target(channel_id, target)?;
        }
        self.send_job(channel_id, &job, None)?;
        let tip = self.tip_told(&job, false);
        self.send_tip(channel_id, &job, &tip)
    }

    /// The job in the form of the channel's kind: to be hashed at once, from this time on, or a future one.
    fn send_job(
        &self,
        channel_id: u32,
        job: &SharedJob,
        min_ntime: Option<u32>,
    ) -> Result<(), EndReason> {
        let Some(channel) = self.channels.get(&channel_id) else {
            return Ok(());
        };
        match channel.kind() {
            super::channel::Kind::Standard => self.send(&NewMiningJob {
                channel_id,
                job_id: job.id,
                min_ntime: Sv2OptionOwned::new(min_ntime),
                version: job.parts().version,
                merkle_root: channel.merkle_root(job).into(),
            }),
            super::channel::Kind::Extended => {
                self.send(&extended_message(channel_id, job, min_ntime)?)
            }
        }
    }

    fn send_tip(&self, channel_id: u32, job: &SharedJob, tip: &Tip) -> Result<(), EndReason> {
        self.send(&SetNewPrevHash {
            channel_id,
            job_id: job.id,
            prev_hash: tip.prev_hash.into(),
            min_ntime: tip.min_ntime,
            nbits: tip.nbits,
        })
    }

    fn send_target(&self, channel_id: u32, target: Target) -> Result<(), EndReason> {
        self.send(&SetTarget {
            channel_id,
            maximum_target: target.to_le_bytes().into(),
        })
    }

    fn on_vardiff(&mut self, clock: &mut MiningClock) -> Result<(), EndReason> {
        clock.check_idle(!self.channels.is_empty())?;
        let ids: Vec<u32> = self.channels.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.steer(id))
    }

    /// Steers a channel, by the work that it has proven up to now.
    fn steer(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let channel = self.channels.get_mut(&channel_id);
        match channel.is_some_and(|channel| channel.steer(std::time::Instant::now())) {
            true => self.change_target(channel_id),
            false => Ok(()),
        }
    }

    /// Tells a channel its new target, with the job again under a number of its own: earlier jobs keep their target.
    pub(super) fn change_target(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        let job = self.given.as_ref().map(|job| self.current_job.again(job));
        if let Some(job) = &job {
            channel.give(job.clone(), false);
        }
        let target = channel.target();
        self.send_target(channel_id, target)?;
        let Some(job) = job else {
            return Ok(());
        };
        let min_ntime = self.tip_told(&job, false).min_ntime;
        self.send_job(channel_id, &job, Some(min_ntime))
    }

    fn on_submit_standard(&mut self, share: &SubmitSharesStandard) -> Result<(), EndReason> {
        let submitted = Submitted {
            job_id: share.job_id,
            extranonce: &[],
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        };
        self.on_submit(share.channel_id, share.sequence_number, &submitted)
    }

    fn on_submit_extended(&mut self, share: &SubmitSharesExtended) -> Result<(), EndReason> {
        let submitted = Submitted {
            job_id: share.job_id,
            extranonce: share.extranonce.as_bytes(),
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        };
        self.on_submit(share.channel_id, share.sequence_number, &submitted)
    }

    fn on_submit(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        share: &Submitted<'_>,
    ) -> Result<(), EndReason> {
        let judged = match self.channels.get_mut(&channel_id) {
            Some(channel) => channel.submit(share),
            None => Err(Refusal::Code(
                codes::ERROR_CODE_SUBMIT_SHARES_INVALID_CHANNEL_ID,
            )),
        };
        let stats = self.current_job.stats().clone();
        match judged {
            Ok(judged) => {
                self.bad_shares = 0;
                stats.proved(judged.hashes);
                if judged.offered == Offered::Lost {
                    stats::count(&stats.shares_lost);
                }
                self.send(&SubmitSharesSuccess {
                    channel_id,
                    last_sequence_number: sequence_number,
                    new_submits_accepted_count: 1,
                    new_shares_sum: judged.difficulty,
                })?;
                self.steer(channel_id)
            }
            Err(Refusal::Code(code)) => {
                tracing::debug!(channel_id, code, "refused a share of the firmware");
                if !is_untimely(code) {
                    self.bad_shares += 1;
                }
                if self.bad_shares > BAD_SHARES_MAX {
                    return Err(EndReason::Protocol("too many bad shares in a row"));
                }
                self.send(&SubmitSharesError {
                    channel_id,
                    sequence_number,
                    error_code: text(code)?,
                })
            }
            Err(Refusal::Flood) => Err(EndReason::Protocol("too many shares on one tip")),
        }
    }

    pub(super) fn close_all(&mut self) {
        let stats = self.current_job.stats();
        self.channels
            .values()
            .for_each(|_| stats::uncount(&stats.channels));
        self.channels.clear();
    }

    pub(super) fn take_channel_id(&mut self) -> u32 {
        let id = self.next_channel_id;
        self.next_channel_id = id.checked_add(1).unwrap_or(GROUP_ID + 1);
        id
    }

    /// Queues a message; firmware that does not read is dropped.
    pub(super) fn send<M: Message>(&self, message: &M) -> Result<(), EndReason> {
        Ok(self.outbox.send(message)?)
    }
}

/// An error code as a message field.
pub(super) fn text(code: &str) -> Result<Str0255Owned, EndReason> {
    Str0255Owned::try_from(code).map_err(EndReason::encode)
}

/// A part of an extranonce as a message field.
pub(super) fn prefix(bytes: &[u8]) -> Result<B032Owned, EndReason> {
    B032Owned::new(bytes.to_vec()).map_err(EndReason::encode)
}

fn extended_message(
    channel_id: u32,
    job: &SharedJob,
    min_ntime: Option<u32>,
) -> Result<NewExtendedMiningJob, EndReason> {
    let parts = job.parts();
    let path: Vec<U256Owned> = parts.merkle_path.iter().map(|n| (*n).into()).collect();
    Ok(NewExtendedMiningJob {
        channel_id,
        job_id: job.id,
        min_ntime: Sv2OptionOwned::new(min_ntime),
        version: parts.version,
        version_rolling_allowed: parts.version_rolling,
        merkle_path: Seq0255Owned::new(path).map_err(EndReason::encode)?,
        coinbase_tx_prefix: B064KOwned::new(job.coinbase_prefix().to_vec())
            .map_err(EndReason::encode)?,
        coinbase_tx_suffix: B064KOwned::new(parts.coinbase_suffix.clone())
            .map_err(EndReason::encode)?,
    })
}

/// Whether a share is refused for its time alone: its job is of a tip that has passed, or its header's time
/// is. There are devices that set the time once per job and do not look at the job's least one, which
/// a block that was found a moment ago may have moved past it; with the next job they are right again.
fn is_untimely(code: &str) -> bool {
    [
        codes::ERROR_CODE_SUBMIT_SHARES_STALE_SHARE,
        codes::ERROR_CODE_SUBMIT_SHARES_INVALID_SHARE,
    ]
    .contains(&code)
}
