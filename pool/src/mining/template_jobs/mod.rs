//! New templates and new tips, told to the channels of one connection (sections 5.3.15 to
//! 5.3.17): a changed tip is a future job and a `SetNewPrevHash` that activates it; a better
//! template on the same tip is a job to be mined at once. A tip is changed by another target and by an
//! earlier time as well. Clients that bring custom jobs are told none of it, but for
//! workers of ours, which fall back to the pool's.

pub(super) mod job_maker;

use std::sync::Arc;
use std::time::Instant;

use bitcoin::Target;
use dovetail_sv2::EndReason;
use dovetail_templates::WorkSnapshot;
use dovetail_units::header::job_min_ntime;
use dovetail_units::time::header_time_now;
use stratum_core::binary_sv2::Sv2OptionOwned;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{
    CloseChannelOwned, NewMiningJobOwned, SetNewPrevHashOwned, SetTargetOwned,
};
use stratum_core::template_distribution_sv2::SetNewPrevHashOwned as TemplatePrevHash;

use super::connection::Connection;
use super::fields::{SOURCE_AWAY, code_text};
use job_maker::Start;

impl Connection {
    /// Takes what the template source has now.
    pub(in crate::mining) fn on_work(&mut self, work: Arc<WorkSnapshot>) -> Result<(), EndReason> {
        // A declared job may have fetched it already.
        if self
            .work
            .as_ref()
            .is_some_and(|old| old.sequence >= work.sequence)
        {
            return Ok(());
        }
        let new_tip = self
            .work
            .as_ref()
            .is_none_or(|old| work.tip().is_news_after(&old.tip(), 0));
        let min_ntime = match new_tip {
            true => job_min_ntime(work.min_ntime(), header_time_now()),
            false => self.min_ntime_on(&work),
        };
        if !self.takes_pool_jobs() {
            self.min_ntime = min_ntime;
            self.work = Some(Arc::clone(&work));
            return match new_tip {
                true => self.move_tip(&work),
                false => Ok(()),
            };
        }
        let start = match new_tip {
            true => Start::WithItsTip,
            false => Start::AtOnce { min_ntime },
        };
        let Some(job) = self.build_job(&work, self.group_id, start) else {
            return Ok(());
        };
        self.min_ntime = min_ntime;
        self.work = Some(Arc::clone(&work));
        for channel in self.channels.values_mut() {
            install(channel.install(&job, Instant::now()))?;
        }
        if self.flags.requires_standard_jobs {
            self.send_standard_jobs(&job)?;
        } else if !self.channels.is_empty() {
            self.send(&job.get_job_message().clone())?;
        }
        if new_tip {
            self.activate(&work, job.get_job_id())?;
        }
        self.renew_batch_job(new_tip)
    }

    /// The least time of a job that is given now on the tip that miners know. It never goes back there: channels refuse
    /// a job that is earlier than their tip.
    pub(in crate::mining) fn min_ntime_on(&self, work: &WorkSnapshot) -> u32 {
        job_min_ntime(work.min_ntime(), header_time_now()).max(self.min_ntime)
    }

    /// The first messages on a new channel. Its job is its own: the group's may have been hashed with the same
    /// extranonce, by a channel that is closed by now.
    pub(in crate::mining) fn first_job(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let Some(work) = self.work.clone() else {
            // No template yet: the first one will reach every channel.
            return Ok(());
        };
        if !self.takes_pool_jobs() {
            let tip = self.tip_of(&work);
            let channel = self.channels.get_mut(&channel_id);
            return channel.map_or(Ok(()), |channel| {
                install(channel.activate(&tip, Instant::now()))
            });
        }
        let Some(job) = self.build_job(&work, channel_id, Start::WithItsTip) else {
            return Ok(());
        };
        self.min_ntime = self.min_ntime_on(&work);
        let tip = self.tip_of(&work);
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        install(channel.install(&job, Instant::now()))?;
        let root = channel.standard_job(job.get_job_id());
        install(channel.activate(&tip, Instant::now()))?;
        self.send_job(channel_id, &job, root)?;
        self.send_tip(channel_id, job.get_job_id(), &work)
    }

    /// A job of the pool's, if the template gives one.
    fn build_job(
        &mut self,
        work: &WorkSnapshot,
        channel_id: u32,
        start: Start,
    ) -> Option<Arc<ExtendedJob>> {
        let job = self.jobs.build(work, channel_id, start);
        // Its miners have no part in an error: they stay on what they have.
        let job = job.inspect_err(|error| self.shared.alarm_about(work, error));
        job.ok().map(Arc::new)
    }

    /// A job of one channel, in the form of the channel's kind: a standard one has a merkle root.
    fn send_job(
        &self,
        channel_id: u32,
        job: &ExtendedJob,
        root: Option<[u8; 32]>,
    ) -> Result<(), EndReason> {
        match root {
            Some(root) => self.send(&standard_message(channel_id, job, root)),
            None => self.send(&job.get_job_message().clone()),
        }
    }

