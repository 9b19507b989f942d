//! From a good share to its acknowledgement: the log. A share is checked against the proofs that are known, appended,
//! synced with whatever waits beside it, and may be acknowledged then; Postgres has no part in it. One writer
//! ([`crate::share_writer`]) brings the log into the ledger behind everybody's back.
//!
//! A claim is settled in Postgres first ([`crate::claim`]); its hashes go the way of all shares then.

use std::fmt;
use std::path::{Path, PathBuf};
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
use crate::rewards::RewardsConfig;
use crate::share_record::LoggedShare;
use crate::share_writer::{ShareWriter, resume};
use crate::shares::{InferenceSettlement, Share};
use crate::{CommitRefusal, Ledger, LedgerError};

/// What one claim may take in Postgres before it counts as away.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(5);
/// From which part of its size on the log counts as nearly full.
const NEAR_FULL: f64 = 0.8;
/// How long a miner is not read from after a share when the log is all but full: halfway from nearly full, half as long.
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
    /// The credit interval: how often what hashes have earned becomes transfers. Zero: with each set.
    pub settle_interval: Duration,
    /// Shares that build on a block of this many blocks before the newest one are dropped, a partition at a time.
    pub keep_blocks: u32,
    /// How blocks are divided; `None` if hashes earn a configured rate.
    pub rewards: Option<RewardsConfig>,
}

impl CommitterConfig {
    /// The usual times, in this folder, with so many bytes of log at most.
    pub fn new(dir: PathBuf, log_bytes_max: u64) -> Self {
        Self {
            dir,
            log: LogConfig {
                near_full: NEAR_FULL,
                ..LogConfig::of_size(log_bytes_max)
            },
            write_interval: Duration::from_millis(100),
            settle_interval: Duration::from_secs(600),
            keep_blocks: 4_320,
            rewards: None,
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
    /// Whether somebody was told that the log is nearly full ..
    is_alarmed: AtomicBool,
    /// .. and that it takes nothing.
    is_failing: AtomicBool,
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
        refuse_spool(&config.dir)?;
        let (dir, sizes) = (config.dir.clone(), config.log.clone());
        let opened = tokio::task::spawn_blocking(move || ShareLog::open(&dir, sizes)).await;
        let (log, recovered) = opened
            .map_err(|_| LedgerError::Log("a thread ended while the log was opened".to_owned()))?
            .map_err(|error| LedgerError::Log(error.to_string()))?;
        let mut known = KnownShares::default();
        let begin = resume(&ledger, &log, &recovered, &mut known).await?;
        log_claimed(&ledger, &log, &mut known).await?;
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
            is_failing: AtomicBool::new(false),
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

    /// Returns once the share is durable: in the log, or settled in the ledger with the batch that it claims. A share
    /// without a claim is in the log's queue once this was polled and the log has room; then it counts even if the caller
    /// goes away.
    ///
    /// # Errors
    /// [`CommitRefusal`]; nothing was credited then. One exception: after [`CommitRefusal::Unavailable`] a claim may have
    /// been settled, if the connection to Postgres broke while it was.
    pub async fn commit(&self, share: Share) -> Result<(), CommitRefusal> {
        share.check()?;
        let noted = self.note(&share)?;
        let log = self.log().ok_or(CommitRefusal::Unavailable)?;
        let record = LoggedShare::new(&share, unix_now()).encode();
        let Some(batch) = &share.batch else {
            return self.append(&log, &record, noted).await;
        };
        let kept = (log.log_id().cast_signed(), &*record);
        self.settle(&share, batch, kept).await?;
        // It is durable now, with its record. If that does not get into the log, the next start brings it there.
        if let Err(error) = self.append(&log, &record, noted.keep()).await {
            tracing::warn!(%error, "the share of a claim is logged at the next start");
        }
        Ok(())
    }

    async fn append(
        &self,
        log: &ShareLog,
        record: &[u8],
        noted: Noted<'_>,
    ) -> Result<(), CommitRefusal> {
        let appended = log.append(record).await;
        let appended = appended.map_err(|error| self.not_taken(&error))?;
        // From here on it will be in the ledger, unless the log says otherwise.
        let noted = noted.keep();
        match appended.durable.await {
            Ok(()) => {
                self.inner.is_failing.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(error @ DurabilityError::NoSegment(_)) => {
                noted.forget();
                self.tell_of_failure(&error);
                Err(CommitRefusal::LogFull)
            }
            Err(error @ DurabilityError::Poisoned(_)) => {
                self.tell_of_failure(&error);
                Err(CommitRefusal::Unavailable)
            }
        }
    }

    /// Says once that the disk takes nothing: a line for each share would be one more load on it.
    fn tell_of_failure(&self, error: &dyn fmt::Display) {
        if !self.inner.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "shares cannot be logged: look after the disk");
        }
    }

    async fn settle(
        &self,
        share: &Share,
        batch: &InferenceSettlement,
        kept: (i64, &[u8]),
    ) -> Result<(), CommitRefusal> {
        let settling = self.inner.ledger.settle_claim(share, batch, kept);
        let settled = timeout(CLAIM_TIME_MAX, settling).await;
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
                self.tell_of_failure(error);
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
        let into_the_rest = (room.fraction() - NEAR_FULL) / (1.0 - NEAR_FULL);
        PAUSE_MAX.mul_f64(into_the_rest.clamp(0.0, 1.0))
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

    /// The log's number, as the ledger has it.
    #[cfg(test)]
    pub(crate) fn log_id(&self) -> i64 {
        self.log().unwrap().log_id().cast_signed()
    }

    /// Up to where the log is in the ledger.
    #[cfg(test)]
    pub(crate) fn position(&self) -> Position {
        *self.inner.written.borrow()
    }

    /// Returns if log or ledger have failed for good, or the writer has ended: no share is taken any more, and the pool
    /// has to stop for a person.
    pub async fn failed(&self) -> LedgerError {
        let mut failure = self.inner.failure.clone();
        let failed = failure.wait_for(Option::is_some).await;
        let words = failed.ok().and_then(|failure| failure.clone());
        LedgerError::Log(words.unwrap_or_else(|| "its writer has ended".to_owned()))
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

/// Refuses to start where an earlier release left shares that it had acknowledged.
fn refuse_spool(dir: &Path) -> Result<(), LedgerError> {
    for dir in [Some(dir), dir.parent()].into_iter().flatten() {
        let spool = dir.join("shares.jsonl");
        if std::fs::metadata(&spool).is_ok_and(|file| file.len() > 0) {
            return Err(LedgerError::Log(format!(
                "{} holds shares that an earlier release acknowledged while Postgres was away: start that release \
                 until the file is empty",
                spool.display()
            )));
        }
    }
    Ok(())
}

/// Logs the shares of claims that were settled when the pool stopped.
async fn log_claimed(
    ledger: &Ledger,
    log: &ShareLog,
    known: &mut KnownShares,
) -> Result<(), LedgerError> {
    let records: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT record FROM claimed_shares WHERE log_id = $1")
            .bind(log.log_id().cast_signed())
            .fetch_all(&ledger.pool)
            .await?;
    for record in records {
        let share = LoggedShare::decode(&record).ok_or(LedgerError::Corrupt("claimed share"))?;
        // It may be in the log, and not in the ledger yet.
        if !known.insert(share.height, key(&share.header_hash)) {
            continue;
        }
        let failed = |error: &dyn std::error::Error| LedgerError::Log(error.to_string());
        let appended = log.append(&record).await.map_err(|error| failed(&error))?;
        appended.durable.await.map_err(|error| failed(&error))?;
    }
    Ok(())
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
