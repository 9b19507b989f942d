//! What devices hash now: one job for everybody, for the search on this machine and the firmware alike.
//!
//! There is always at most one *base* job, the upstream's own (or a solo job), and at most one *batch* job, which
//! carries a batch. A batch job is hashed until it is released; a base job on the same tip does not disturb it.
//!
//! Whoever builds jobs on own templates, between batches too, *reserves* the display: then base jobs are
//! noted and not displayed, on a new tip either, until the display is opened again. Nobody is ever told to
//! hash nothing.

mod batch_display;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stratum_core::channels_sv2::extranonce_manager::{
    AllocatedExtranoncePrefix, ExtranonceAllocator,
};
use tokio::sync::{mpsc, watch};

use crate::job::{EXTRANONCE_BYTES, ExtranonceTooSmall, FoundShare, HashJob, JobParts, SharedJob};
use crate::stats::Stats;

pub use batch_display::BatchDisplay;

/// Channels that can be open at once, the search on this machine among them: what two bytes of the
/// shared extranonce tell apart.
const CHANNELS_MAX: u32 = 1 << 16;

/// The job that is displayed to devices. Share it in an [`Arc`].
#[derive(Debug)]
pub struct CurrentJob {
    display: watch::Sender<Option<SharedJob>>,
    jobs: Mutex<Jobs>,
    next_id: AtomicU32,
    extranonces: Mutex<ExtranonceAllocator>,
    stats: Arc<Stats>,
}

#[derive(Debug, Default)]
struct Jobs {
    base: Option<SharedJob>,
    batch: Option<SharedJob>,
    /// Base jobs are not displayed.
    reserved: bool,
}

/// All channels are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for another channel")]
pub struct NoRoom;

impl Default for CurrentJob {
    fn default() -> Self {
        let bytes = u8::try_from(EXTRANONCE_BYTES).expect("the layout is a few bytes");
        let extranonces = ExtranonceAllocator::new(Vec::new(), bytes, CHANNELS_MAX)
            .expect("the layout holds an index and something to roll");
        Self {
            display: watch::channel(None).0,
            jobs: Mutex::default(),
            next_id: AtomicU32::new(1),
            extranonces: Mutex::new(extranonces),
            stats: Arc::default(),
        }
    }
}

impl CurrentJob {
    /// What everybody hashes, and every change of it. `None` until the first job.
    pub fn subscribe(&self) -> watch::Receiver<Option<SharedJob>> {
        self.display.subscribe()
    }

