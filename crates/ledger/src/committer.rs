//! From a good share to its acknowledgement: the log. A share is checked against the proofs that are known, appended,
//! synced with whatever waits beside it, and may be acknowledged then; Postgres has no part in it. One writer
//! ([`crate::share_writer`]) brings the log into the ledger behind everybody's back.
//!
//! A claim is settled in Postgres first ([`crate::claim`]); its hashes go the way of all shares then.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_share_log::{AppendError, Config as LogConfig, DurabilityError, Position, ShareLog};
use dovetail_units::time::unix_now;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Fault;
use crate::known_shares::{Key, KnownShares, key};
use crate::share_record::LoggedShare;
use crate::share_writer::{ShareWriter, resume};
use crate::shares::{InferenceSettlement, Share};
use crate::{CommitRefusal, Ledger, LedgerError};

/// What one claim may take in Postgres before it counts as away.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a miner is not read from when the log is all but full. Half full of what is left, half as long.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where shares are logged, and how they come into the ledger.
#[derive(Debug, Clone)]
pub struct CommitterConfig {
    /// The log's folder. One process at a time.
    pub dir: PathBuf,
    /// The log's sizes.
    pub log: LogConfig,
    /// How long the writer waits for more after a small set.
    pub write_interval: Duration,
    /// The length of a slice: how often what hashes have earned becomes transfers. Zero: with each set.
    pub settle_interval: Duration,
    /// Shares that build on a block of this many blocks before the newest one are dropped, a partition at a time.
    pub keep_blocks: u32,
}

impl CommitterConfig {
    /// The usual times, in this folder, with so many bytes of log at most.
    pub fn new(dir: PathBuf, log_bytes_max: u64) -> Self {
        Self {
            dir,
            log: LogConfig::of_size(log_bytes_max),
            write_interval: Duration::from_millis(100),
            settle_interval: Duration::from_secs(600),
            keep_blocks: 4_320,
        }
    }
}

/// Takes shares. Clones are the same.
#[derive(Clone)]
pub struct Committer {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Ledger,
    /// `None` once it is closed and all of it that Postgres took is in the ledger.
    log: Mutex<Option<ShareLog>>,
    known: Mutex<KnownShares>,
    written: watch::Receiver<Position>,
    tasks: TaskTracker,
    /// Set once, if log or ledger fail for good.
    failure: watch::Receiver<Option<String>>,
    /// Whether somebody was told that the log is nearly full.
    is_alarmed: AtomicBool,
}

impl Committer {
    /// Opens the log and starts the writer. Once `shutdown` is cancelled no more shares are taken, and the writer ends
    /// after those that are there, or as soon as Postgres is away; wait for that with [`Committer::stopped`].
    ///
    /// # Errors
    /// [`LedgerError::Log`] if the log cannot be opened, is in use, or does not fit the ledger; [`LedgerError::Unavailable`].
    pub async fn start(
        ledger: Ledger,
        config: CommitterConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, LedgerError> {
        let before = config.dir.join("shares.jsonl");
        if std::fs::metadata(&before).is_ok_and(|file| file.len() > 0) {
            return Err(LedgerError::Log(format!(
                "{} holds shares that an earlier release acknowledged while Postgres was away: start that release \
                 until the file is empty",
                before.display()
            )));
        }
        let (dir, sizes) = (config.dir.clone(), config.log.clone());
        let opened = tokio::task::spawn_blocking(move || ShareLog::open(&dir, sizes)).await;
        let (log, recovered) = opened
            .map_err(|_| LedgerError::Log("a thread ended while the log was opened".to_owned()))?
            .map_err(|error| LedgerError::Log(error.to_string()))?;
        let mut known = KnownShares::default();
        let begin = resume(&ledger, &log, &recovered, &mut known).await?;
        let (progress, written) = watch::channel(begin.0);
        let (failing, failure) = watch::channel(None);
        let writer = ShareWriter::new(&ledger, &log, config, begin, progress, &shutdown)?;
        let tasks = TaskTracker::new();
        let inner = Arc::new(Inner {
            ledger,
            log: Mutex::new(Some(log.clone())),
            known: Mutex::new(known),
            written,
            tasks: tasks.clone(),
            failure,
            is_alarmed: AtomicBool::new(false),
        });
        tasks.spawn({
            let inner = Arc::clone(&inner);
            async move {
                if let Err(error) = writer.run().await {
                    failing.send_replace(Some(error.to_string()));
                }
                locked(&inner.log).take();
            }
        });
        tasks.spawn(async move {
            shutdown.cancelled().await;
            log.close();
        });
        tasks.close();
        Ok(Self { inner })
    }

    /// Returns once the share is durable: in the log, and the batch that it claims settled in the ledger. A share is in
    /// the log's queue once this was polled and the log has room; then it counts even if the caller goes away.
    ///
    /// # Errors
    /// [`CommitRefusal`]; nothing was credited for its hashes then. After [`CommitRefusal::Unavailable`] and
    /// [`CommitRefusal::LogFull`] its batch may have been settled; submitting it again completes it.
    pub async fn commit(&self, share: Share) -> Result<(), CommitRefusal> {
        share.check()?;
        let noted = self.note(&share)?;
        if let Some(batch) = &share.batch {
            self.settle(&share, batch).await?;
        }
        let log = self.log().ok_or(CommitRefusal::Unavailable)?;
        let record = LoggedShare::new(&share, unix_now()).encode();
        let appended = log
            .append(&record)
            .await
            .map_err(|error| self.not_taken(&error))?;
        // From here on it will be in the ledger, unless the log says otherwise.
        let noted = noted.keep();
        match appended.durable.await {
            Ok(()) => Ok(()),
            Err(error @ DurabilityError::NoSegment(_)) => {
                noted.forget();
                tracing::error!(%error, "a share could not be logged: look after the disk");
                Err(CommitRefusal::LogFull)
            }
            Err(error @ DurabilityError::Poisoned(_)) => {
                tracing::error!(%error, "a share could not be logged");
                Err(CommitRefusal::Unavailable)
            }
        }
    }

    async fn settle(
        &self,
        share: &Share,
        batch: &InferenceSettlement,
    ) -> Result<(), CommitRefusal> {
        let settled = timeout(CLAIM_TIME_MAX, self.inner.ledger.settle_claim(share, batch)).await;
        match settled {
            Ok(Ok(settled)) => settled,
            Ok(Err(error)) if error.fault() == Fault::Row => {
                tracing::error!(%error, share = %share.header_hash, "the ledger does not take a claim");
                Err(CommitRefusal::Invalid)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "Postgres is away: a claim cannot be settled");
                Err(CommitRefusal::Unavailable)
            }
            Err(_) => {
                tracing::error!("Postgres does not answer: a claim cannot be settled");
                Err(CommitRefusal::Unavailable)
            }
        }
    }

