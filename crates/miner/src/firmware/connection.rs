//! One firmware connection: a task that owns its channels, follows the current job, and decides in one
//! visible place what happens next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Target;
use dovetail_sv2::messages::{
    B032Owned, B064KOwned, CloseChannel, NewExtendedMiningJob, NewMiningJob,
    OpenExtendedMiningChannel, OpenStandardMiningChannel, RequestExtensions, Seq0255Owned,
    SetNewPrevHash, SetTarget, Str0255Owned, SubmitSharesError, SubmitSharesExtended,
    SubmitSharesStandard, SubmitSharesSuccess, Sv2OptionOwned, U256Owned, UpdateChannel,
};
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, mining_flags};
use dovetail_sv2::{
    DecodeError, Frame, FrameReader, FrameWriter, Message, Outbox, OutboxError, negotiate, setup,
};
use stratum_core::mining_sv2 as codes;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use super::FirmwareOptions;
use super::channel::{Channel, Refusal, Submitted};
use crate::current_job::CurrentJob;
use crate::job::{Offered, SharedJob};
use crate::stats;

/// Frames that may wait for one connection. The longest burst is a job, a tip and a target for
/// each of its channels.
const OUTBOX_MAX: usize = 512;
/// How often difficulty is reconsidered.
const VARDIFF_INTERVAL: Duration = Duration::from_secs(20);
/// A connection without a channel is closed after this (5.3.2).
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);
/// Refused shares in a row, [untimely](is_untimely) ones aside, after which a connection is ended: nothing
/// that hashes our jobs sends that many.
const BAD_SHARES_MAX: u32 = 256;
/// The group that all channels of a connection are in; channels are numbered from the next on.
pub(super) const GROUP_ID: u32 = 1;

/// Why a connection ended, where it did not simply close.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The peer is gone or does not keep up.
    #[error("the connection closed")]
    Closed,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// A message did not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A message of ours breaks a limit; only this connection suffers.
    #[error("a message of ours does not fit: {0}")]
    Encode(String),
}

/// The connection's state. Nobody else holds any of it.
pub(super) struct Connection<'a> {
    outbox: Outbox,
    pub(super) current_job: Arc<CurrentJob>,
    pub(super) options: &'a FirmwareOptions,
    /// The firmware takes standard jobs only.
    pub(super) standard_only: bool,
    next_channel_id: u32,
    pub(super) channels: BTreeMap<u32, Channel>,
    /// What its channels were given last.
    given: Option<SharedJob>,
    /// Before this no job is given that is not urgent.
    next_job_at: Instant,
    bad_shares: u32,
}

/// Serves one firmware connection from `SetupConnection` to its end.
pub(super) async fn serve(
    mut reader: FrameReader,
    mut writer: FrameWriter,
    options: &FirmwareOptions,
    current_job: Arc<CurrentJob>,
    token: CancellationToken,
) {
    let policy = ServerPolicy {
        protocol: SetupProtocol::MiningProtocol,
        supported_flags: mining_flags::REQUIRES_STANDARD_JOBS
            | mining_flags::REQUIRES_VERSION_ROLLING,
        required_flags: 0,
        success_flags: 0,
    };
    let request = match setup::serve(&mut reader, &mut writer, &policy).await {
        Ok(request) => request,
        Err(error) => return tracing::debug!(%error, "a firmware connection was not set up"),
    };
    let (outbox, writing) = Outbox::spawn(writer, OUTBOX_MAX, token.clone());
    let mut connection = Connection {
        outbox,
        current_job,
        options,
        standard_only: request.flags & mining_flags::REQUIRES_STANDARD_JOBS != 0,
        next_channel_id: GROUP_ID + 1,
        channels: BTreeMap::new(),
        given: None,
        next_job_at: Instant::now(),
        bad_shares: 0,
    };
    tracing::info!(
        standard_only = connection.standard_only,
        "firmware connected"
    );
    match connection.run(reader, &token).await {
        Ended::Closed => tracing::info!("firmware disconnected"),
        other => tracing::warn!(error = %other, "a firmware connection was ended"),
    }
    connection.close_all();
    drop(connection);
    let _ = writing.await;
}

