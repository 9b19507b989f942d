//! One mining channel as its miner sees it: what the pool has told, and the next share of it.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dovetail_sv2::messages::{
    B032Owned, NewExtendedMiningJob, NewMiningJob, SetExtranoncePrefix, SetNewPrevHash, SetTarget,
    SubmitSharesExtended, SubmitSharesStandard, U256Owned,
};
use dovetail_sv2::{EXTRANONCE_BYTES_MAX, Frame};
use dovetail_units::SplitMix64;

use crate::header::{HeaderParts, Headers, Number, merkle_root};

/// Future jobs that are kept for the tip that they wait for.
const FUTURE_JOBS_MAX: usize = 64;

/// Which kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Extended,
    Standard,
}

/// What the pool granted.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) kind: Kind,
    pub(crate) channel_id: u32,
    pub(crate) group_channel_id: u32,
    pub(crate) target: Number,
    pub(crate) extranonce_prefix: Vec<u8>,
    /// Bytes that the miner chooses; 0 on a standard channel.
    pub(crate) extranonce_size: usize,
}

/// A job as far as it is known without its tip.
#[derive(Debug)]
struct Job {
    version: u32,
    merkle_root: Number,
    extranonce: Vec<u8>,
}

/// What a share is taken from.
struct Work {
    job_id: u32,
    version: u32,
    ntime: u32,
    extranonce: Vec<u8>,
    headers: Headers,
}

/// What a frame meant for the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// A job, for now or for the next tip.
    Job,
    /// A tip, with a job of it.
    Tip,
    Target,
    /// Nothing that changes the work: an answer, or a message for somebody else.
    None,
}

/// The channel's state.
pub(crate) struct Channel {
    granted: Granted,
    future: HashMap<u32, Job>,
    tip: Option<SetNewPrevHash>,
    work: Option<Work>,
    /// Never goes back, whatever the job: no header is ever tried twice.
    nonce: u32,
    /// Makes extranonces that no job, connection or run had before.
    salts: SplitMix64,
    sent: u32,
}

