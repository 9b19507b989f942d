//! One firmware channel: its part of the extranonce, its difficulty, and the judgement of its
//! shares (Sv2 specification, sections 5.2 and 5.3.11 to 5.3.14).

use std::collections::VecDeque;
use std::time::Instant;

use bitcoin::Target;
use dovetail_sv2::vardiff::stated_rate;
use dovetail_sv2::{Vardiff, share_code};
use stratum_core::channels_sv2::extranonce_manager::AllocatedExtranoncePrefix;
use stratum_core::channels_sv2::target::hash_rate_to_target;
use stratum_core::mining_sv2 as codes;

use super::seen::{NoRoom, SharesSeen};
use crate::job::{Offered, SharedJob};
use crate::search::{Hash256, hashes_of, meets};

/// Jobs on one tip that still take shares. Firmware that is further behind is not hashing.
const JOBS_MAX: usize = 8;
/// Numbers of overtaken jobs that are told apart from jobs that never were.
const STALE_MAX: usize = 32;
/// How many times more shares than are wanted a target may bring. The upstream may ask for easier shares than vardiff
/// does, and gets them; but not so many that a device ends itself by them, or this machine hashes nothing else.
const SHARES_WANTED_MAX: f64 = 20.0;

/// How difficulty is steered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steering {
    pub(super) shares_per_minute: f32,
    pub(super) hash_rate_min: f32,
}

/// What a channel may roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Standard,
    Extended,
}

/// A share's fields, as both kinds of channel send them.
pub(super) struct Submitted<'a> {
    pub(super) job_id: u32,
    /// Empty on standard channels.
    pub(super) extranonce: &'a [u8],
    pub(super) version: u32,
    pub(super) ntime: u32,
    pub(super) nonce: u32,
}

/// A share that the channel is credited with.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) offered: Offered,
    /// Expected hashes of the target it was judged by.
    pub(super) hashes: f64,
    /// The same in units of difficulty 1.
    pub(super) difficulty: u64,
}

/// Why a share was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Tell the firmware this code.
    Code(&'static str),
    /// The connection floods us: end it.
    Flood,
}

struct GivenJob {
    job: SharedJob,
    target: Target,
}

pub(super) struct Channel {
    kind: Kind,
    prefix: AllocatedExtranoncePrefix,
    steering: Steering,
    target_max: Target,
    target: Target,
    vardiff: Vardiff,
    /// When `vardiff` was last told of the time.
    looked_at: Instant,
    jobs: VecDeque<GivenJob>,
    stale: VecDeque<u32>,
}

impl Channel {
    /// # Errors
    /// The code for `OpenMiningChannel.Error`.
    pub(super) fn new(
        kind: Kind,
        prefix: AllocatedExtranoncePrefix,
        steering: Steering,
        hash_rate: f32,
        target_max: Hash256,
    ) -> Result<Self, &'static str> {
        use codes::ERROR_CODE_OPEN_MINING_CHANNEL_INVALID_NOMINAL_HASHRATE as BAD_RATE;
        use codes::ERROR_CODE_OPEN_MINING_CHANNEL_MAX_TARGET_OUT_OF_RANGE as BAD_TARGET;
        let stated = stated_rate(hash_rate).ok_or(BAD_RATE)?;
        if target_max == [0; 32] {
            return Err(BAD_TARGET);
        }
        let vardiff = Vardiff::new(
            f64::from(steering.shares_per_minute),
            f64::from(steering.hash_rate_min),
            stated,
        );
        let mut channel = Self {
            kind,
            prefix,
            steering,
            target_max: Target::from_le_bytes(target_max),
            target: Target::MAX,
            vardiff,
            looked_at: Instant::now(),
            jobs: VecDeque::new(),
            stale: VecDeque::new(),
        };
        channel.aim();
        Ok(channel)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn target(&self) -> Target {
        self.target
    }

    pub(super) fn extranonce_prefix(&self) -> &[u8] {
        self.prefix.as_bytes()
    }