impl Connection<'_> {
    async fn run(&mut self, mut reader: FrameReader, token: &CancellationToken) -> Ended {
        let mut jobs = self.current_job.subscribe();
        jobs.mark_changed();
        let mut vardiff = interval_at(Instant::now() + VARDIFF_INTERVAL, VARDIFF_INTERVAL);
        vardiff.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = Instant::now();
        let mut delayed: Option<SharedJob> = None;
        loop {
            let step = tokio::select! {
                () = token.cancelled() => return Ended::Closed,
                changed = jobs.changed() => {
                    if changed.is_err() {
                        return Ended::Closed;
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
                _ = vardiff.tick() => self.on_vardiff(&mut idle_since),
                frame = reader.read() => match frame {
                    Ok(frame) => self.on_frame(&frame),
                    Err(_) => Err(Ended::Closed),
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Looks the message up by its header alone.
    fn on_frame(&mut self, frame: &Frame) -> Result<(), Ended> {
        if frame.is::<RequestExtensions>() {
            // We speak none towards firmware: the answer is an error, the connection stays.
            let request: RequestExtensions = whole(frame)?;
            return match negotiate::answer(&request, &[], &[]) {
                Ok(success) => self.send(&success),
                Err(error) => self.send(&error),
            };
        }
        if frame.extension_type != 0 {
            // Unknown extensions are discarded; the connection stays (3.4.1).
            return Ok(());
        }
        if frame.is::<SubmitSharesStandard>() {
            self.on_submit_standard(&whole(frame)?)
        } else if frame.is::<SubmitSharesExtended>() {
            self.on_submit_extended(&whole(frame)?)
        } else if frame.is::<OpenStandardMiningChannel>() {
            self.on_open_standard(&whole(frame)?)
        } else if frame.is::<OpenExtendedMiningChannel>() {
            self.on_open_extended(&whole(frame)?)
        } else if frame.is::<UpdateChannel>() {
            self.on_update_channel(&whole(frame)?)
        } else if frame.is::<CloseChannel>() {
            self.on_close_channel(&whole(frame)?);
            Ok(())
        } else {
            Err(Ended::Protocol("a message that firmware does not send"))
        }
    }

    /// Whether a job may not wait: the first one, and one on a new tip.
    fn is_urgent(&self, job: &SharedJob) -> bool {
        self.is_new_tip(job) || Instant::now() >= self.next_job_at
    }

    fn is_new_tip(&self, job: &SharedJob) -> bool {
        self.given
            .as_ref()
            .is_none_or(|given| given.parts().prev_hash != job.parts().prev_hash)
    }

    /// Makes a job current on every channel: a future job and its tip if the tip is new, else a job
    /// to be hashed at once, which flushes nothing (5.3.15 to 5.3.17).
    fn give(&mut self, job: SharedJob) -> Result<(), Ended> {
        let new_tip = self.is_new_tip(&job);
        self.next_job_at = Instant::now() + self.options.job_interval;
        self.given = Some(job.clone());
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
                self.send_job(*id, &job, new_tip)?;
            }
            if new_tip {
                ids.iter().try_for_each(|id| self.send_tip(*id, &job))?;
            }
        } else if !self.channels.is_empty() {
            self.send(&extended_message(GROUP_ID, &job, new_tip)?)?;
            if new_tip {
                self.send_tip(GROUP_ID, &job)?;
            }
        }
        Ok(())
    }

    /// The first messages on a new channel: a future job and the tip that activates it (5.3.15).
    pub(super) fn first_job(&mut self, channel_id: u32) -> Result<(), Ended> {
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
        self.send_job(channel_id, &job, true)?;
        self.send_tip(channel_id, &job)
    }

    /// The job in the form of the channel's kind.
    fn send_job(&self, channel_id: u32, job: &SharedJob, future: bool) -> Result<(), Ended> {
        let Some(channel) = self.channels.get(&channel_id) else {
            return Ok(());
        };
        match channel.kind() {
            super::channel::Kind::Standard => self.send(&NewMiningJob {
                channel_id,
                job_id: job.id,
                min_ntime: min_ntime(job, future),
                version: job.parts().version,
                merkle_root: channel.merkle_root(job).into(),
            }),
            super::channel::Kind::Extended => {
                self.send(&extended_message(channel_id, job, future)?)
            }
        }
    }

    fn send_tip(&self, channel_id: u32, job: &SharedJob) -> Result<(), Ended> {
        self.send(&SetNewPrevHash {
            channel_id,
            job_id: job.id,
            prev_hash: job.parts().prev_hash.into(),
            min_ntime: job.parts().min_ntime,
            nbits: job.parts().nbits,
        })
    }

    pub(super) fn send_target(&self, channel_id: u32, target: Target) -> Result<(), Ended> {
        self.send(&SetTarget {
            channel_id,
            maximum_target: target.to_le_bytes().into(),
        })
    }

    fn on_vardiff(&mut self, idle_since: &mut Instant) -> Result<(), Ended> {
        if !self.channels.is_empty() {
            *idle_since = Instant::now();
        } else if idle_since.elapsed() > IDLE_TIME_MAX {
            return Err(Ended::Protocol("no channel for too long"));
        }
        let changed: Vec<(u32, Target)> = self
            .channels
            .iter_mut()
            .filter_map(|(id, channel)| channel.retarget().then(|| (*id, channel.target())))
            .collect();
        changed
            .into_iter()
            .try_for_each(|(id, target)| self.send_target(id, target))
    }

    fn on_submit_standard(&mut self, share: &SubmitSharesStandard) -> Result<(), Ended> {
        let submitted = Submitted {
            job_id: share.job_id,
            extranonce: &[],
            version: share.version,
            ntime: share.ntime,
            nonce: share.nonce,
        };
        self.on_submit(share.channel_id, share.sequence_number, &submitted)
    }

    fn on_submit_extended(&mut self, share: &SubmitSharesExtended) -> Result<(), Ended> {
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
    ) -> Result<(), Ended> {
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
                })
            }
            Err(Refusal::Code(code)) => {
                tracing::debug!(channel_id, code, "refused a share of the firmware");
                if !is_untimely(code) {
                    self.bad_shares += 1;
                }
                if self.bad_shares > BAD_SHARES_MAX {
                    return Err(Ended::Protocol("too many bad shares in a row"));
                }
                self.send(&SubmitSharesError {
                    channel_id,
                    sequence_number,
                    error_code: text(code)?,
                })
            }
            Err(Refusal::Flood) => Err(Ended::Protocol("too many shares on one tip")),
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
    pub(super) fn send<M: Message>(&self, message: &M) -> Result<(), Ended> {
        self.outbox.send(message).map_err(|error| match error {
            OutboxError::Encode(error) => Ended::Encode(error.to_string()),
            OutboxError::Full | OutboxError::Closed => Ended::Closed,
        })
    }
}

/// The message, with nothing behind it but whole fields of extensions.
fn whole<M: Message>(frame: &Frame) -> Result<M, Ended> {
    Ok(frame.decode_with_tlvs::<M>()?.0)
}

/// An error code as a message field.
pub(super) fn text(code: &str) -> Result<Str0255Owned, Ended> {
    Str0255Owned::try_from(code).map_err(encode)
}

/// A part of an extranonce as a message field.
pub(super) fn prefix(bytes: &[u8]) -> Result<B032Owned, Ended> {
    B032Owned::new(bytes.to_vec()).map_err(encode)
}

fn encode(error: impl std::fmt::Display) -> Ended {
    Ended::Encode(error.to_string())
}

fn min_ntime(job: &SharedJob, future: bool) -> Sv2OptionOwned<u32> {
    Sv2OptionOwned::new((!future).then_some(job.parts().min_ntime))
}

fn extended_message(
    channel_id: u32,
    job: &SharedJob,
    future: bool,
) -> Result<NewExtendedMiningJob, Ended> {
    let parts = job.parts();
    let path: Vec<U256Owned> = parts.merkle_path.iter().map(|n| (*n).into()).collect();
    Ok(NewExtendedMiningJob {
        channel_id,
        job_id: job.id,
        min_ntime: min_ntime(job, future),
        version: parts.version,
        version_rolling_allowed: parts.version_rolling,
        merkle_path: Seq0255Owned::new(path).map_err(encode)?,
        coinbase_tx_prefix: B064KOwned::new(job.coinbase_prefix().to_vec()).map_err(encode)?,
        coinbase_tx_suffix: B064KOwned::new(parts.coinbase_suffix.clone()).map_err(encode)?,
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