    fn send_standard_jobs(&mut self, job: &ExtendedJob) -> Result<(), EndReason> {
        let messages: Vec<NewMiningJobOwned> = self
            .channels
            .iter()
            .filter_map(|(id, channel)| {
                let root = channel.standard_job(job.get_job_id())?;
                Some(standard_message(*id, job, root))
            })
            .collect();
        messages.iter().try_for_each(|message| self.send(message))
    }

    /// The tip of `work`, with the time from which its job is mined now.
    fn tip_of(&self, work: &WorkSnapshot) -> TemplatePrevHash {
        TemplatePrevHash {
            template_id: work.template_id(),
            header_timestamp: self.min_ntime,
            ..work.prev_hash.clone()
        }
    }

    /// The inference extension was granted. It is asked for before channels are opened; channels that are open already
    /// begin anew, with a job of the pool's.
    pub(in crate::mining) fn begin_extension(&mut self) -> Result<(), EndReason> {
        let had_pool_jobs = self.takes_pool_jobs();
        self.extension = true;
        if had_pool_jobs {
            return Ok(());
        }
        let ids: Vec<u32> = self.channels.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.first_job(id))
    }

    /// Moves all channels to the tip of `work`, which ends their jobs on the one before.
    fn move_tip(&mut self, work: &WorkSnapshot) -> Result<(), EndReason> {
        let tip = self.tip_of(work);
        let mut channels = self.channels.values_mut();
        channels.try_for_each(|channel| install(channel.activate(&tip, Instant::now())))
    }

    fn activate(&mut self, work: &WorkSnapshot, job_id: u32) -> Result<(), EndReason> {
        self.move_tip(work)?;
        if self.flags.requires_standard_jobs {
            let ids: Vec<u32> = self.channels.keys().copied().collect();
            ids.into_iter()
                .try_for_each(|id| self.send_tip(id, job_id, work))
        } else if self.channels.is_empty() {
            Ok(())
        } else {
            self.send_tip(self.group_id, job_id, work)
        }
    }

    fn send_tip(
        &mut self,
        channel_id: u32,
        job_id: u32,
        work: &WorkSnapshot,
    ) -> Result<(), EndReason> {
        self.send(&SetNewPrevHashOwned {
            channel_id,
            job_id,
            prev_hash: work.prev_hash.prev_hash.clone(),
            min_ntime: self.min_ntime,
            nbits: work.prev_hash.n_bits,
        })
    }

    /// Whether the work is stale has changed. If it is, nobody knows any more whether a block on it could be one, and
    /// it is not paid: miners are let go, so that they can go elsewhere.
    pub(in crate::mining) fn on_staleness(&mut self, stale: bool) -> Result<(), EndReason> {
        if !stale || self.channels.is_empty() {
            return Ok(());
        }
        for channel_id in self.channels.keys() {
            self.send(&CloseChannelOwned {
                channel_id: *channel_id,
                reason_code: code_text(SOURCE_AWAY)?,
            })?;
        }
        Err(EndReason::NoWork)
    }

    /// Steers every channel towards the configured share rate.
    pub(in crate::mining) fn on_vardiff(&mut self) -> Result<(), EndReason> {
        let ids: Vec<u32> = self.channels.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.steer(id))
    }

    /// Steers a channel, by the work that it has proven up to now.
    pub(in crate::mining) fn steer(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let channel = self.channels.get_mut(&channel_id);
        match channel.is_some_and(|channel| channel.steer(Instant::now())) {
            true => self.change_target(channel_id),
            false => Ok(()),
        }
    }

    /// Tells a channel its new target, with a job that carries it: earlier jobs keep theirs (5.3.21), and on a quiet
    /// chain the next template may take long. Whoever is given no jobs of the pool's has it with its next one.
    pub(in crate::mining) fn change_target(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let Some(channel) = self.channels.get(&channel_id) else {
            return Ok(());
        };
        self.send_target(channel_id, channel.target())?;
        let Some(work) = self.work.clone().filter(|_| self.takes_pool_jobs()) else {
            return Ok(());
        };
        let min_ntime = self.min_ntime_on(&work);
        let Some(job) = self.build_job(&work, channel_id, Start::AtOnce { min_ntime }) else {
            return Ok(());
        };
        self.min_ntime = min_ntime;
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        install(channel.install(&job, Instant::now()))?;
        let root = channel.standard_job(job.get_job_id());
        self.send_job(channel_id, &job, root)?;
        self.retarget_batch_job(channel_id)
    }

    fn send_target(&self, channel_id: u32, target: Target) -> Result<(), EndReason> {
        self.send(&SetTargetOwned {
            channel_id,
            maximum_target: target.to_le_bytes().into(),
        })
    }
}

fn standard_message(
    channel_id: u32,
    job: &ExtendedJob,
    merkle_root: [u8; 32],
) -> NewMiningJobOwned {
    NewMiningJobOwned {
        channel_id,
        job_id: job.get_job_id(),
        min_ntime: Sv2OptionOwned::new(job.get_min_ntime()),
        version: job.get_version(),
        merkle_root: merkle_root.into(),
    }
}

fn install(result: Result<(), String>) -> Result<(), EndReason> {
    result.map_err(|error| {
        tracing::error!(error, "a channel refused its job");
        EndReason::Fault("a channel refused its job")
    })
}
