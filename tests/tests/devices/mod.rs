//! A device behind a worker, played by the tests: one extended channel that really hashes, and remembers
//! what it was given to hash.

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::{find_commitment, parse_coinbase};
use dovetail_miner::search::{Found, Search, SearchJob};
use dovetail_sv2::messages::{
    NewExtendedMiningJob, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess,
    SetNewPrevHash, Str0255Owned, SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, request};
use dovetail_sv2::{AuthorityPublicKey, Frame, FrameReader, FrameWriter, connect, setup};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const TIME_MAX: Duration = Duration::from_secs(120);
/// What pools put into the coinbases of their own jobs.
const POOLS_TAG: &[u8] = b"Dovetail";

/// A job that the device was given to hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) tip: [u8; 32],
    /// Whether the pool built it.
    pub(crate) pools: bool,
    /// The batch that it bears.
    pub(crate) root: Option<BatchRoot>,
    /// How many transactions its block has, at least: one, or those of a path of this length.
    pub(crate) path: usize,
}

/// What the device has seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) jobs: Vec<Given>,
    /// Shares that the worker took.
    pub(crate) taken: usize,
    /// Headers that met the device's target.
    pub(crate) found: usize,
}

impl Log {
    pub(crate) fn last(&self) -> Option<&Given> {
        self.jobs.last()
    }

    /// Jobs from this one on.
    pub(crate) fn since(&self, job: usize) -> &[Given] {
        &self.jobs[job..]
    }
}

/// A running device. Dropping it ends it.
pub(crate) struct Device {
    log: Arc<Mutex<Log>>,
    changed: watch::Receiver<()>,
    may_submit: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

/// What a device hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Everything,
    /// The jobs of the worker's own templates. It stays on the last of them whatever comes.
    OwnTemplates,
}

impl Device {
    /// Connects, and hashes whatever it is given to find headers that meet `target`, which should be harder
    /// than what anybody asks.
    pub(crate) async fn start(port: &(String, String), target: [u8; 32]) -> Self {
        Self::start_as("device", port, target).await
    }

    /// The same, for somebody else.
    pub(crate) async fn start_as(
        identity: &str,
        port: &(String, String),
        target: [u8; 32],
    ) -> Self {
        Self::connect(identity, port, target, Takes::Everything, true).await
    }

    /// The same, of a device that hashes jobs of the worker's own templates alone, and keeps what it finds to itself
    /// until [`Device::submit`].
    pub(crate) async fn start_on_own_templates(port: &(String, String), target: [u8; 32]) -> Self {
        Self::connect("device", port, target, Takes::OwnTemplates, false).await
    }

    /// Lets it hand in what it has found and will find.
    pub(crate) fn submit(&self) {
        self.may_submit.send_replace(true);
    }

    async fn connect(
        identity: &str,
        (address, key): &(String, String),
        target: [u8; 32],
        takes: Takes,
        submits: bool,
    ) -> Self {
        let authority: AuthorityPublicKey = key.parse().unwrap();
        let (mut reader, mut writer) = connect(address, Some(authority)).await.unwrap();
        let request = request(SetupProtocol::MiningProtocol, 0, address, "test").unwrap();
        setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        let open = OpenExtendedMiningChannel {
            request_id: 1,
            user_identity: Str0255Owned::try_from(identity).unwrap(),
            nominal_hash_rate: 100_000.0,
            max_target: U256Owned::from([0xff; 32]),
            min_extranonce_size: 4,
        };
        writer.write(&Frame::new(&open).unwrap()).await.unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let (notify, changed) = watch::channel(());
        let (may_submit, submitting) = watch::channel(submits);
        let state = State {
            writer,
            target,
            takes,
            submitting,
            channel: None,
            future: HashMap::new(),
            tip: None,
            current: None,
            log: log.clone(),
            notify,
            sent: 0,
        };
        Self {
            log,
            changed,
            may_submit,
            _task: AbortOnDropHandle::new(tokio::spawn(state.run(reader))),
        }
    }

    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Log) -> bool) -> Log {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                changed.borrow_and_update();
                let log = self.log();
                if wanted(&log) {
                    return log;
                }
                changed
                    .changed()
                    .await
                    .expect("the device was disconnected");
            }
        };
        match timeout(TIME_MAX, wait).await {
            Ok(log) => log,
            Err(_) => panic!("waited too long for {what}: {:#?}", self.log()),
        }
    }
}

