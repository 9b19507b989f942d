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
        let work = Target::from_le_bytes(self.search.target).to_work();
        work.to_string().parse().unwrap()
    }
}

impl ScriptedWorker {
    /// Says what it hashes on its channel, and waits for the job that comes with the changed target.
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
        let changed: SetTarget = self.wire.receive().await;
        assert_eq!(changed.channel_id, channel_id);
        self.channel.target = changed.maximum_target.to_array();
        let job = self.wire.pick(|frame| {
            let job = frame.is::<NewExtendedMiningJob>();
            let job: NewExtendedMiningJob = job.then(|| super::wire::decoded(frame))?;
            let at_once = job.min_ntime.as_ref().is_some();
            (job.channel_id == channel_id && at_once).then_some(job)
        });
        let job = job.await;
        self.given(&job)
    }

    /// Tries so many headers of each space of these jobs, once. The shares, each under the hardest target that it meets,
    /// and how many headers were tried.
    pub(crate) fn hash_once(&mut self, jobs: &[Job], headers: u32) -> (Vec<Share>, u64) {
        let mut spaces: Vec<Vec<&Job>> = Vec::new();
        for job in jobs {
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
                block: false,
            };
            let message = job.channel.share(self.number(), job.id, &found);
            shares.push(Share { message, hash });
        }
    }
}