    /// What is counted about mining.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// A job with a fresh number, not displayed yet.
    ///
    /// # Errors
    /// An extranonce that cannot be shared.
    pub fn job(
        &self,
        parts: JobParts,
        shares: mpsc::Sender<FoundShare>,
    ) -> Result<SharedJob, ExtranonceTooSmall> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(HashJob::new(id, parts, shares)?))
    }

    /// Makes `job` the base. It is displayed, unless there is a batch job on the same tip or the display is
    /// reserved.
    pub fn set_base(&self, job: SharedJob) {
        let mut jobs = self.jobs();
        let undisturbed = jobs
            .batch
            .as_ref()
            .is_some_and(|batch| batch.parts().prev_hash == job.parts().prev_hash);
        jobs.base = Some(job.clone());
        if !undisturbed && !jobs.reserved {
            self.display.send_replace(Some(job));
        }
    }

    /// From now on base jobs are not displayed. What is displayed stays.
    pub fn reserve(&self) {
        self.jobs().reserved = true;
    }

    /// Reserves the display, and displays a job on an own template.
    pub fn set_declared(&self, job: SharedJob) {
        let mut jobs = self.jobs();
        jobs.reserved = true;
        jobs.batch = None;
        if !self.is_displayed(&job) {
            self.display.send_replace(Some(job));
        }
    }

    /// Base jobs are displayed again, the newest at once.
    pub fn open(&self) {
        let mut jobs = self.jobs();
        jobs.reserved = false;
        jobs.batch = None;
        if let Some(base) = jobs.base.clone()
            && !self.is_displayed(&base)
        {
            self.display.send_replace(Some(base));
        }
    }

    /// The owners of all jobs are gone. What is displayed stays until there is a newer job; the base is forgotten,
    /// since nobody takes its shares.
    pub fn leave(&self) {
        *self.jobs() = Jobs::default();
    }

    /// Displays a job that carries a batch.
    pub fn set_batch(&self, job: SharedJob) {
        let mut jobs = self.jobs();
        jobs.batch = Some(job.clone());
        self.display.send_replace(Some(job));
    }

    /// The batch is settled. Its job may be hashed on until the base is renewed, since its shares
    /// are ordinary ones now.
    pub fn release(&self, job: &HashJob) {
        let mut jobs = self.jobs();
        if jobs.batch.as_ref().is_some_and(|batch| batch.id == job.id) {
            jobs.batch = None;
        }
    }

    /// The job is worth nothing: the base is displayed in its place, if there is one.
    pub fn withdraw(&self, job: &HashJob) {
        self.release(job);
        let jobs = self.jobs();
        if let (true, Some(base)) = (self.is_displayed(job), &jobs.base) {
            self.display.send_replace(Some(base.clone()));
        }
    }

    fn is_displayed(&self, job: &HashJob) -> bool {
        let displayed = self.display.borrow();
        displayed
            .as_ref()
            .is_some_and(|displayed| displayed.id == job.id)
    }

    /// A part of the extranonce for a channel that rolls the rest. Dropping it gives it back.
    ///
    /// # Errors
    /// Too many channels, or one that needs to roll more than there is.
    pub fn extended_prefix(&self, rolled_min: usize) -> Result<AllocatedExtranoncePrefix, NoRoom> {
        self.extranonces()
            .allocate_extended(rolled_min)
            .map_err(|_| NoRoom)
    }

    /// A whole shared extranonce for a channel that rolls none of it. Dropping it gives it back.
    ///
    /// # Errors
    /// Too many channels.
    pub fn standard_prefix(&self) -> Result<AllocatedExtranoncePrefix, NoRoom> {
        self.extranonces().allocate_standard().map_err(|_| NoRoom)
    }

    /// Bytes that an extended channel rolls.
    pub fn rolled_bytes(&self) -> usize {
        usize::from(self.extranonces().rollable_extranonce_size())
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extranonces(&self) -> MutexGuard<'_, ExtranonceAllocator> {
        self.extranonces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::job::{BadShare, Offered, SHARES_WAITING_MAX};

    pub(crate) fn parts(tip: u8, extranonce_size: usize) -> JobParts {
        JobParts {
            upstream_job_id: Some(7),
            version: 0x2000_0000,
            version_rolling: true,
            prev_hash: [tip; 32],
            min_ntime: 1_000_000,
            nbits: 0x1900_ffff,
            coinbase_prefix: vec![1, 2],
            coinbase_suffix: vec![3],
            merkle_path: vec![],
            extranonce_prefix: vec![9; 4],
            extranonce_size,
            target: [0xff; 32],
            blocks: None,
        }
    }

    fn displayed(current_job: &CurrentJob) -> u32 {
        current_job.subscribe().borrow().as_ref().unwrap().id
    }

    #[test]
    fn a_refreshed_base_does_not_disturb_a_batch_but_a_new_tip_does() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = |tip| current_job.job(parts(tip, 8), sender.clone()).unwrap();
        current_job.set_base(job(1));
        let batch = job(1);
        current_job.set_batch(batch.clone());
        current_job.set_base(job(1));
        assert_eq!(displayed(&current_job), batch.id);
        let next_tip = job(2);
        current_job.set_base(next_tip.clone());
        assert_eq!(displayed(&current_job), next_tip.id);
    }

    #[test]
    fn a_settled_batch_is_hashed_until_the_base_is_renewed_and_a_refused_one_is_not() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = || current_job.job(parts(1, 8), sender.clone()).unwrap();
        let base = job();
        current_job.set_base(base.clone());
        let settled = job();
        current_job.set_batch(settled.clone());
        current_job.release(&settled);
        assert_eq!(displayed(&current_job), settled.id);
        let renewed = job();
        current_job.set_base(renewed.clone());
        assert_eq!(displayed(&current_job), renewed.id);
        let refused = job();
        current_job.set_batch(refused.clone());
        current_job.withdraw(&refused);
        assert_eq!(displayed(&current_job), renewed.id);
    }

    #[test]
    fn a_reserved_display_has_declared_jobs_alone_until_it_is_opened() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = |tip| current_job.job(parts(tip, 8), sender.clone()).unwrap();
        current_job.reserve();
        current_job.set_base(job(1));
        assert!(current_job.subscribe().borrow().is_none());
        let own = job(1);
        current_job.set_declared(own.clone());
        assert_eq!(displayed(&current_job), own.id);
        // The pool is on a new tip before our node is, and renews its job there.
        let newest = job(2);
        current_job.set_base(job(2));
        current_job.set_base(newest.clone());
        assert_eq!(displayed(&current_job), own.id);
        current_job.open();
        assert_eq!(displayed(&current_job), newest.id);
        let after = job(2);
        current_job.set_base(after.clone());
        assert_eq!(displayed(&current_job), after.id);
    }

    #[test]
    fn hashers_stay_on_their_job_when_its_owner_leaves_until_there_is_another() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = |tip| current_job.job(parts(tip, 8), sender.clone()).unwrap();
        current_job.set_base(job(1));
        let own = job(1);
        current_job.set_declared(own.clone());
        current_job.leave();
        assert_eq!(displayed(&current_job), own.id);
        current_job.withdraw(&own);
        assert_eq!(displayed(&current_job), own.id);
        let next = job(1);
        current_job.set_base(next.clone());
        assert_eq!(displayed(&current_job), next.id);
    }

    #[test]
    fn whatever_the_upstream_grants_beyond_the_layout_is_zeros_before_it() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        assert_eq!(
            current_job.job(parts(1, 7), sender.clone()).unwrap_err(),
            ExtranonceTooSmall(7)
        );
        let job = current_job.job(parts(1, 11), sender).unwrap();
        assert_eq!(job.coinbase_prefix(), [1, 2, 9, 9, 9, 9, 0, 0, 0]);
        let share = job.share(&[5; 8], 0x2000_2000, 1_000_000, 1).unwrap();
        assert_eq!(share.extranonce, [0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn fields_that_no_header_of_the_job_may_have_are_refused() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        let job = current_job.job(parts(1, 8), sender).unwrap();
        let share = |bytes: usize, version, ntime| job.share(&vec![0; bytes], version, ntime, 0);
        assert_eq!(
            share(7, 0x2000_0000, 1_000_000),
            Err(BadShare::ExtranonceSize)
        );
        assert_eq!(share(8, 0x2000_0000, 999_999), Err(BadShare::Time));
        assert_eq!(share(8, 0x2000_0000, 1_007_201), Err(BadShare::Time));
        assert_eq!(share(8, 0x6000_0000, 1_000_000), Err(BadShare::Version));
        assert!(share(8, 0x2000_0000, 1_007_200).is_ok());
    }

    #[test]
    fn shares_wait_for_their_owner_up_to_a_bound() {
        let current_job = CurrentJob::default();
        let (sender, shares) = mpsc::channel(SHARES_WAITING_MAX);
        let job = current_job.job(parts(1, 8), sender).unwrap();
        let share = job.share(&[0; 8], 0x2000_0000, 1_000_000, 0).unwrap();
        for _ in 0..SHARES_WAITING_MAX {
            assert_eq!(job.offer(share.clone()), Offered::Kept);
        }
        assert_eq!(job.offer(share.clone()), Offered::Lost);
        drop(shares);
        assert_eq!(job.offer(share), Offered::Lost);
    }

    #[test]
    fn channels_share_the_extranonce_and_give_their_part_back() {
        let current_job = CurrentJob::default();
        let first = current_job.standard_prefix().unwrap();
        let second = current_job
            .extended_prefix(current_job.rolled_bytes())
            .unwrap();
        assert_eq!(first.as_bytes().len(), EXTRANONCE_BYTES);
        assert_eq!(
            second.as_bytes().len() + current_job.rolled_bytes(),
            EXTRANONCE_BYTES
        );
        assert!(!first.as_bytes().starts_with(second.as_bytes()));
        assert_eq!(
            current_job
                .extended_prefix(current_job.rolled_bytes() + 1)
                .unwrap_err(),
            NoRoom
        );
    }
}
