//! The targets of a channel's jobs. A job keeps its target (Sv2 specification, section 5.3.21), but not for ever: once
//! its miner has a job with a much harder one, whoever goes on with the easy job floods the pool with small shares.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bitcoin::Target;

use crate::mining::template_jobs::job_maker::is_declared;

/// How many times easier than a later job's a target may be ..
const EASIER_MAX: f64 = 8.0;
/// .. and how long shares of a job that is easier still count after the later one came: those that are under way, and those
/// of devices that are slow to change over.
const GRACE: Duration = Duration::from_secs(30);
/// Jobs that are remembered: more than take shares on a channel of either kind.
const JOBS_MAX: usize = 128;

/// The jobs on a channel's tip, the oldest first.
#[derive(Debug, Default)]
pub(super) struct JobTargets(VecDeque<Job>);

#[derive(Debug, Clone, Copy)]
struct Job {
    id: u32,
    target: Target,
    /// Shares of it count until then.
    end: Option<Instant>,
}

impl JobTargets {
    /// The channel is given a job with this target. Earlier jobs that are much easier end soon: the pool's own for one of
    /// the pool's, declared ones for a declared one. A miner on its own templates may have no other job before the next
    /// template comes; the pace of its account bounds what it may send meanwhile.
    pub(super) fn insert(&mut self, id: u32, target: Target, now: Instant) {
        for job in &mut self.0 {
            let same_maker = is_declared(job.id) == is_declared(id);
            if same_maker && is_much_easier(job.target, target) {
                job.end.get_or_insert(now + GRACE);
            }
        }
        if self.0.len() == JOBS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Job {
            id,
            target,
            end: None,
        });
    }

    /// There is a new tip.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.find(id).is_some()
    }

    /// The job's target.
    pub(super) fn get(&self, id: u32) -> Option<Target> {
        Some(self.find(id)?.target)
    }

    /// Whether shares of the job have stopped counting.
    pub(super) fn has_ended(&self, id: u32, now: Instant) -> bool {
        let end = self.find(id).and_then(|job| job.end);
        end.is_some_and(|end| end <= now)
    }

    fn find(&self, id: u32) -> Option<&Job> {
        self.0.iter().rfind(|job| job.id == id)
    }
}

fn is_much_easier(old: Target, new: Target) -> bool {
    new.difficulty_float() > EASIER_MAX * old.difficulty_float()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pool's own jobs are numbered from here.
    const OWN: u32 = 1 << 31;

    /// A target that so many hashes meet once.
    fn target(hashes: u8) -> Target {
        let mut bytes = [0; 32];
        bytes[30] = 240 / hashes;
        Target::from_le_bytes(bytes)
    }

    #[test]
    fn a_job_that_is_much_easier_than_a_later_one_ends_after_a_grace() {
        let start = Instant::now();
        let soon = start + GRACE - Duration::from_secs(1);
        let late = start + GRACE;
        let mut jobs = JobTargets::default();
        jobs.insert(OWN, target(1), start);
        jobs.insert(OWN + 1, target(8), start);
        assert!(
            !jobs.has_ended(OWN, late),
            "that is easier by no more than 8"
        );
        jobs.insert(OWN + 2, target(10), start);
        assert!(!jobs.has_ended(OWN, soon));
        assert!(jobs.has_ended(OWN, late));
        assert!(!jobs.has_ended(OWN + 1, late) && !jobs.has_ended(OWN + 2, late));
        assert_eq!(jobs.get(OWN), Some(target(1)));
        // Another rise gives it no other grace, and a fall brings it not back.
        jobs.insert(OWN + 3, target(100), soon);
        jobs.insert(OWN + 4, target(1), soon);
        assert!(jobs.has_ended(OWN, late));
        assert!(!jobs.has_ended(OWN + 1, late));
        assert!(jobs.has_ended(OWN + 1, soon + GRACE));
        jobs.clear();
        assert!(!jobs.has_ended(OWN, late) && jobs.get(OWN).is_none());
    }

    #[test]
    fn a_declared_job_ends_for_another_declared_one_only() {
        let start = Instant::now();
        let late = start + GRACE;
        let mut jobs = JobTargets::default();
        jobs.insert(1, target(1), start);
        jobs.insert(OWN, target(100), start);
        assert!(!jobs.has_ended(1, late));
        jobs.insert(2, target(100), start);
        assert!(jobs.has_ended(1, late) && !jobs.has_ended(OWN, late));
    }

    #[test]
    fn the_newest_jobs_are_remembered() {
        let now = Instant::now();
        let mut jobs = JobTargets::default();
        for number in 0..1_000 {
            jobs.insert(OWN + number, target(1), now);
        }
        assert_eq!(jobs.0.len(), JOBS_MAX);
        assert!(jobs.contains(OWN + 999) && !jobs.contains(OWN));
    }
}