    /// Takes the client's estimate; 0 is legal and means the least that is assumed (5.3.2). Whether the target changed.
    ///
    /// # Errors
    /// The code for `UpdateChannel.Error`.
    pub(super) fn update(
        &mut self,
        hash_rate: f32,
        target_max: Hash256,
        now: Instant,
    ) -> Result<bool, &'static str> {
        let stated = stated_rate(hash_rate)
            .ok_or(codes::ERROR_CODE_UPDATE_CHANNEL_INVALID_NOMINAL_HASHRATE)?;
        if target_max == [0; 32] {
            return Err(codes::ERROR_CODE_UPDATE_CHANNEL_MAX_TARGET_OUT_OF_RANGE);
        }
        self.target_max = Target::from_le_bytes(target_max);
        self.time_passed(now);
        self.vardiff.state(stated);
        Ok(self.aim())
    }

    /// Looks at the work that was proven up to now. Whether the target changed.
    pub(super) fn steer(&mut self, now: Instant) -> bool {
        self.time_passed(now) && self.aim()
    }

    fn time_passed(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.looked_at);
        self.looked_at = now;
        self.vardiff.passed(elapsed, hashes_of(self.target))
    }

    /// The target for the hash rate. It is never harder than the upstream's, or shares that the
    /// upstream would credit were thrown away, unless those would be a flood; nor easier than the client allows. Whether
    /// it changed.
    pub(super) fn aim(&mut self) -> bool {
        let wanted = f64::from(self.steering.shares_per_minute);
        let target_of =
            |shares_per_minute| hash_rate_to_target(self.vardiff.rate(), shares_per_minute);
        let (Ok(mut target), Ok(floods)) =
            (target_of(wanted), target_of(wanted * SHARES_WANTED_MAX))
        else {
            return false;
        };
        if let Some(given) = self.jobs.back() {
            let upstreams = Target::from_le_bytes(given.job.parts().target);
            target = target.max(upstreams.min(floods));
        }
        target = target.min(self.target_max);
        let changed = target != self.target;
        self.target = target;
        changed
    }

    /// Makes a job the newest. On a new tip all earlier ones go stale (5.3.17). Whether the target
    /// changed with it; the job is judged by the new one.
    pub(super) fn give(&mut self, job: SharedJob, new_tip: bool) -> bool {
        let keep = if new_tip { 0 } else { JOBS_MAX - 1 };
        while self.jobs.len() > keep {
            if let Some(old) = self.jobs.pop_front() {
                self.stale.push_back(old.job.id);
            }
        }
        while self.stale.len() > STALE_MAX {
            self.stale.pop_front();
        }
        self.jobs.push_back(GivenJob {
            job,
            target: self.target,
        });
        let changed = self.aim();
        if let Some(given) = self.jobs.back_mut() {
            given.target = self.target;
        }
        changed
    }

    /// The root that a standard channel hashes on this job.
    pub(super) fn merkle_root(&self, job: &SharedJob) -> Hash256 {
        job.merkle_root(self.prefix.as_bytes())
    }

    /// Judges a share, and hands it on if it is one that its connection has not `seen` yet.
    pub(super) fn submit(
        &mut self,
        share: &Submitted<'_>,
        seen: &mut SharesSeen,
    ) -> Result<Judged, Refusal> {
        let Some(given) = self.jobs.iter().find(|given| given.job.id == share.job_id) else {
            return Err(Refusal::Code(match self.stale.contains(&share.job_id) {
                true => codes::ERROR_CODE_SUBMIT_SHARES_STALE_SHARE,
                false => codes::ERROR_CODE_SUBMIT_SHARES_INVALID_JOB_ID,
            }));
        };
        let extranonce = [self.prefix.as_bytes(), share.extranonce].concat();
        let found = given
            .job
            .share(&extranonce, share.version, share.ntime, share.nonce)
            .map_err(|bad| Refusal::Code(share_code(bad)))?;
        let met = meets(&found.hash, &given.target.to_le_bytes());
        if !met && !found.block {
            return Err(Refusal::Code(
                codes::ERROR_CODE_SUBMIT_SHARES_DIFFICULTY_TOO_LOW,
            ));
        }
        match seen.insert(&found.hash) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Refusal::Code(
                    codes::ERROR_CODE_SUBMIT_SHARES_DUPLICATE_SHARE,
                ));
            }
            Err(NoRoom) => return Err(Refusal::Flood),
        }
        let hashes = hashes_of(given.target);
        self.vardiff.found(hashes);
        Ok(Judged {
            offered: given.job.offer(found),
            hashes,
            difficulty: whole(given.target.difficulty_float()),
        })
    }
}

