//! What the handles, the writer and the keeper share: one lock, held for no longer than a copy takes, never while the
//! disk is waited for; and what each of them waits for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use crate::config::Config;
use crate::disk::Disk;
use crate::error::{AcknowledgeError, AppendError, DurabilityError, Failure, ReadError};
use crate::keeper::Spare;
use crate::log::Room;
use crate::place::{Place, Position};
use crate::queue::{Batch, Live, Queue, Waiter};

/// How long a failure to make a segment stands before another one is tried: writing tens of megabytes to a full disk
/// for each append would help nobody.
const SPARE_RETRY: Duration = Duration::from_secs(1);

/// What readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Where the durable records end.
    pub(crate) end: Position,
    /// No more will come.
    pub(crate) has_ended: bool,
}

#[derive(Debug)]
pub(crate) enum Status {
    Open,
    /// No more appends; what waits is still written.
    Closed,
    Poisoned(Failure),
}

pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) queue: Queue,
    /// Up to where everything is durable.
    pub(crate) written: Place,
    pub(crate) acknowledged: Position,
    /// Acknowledged segments, for the keeper.
    pub(crate) released: Vec<Live>,
    /// Files that become segments.
    pub(crate) spares: Vec<Spare>,
    /// The writer has taken one, and it is not a segment yet.
    pub(crate) spare_in_hand: bool,
    /// Why the last spare was not made, and when.
    pub(crate) spare_failure: Option<(Instant, Failure)>,
    /// The keeper has nothing left to wait for.
    pub(crate) keeper_must_stop: bool,
    /// Waking somebody is a system call; on the append path it is made only if needed.
    pub(crate) writer_waits: bool,
}

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) log_id: u64,
    pub(crate) config: Config,
    pub(crate) disk: Arc<dyn Disk>,
    state: Mutex<State>,
    writer_wake: Condvar,
    pub(crate) keeper_wake: Condvar,
    pub(crate) spare_wake: Condvar,
    pub(crate) progress: watch::Sender<Progress>,
    /// Told when the queue was taken: there is space again.
    pub(crate) queue_taken: Notify,
}

impl State {
    /// How many files there are for segments that do not exist yet.
    pub(crate) fn spares(&self) -> usize {
        self.spares.len() + usize::from(self.spare_in_hand)
    }
}

