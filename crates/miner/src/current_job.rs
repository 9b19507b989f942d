//! What devices hash now: one job for everybody, for the search on this machine and the firmware alike.
//!
//! Jobs have three sources, each with a handle: the upstream's plain jobs or those of solo mining ([`Base`]), a job
//! that carries a batch ([`BatchDisplay`]), and jobs on own templates that take the place of the base between batches
//! ([`DeclaredDisplay`]). Which of them devices get is decided in one place, `current_job/sources.rs`. Nobody is ever
//! told to hash nothing.

mod handles;
mod sources;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stratum_core::channels_sv2::extranonce_manager::{
    AllocatedExtranoncePrefix, ExtranonceAllocator,
};
use tokio::sync::{mpsc, watch};

use crate::job::{EXTRANONCE_BYTES, FoundShare, HashJob, JobParts, SharedJob, UnfitJob};
use crate::stats::Stats;

pub use handles::{Base, BatchDisplay, DeclaredDisplay};
use sources::Sources;

/// Channels that can be open at once, the search on this machine among them: what two bytes of the
/// shared extranonce tell apart.
const CHANNELS_MAX: u32 = 1 << 16;

/// The job that is displayed to devices. Share it in an [`Arc`].
#[derive(Debug)]
pub struct CurrentJob {
    display: watch::Sender<Option<SharedJob>>,
    sources: Mutex<Sources>,
    next_id: AtomicU32,
    extranonces: Mutex<ExtranonceAllocator>,
    stats: Arc<Stats>,
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
            sources: Mutex::default(),
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
    /// A job that no device could hash.
    pub fn job(
        &self,
        parts: JobParts,
        shares: mpsc::Sender<FoundShare>,
    ) -> Result<SharedJob, UnfitJob> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(HashJob::new(id, parts, shares)?))
    }

    /// The same job with a fresh number, for one device that gets it again with another target.
    pub(crate) fn again(&self, job: &HashJob) -> SharedJob {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Arc::new(job.again(id))
    }

    /// Changes what a source offers, and displays what devices get then. Nobody else writes to the display.
    fn update<T>(&self, change: impl FnOnce(&mut Sources) -> T) -> T {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut sources);
        if let Some(job) = sources.displayed() {
            self.display.send_if_modified(|displayed| {
                let is_new = displayed.as_ref().is_none_or(|old| old.id != job.id);
                if is_new {
                    *displayed = Some(job.clone());
                }
                is_new
            });
        }
        changed
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

    fn extranonces(&self) -> MutexGuard<'_, ExtranonceAllocator> {
        self.extranonces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Offered, SHARES_WAITING_MAX};
    use crate::job_check::tests::parts;
    use dovetail_units::header::BadHeader;

    fn displayed(current_job: &CurrentJob) -> u32 {
        current_job.subscribe().borrow().as_ref().unwrap().id
    }

    /// A current job, and what makes jobs for it on a tip.
    struct Fixture {
        current_job: Arc<CurrentJob>,
        sender: mpsc::Sender<FoundShare>,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                current_job: Arc::default(),
                sender: mpsc::channel(1).0,
            }
        }

        fn job(&self, tip: u8) -> SharedJob {
            let job = self.current_job.job(parts(tip, 8), self.sender.clone());
            job.unwrap()
        }

        /// Offers a base on a tip, which is displayed. Its number.
        fn base(&self, base: &Base, tip: u8) -> u32 {
            base.offer(parts(tip, 8), self.sender.clone()).unwrap();
            displayed(&self.current_job)
        }

        fn base_handle(&self) -> Base {
            Base::new(self.current_job.clone())
        }

        fn batch(&self, tip: u8) -> BatchDisplay {
            BatchDisplay::new(self.current_job.clone(), self.job(tip))
        }
    }

    #[test]
    fn a_refreshed_base_does_not_disturb_a_batch_but_a_new_tip_does() {
        let fixture = Fixture::new();
        let base = fixture.base_handle();
        fixture.base(&base, 1);
        let batch = fixture.batch(1);
        assert_eq!(fixture.base(&base, 1), batch.job().id);
        assert_ne!(fixture.base(&base, 2), batch.job().id);
    }

    #[test]
    fn a_settled_batch_is_hashed_until_the_base_is_renewed_and_a_refused_one_is_not() {
        let fixture = Fixture::new();
        let base = fixture.base_handle();
        fixture.base(&base, 1);
        let settled = fixture.batch(1);
        let id = settled.job().id;
        settled.settle();
        assert_eq!(displayed(&fixture.current_job), id);
        let renewed = fixture.base(&base, 1);
        assert_ne!(renewed, id);
        let refused = fixture.batch(1);
        assert_eq!(displayed(&fixture.current_job), refused.job().id);
        drop(refused);
        assert_eq!(displayed(&fixture.current_job), renewed);
    }

    #[test]
    fn declared_jobs_alone_are_displayed_until_they_give_way() {
        let fixture = Fixture::new();
        let base = fixture.base_handle();
        let declared = DeclaredDisplay::new(fixture.current_job.clone());
        base.offer(parts(1, 8), fixture.sender.clone()).unwrap();
        assert!(fixture.current_job.subscribe().borrow().is_none());
        let own = fixture.job(1);
        declared.offer(own.clone());
        assert_eq!(displayed(&fixture.current_job), own.id);
        // The pool is on a new tip before our node is, and renews its job there.
        assert_eq!(fixture.base(&base, 2), own.id);
        assert_eq!(fixture.base(&base, 2), own.id);
        declared.give_way();
        let newest = displayed(&fixture.current_job);
        assert_ne!(newest, own.id);
        assert_ne!(fixture.base(&base, 2), newest);
    }

    #[test]
    fn devices_stay_on_their_job_when_its_sources_end_until_there_is_another() {
        let fixture = Fixture::new();
        let base = fixture.base_handle();
        fixture.base(&base, 1);
        let declared = DeclaredDisplay::new(fixture.current_job.clone());
        let own = fixture.job(1);
        declared.offer(own.clone());
        drop(base);
        drop(declared);
        assert_eq!(displayed(&fixture.current_job), own.id);
        let next = fixture.base_handle();
        assert_eq!(displayed(&fixture.current_job), own.id);
        assert_ne!(fixture.base(&next, 1), own.id);
    }

    #[test]
    fn whatever_the_upstream_grants_beyond_the_layout_is_zeros_before_it() {
        let current_job = CurrentJob::default();
        let (sender, _shares) = mpsc::channel(1);
        assert_eq!(
            current_job.job(parts(1, 7), sender.clone()).unwrap_err(),
            UnfitJob::Extranonce(7)
        );
        let job = current_job.job(parts(1, 11), sender).unwrap();
        assert!(
            job.coinbase_prefix()
                .ends_with(&[1, 2, 9, 9, 9, 9, 0, 0, 0])
        );
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
            Err(BadHeader::ExtranonceSize)
        );
        assert_eq!(share(8, 0x2000_0000, 999_999), Err(BadHeader::Time));
        assert_eq!(share(8, 0x2000_0000, 1_007_201), Err(BadHeader::Time));
        assert_eq!(
            share(8, 0x6000_0000, 1_000_000),
            Err(BadHeader::VersionBits)
        );
        // The pool takes every general-purpose bit, so devices behind a worker may roll them all.
        assert!(share(8, 0x3fff_ffe0, 1_000_000).is_ok());
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
