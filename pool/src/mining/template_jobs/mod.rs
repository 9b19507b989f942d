//! New templates and new tips, told to the channels of one connection (sections 5.3.15 to
//! 5.3.17): a changed tip is a future job and a `SetNewPrevHash` that activates it; a better
//! template on the same tip is a job to be mined at once.

pub(super) mod job_maker;

use std::sync::Arc;
use std::time::Instant;

use bitcoin::Target;
use dovetail_sv2::EndReason;
use dovetail_templates::WorkSnapshot;
use stratum_core::binary_sv2::Sv2OptionOwned;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{NewMiningJobOwned, SetNewPrevHashOwned, SetTargetOwned};

use super::connection::Connection;

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
            .is_none_or(|old| old.prev_hash.prev_hash != work.prev_hash.prev_hash);
        let job = self.build_job(&work, self.group_id, new_tip)?;
        self.work = Some(Arc::clone(&work));
        for channel in self.channels.values_mut() {
            install(channel.install(&job))?;
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

    /// The first messages on a new channel. Its job is its own: the group's may have been hashed with the same
    /// extranonce, by a channel that is closed by now.
    pub(in crate::mining) fn first_job(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let Some(work) = self.work.clone() else {
            // No template yet: the first one will reach every channel.
            return Ok(());
        };
        let job = self.build_job(&work, channel_id, true)?;
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        install(channel.install(&job))?;
        let root = channel.standard_job(job.get_job_id());
        let mut tip = work.prev_hash.clone();
        tip.template_id = work.template.template_id;
        install(channel.activate(&tip))?;
        self.send_job(channel_id, &job, root)?;
        self.send_tip(channel_id, job.get_job_id(), &work)
    }

    fn build_job(
        &mut self,
        work: &WorkSnapshot,
        channel_id: u32,
        future: bool,
    ) -> Result<Arc<ExtendedJob>, EndReason> {
        let job = self.jobs.build(work, channel_id, future);
        job.map(Arc::new).map_err(|error| {
            tracing::error!(error, "a template gives no job");
            EndReason::Fault("a template gives no job")
        })
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

    fn activate(&mut self, work: &WorkSnapshot, job_id: u32) -> Result<(), EndReason> {
        let mut tip = work.prev_hash.clone();
        tip.template_id = work.template.template_id;
        for channel in self.channels.values_mut() {
            install(channel.activate(&tip))?;
        }
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
            min_ntime: work.prev_hash.header_timestamp,
            nbits: work.prev_hash.n_bits,
        })
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
    /// chain the next template may take long.
    pub(in crate::mining) fn change_target(&mut self, channel_id: u32) -> Result<(), EndReason> {
        let Some(channel) = self.channels.get(&channel_id) else {
            return Ok(());
        };
        self.send_target(channel_id, channel.target())?;
        let Some(work) = self.work.clone() else {
            return Ok(());
        };
        let job = self.build_job(&work, channel_id, false)?;
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        install(channel.install(&job))?;
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