impl Channel {
    /// `number` tells the channels of this process apart.
    ///
    /// # Errors
    /// An extranonce longer than there are.
    pub(crate) fn new(granted: Granted, number: u64) -> anyhow::Result<Self> {
        let bytes = granted.extranonce_size + granted.extranonce_prefix.len();
        ensure!(
            bytes <= EXTRANONCE_BYTES_MAX,
            "an extranonce of {bytes} bytes"
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.context("the clock is before 1970")?.as_nanos() as u64;
        // The same prefix on the same tip, given to another run, must not make the same headers.
        let mut salts = SplitMix64::new(now ^ number.rotate_left(40));
        let nonce = salts.bits() as u32;
        Ok(Self {
            granted,
            future: HashMap::new(),
            tip: None,
            work: None,
            nonce,
            salts,
            sent: 0,
        })
    }

    /// Whether there is a job to hash.
    pub(crate) fn has_work(&self) -> bool {
        self.work.is_some()
    }

    /// Takes what a frame says about the work.
    ///
    /// # Errors
    /// A message that breaks the protocol.
    pub(crate) fn take(&mut self, frame: &Frame) -> anyhow::Result<News> {
        if frame.is::<NewExtendedMiningJob>() {
            let job: NewExtendedMiningJob = frame.message()?;
            if self.is_for_us(job.channel_id) {
                self.take_extended_job(&job)?;
                return Ok(News::Job);
            }
        } else if frame.is::<NewMiningJob>() {
            let job: NewMiningJob = frame.message()?;
            if self.is_for_us(job.channel_id) {
                let known = Job {
                    version: job.version,
                    merkle_root: job.merkle_root.to_array(),
                    extranonce: Vec::new(),
                };
                self.take_job(job.job_id, known, job.min_ntime.as_ref().copied());
                return Ok(News::Job);
            }
        } else if frame.is::<SetNewPrevHash>() {
            let tip: SetNewPrevHash = frame.message()?;
            if self.is_for_us(tip.channel_id) {
                self.take_tip(tip)?;
                return Ok(News::Tip);
            }
        } else if frame.is::<SetTarget>() {
            let target: SetTarget = frame.message()?;
            if self.is_for_us(target.channel_id) {
                self.granted.target = target.maximum_target.to_array();
                return Ok(News::Target);
            }
        } else if frame.is::<SetExtranoncePrefix>() {
            let prefix: SetExtranoncePrefix = frame.message()?;
            if self.is_for_us(prefix.channel_id) {
                // It is for the jobs that follow.
                self.granted.extranonce_prefix = prefix.extranonce_prefix.to_owned_bytes();
            }
        }
        Ok(News::None)
    }

    fn is_for_us(&self, channel_id: u32) -> bool {
        [self.granted.channel_id, self.granted.group_channel_id].contains(&channel_id)
    }

    fn take_extended_job(&mut self, job: &NewExtendedMiningJob) -> anyhow::Result<()> {
        let mut extranonce = self.salts.bytes32().to_vec();
        extranonce.truncate(self.granted.extranonce_size);
        let coinbase = [
            job.coinbase_tx_prefix.as_bytes(),
            &self.granted.extranonce_prefix,
            &extranonce,
            job.coinbase_tx_suffix.as_bytes(),
        ]
        .concat();
        let path: Vec<Number> = job.merkle_path.iter().map(U256Owned::to_array).collect();
        let known = Job {
            version: job.version,
            merkle_root: merkle_root(&coinbase, &path),
            extranonce,
        };
        self.take_job(job.job_id, known, job.min_ntime.as_ref().copied());
        Ok(())
    }

    /// A job with a time is for the tip that stands; one without waits for its own.
    fn take_job(&mut self, job_id: u32, job: Job, min_ntime: Option<u32>) {
        match (min_ntime, &self.tip) {
            (Some(ntime), Some(tip)) => {
                self.work = Some(work(job_id, job, tip, ntime.max(tip.min_ntime)));
            }
            (Some(_), None) => {}
            (None, _) if self.future.len() < FUTURE_JOBS_MAX => {
                self.future.insert(job_id, job);
            }
            // More than any pool has use for: the tip will name one that was kept, or end the run with an error.
            (None, _) => {}
        }
    }

    fn take_tip(&mut self, tip: SetNewPrevHash) -> anyhow::Result<()> {
        let job = self.future.remove(&tip.job_id);
        let job = job.context("a tip names a job that was not sent")?;
        self.future.clear();
        self.work = Some(work(tip.job_id, job, &tip, tip.min_ntime));
        self.tip = Some(tip);
        Ok(())
    }

    /// The next share, and its number.
    ///
    /// # Errors
    /// No job, or a target that takes too many hashes.
    pub(crate) fn share(&mut self) -> anyhow::Result<(Frame, u32)> {
        let work = self.work.as_ref().context("there is no job")?;
        let nonce = work.headers.share(self.nonce, &self.granted.target);
        let nonce = nonce.context("the channel's target takes too many hashes")?;
        self.nonce = nonce.wrapping_add(1);
        self.sent = self.sent.checked_add(1).context("2^32 shares")?;
        let (channel_id, sequence_number) = (self.granted.channel_id, self.sent);
        let frame = match self.granted.kind {
            Kind::Extended => Frame::new(&SubmitSharesExtended {
                channel_id,
                sequence_number,
                job_id: work.job_id,
                nonce,
                ntime: work.ntime,
                version: work.version,
                extranonce: B032Owned::new(work.extranonce.clone())
                    .map_err(|error| anyhow::anyhow!("the extranonce: {error}"))?,
            }),
            Kind::Standard => Frame::new(&SubmitSharesStandard {
                channel_id,
                sequence_number,
                job_id: work.job_id,
                nonce,
                ntime: work.ntime,
                version: work.version,
            }),
        };
        Ok((frame?, sequence_number))
    }
}

fn work(job_id: u32, job: Job, tip: &SetNewPrevHash, ntime: u32) -> Work {
    let parts = HeaderParts {
        version: job.version,
        prev_hash: tip.prev_hash.to_array(),
        merkle_root: job.merkle_root,
        ntime,
        nbits: tip.nbits,
    };
    Work {
        job_id,
        version: job.version,
        ntime,
        extranonce: job.extranonce,
        headers: Headers::new(&parts),
    }
}

#[cfg(test)]
mod tests {
    use dovetail_sv2::Message;
    use dovetail_sv2::messages::Sv2OptionOwned;

