//! What is waiting to be sent on one connection: a bounded queue and the task that writes it. A
//! peer that does not keep up loses its connection, and nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connection::FrameWriter;
use crate::frame::{EncodeError, Frame, Message};

/// Frames that leave together at most.
const FRAMES_TOGETHER_MAX: usize = 64;
/// And bytes of their payloads, unless one alone has more.
const BYTES_TOGETHER: usize = 64 * 1024;

/// The time that frames may take to leave together. A peer that takes no bytes for this long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// The most bytes of payloads that wait for one peer, in however few frames: two of the longest that there are, and six
/// times what the tasks of a worker take that runs sixteen with the longest prompts.
const QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why a message was not queued.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The peer is too slow. The connection's token has been cancelled.
    #[error("the peer does not keep up; its connection is dropped")]
    Full,
    /// The connection is gone already.
    #[error("the connection is closed")]
    Closed,
    /// The message breaks one of its own limits; the connection is unharmed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A handle to the queue; clones share it. When the last one is dropped, the queue is written to
/// its end and the connection's sending side is shut down.
#[derive(Debug, Clone)]
pub struct Outbox {
    frames: mpsc::Sender<Queued>,
    /// A permit for each byte that may still wait.
    room: Arc<Semaphore>,
    connection: CancellationToken,
}

/// A frame that waits, and the room that it takes meanwhile.
#[derive(Debug)]
struct Queued {
    frame: Frame,
    _room: OwnedSemaphorePermit,
}

impl AsRef<Frame> for Queued {
    fn as_ref(&self) -> &Frame {
        &self.frame
    }
}

impl Outbox {
    /// Starts the writer task. `capacity` is in frames; choose it for the longest burst that a
    /// healthy peer is sent. Of payloads at most 32 MiB wait. `connection` is cancelled when writing
    /// fails or the queue is full, and ends the task when somebody else cancels it.
    pub fn spawn(
        writer: FrameWriter,
        capacity: usize,
        connection: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (frames, queue) = mpsc::channel(capacity);
        let task = tokio::spawn(write_queue(writer, queue, connection.clone()));
        let room = Arc::new(Semaphore::new(QUEUED_BYTES_MAX));
        let outbox = Self {
            frames,
            room,
            connection,
        };
        (outbox, task)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`OutboxError::Full`] ends the connection.
    pub fn send<M: Message>(&self, message: &M) -> Result<(), OutboxError> {
        self.try_send(Frame::new(message)?)
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`OutboxError::Full`] ends the connection.
    pub fn try_send(&self, frame: Frame) -> Result<(), OutboxError> {
        let bytes = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else {
            return self.full();
        };
        match self.frames.try_send(Queued { frame, _room: room }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => self.full(),
            Err(TrySendError::Closed(_)) => Err(OutboxError::Closed),
        }
    }

    fn full(&self) -> Result<(), OutboxError> {
        self.connection.cancel();
        Err(OutboxError::Full)
    }
}

/// Frames that leave together: up to [`BYTES_TOGETHER`] of payloads, or a single longer one.
fn pieces(mut frames: &[Queued]) -> impl Iterator<Item = &[Queued]> {
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |queued: &&Queued| {
            bytes = bytes.saturating_add(queued.frame.payload.len());
            bytes <= BYTES_TOGETHER
        };
        let count = frames.iter().take_while(fits).count().max(1);
        let (piece, rest) = frames.split_at_checked(count)?;
        frames = rest;
        Some(piece)
    })
}

async fn write_queue(
    mut writer: FrameWriter,
    mut queue: mpsc::Receiver<Queued>,
    connection: CancellationToken,
) {
    loop {
        // What waits leaves with one call of the system. Nothing is kept for it while nothing waits.
        let mut together = Vec::new();
        tokio::select! {
            biased;
            () = connection.cancelled() => return,
            count = queue.recv_many(&mut together, FRAMES_TOGETHER_MAX) => if count == 0 {
                break;
            },
        }
        for frames in pieces(&together) {
            // A cancelled write is fine here: the connection ends with it.
            let written = tokio::select! {
                biased;
                () = connection.cancelled() => return,
                written = tokio::time::timeout(WRITE_TIME_MAX, writer.write_all(frames)) => written,
            };
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "writing to a peer failed");
                    connection.cancel();
                    return;
                }
                Err(_) => {
                    tracing::warn!("a peer took too long for what it was sent");
                    connection.cancel();
                    return;
                }
            }
        }
    }
    let _ = tokio::time::timeout(WRITE_TIME_MAX, writer.shutdown()).await;
}
