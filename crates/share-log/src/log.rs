//! The handle on a log: open, append, read, acknowledge, close.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::config::Config;
use crate::directory::{self, Lock};
use crate::disk::{Disk, RealDisk};
use crate::error::{AcknowledgeError, AppendError, DurabilityError, Failure, OpenError, ReadError};
use crate::keeper::Keeper;
use crate::place::Position;
use crate::queue::Queue;
use crate::reader::Reader;
use crate::recovery::{Found, Recovered, recover};
use crate::shared::{Shared, State, Status};
use crate::writer::Writer;

/// An open log. Clones are the same log, and so are its readers: it stays open while any of them lives. The last one
/// that is dropped writes what waits and ends the log's threads, which may take as long as the disk takes.
#[derive(Clone)]
pub struct ShareLog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    /// Held until the threads have ended.
    _lock: Lock,
}

/// A record that was taken.
#[derive(Debug)]
pub struct Appended {
    /// Its position; of several, the first one's. It is final once `durable` is `Ok`, and may be given to another
    /// record after an error.
    pub position: Position,
    /// Resolves once it is durable; of several, once all are.
    pub durable: Durable,
}

/// Resolves once a record, and with it each one before it, is on the disk. Dropping it changes nothing for the record.
#[derive(Debug)]
#[must_use = "a record may be acknowledged only once it is durable"]
pub struct Durable {
    answer: oneshot::Receiver<Result<(), DurabilityError>>,
    dir: Arc<Path>,
}

impl Future for Durable {
    type Output = Result<(), DurabilityError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        // Nobody drops it without an answer, unless a thread panics.
        Poll::Ready(answer.unwrap_or_else(|_| {
            Err(DurabilityError::Poisoned(Failure {
                doing: "go on with",
                path: Arc::clone(&self.dir),
                kind: io::ErrorKind::Other,
                detail: "a thread of the log ended".into(),
            }))
        }))
    }
}

/// How full the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of all segments that hold records which are not acknowledged, and of the current one what is used.
    /// Whole segments are freed, so it goes down in steps.
    pub used_bytes: u64,
    /// [`Config::bytes_max`].
    pub bytes_max: u64,
    /// [`Config::near_full`] is reached: time to slow down, and to look after whoever drains the log.
    pub near_full: bool,
}

impl Room {
    pub(crate) fn new(used_bytes: u64, config: &Config) -> Self {
        let mut room = Self {
            used_bytes,
            bytes_max: config.bytes_max,
            near_full: false,
        };
        room.near_full = room.fraction() >= config.near_full;
        room
    }

    /// From 0, empty, to 1, full.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.used_bytes as f64 / self.bytes_max as f64
    }
}

impl ShareLog {
    /// Opens the log in a directory, or makes it. All that is not acknowledged is read and checked, at the speed of
    /// the disk. It blocks: not for a runtime's threads.
    ///
    /// # Errors
    /// [`OpenError`], whose words say what to do.
    pub fn open(dir: &Path, config: Config) -> Result<(Self, Recovered), OpenError> {
        Self::open_on(dir, config, Arc::new(RealDisk))
    }

    /// The same on a disk that may fail, for tests.
    ///
    /// # Errors
    /// As [`ShareLog::open`].
    pub fn open_on(
        dir: &Path,
        config: Config,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Recovered), OpenError> {
        config.check().map_err(OpenError::Config)?;
        let lock = directory::lock(dir)?;
        let found = recover(disk.as_ref(), dir, &config)?;
        let recovered = found.recovered.clone();
        let inner = Inner::start(dir, config, disk, found, lock)?;
        tracing::info!(
            log_id = recovered.log_id,
            acknowledged = %recovered.acknowledged,
            end = %recovered.end,
            "the log is open"
        );
        let inner = Arc::new(inner);
        Ok((Self { inner }, recovered))
    }

    /// Takes a record. It does not wait; await [`Appended::durable`] before anybody is told of it.
    ///
    /// # Errors
    /// [`AppendError`]; the record is not in the log then.
    pub fn try_append(&self, record: &[u8]) -> Result<Appended, AppendError> {
        self.try_append_all(&[record])
    }

    /// Takes records that follow each other, all or none, for one answer.
    ///
    /// # Errors
    /// [`AppendError`]; none of the records is in the log then.
    pub fn try_append_all<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Appended, AppendError> {
        let (answer, answered) = oneshot::channel();
        let position = self.inner.shared.push(records, answer)?;
        let durable = Durable {
            answer: answered,
            dir: self.inner.shared.dir.as_path().into(),
        };
        Ok(Appended { position, durable })
    }

