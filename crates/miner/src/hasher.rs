//! A plain Sv2 hasher on the CPU: one standard channel, no extension. It is what ordinary firmware
//! looks like to the pool, for demonstrations and tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dovetail_sv2::connection::FrameReader;
use dovetail_sv2::messages::{
    CloseChannel, NewMiningJob, OpenMiningChannelError, OpenStandardMiningChannel,
    OpenStandardMiningChannelSuccess, SetNewPrevHash, SetTarget, Str0255Owned, SubmitSharesError,
    SubmitSharesStandard, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, mining_flags};
use dovetail_sv2::{AuthorityPublicKey, Frame, Message, Outbox, OutboxError, connect, setup};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pool_session::SessionError;
use crate::search::{Hash256, header_bytes, scan};

/// Frames waiting to be sent: shares, of which there are a few in a second at most.
const OUTBOX_FRAMES: usize = 64;
/// Future jobs that are remembered until a block makes one of them current.
const FUTURE_JOBS_MAX: usize = 16;
/// What one thread of the plain loop does, in h/s; the pool's first target follows from it.
const HASH_RATE_PER_THREAD: f32 = 1_000_000.0;
/// The waits between connections.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(30);

/// What a hasher needs to know.
#[derive(Debug, Clone)]
pub struct HasherOptions {
    /// host:port of the pool.
    pub address: String,
    /// The key that the pool's certificate must be signed with.
    pub authority: Option<AuthorityPublicKey>,
    /// Whom the hashes are credited to.
    pub user: String,
    /// Threads that hash.
    pub threads: u16,
}

/// Shares as the pool answered them, for whoever wants to watch.
#[derive(Debug, Default)]
pub struct HasherStats {
    /// Credited.
    pub accepted: AtomicU64,
    /// Refused.
    pub refused: AtomicU64,
    /// Hashes tried.
    pub hashes: AtomicU64,
}

/// Hashes until `shutdown` is cancelled; connects again whenever the pool is gone.
pub async fn run(options: HasherOptions, stats: Arc<HasherStats>, shutdown: CancellationToken) {
    let mut wait = *BACKOFF.start();
    loop {
        let since = Instant::now();
        tokio::select! {
            () = shutdown.cancelled() => return,
            ended = session(&options, &stats) => if let Err(error) = ended {
                tracing::warn!(%error, "the connection to the pool ended");
            },
        }
        if since.elapsed() > *BACKOFF.end() {
            wait = *BACKOFF.start();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(*BACKOFF.end());
    }
}

async fn session(options: &HasherOptions, stats: &Arc<HasherStats>) -> Result<(), SessionError> {
    let (mut reader, mut writer) = connect(&options.address, options.authority).await?;
    // Standard jobs only: otherwise a pool may send them to the group, in extended form.
    let flags = mining_flags::REQUIRES_STANDARD_JOBS;
    let request = setup::request(
        SetupProtocol::MiningProtocol,
        flags,
        &options.address,
        env!("CARGO_PKG_VERSION"),
    )
    .map_err(OutboxError::Encode)?;
    setup::open(&mut reader, &mut writer, &request).await?;
    let connection = CancellationToken::new();
    let _guard = connection.clone().drop_guard();
    let (outbox, _writer) = Outbox::spawn(writer, OUTBOX_FRAMES, connection);
    let user = Str0255Owned::try_from(options.user.as_str())
        .map_err(|_| SessionError::NoChannel("the user name is too long".to_owned()))?;
    outbox.send(&OpenStandardMiningChannel {
        request_id: 1,
        user_identity: user,
        nominal_hash_rate: HASH_RATE_PER_THREAD * f32::from(options.threads),
        max_target: U256Owned::from([0xff; 32]),
    })?;
    let (found_tx, found) = mpsc::channel(OUTBOX_FRAMES);
    let state = State {
        outbox,
        channel_id: None,
        target: [0; 32],
        future_jobs: Vec::new(),
        current: None,
        tip: None,
        running: None,
        found_tx,
        threads: options.threads.max(1),
        stats: stats.clone(),
        sequence_number: 0,
    };
    hash(&mut reader, found, state).await
}

/// A job of the channel.
#[derive(Debug, Clone)]
struct Job {
    id: u32,
    version: u32,
    merkle_root: Hash256,
    min_ntime: Option<u32>,
}

/// The newest block, as the pool named it.
#[derive(Debug, Clone)]
struct Tip {
    prev_hash: Hash256,
    min_ntime: u32,
    nbits: u32,
    received: Instant,
}

/// A header under the target.
#[derive(Debug)]
struct FoundShare {
    job_id: u32,
    version: u32,
    ntime: u32,
    nonce: u32,
}

/// Everything one connection owns.
struct State {
    outbox: Outbox,
    channel_id: Option<u32>,
    target: Hash256,
    future_jobs: Vec<Job>,
    current: Option<Job>,
    tip: Option<Tip>,
    running: Option<StopOnDrop>,
    found_tx: mpsc::Sender<FoundShare>,
    threads: u16,
    stats: Arc<HasherStats>,
    sequence_number: u32,
}

/// Ends the threads of a job.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn hash(
    reader: &mut FrameReader,
    mut found: mpsc::Receiver<FoundShare>,
    mut state: State,
) -> Result<(), SessionError> {
    loop {
        tokio::select! {
            frame = reader.read() => state.handle(&frame?)?,
            Some(share) = found.recv() => state.submit(&share)?,
        }
    }
}