fn whole(difficulty: f64) -> u64 {
    // A float-to-integer cast saturates, which is what an absurd difficulty deserves.
    difficulty as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::current_job::CurrentJob;
    use crate::firmware::seen::SeenBudget;
    use crate::job::{FoundShare, JobParts, SHARES_WAITING_MAX};
    use crate::job_check::tests::parts;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    const STEERING: Steering = Steering {
        shares_per_minute: 60.0,
        hash_rate_min: 1.0,
    };

    fn job(
        current_job: &CurrentJob,
        tip: u8,
        target: Hash256,
    ) -> (SharedJob, mpsc::Receiver<FoundShare>) {
        let parts = JobParts {
            upstream_job_id: None,
            version_rolling: false,
            min_ntime: 1_000,
            target,
            ..parts(tip, 8)
        };
        let (sender, shares) = mpsc::channel(SHARES_WAITING_MAX);
        (current_job.job(parts, sender).unwrap(), shares)
    }

    fn channel(current_job: &CurrentJob) -> Channel {
        let prefix = current_job.extended_prefix(4).unwrap();
        Channel::new(Kind::Extended, prefix, STEERING, 1.0, [0xff; 32]).unwrap()
    }

    fn share(job_id: u32, nonce: u32) -> Submitted<'static> {
        Submitted {
            job_id,
            extranonce: &[0; 6],
            version: 0x2000_0000,
            ntime: 1_000,
            nonce,
        }
    }

    fn seen() -> SharesSeen {
        SharesSeen::new(Arc::new(SeenBudget::new()))
    }

    fn code(result: Result<Judged, Refusal>) -> &'static str {
        match result.unwrap_err() {
            Refusal::Code(code) => code,
            Refusal::Flood => "flood",
        }
    }

    #[test]
    fn a_share_counts_once_and_reaches_the_owner_of_its_job() {
        let current_job = CurrentJob::default();
        let mut channel = channel(&current_job);
        let (job, mut shares) = job(&current_job, 1, [0xff; 32]);
        channel.give(job.clone(), true);
        let mut seen = seen();
        let judged = channel.submit(&share(job.id, 1), &mut seen).unwrap();
        assert_eq!(judged.offered, Offered::Kept);
        assert!(shares.try_recv().is_ok());
        let again = channel.submit(&share(job.id, 1), &mut seen);
        assert_eq!(code(again), "duplicate-share");
        assert!(shares.try_recv().is_err());
    }

    #[test]
    fn jobs_of_the_tip_before_are_stale_and_unknown_ones_invalid() {
        let current_job = CurrentJob::default();
        let mut channel = channel(&current_job);
        let (old, _old) = job(&current_job, 1, [0xff; 32]);
        let (new, _new) = job(&current_job, 2, [0xff; 32]);
        channel.give(old.clone(), true);
        channel.give(new.clone(), false);
        let submit =
            |channel: &mut Channel, id, nonce| channel.submit(&share(id, nonce), &mut seen());
        assert!(submit(&mut channel, old.id, 1).is_ok());
        channel.give(new, true);
        assert_eq!(code(submit(&mut channel, old.id, 2)), "stale-share");
        assert_eq!(code(submit(&mut channel, 999, 2)), "invalid-job-id");
    }

    /// A channel whose client does `rate`, on a job of an upstream with this target.
    fn aimed(rate: f32, target: Hash256) -> Channel {
        let current_job = CurrentJob::default();
        let prefix = current_job.extended_prefix(4).unwrap();
        let mut channel = Channel::new(Kind::Extended, prefix, STEERING, rate, [0xff; 32]).unwrap();
        let (job, _shares) = job(&current_job, 1, target);
        channel.give(job, true);
        channel
    }

    #[test]
    fn the_target_is_never_harder_than_the_upstreams() {
        // Ten times as many shares as are wanted.
        let upstreams = hash_rate_to_target(1e15, 600.0).unwrap();
        let channel = aimed(1e15, upstreams.to_le_bytes());
        assert_eq!(channel.target(), upstreams);
    }

    #[test]
    fn no_upstream_makes_a_device_flood_itself_off() {
        let channel = aimed(1e14, [0xff; 32]);
        let wanted = 1e14 * 60.0 / f64::from(STEERING.shares_per_minute);
        let more = wanted / hashes_of(channel.target());
        assert!((1.0..=20.1).contains(&more), "{more}");
    }

    #[test]
    fn wrong_sizes_and_absurd_rates_are_refused() {
        let current_job = CurrentJob::default();
        let mut channel = channel(&current_job);
        let (job, _shares) = job(&current_job, 1, [0xff; 32]);
        channel.give(job.clone(), true);
        let long = Submitted {
            extranonce: &[0; 7],
            ..share(job.id, 1)
        };
        let refused = channel.submit(&long, &mut seen());
        assert_eq!(code(refused), "bad-extranonce-size");
        for rate in [f32::NAN, f32::INFINITY, -1.0] {
            assert!(channel.update(rate, [0xff; 32], Instant::now()).is_err());
        }
        assert!(channel.update(1.0, [0; 32], Instant::now()).is_err());
    }

    #[test]
    fn a_job_that_is_given_again_has_a_target_of_its_own_and_goes_to_the_same_owner() {
        let current_job = CurrentJob::default();
        let mut channel = channel(&current_job);
        let (job, mut shares) = job(&current_job, 1, [0x3f; 32]);
        channel.give(job.clone(), true);
        let again = current_job.again(&job);
        assert!(channel.update(100.0, [0x3f; 32], Instant::now()).is_ok());
        channel.give(again.clone(), false);
        let mut seen = seen();
        let mut submit = |nonce| channel.submit(&share(again.id, nonce), &mut seen);
        let good = (0..64).filter(|nonce| submit(*nonce).is_ok());
        assert!(good.count() > 0);
        while let Ok(found) = shares.try_recv() {
            assert_eq!(found.job_id, job.id);
        }
    }
}
