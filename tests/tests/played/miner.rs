//! The miner: it keeps the jobs and the tip that it was told last, and hashes a share of one when it is told to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use dovetail_miner::job::{FoundShare, HashJob, JobParts};
use dovetail_miner::search::meets;
use dovetail_sv2::handshake::connect_over;
use dovetail_sv2::messages::{
    CloseChannel, NewExtendedMiningJob, OpenExtendedMiningChannel,
    OpenExtendedMiningChannelSuccess, OpenMiningChannelError, SetNewPrevHash, SetTarget,
    Str0255Owned, SubmitSharesError, SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::SetupProtocol;
use dovetail_sv2::{AuthorityPublicKey, Frame, FrameReader, FrameWriter, Message, setup};
use dovetail_tests::scenario::AUTHORITY_PUBLIC;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{LOCALHOST, TIME_MAX};

/// A job that can be hashed.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: u32,
    pub(crate) parts: JobParts,
    /// Whether a `SetNewPrevHash` brought it.
    pub(crate) with_tip: bool,
}

pub(crate) struct Miner {
    reader: FrameReader,
    writer: FrameWriter,
    channel: OpenExtendedMiningChannelSuccess,
    future: HashMap<u32, NewExtendedMiningJob>,
    tip: Option<SetNewPrevHash>,
    /// Every job so far, the newest last.
    pub(crate) jobs: Vec<Job>,
    sent: u32,
    /// Answers to shares that nobody has asked for yet.
    answers: HashMap<u32, Result<(), String>>,
    /// Shares that the pool has acknowledged.
    accepted: u32,
    /// The answer to [`Miner::open_another`].
    opened: Option<Result<(), String>>,
    pub(crate) closed: Option<String>,
}

impl Miner {
    /// Connects and opens a channel, or says why it was refused.
    pub(crate) async fn open(address: &str, hash_rate: f32) -> Result<Self, String> {
        Self::open_as("played", LOCALHOST, address, hash_rate).await
    }

    /// The same in the name of an account, from an address of this machine.
    pub(crate) async fn open_as(
        account: &str,
        from: Ipv4Addr,
        address: &str,
        hash_rate: f32,
    ) -> Result<Self, String> {
        let authority: AuthorityPublicKey = AUTHORITY_PUBLIC.parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let connected = connect_over(stream, Some(authority)).await;
        let (mut reader, mut writer) = connected.map_err(|error| error.to_string())?;
        let request = setup::request(SetupProtocol::MiningProtocol, 0, address, "test").unwrap();
        setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        let open = Frame::new(&open(account, hash_rate)).unwrap();
        writer.write(&open).await.unwrap();
        let frame = timeout(TIME_MAX, reader.read()).await.unwrap().unwrap();
        if frame.is::<OpenMiningChannelError>() {
            let error = frame.decode::<OpenMiningChannelError>().unwrap().0;
            return Err(error.error_code.as_utf8_or_hex());
        }
        let channel = frame.decode().unwrap().0;
        Ok(Self {
            reader,
            writer,
            channel,
            future: HashMap::new(),
            tip: None,
            jobs: Vec::new(),
            sent: 0,
            answers: HashMap::new(),
            accepted: 0,
            opened: None,
            closed: None,
        })
    }

    /// Opens another channel on the same connection, and does no more with it; or says why it was refused.
    pub(crate) async fn open_another(&mut self) -> Result<(), String> {
        let open = Frame::new(&open("played", 0.0)).unwrap();
        self.writer.write(&open).await.unwrap();
        loop {
            if let Some(opened) = self.opened.take() {
                return opened;
            }
            assert!(self.step().await, "the pool hung up: {:?}", self.closed);
        }
    }

    /// The bytes that the pool puts before this channel's own extranonce.
    pub(crate) fn prefix(&self) -> Vec<u8> {
        self.channel.extranonce_prefix.to_owned_bytes()
    }