impl State {
    fn handle(&mut self, frame: &Frame) -> Result<(), SessionError> {
        if frame.extension_type != 0 {
            return Ok(());
        }
        match frame.message_type {
            OpenStandardMiningChannelSuccess::MESSAGE_TYPE => {
                let (opened, _) = frame.decode::<OpenStandardMiningChannelSuccess>()?;
                tracing::info!(channel = opened.channel_id, "the pool opened a channel");
                self.channel_id = Some(opened.channel_id);
                self.target = opened.target.to_array();
            }
            OpenMiningChannelError::MESSAGE_TYPE => {
                let (error, _) = frame.decode::<OpenMiningChannelError>()?;
                return Err(SessionError::NoChannel(error.error_code.as_utf8_or_hex()));
            }
            NewMiningJob::MESSAGE_TYPE => self.new_job(frame)?,
            SetNewPrevHash::MESSAGE_TYPE => self.new_tip(frame)?,
            SetTarget::MESSAGE_TYPE => {
                let (target, _) = frame.decode::<SetTarget>()?;
                // It holds for later jobs; the running one keeps its own (5.3.21).
                self.target = target.maximum_target.to_array();
            }
            SubmitSharesSuccess::MESSAGE_TYPE => {
                let (success, _) = frame.decode::<SubmitSharesSuccess>()?;
                let count = u64::from(success.new_submits_accepted_count);
                self.stats.accepted.fetch_add(count, Ordering::Relaxed);
                tracing::debug!(count, "the pool credited shares");
            }
            SubmitSharesError::MESSAGE_TYPE => {
                let (error, _) = frame.decode::<SubmitSharesError>()?;
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(code = %error.error_code.as_utf8_or_hex(), "the pool refused a share");
            }
            CloseChannel::MESSAGE_TYPE => {
                let (close, _) = frame.decode::<CloseChannel>()?;
                let reason = close.reason_code.as_utf8_or_hex();
                return Err(SessionError::ChannelClosed(reason));
            }
            _ => {}
        }
        Ok(())
    }

