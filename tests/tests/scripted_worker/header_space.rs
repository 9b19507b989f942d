//! A miner that plays targets: it asks for harder and easier ones, takes jobs under each, hashes every header space
//! once, and submits each hash under the hardest target that it meets.

use std::sync::atomic::{AtomicBool, AtomicU64};

use bitcoin::Target;
use dovetail_miner::job::FoundShare;
use dovetail_miner::search::{SearchJob, header_hash, meets, scan};
use dovetail_sv2::messages::{NewExtendedMiningJob, SetTarget, U256Owned, UpdateChannel};

use super::{Job, ScriptedWorker, Share};

/// Where a header has its nonce.
const NONCE_AT: usize = 76;

impl Job {
    /// Whether both jobs have the same headers.
    fn has_the_space_of(&self, other: &Self) -> bool {
        let space = |job: &Self| SearchJob {
            target: [0; 32],
            min_ntime: 0,
            ..job.search.clone()
        };
        format!("{:?}", space(self)) == format!("{:?}", space(other))
    }

    /// The hashes that a share of it stands for.
    pub(crate) fn work(&self) -> u64 {
        work_of(self.search.target)
    }
}

fn work_of(target: [u8; 32]) -> u64 {
    let work = Target::from_le_bytes(target).to_work();
    work.to_string().parse().unwrap()
}

impl ScriptedWorker {
    /// Says what it hashes on its channel, and waits for the job that comes with that target: of a pool that wants a
    /// share a second.
    pub(crate) async fn state_rate(&mut self, nominal_hash_rate: f32) -> Job {
        let channel_id = self.channel.id;
        self.hear_targets();
        self.wire
            .send(&UpdateChannel {
                channel_id,
                nominal_hash_rate,
                maximum_target: U256Owned::from([0xff; 32]),
            })
            .await;
        // The pool steers the channel meanwhile, too.
        let changed = self.wire.pick(|frame| {
            let target = frame.is::<SetTarget>();
            let target: SetTarget = target.then(|| super::wire::decoded(frame))?;
            let asked = work_of(target.maximum_target.to_array()) as f64;
            let is_it = (asked / f64::from(nominal_hash_rate) - 1.0).abs() < 0.01;
            (target.channel_id == channel_id && is_it).then_some(target)
        });
        self.channel.target = changed.await.maximum_target.to_array();
        // Earlier jobs have other targets.
        self.wire.arrived::<NewExtendedMiningJob>();
        let job = self.wire.pick(|frame| {
            let job = frame.is::<NewExtendedMiningJob>();
            let job: NewExtendedMiningJob = job.then(|| super::wire::decoded(frame))?;
            (job.channel_id == channel_id).then_some(job)
        });
        let job = job.await;
        self.given(&job)
    }

    /// Searches a share of a job that meets the target of an easier one only.
    pub(crate) async fn hash_as_easy(&mut self, job: &Job, easier: &Job) -> Share {
        let [target, easy] = [job, easier].map(|job| Target::from_le_bytes(job.search.target));
        assert!(target < easy);
        loop {
            let share = self.hash_to(job, easier.search.target, 0).await;
            if Target::from_le_bytes(share.hash) > target {
                return share;
            }
        }
    }

    /// Tries so many headers of each space of these jobs, once. The shares, each under the hardest target that it meets,
    /// and how many headers were tried.
    pub(crate) fn hash_once(&mut self, jobs: &[Job], headers: u32) -> (Vec<Share>, u64) {
        let mut spaces: Vec<Vec<&Job>> = Vec::new();
        for (at, job) in jobs.iter().enumerate() {
            // A job that it was given again has the target of the first time.
            let is_it = |other: &Job| (other.channel.id, other.id) == (job.channel.id, job.id);
            if jobs[..at].iter().any(is_it) {
                continue;
            }
            match spaces
                .iter_mut()
                .find(|space| job.has_the_space_of(space[0]))
            {
                Some(space) => space.push(job),
                None => spaces.push(vec![job]),
            }
        }
        let mut shares = Vec::new();
        for space in &mut spaces {
            space.sort_by_key(|job| job.work());
            self.hash_space(space, headers, &mut shares);
        }
        (shares, spaces.len() as u64 * u64::from(headers))
    }

    fn hash_space(&mut self, space: &[&Job], headers: u32, shares: &mut Vec<Share>) {
        let easiest = space[0];
        let ntime = space.iter().map(|job| job.search.min_ntime).max().unwrap();
        let extranonce = vec![0; easiest.search.extranonce_size];
        let mut header = easiest.search.header(&extranonce, ntime);
        let (go_on, tried) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut rest = 0..u64::from(headers);
        while let Some(nonce) = scan(
            &header,
            rest.clone(),
            &easiest.search.target,
            &go_on,
            &tried,
        ) {
            rest.start = u64::from(nonce) + 1;
            header[NONCE_AT..].copy_from_slice(&nonce.to_le_bytes());
            let hash = header_hash(&header);
            let hardest = space.iter().rfind(|job| meets(&hash, &job.search.target));
            let job = hardest.unwrap();
            let found = FoundShare {
                job_id: job.id,
                upstream_job_id: None,
                extranonce: extranonce.clone(),
                ntime,
                nonce,
                version: job.search.version,
                hash,
                target: job.search.target,
                block: false,
            };
            let message = job.channel.share(self.number(), job.id, &found);
            shares.push(Share { message, hash });
        }
    }
}
