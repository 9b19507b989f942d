//! The sources of jobs, each with a handle of its own. Dropping a handle takes back what it offered.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::CurrentJob;
use super::sources::{Declared, Sources};
use crate::job::{FoundShare, JobParts, SharedJob, UnfitJob};
use crate::stats::Stats;

/// The upstream's plain jobs, or those of solo mining. There is one such source at a time: a newer handle's jobs take
/// the place of an older one's.
#[derive(Debug)]
pub struct Base {
    current_job: Arc<CurrentJob>,
    number: u64,
}

impl Base {
    /// The base from now on. Devices stay on what they have until it has a job.
    pub fn new(current_job: Arc<CurrentJob>) -> Self {
        let number = current_job.update(Sources::begin_base);
        Self {
            current_job,
            number,
        }
    }

    /// What is counted about mining.
    pub fn stats(&self) -> &Stats {
        self.current_job.stats()
    }

    /// Offers a job whose shares go to `shares`.
    ///
    /// # Errors
    /// A job that no device could hash.
    pub fn offer(&self, parts: JobParts, shares: mpsc::Sender<FoundShare>) -> Result<(), UnfitJob> {
        let job = self.current_job.job(parts, shares)?;
        self.current_job
            .update(|sources| sources.set_base(self.number, job));
        Ok(())
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.current_job
            .update(|sources| sources.end_base(self.number));
    }
}

/// A job that carries a batch, while its share is wanted.
#[derive(Debug)]
pub struct BatchDisplay {
    current_job: Arc<CurrentJob>,
    job: SharedJob,
    settled: bool,
}

impl BatchDisplay {
    /// Offers the job.
    pub fn new(current_job: Arc<CurrentJob>, job: SharedJob) -> Self {
        current_job.update(|sources| sources.set_batch(job.clone()));
        Self {
            current_job,
            job,
            settled: false,
        }
    }

    /// The job that is offered.
    pub fn job(&self) -> &SharedJob {
        &self.job
    }

    /// The batch is settled: its job may be hashed on until the base is renewed.
    pub fn settle(mut self) {
        self.settled = true;
        self.current_job
            .update(|sources| sources.settle_batch(&self.job));
    }
}

impl Drop for BatchDisplay {
    fn drop(&mut self) {
        if !self.settled {
            self.current_job
                .update(|sources| sources.withdraw_batch(&self.job));
        }
    }
}

/// Jobs on own templates, where they take the place of the upstream's between batches.
#[derive(Debug)]
pub struct DeclaredDisplay {
    current_job: Arc<CurrentJob>,
}

impl DeclaredDisplay {
    /// Devices stay on what they have until there is a declared job.
    pub fn new(current_job: Arc<CurrentJob>) -> Self {
        current_job.update(|sources| sources.declared = Declared::Next);
        Self { current_job }
    }

    /// Offers a job.
    pub fn offer(&self, job: SharedJob) {
        self.current_job
            .update(|sources| sources.declared = Declared::Job(job));
    }

    /// Leaves devices to the other sources until the next job.
    pub fn give_way(&self) {
        self.current_job
            .update(|sources| sources.declared = Declared::None);
    }
}

impl Drop for DeclaredDisplay {
    fn drop(&mut self) {
        self.give_way();
    }
}