impl Shared {
    pub(crate) fn new(
        dir: &Path,
        log_id: u64,
        config: Config,
        disk: Arc<dyn Disk>,
        state: State,
        end: Position,
    ) -> Self {
        let progress = Progress {
            end,
            has_ended: false,
        };
        Self {
            dir: dir.to_owned(),
            log_id,
            config,
            disk,
            state: Mutex::new(state),
            writer_wake: Condvar::new(),
            keeper_wake: Condvar::new(),
            spare_wake: Condvar::new(),
            progress: watch::Sender::new(progress),
            queue_taken: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread of the log that panics poisons the log itself (`PoisonOnPanic`); nothing else panics in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push<R: AsRef<[u8]>>(
        &self,
        records: &[R],
        answer: oneshot::Sender<Result<(), DurabilityError>>,
    ) -> Result<Position, AppendError> {
        let mut state = self.lock();
        match &state.status {
            Status::Open => {}
            Status::Closed => return Err(AppendError::Closed),
            Status::Poisoned(failure) => return Err(AppendError::Poisoned(failure.clone())),
        }
        let first = state.queue.push(records, answer)?;
        let wakes = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wakes {
            self.writer_wake.notify_one();
        }
        Ok(first)
    }

    /// For the writer: waits for something to write. `false`: there is nothing and will be nothing.
    pub(crate) fn take(&self, batch: &mut Batch) -> bool {
        let mut state = self.lock();
        loop {
            if matches!(state.status, Status::Poisoned(_)) {
                return false;
            }
            if !state.queue.is_empty() {
                state.queue.take(batch);
                drop(state);
                self.queue_taken.notify_waiters();
                return true;
            }
            if matches!(state.status, Status::Closed) {
                return false;
            }
            state.writer_waits = true;
            state = self
                .writer_wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the writer: everything before `end`, up to `written`, is durable.
    pub(crate) fn advance(&self, end: Position, written: Place) {
        self.lock().written = written;
        self.progress.send_modify(|progress| progress.end = end);
    }

    /// For the writer: it goes on in another segment. Says how much room is left.
    pub(crate) fn enter(&self, written: Place) -> Room {
        let mut state = self.lock();
        state.written = written;
        state.spare_in_hand = false;
        let upto = state.acknowledged;
        let released = state.queue.release(upto, written);
        state.released.extend(released);
        let room = state.queue.room();
        drop(state);
        self.keeper_wake.notify_one();
        room
    }

    /// For the writer: a file for a new segment. Waits while one is being made.
    pub(crate) fn take_spare(&self) -> Result<Spare, Failure> {
        let mut state = self.lock();
        let is_old = |(at, _): &(Instant, Failure)| at.elapsed() >= SPARE_RETRY;
        if state.spare_failure.as_ref().is_some_and(is_old) {
            state.spare_failure = None;
        }
        self.keeper_wake.notify_one();
        loop {
            if let Some(spare) = state.spares.pop() {
                state.spare_in_hand = true;
                return Ok(spare);
            }
            if let Some((_, failure)) = &state.spare_failure {
                return Err(failure.clone());
            }
            if let Status::Poisoned(failure) = &state.status {
                return Err(failure.clone());
            }
            state = self
                .spare_wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the writer: what is not written yet will not be, and later appends go on behind `end`.
    pub(crate) fn refuse(&self, end: Position, failure: &Failure) {
        let mut state = self.lock();
        let written = state.written;
        let waiters = state.queue.rewind(end, written);
        drop(state);
        self.queue_taken.notify_waiters();
        answer_all(waiters, &DurabilityError::NoSegment(failure.clone()));
    }

    /// Nothing is written any more; all that wait are told.
    pub(crate) fn poison(&self, failure: Failure) {
        let mut state = self.lock();
        let (end, written) = (self.progress.borrow().end, state.written);
        let waiters = state.queue.rewind(end, written);
        if !matches!(state.status, Status::Poisoned(_)) {
            tracing::error!(%failure, "the log has stopped: restart after the disk is repaired");
            state.status = Status::Poisoned(failure.clone());
        }
        drop(state);
        answer_all(waiters, &DurabilityError::Poisoned(failure));
        self.end();
    }

    /// Wakes all that wait: no more records will come.
    pub(crate) fn end(&self) {
        self.progress
            .send_modify(|progress| progress.has_ended = true);
        self.writer_wake.notify_all();
        self.keeper_wake.notify_all();
        self.spare_wake.notify_all();
        self.queue_taken.notify_waiters();
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if matches!(state.status, Status::Open) {
            state.status = Status::Closed;
        }
        drop(state);
        self.writer_wake.notify_all();
        self.queue_taken.notify_waiters();
    }

    pub(crate) fn stop_keeper(&self) {
        self.lock().keeper_must_stop = true;
        self.keeper_wake.notify_all();
    }

    pub(crate) fn acknowledge(&self, upto: Position) -> Result<(), AcknowledgeError> {
        let end = self.progress.borrow().end;
        if upto > end {
            return Err(AcknowledgeError { upto, end });
        }
        let mut state = self.lock();
        if upto <= state.acknowledged {
            return Ok(());
        }
        state.acknowledged = upto;
        let written = state.written;
        let released = state.queue.release(upto, written);
        let wakes = !released.is_empty();
        state.released.extend(released);
        drop(state);
        if wakes {
            self.keeper_wake.notify_one();
        }
        Ok(())
    }

    /// For readers: the segment that holds a record.
    pub(crate) fn segment_of(&self, wanted: Position) -> Result<Live, ReadError> {
        let state = self.lock();
        let first = state.queue.first();
        let found = state.queue.segment_of(wanted);
        found.ok_or(ReadError::Gone { wanted, first })
    }
}

pub(crate) fn answer_all(waiters: impl IntoIterator<Item = Waiter>, error: &DurabilityError) {
    for waiter in waiters {
        // Whoever waited may have gone.
        let _ = waiter.answer.send(Err(error.clone()));
    }
}

/// Held by each thread of the log: if it panics, the log stops instead of waiting for it for ever.
pub(crate) struct PoisonOnPanic(pub(crate) Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(Failure {
                doing: "go on with",
                path: self.0.dir.as_path().into(),
                kind: std::io::ErrorKind::Other,
                detail: "a thread of the log panicked".into(),
            });
        }
    }
}
