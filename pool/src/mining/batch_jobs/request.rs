//! A worker's request for a job that carries its batch, and the renewal of that job on later templates.

use std::sync::Arc;
use std::time::Instant;

use dovetail_commitment::BatchRoot;
use dovetail_sv2::EndReason;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{RequestBatchJob, RequestBatchJobError, RequestBatchJobSuccess};
use dovetail_units::time::unix_now;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;

use super::Wanted;
use crate::claims::batch::claimable_until;
use crate::mining::connection::Connection;

impl Connection {
    pub(in crate::mining) async fn on_request_batch_job(
        &mut self,
        message: &RequestBatchJob,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        match self.batch_job(message).await {
            Ok(job) => {
                tracing::debug!(id = self.id, root = %message.root, job_id = job.get_job_id(), "built a job for a batch");
                self.send(&RequestBatchJobSuccess {
                    request_id,
                    job_id: job.get_job_id(),
                })?;
                self.send(&job.get_job_message().clone())
            }
            Err(code) => {
                tracing::info!(id = self.id, root = %message.root, %code, "built no job for a batch");
                self.send(&RequestBatchJobError {
                    request_id,
                    code: code.to_string(),
                })
            }
        }
    }

    /// The checks are those that a claim has to pass, so that nobody hashes for nothing; they are
    /// made again when the claim comes.
    async fn batch_job(&mut self, message: &RequestBatchJob) -> Result<Arc<ExtendedJob>, Code> {
        let worker = self.worker().ok_or(Code::NotRegistered)?;
        let RequestBatchJob {
            channel_id, root, ..
        } = *message;
        let channel = self
            .channels
            .get(&channel_id)
            .filter(|channel| channel.as_extended().is_some())
            .ok_or(Code::ChannelUnknown)?;
        if channel.account() != worker.to_string() {
            return Err(Code::BatchNotYours);
        }
        let now = Instant::now();
        if !self.batch_jobs.allowance.take(now) {
            return Err(Code::TooManyJobs);
        }
        let batch = self
            .shared
            .ledger
            .batch(root)
            .await
            .map_err(|error| {
                tracing::error!(%error, "cannot read a batch");
                Code::Internal
            })?
            .ok_or(Code::BatchUnknown)?;
        let expires_at_unix = claimable_until(&batch, worker)?;
        let job = self.build_batch_job(channel_id, root)?;
        self.batch_jobs.wanted = Some(Wanted {
            channel_id,
            root,
            expires_at_unix,
            built_at: now,
            templates_since: 0,
        });
        Ok(job)
    }

    /// Builds the job on the newest template and makes it the channel's.
    fn build_batch_job(
        &mut self,
        channel_id: u32,
        root: BatchRoot,
    ) -> Result<Arc<ExtendedJob>, Code> {
        // Without a template yet there is nothing to build on; there soon will be.
        let work = self.work.clone().ok_or(Code::Internal)?;
        let fault = |error: String| {
            tracing::error!(error, "a template gives no job for a batch");
            Code::Internal
        };
        self.min_ntime = self.min_ntime_on(&work);
        let job = self
            .jobs
            .build_for_batch(&work, channel_id, root, self.min_ntime)
            .map_err(fault)?;
        let job = Arc::new(job);
        let channel = self
            .channels
            .get_mut(&channel_id)
            .ok_or(Code::ChannelUnknown)?;
        channel.install(&job, Instant::now()).map_err(fault)?;
        self.batch_jobs.remember(channel_id, job.get_job_id(), root);
        Ok(job)
    }

    /// After new work has reached all channels: the batch that waits for a share gets a job on it.
    pub(in crate::mining) fn renew_batch_job(&mut self, new_tip: bool) -> Result<(), EndReason> {
        let due = self.batch_jobs.due(new_tip, Instant::now(), unix_now());
        match due {
            Some((channel_id, root)) => self.give_batch_job(channel_id, root),
            None => Ok(()),
        }
    }

    /// After a channel's target has changed: the batch that waits for a share on it gets a job with the new one.
    pub(in crate::mining) fn retarget_batch_job(
        &mut self,
        channel_id: u32,
    ) -> Result<(), EndReason> {
        match self.batch_jobs.retargeted(channel_id, Instant::now()) {
            Some(root) => self.give_batch_job(channel_id, root),
            None => Ok(()),
        }
    }

    fn give_batch_job(&mut self, channel_id: u32, root: BatchRoot) -> Result<(), EndReason> {
        let channel = self.channels.get(&channel_id);
        if channel.is_none_or(|channel| channel.as_extended().is_none()) {
            self.batch_jobs.drop_batch(&root);
            return Ok(());
        }
        match self.build_batch_job(channel_id, root) {
            Ok(job) => self.send(&job.get_job_message().clone()),
            // It is in the log. The next template may give one.
            Err(_) => Ok(()),
        }
    }
}