    fn new_job(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let (message, _) = frame.decode::<NewMiningJob>()?;
        let job = Job {
            id: message.job_id,
            version: message.version,
            merkle_root: message.merkle_root.to_array(),
            min_ntime: message.min_ntime.into_inner(),
        };
        if job.min_ntime.is_some() {
            self.current = Some(job);
            self.restart();
        } else {
            if self.future_jobs.len() == FUTURE_JOBS_MAX {
                self.future_jobs.remove(0);
            }
            self.future_jobs.push(job);
        }
        Ok(())
    }

    fn new_tip(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let (message, _) = frame.decode::<SetNewPrevHash>()?;
        self.tip = Some(Tip {
            prev_hash: message.prev_hash.to_array(),
            min_ntime: message.min_ntime,
            nbits: message.nbits,
            received: Instant::now(),
        });
        // The named job becomes current and all others invalid (5.3.17).
        let future_jobs = std::mem::take(&mut self.future_jobs);
        self.current = future_jobs.into_iter().find(|job| job.id == message.job_id);
        self.restart();
        Ok(())
    }

    /// Stops the threads and starts them on the current job, if there is one.
    fn restart(&mut self) {
        self.running = None;
        let (Some(job), Some(tip)) = (&self.current, &self.tip) else {
            return;
        };
        tracing::debug!(job = job.id, "hashing a job");
        let stop = Arc::new(AtomicBool::new(false));
        let share = (1_u64 << 32) / u64::from(self.threads);
        for thread in 0..u64::from(self.threads) {
            let range = thread * share..(thread + 1) * share;
            let thread = HashThread {
                job: job.clone(),
                tip: tip.clone(),
                target: self.target,
                stop: stop.clone(),
                found: self.found_tx.clone(),
                stats: self.stats.clone(),
            };
            tokio::task::spawn_blocking(move || thread.run(&range));
        }
        self.running = Some(StopOnDrop(stop));
    }

    fn submit(&mut self, share: &FoundShare) -> Result<(), SessionError> {
        let Some(channel_id) = self.channel_id else {
            return Ok(());
        };
        // Shares of an overtaken job would only be refused as stale.
        if self
            .current
            .as_ref()
            .is_none_or(|job| job.id != share.job_id)
        {
            return Ok(());
        }
        self.sequence_number = self.sequence_number.wrapping_add(1);
        self.outbox.send(&SubmitSharesStandard {
            channel_id,
            sequence_number: self.sequence_number,
            job_id: share.job_id,
            nonce: share.nonce,
            ntime: share.ntime,
            version: share.version,
        })?;
        Ok(())
    }
}

/// One thread's work: its range of nonces at one time after another, never ahead of the clock.
struct HashThread {
    job: Job,
    tip: Tip,
    target: Hash256,
    stop: Arc<AtomicBool>,
    found: mpsc::Sender<FoundShare>,
    stats: Arc<HasherStats>,
}

impl HashThread {
    fn run(&self, range: &std::ops::Range<u64>) {
        let first = self.job.min_ntime.unwrap_or(0).max(self.tip.min_ntime);
        for ntime in first.. {
            while self.tip.received.elapsed().as_secs() < u64::from(ntime - first) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let header = header_bytes(
                self.job.version,
                &self.tip.prev_hash,
                &self.job.merkle_root,
                ntime,
                self.tip.nbits,
                0,
            );
            if !self.scan_range(&header, ntime, range.clone()) {
                return;
            }
        }
    }

    /// Whether the whole range was tried.
    fn scan_range(&self, header: &[u8; 80], ntime: u32, range: std::ops::Range<u64>) -> bool {
        let mut rest = range;
        while let Some(nonce) = scan(
            header,
            rest.clone(),
            &self.target,
            &self.stop,
            &self.stats.hashes,
        ) {
            rest.start = u64::from(nonce) + 1;
            let share = FoundShare {
                job_id: self.job.id,
                version: self.job.version,
                ntime,
                nonce,
            };
            if self.found.blocking_send(share).is_err() {
                return false;
            }
        }
        !self.stop.load(Ordering::Relaxed)
    }
}