    fn not_taken(&self, error: &AppendError) -> CommitRefusal {
        match error {
            AppendError::Full { .. } => {
                self.alarm(true);
                CommitRefusal::LogFull
            }
            AppendError::TooLong { .. } => CommitRefusal::Invalid,
            AppendError::Closed => CommitRefusal::Unavailable,
            AppendError::Busy | AppendError::Poisoned(_) => {
                tracing::error!(%error, "a share could not be logged");
                CommitRefusal::Unavailable
            }
        }
    }

    /// How long whoever brings shares is not to be read from: nothing, unless the log is nearly full.
    pub fn pause(&self) -> Duration {
        let Some(log) = self.log() else {
            return Duration::ZERO;
        };
        let room = log.room();
        self.alarm(room.near_full);
        if room.near_full {
            PAUSE_MAX.mul_f64(room.fraction().clamp(0.0, 1.0))
        } else {
            Duration::ZERO
        }
    }

    /// Says once that the log fills, and once that it has room again.
    fn alarm(&self, near_full: bool) {
        if self.inner.is_alarmed.swap(near_full, Ordering::Relaxed) == near_full {
            return;
        }
        if near_full {
            tracing::error!(
                "the log of shares is nearly full: the pool slows its miners down. See why the ledger's Postgres does \
                 not take them"
            );
        } else {
            tracing::info!("the log of shares has room again");
        }
    }

    /// Returns once all shares that are durable by now are in the ledger, which they are not while Postgres is away.
    pub async fn written(&self) {
        let Some(end) = self.log().map(|log| log.end()) else {
            return;
        };
        let mut written = self.inner.written.clone();
        // If the writer has ended there is nobody to wait for.
        let _ = written.wait_for(|position| *position >= end).await;
    }

    /// Up to where the log is in the ledger.
    #[cfg(test)]
    pub(crate) fn position(&self) -> Position {
        *self.inner.written.borrow()
    }

    /// Returns if log or ledger have failed for good: no share is taken any more, and the pool has to stop for a person.
    pub async fn failed(&self) -> LedgerError {
        let mut failure = self.inner.failure.clone();
        let failed = failure.wait_for(Option::is_some).await;
        match failed.ok().and_then(|failure| failure.clone()) {
            Some(words) => LedgerError::Log(words),
            // The writer has ended without a failure.
            None => std::future::pending().await,
        }
    }

    /// Returns once the writer has ended.
    pub async fn stopped(&self) {
        self.inner.tasks.wait().await;
    }

    fn log(&self) -> Option<ShareLog> {
        locked(&self.inner.log).clone()
    }

    fn note(&self, share: &Share) -> Result<Noted<'_>, CommitRefusal> {
        let (height, key) = (share.height, key(&share.header_hash));
        if !locked(&self.inner.known).insert(height, key) {
            return Err(CommitRefusal::DuplicateShare);
        }
        let known = &self.inner.known;
        Ok(Noted {
            known,
            height,
            key,
            is_kept: false,
        })
    }
}

/// A proof that is noted, and forgotten if this is dropped before it is kept.
struct Noted<'a> {
    known: &'a Mutex<KnownShares>,
    height: u32,
    key: Key,
    is_kept: bool,
}

impl Noted<'_> {
    fn keep(mut self) -> Self {
        self.is_kept = true;
        self
    }

    fn forget(mut self) {
        self.is_kept = false;
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            locked(self.known).remove(self.height, self.key);
        }
    }
}

/// What these locks guard is whole at every step, whoever panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