    use super::*;

    const OURS: u32 = 7;
    const GROUP: u32 = 8;

    fn channel(kind: Kind) -> Channel {
        let granted = Granted {
            kind,
            channel_id: OURS,
            group_channel_id: GROUP,
            target: [0xff; 32],
            extranonce_prefix: vec![1, 2, 3],
            extranonce_size: 8,
        };
        Channel::new(granted, 1).unwrap()
    }

    fn frame<M: Message>(message: &M) -> Frame {
        Frame::new(message).unwrap()
    }

    fn job(channel_id: u32, job_id: u32, min_ntime: Option<u32>) -> Frame {
        frame(&NewMiningJob {
            channel_id,
            job_id,
            min_ntime: Sv2OptionOwned::new(min_ntime),
            version: 0x2000_0000,
            merkle_root: U256Owned::from([6; 32]),
        })
    }

    fn tip(channel_id: u32, job_id: u32) -> Frame {
        frame(&SetNewPrevHash {
            channel_id,
            job_id,
            prev_hash: U256Owned::from([4; 32]),
            min_ntime: 1_000,
            nbits: 0x207f_ffff,
        })
    }

    fn share(channel: &mut Channel) -> SubmitSharesStandard {
        channel.share().unwrap().0.message().unwrap()
    }

    #[test]
    fn a_job_waits_for_its_tip_and_a_later_one_replaces_it() {
        let mut channel = channel(Kind::Standard);
        assert!(channel.share().is_err());
        assert_eq!(channel.take(&job(OURS, 1, None)).unwrap(), News::Job);
        assert!(!channel.has_work());
        assert_eq!(channel.take(&tip(OURS, 1)).unwrap(), News::Tip);
        let first = share(&mut channel);
        assert_eq!(
            (first.job_id, first.ntime, first.sequence_number),
            (1, 1_000, 1)
        );
        channel.take(&job(OURS, 2, Some(1_050))).unwrap();
        let second = share(&mut channel);
        assert_eq!(
            (second.job_id, second.ntime, second.sequence_number),
            (2, 1_050, 2)
        );
        assert_ne!(first.nonce, second.nonce);
    }

    #[test]
    fn messages_for_the_group_are_for_the_channel_and_those_for_others_are_not() {
        let mut channel = channel(Kind::Standard);
        assert_eq!(channel.take(&job(9, 1, None)).unwrap(), News::None);
        assert_eq!(channel.take(&tip(9, 1)).unwrap(), News::None);
        channel.take(&job(GROUP, 1, None)).unwrap();
        assert_eq!(channel.take(&tip(GROUP, 1)).unwrap(), News::Tip);
    }

    #[test]
    fn a_tip_of_a_job_that_was_never_sent_is_an_error() {
        assert!(channel(Kind::Standard).take(&tip(OURS, 5)).is_err());
    }

    #[test]
    fn jobs_of_one_channel_have_extranonces_of_their_own() {
        let mut channel = channel(Kind::Extended);
        let mut extranonces = Vec::new();
        for job_id in 1..=2 {
            let job = NewExtendedMiningJob {
                channel_id: OURS,
                job_id,
                min_ntime: Sv2OptionOwned::new(None),
                version: 3,
                version_rolling_allowed: false,
                merkle_path: dovetail_sv2::messages::Seq0255Owned::new(Vec::new()).unwrap(),
                coinbase_tx_prefix: dovetail_sv2::messages::B064KOwned::new(vec![1]).unwrap(),
                coinbase_tx_suffix: dovetail_sv2::messages::B064KOwned::new(vec![2]).unwrap(),
            };
            channel.take(&frame(&job)).unwrap();
            channel.take(&tip(OURS, job_id)).unwrap();
            let share: SubmitSharesExtended = channel.share().unwrap().0.message().unwrap();
            assert_eq!(share.job_id, job_id);
            extranonces.push(share.extranonce.to_owned_bytes());
        }
        assert_eq!(extranonces[0].len(), 8);
        assert_ne!(extranonces[0], extranonces[1]);
    }
}
