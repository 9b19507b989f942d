//! A job that carries a batch, while devices hash it.

use std::sync::Arc;

use super::CurrentJob;
use crate::job::SharedJob;

/// Gives devices a job that carries a batch. Dropping it takes the job from them, unless it was released.
#[derive(Debug)]
pub struct BatchDisplay {
    current_job: Arc<CurrentJob>,
    job: SharedJob,
    released: bool,
}

impl BatchDisplay {
    /// Gives devices the job.
    pub fn new(current_job: Arc<CurrentJob>, job: SharedJob) -> Self {
        current_job.set_batch(job.clone());
        Self {
            current_job,
            job,
            released: false,
        }
    }

    /// The batch is settled; its job may be hashed on.
    pub fn release(&mut self) {
        self.current_job.release(&self.job);
        self.released = true;
    }
}

impl Drop for BatchDisplay {
    fn drop(&mut self) {
        if !self.released {
            self.current_job.withdraw(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::current_job::tests::parts;
    use tokio::sync::mpsc;

    #[test]
    fn a_released_job_is_hashed_on_and_one_that_failed_is_not() {
        let current_job = Arc::new(CurrentJob::default());
        let (sender, _shares) = mpsc::channel(1);
        let job = || current_job.job(parts(1, 8), sender.clone()).unwrap();
        let hashed = || current_job.subscribe().borrow().as_ref().unwrap().id;
        let base = job();
        current_job.set_base(base.clone());
        let settled = job();
        let mut display = BatchDisplay::new(current_job.clone(), settled.clone());
        display.release();
        drop(display);
        assert_eq!(hashed(), settled.id);
        drop(BatchDisplay::new(current_job.clone(), job()));
        assert_eq!(hashed(), base.id);
    }
}