    /// Reads until there is a job as wanted among those from `first` on.
    pub(crate) async fn job(&mut self, first: usize, wanted: impl Fn(&Job) -> bool) -> Job {
        loop {
            let newer = self.jobs.get(first..).unwrap_or_default();
            if let Some(job) = newer.iter().find(|job| wanted(job)) {
                return job.clone();
            }
            assert!(self.step().await, "the pool hung up: {:?}", self.closed);
        }
    }

    /// Hashes a share of this job with this time, and says what the pool answered.
    pub(crate) async fn share(&mut self, job: &Job, ntime: u32) -> Result<(), String> {
        self.share_of_version(job, ntime, job.parts.version).await
    }

    /// The same with this version.
    pub(crate) async fn share_of_version(
        &mut self,
        job: &Job,
        ntime: u32,
        version: u32,
    ) -> Result<(), String> {
        let number = self.submit(job, ntime, version).await;
        self.answer(number).await
    }

    /// What the pool answers to the share of this number.
    pub(crate) async fn answer(&mut self, number: u32) -> Result<(), String> {
        loop {
            if let Some(answer) = self.answers.remove(&number) {
                return answer;
            }
            assert!(self.step().await, "the pool hung up: {:?}", self.closed);
        }
    }

    /// Whether the share of this number has been answered by what has been read.
    pub(crate) fn is_answered(&self, number: u32) -> bool {
        self.answers.contains_key(&number)
    }

    /// A share of this job that solves a block, to be handed in later, and the hash of its header.
    pub(crate) fn block(&mut self, job: &Job, ntime: u32) -> (SubmitSharesExtended, [u8; 32]) {
        self.search(job, ntime, job.parts.version, |found| found.block)
    }

    /// Sends a share, and waits for nothing.
    pub(crate) async fn hand_in(&mut self, share: &SubmitSharesExtended) {
        let frame = Frame::new(share).unwrap();
        self.writer.write(&frame).await.unwrap();
    }

    /// Hashes so many shares of this job, and sends all of them before it hears of any; why the pool refused some.
    pub(crate) async fn flood(&mut self, job: &Job, count: u32) -> Vec<String> {
        let (ntime, version) = (job.parts.min_ntime, job.parts.version);
        let shares: Vec<Frame> = (0..count)
            .map(|_| Frame::new(&self.hash(job, ntime, version)).unwrap())
            .collect();
        for share in &shares {
            self.writer.write(share).await.unwrap();
        }
        let before = self.accepted;
        loop {
            let refused = self
                .answers
                .values()
                .filter_map(|answer| answer.as_ref().err());
            let refused: Vec<String> = refused.cloned().collect();
            if self.accepted - before + u32::try_from(refused.len()).unwrap() >= count {
                return refused;
            }
            assert!(self.step().await, "the pool hung up: {:?}", self.closed);
        }
    }

    /// Hashes a share and sends it. Its number.
    async fn submit(&mut self, job: &Job, ntime: u32, version: u32) -> u32 {
        let share = self.hash(job, ntime, version);
        self.hand_in(&share).await;
        share.sequence_number
    }

    fn hash(&mut self, job: &Job, ntime: u32, version: u32) -> SubmitSharesExtended {
        let target = job.parts.target;
        let is_share = |found: &FoundShare| meets(&found.hash, &target);
        self.search(job, ntime, version, is_share).0
    }

    /// Hashes until a header is as wanted; the share that it makes, and its hash.
    fn search(
        &mut self,
        job: &Job,
        ntime: u32,
        version: u32,
        wanted: impl Fn(&FoundShare) -> bool,
    ) -> (SubmitSharesExtended, [u8; 32]) {
        self.sent += 1;
        let parts = JobParts {
            // Whatever the rules say.
            min_ntime: ntime,
            version,
            ..job.parts.clone()
        };
        let hashed = HashJob::new(job.id, parts, mpsc::channel(1).0).unwrap();
        let extranonce = u64::from(self.sent).to_be_bytes();
        let found = (0..)
            .map(|nonce| hashed.share(&extranonce, version, ntime, nonce).unwrap())
            .find(wanted)
            .unwrap();
        let share = SubmitSharesExtended {
            channel_id: self.channel.channel_id,
            sequence_number: self.sent,
            job_id: job.id,
            nonce: found.nonce,
            ntime,
            version,
            extranonce: found.extranonce.try_into().unwrap(),
        };
        (share, found.hash)
    }

