//! Which job devices get: the one decision about what is hashed, from what each source offers.

use crate::job::SharedJob;

/// What the sources of jobs offer.
#[derive(Debug, Default)]
pub(super) struct Sources {
    base: Option<SharedJob>,
    /// The base's owner; an earlier one offers nothing any more.
    base_owner: u64,
    batch: Option<Batch>,
    /// Jobs on own templates, where they take the place of the base between batches.
    pub(super) declared: Declared,
}

/// A job that carries the batch which is being claimed.
#[derive(Debug)]
struct Batch {
    job: SharedJob,
    /// The batch is settled: its job is hashed until the base is renewed, since its shares are ordinary ones.
    settled: bool,
}

/// What the source of declared jobs offers.
#[derive(Debug, Default)]
pub(super) enum Declared {
    /// Nothing: there is no such source, or it has no job that is any good. Others are displayed.
    #[default]
    None,
    /// Its next job, which is about to be made. Devices stay on what they have.
    Next,
    /// This job.
    Job(SharedJob),
}

impl Sources {
    /// The job for devices. `None`: they stay on what they have; nobody is ever told to hash nothing.
    pub(super) fn displayed(&self) -> Option<&SharedJob> {
        match (&self.declared, &self.batch) {
            (Declared::Next, _) => None,
            (Declared::Job(job), _) => Some(job),
            (Declared::None, Some(batch)) => Some(&batch.job),
            (Declared::None, None) => self.base.as_ref(),
        }
    }

    /// A new owner of the base, by its number. It has no job yet.
    pub(super) fn begin_base(&mut self) -> u64 {
        self.base = None;
        self.base_owner += 1;
        self.base_owner
    }

    /// The base's newest job. It ends a batch that is settled or on another tip; one that only refreshes the batch's
    /// tip does not disturb the claim.
    pub(super) fn set_base(&mut self, owner: u64, job: SharedJob) {
        if owner != self.base_owner {
            return;
        }
        let tip = job.parts().tip();
        self.batch
            .take_if(|batch| batch.settled || !batch.job.parts().tip().is_same_block(&tip));
        self.base = Some(job);
    }

    /// The owner of the base is gone: nobody takes shares of its job.
    pub(super) fn end_base(&mut self, owner: u64) {
        if owner == self.base_owner {
            self.base = None;
        }
    }

    /// A share of this job, which carries a batch, is wanted.
    pub(super) fn set_batch(&mut self, job: SharedJob) {
        let settled = false;
        self.batch = Some(Batch { job, settled });
    }

    /// The batch of this job is settled.
    pub(super) fn settle_batch(&mut self, job: &SharedJob) {
        if let Some(batch) = self.batch.as_mut().filter(|batch| batch.job.id == job.id) {
            batch.settled = true;
        }
    }

    /// This job, which carries a batch, is worth nothing.
    pub(super) fn withdraw_batch(&mut self, job: &SharedJob) {
        self.batch.take_if(|batch| batch.job.id == job.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::current_job::CurrentJob;
    use crate::job_check::tests::parts;
    use tokio::sync::mpsc;

    #[test]
    fn declared_jobs_go_before_the_batch_and_the_batch_before_the_base() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = || current_job.job(parts(1, 8), sender.clone()).unwrap();
        let (base, batch, declared) = (job(), job(), job());
        let (has, none) = (true, false);
        for (declared, has_batch, has_base, displayed) in [
            (Declared::None, none, none, None),
            (Declared::None, none, has, Some(&base)),
            (Declared::None, has, none, Some(&batch)),
            (Declared::None, has, has, Some(&batch)),
            (Declared::Next, none, none, None),
            (Declared::Next, has, has, None),
            (Declared::Job(declared.clone()), none, none, Some(&declared)),
            (Declared::Job(declared.clone()), has, has, Some(&declared)),
        ] {
            let mut sources = Sources::default();
            let owner = sources.begin_base();
            if has_base {
                sources.set_base(owner, base.clone());
            }
            if has_batch {
                sources.set_batch(batch.clone());
            }
            sources.declared = declared;
            let id = |job: &SharedJob| job.id;
            assert_eq!(
                sources.displayed().map(id),
                displayed.map(id),
                "{sources:?}"
            );
        }
    }

    #[test]
    fn a_base_ends_a_batch_that_is_settled_or_on_another_tip() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = |tip| current_job.job(parts(tip, 8), sender.clone()).unwrap();
        for (is_settled, base_tip, goes_on) in [
            (false, 1, true),
            (false, 2, false),
            (true, 1, false),
            (true, 2, false),
        ] {
            let mut sources = Sources::default();
            let owner = sources.begin_base();
            let batch = job(1);
            sources.set_batch(batch.clone());
            if is_settled {
                sources.settle_batch(&batch);
            }
            sources.set_base(owner, job(base_tip));
            let displayed = sources.displayed().unwrap().id;
            assert_eq!(displayed == batch.id, goes_on, "{sources:?}");
        }
    }

    #[test]
    fn an_earlier_owner_of_the_base_offers_nothing_any_more() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = || current_job.job(parts(1, 8), sender.clone()).unwrap();
        let mut sources = Sources::default();
        let earlier = sources.begin_base();
        sources.set_base(earlier, job());
        let owner = sources.begin_base();
        sources.set_base(earlier, job());
        assert!(sources.displayed().is_none());
        let base = job();
        sources.set_base(owner, base.clone());
        sources.end_base(earlier);
        assert_eq!(sources.displayed().unwrap().id, base.id);
        sources.end_base(owner);
        assert!(sources.displayed().is_none());
    }
}