    /// Takes a record, and waits while the disk is behind. If the caller goes away before it returns, the record is
    /// not taken.
    ///
    /// # Errors
    /// [`AppendError`], never [`AppendError::Busy`]; the record is not in the log then.
    pub async fn append(&self, record: &[u8]) -> Result<Appended, AppendError> {
        self.append_all(&[record]).await
    }

    /// [`ShareLog::try_append_all`], waiting while the disk is behind.
    ///
    /// # Errors
    /// As [`ShareLog::append`].
    pub async fn append_all<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Appended, AppendError> {
        loop {
            let mut taken = pin!(self.inner.shared.queue_taken.notified());
            // From here on it hears of each time the queue is taken, also before it is polled.
            taken.as_mut().enable();
            match self.try_append_all(records) {
                Err(AppendError::Busy) => taken.await,
                outcome => return outcome,
            }
        }
    }

    /// A reader that begins with the record at `from`, which may be the next one to come. It opens a file and may
    /// read a segment up to there: it blocks.
    ///
    /// # Errors
    /// [`ReadError::Gone`] or [`ReadError::Ahead`] if there is no such record.
    pub fn reader(&self, from: Position) -> Result<Reader, ReadError> {
        Reader::new(self.clone(), from)
    }

    /// Says that the records before `upto` are done with. Segments that hold only such records are freed, a little
    /// later. Saying it again, or something lower, is harmless. It does not wait.
    ///
    /// # Errors
    /// [`AcknowledgeError`] if `upto` lies behind the durable records: it belongs to another log.
    pub fn acknowledge(&self, upto: Position) -> Result<(), AcknowledgeError> {
        self.inner.shared.acknowledge(upto)
    }

    /// Up to where the records are acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Position {
        self.inner.shared.lock().acknowledged
    }

    /// Where the durable records end.
    #[must_use]
    pub fn end(&self) -> Position {
        self.inner.shared.progress.borrow().end
    }

    /// How full it is.
    #[must_use]
    pub fn room(&self) -> Room {
        self.inner.shared.lock().queue.room()
    }

    /// The number that the log was given when it was made.
    #[must_use]
    pub fn log_id(&self) -> u64 {
        self.inner.shared.log_id
    }

    /// Why the log has stopped, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match &self.inner.shared.lock().status {
            Status::Poisoned(failure) => Some(failure.clone()),
            Status::Open | Status::Closed => None,
        }
    }

    /// Takes no more records. What was taken is still written, and readers read up to the end.
    pub fn close(&self) {
        self.inner.shared.close();
    }
}

impl Inner {
    fn start(
        dir: &Path,
        config: Config,
        disk: Arc<dyn Disk>,
        found: Found,
        lock: Lock,
    ) -> Result<Self, Failure> {
        let Recovered {
            log_id,
            acknowledged,
            end,
            ..
        } = found.recovered;
        let live: VecDeque<_> = found.live;
        let state = State {
            status: Status::Open,
            queue: Queue::new(config.clone(), log_id, live, end, found.written),
            written: found.written,
            acknowledged,
            released: found.released,
            spares: found.spares,
            spare_in_hand: false,
            spare_failure: None,
            keeper_must_stop: false,
            writer_waits: false,
        };
        let shared = Arc::new(Shared::new(dir, log_id, config, disk, state, end));
        // Dropped on an error, it ends what was started.
        let mut inner = Self {
            shared: Arc::clone(&shared),
            writer: None,
            keeper: None,
            _lock: lock,
        };
        let writer = Writer::new(Arc::clone(&shared), found.file, found.written, end);
        let keeper = Keeper::new(shared, found.checkpoint, found.saved, found.number);
        let failed = |error| Failure::new("start a thread for", dir, &error);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let spawned = named("log-writer").spawn(|| writer.run());
        inner.writer = Some(spawned.map_err(failed)?);
        let spawned = named("log-keeper").spawn(|| keeper.run());
        inner.keeper = Some(spawned.map_err(failed)?);
        Ok(inner)
    }
}

impl Drop for Inner {
    /// First what waits is written, for which the keeper may have to make a segment; then the keeper saves the
    /// checkpoint; then the lock goes.
    fn drop(&mut self) {
        self.shared.close();
        let writer = self.writer.take().map(JoinHandle::join);
        self.shared.stop_keeper();
        let keeper = self.keeper.take().map(JoinHandle::join);
        if matches!(writer, Some(Err(_))) || matches!(keeper, Some(Err(_))) {
            tracing::error!("a thread of the log panicked");
        }
    }
}