struct State {
    writer: FrameWriter,
    target: [u8; 32],
    takes: Takes,
    submitting: watch::Receiver<bool>,
    channel: Option<OpenExtendedMiningChannelSuccess>,
    future: HashMap<u32, NewExtendedMiningJob>,
    tip: Option<SetNewPrevHash>,
    current: Option<(u32, SearchJob, Search)>,
    log: Arc<Mutex<Log>>,
    notify: watch::Sender<()>,
    sent: u32,
}

impl State {
    async fn run(mut self, mut reader: FrameReader) {
        loop {
            tokio::select! {
                frame = reader.read() => match frame {
                    Ok(frame) => self.on_frame(&frame),
                    // Whoever waits hears of it.
                    Err(_) => return,
                },
                found = found(&mut self.current) => self.submit(&found).await,
            }
        }
    }

    fn on_frame(&mut self, frame: &Frame) {
        if frame.is::<OpenExtendedMiningChannelSuccess>() {
            self.channel = Some(frame.decode().unwrap().0);
        } else if frame.is::<NewExtendedMiningJob>() {
            let (job, _) = frame.decode::<NewExtendedMiningJob>().unwrap();
            match job.min_ntime.as_ref().is_some() {
                true => self.hash(&job),
                false => drop(self.future.insert(job.job_id, job)),
            }
        } else if frame.is::<SetNewPrevHash>() {
            let (tip, _) = frame.decode::<SetNewPrevHash>().unwrap();
            let job = self.future.remove(&tip.job_id).unwrap();
            self.future.clear();
            self.tip = Some(tip);
            self.hash(&job);
        } else if frame.is::<SubmitSharesSuccess>() {
            let (message, _) = frame.decode::<SubmitSharesSuccess>().unwrap();
            self.log.lock().unwrap().taken += message.new_submits_accepted_count as usize;
            self.notify.send_replace(());
        }
    }

    /// This job from now on.
    fn hash(&mut self, job: &NewExtendedMiningJob) {
        let (channel, tip) = (self.channel.as_ref().unwrap(), self.tip.as_ref().unwrap());
        let (prefix, suffix) = (&job.coinbase_tx_prefix, &job.coinbase_tx_suffix);
        let prefix = [prefix.as_bytes(), channel.extranonce_prefix.as_bytes()].concat();
        let size = usize::from(channel.extranonce_size);
        let coinbase = parse_coinbase(&prefix, &vec![0; size], suffix.as_bytes()).unwrap();
        let search = SearchJob {
            version: job.version,
            prev_hash: tip.prev_hash.to_array(),
            min_ntime: job.min_ntime.as_ref().copied().unwrap_or(tip.min_ntime),
            nbits: tip.nbits,
            coinbase_prefix: prefix.clone(),
            coinbase_suffix: suffix.to_owned_bytes(),
            extranonce_size: size,
            merkle_path: job.merkle_path.iter().map(U256Owned::to_array).collect(),
            target: self.target,
        };
        let given = Given {
            tip: search.prev_hash,
            pools: prefix
                .windows(POOLS_TAG.len())
                .any(|bytes| bytes == POOLS_TAG),
            root: find_commitment(&coinbase.output).unwrap(),
            path: search.merkle_path.len(),
        };
        if self.takes == Takes::Everything || !given.pools {
            self.current = Some((job.job_id, search.clone(), Search::start(search)));
        }
        self.log.lock().unwrap().jobs.push(given);
        self.notify.send_replace(());
    }

    async fn submit(&mut self, found: &Found) {
        let Some((job_id, search, _)) = self.current.take() else {
            return;
        };
        self.log.lock().unwrap().found += 1;
        self.notify.send_replace(());
        if self.submitting.wait_for(|submits| *submits).await.is_err() {
            return;
        }
        self.sent += 1;
        let share = SubmitSharesExtended {
            channel_id: self.channel.as_ref().unwrap().channel_id,
            sequence_number: self.sent,
            job_id,
            nonce: found.nonce,
            ntime: found.ntime,
            version: search.version,
            extranonce: found.extranonce.clone().try_into().unwrap(),
        };
        // Another part of the same job.
        self.current = Some((job_id, search.clone(), Search::start(search)));
        let frame = Frame::new(&share).unwrap();
        // A worker that is gone shows when it is read from.
        let _ = self.writer.write(&frame).await;
    }
}

async fn found(current: &mut Option<(u32, SearchJob, Search)>) -> Found {
    let found = match current {
        Some((_, _, search)) => search.found().await,
        None => None,
    };
    match found {
        Some(found) => found,
        None => std::future::pending().await,
    }
}

/// A header in 2^21 meets it: harder than what a pool of the tests asks, and a second or two of a thread.
pub(crate) fn hard_target() -> [u8; 32] {
    let mut target = [0xff; 32];
    target[30..].fill(0);
    target[29] = 0x07;
    target
}