    /// Reads until the pool hangs up; the reason that it gave.
    pub(crate) async fn hung_up(&mut self) -> Option<String> {
        while self.step().await {}
        self.closed.clone()
    }

    /// Takes one message. `false` if the pool has hung up.
    async fn step(&mut self) -> bool {
        let read = timeout(TIME_MAX, self.reader.read());
        let Ok(frame) = read.await.expect("the pool says nothing") else {
            return false;
        };
        if frame.is::<NewExtendedMiningJob>() {
            let job: NewExtendedMiningJob = message(&frame);
            match job.min_ntime.as_ref().copied() {
                Some(min_ntime) => self.push(&job, min_ntime, false),
                None => drop(self.future.insert(job.job_id, job)),
            }
        } else if frame.is::<SetNewPrevHash>() {
            let tip: SetNewPrevHash = message(&frame);
            let (job_id, min_ntime) = (tip.job_id, tip.min_ntime);
            self.tip = Some(tip);
            let job = self.future.remove(&job_id).unwrap();
            self.push(&job, min_ntime, true);
        } else if frame.is::<SetTarget>() {
            self.channel.target = message::<SetTarget>(&frame).maximum_target;
        } else if frame.is::<SubmitSharesSuccess>() {
            let success: SubmitSharesSuccess = message(&frame);
            self.accepted += success.new_submits_accepted_count;
            self.answers.insert(success.last_sequence_number, Ok(()));
        } else if frame.is::<SubmitSharesError>() {
            let error: SubmitSharesError = message(&frame);
            let code = error.error_code.as_utf8_or_hex();
            self.answers.insert(error.sequence_number, Err(code));
        } else if frame.is::<OpenExtendedMiningChannelSuccess>() {
            self.opened = Some(Ok(()));
        } else if frame.is::<OpenMiningChannelError>() {
            let error: OpenMiningChannelError = message(&frame);
            self.opened = Some(Err(error.error_code.as_utf8_or_hex()));
        } else if frame.is::<CloseChannel>() {
            let close: CloseChannel = message(&frame);
            self.closed = Some(close.reason_code.as_utf8_or_hex());
        }
        true
    }

    fn push(&mut self, job: &NewExtendedMiningJob, min_ntime: u32, with_tip: bool) {
        let tip = self.tip.as_ref().unwrap();
        let parts = JobParts {
            upstream_job_id: Some(job.job_id),
            version: job.version,
            version_rolling: job.version_rolling_allowed,
            prev_hash: tip.prev_hash.to_array(),
            min_ntime,
            nbits: tip.nbits,
            coinbase_prefix: job.coinbase_tx_prefix.to_owned_bytes(),
            coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
            merkle_path: job.merkle_path.iter().map(U256Owned::to_array).collect(),
            extranonce_prefix: self.prefix(),
            extranonce_size: usize::from(self.channel.extranonce_size),
            target: self.channel.target.to_array(),
            blocks: None,
        };
        self.jobs.push(Job {
            id: job.job_id,
            parts,
            with_tip,
        });
    }
}

fn open(account: &str, hash_rate: f32) -> OpenExtendedMiningChannel {
    OpenExtendedMiningChannel {
        request_id: 1,
        user_identity: Str0255Owned::try_from(account).unwrap(),
        nominal_hash_rate: hash_rate,
        max_target: U256Owned::from([0xff; 32]),
        min_extranonce_size: 8,
    }
}

fn message<M: Message>(frame: &Frame) -> M {
    frame.decode::<M>().unwrap().0
}
