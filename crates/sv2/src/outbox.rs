//! What is waiting to be sent on one connection: a bounded queue and the task that writes it. A
//! peer that does not keep up loses its connection, and nobody waits for it.

use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connection::FrameWriter;
use crate::frame::{EncodeError, Frame, Message};

/// The time one frame may take to leave. A peer that takes no bytes for this long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

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
    frames: mpsc::Sender<Frame>,
    connection: CancellationToken,
}

impl Outbox {
    /// Starts the writer task. `capacity` is in frames; choose it for the longest burst that a
    /// healthy peer is sent. `connection` is cancelled when writing fails or the queue is full,
    /// and ends the task when somebody else cancels it.
    pub fn spawn(
        writer: FrameWriter,
        capacity: usize,
        connection: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (frames, queue) = mpsc::channel(capacity);
        let task = tokio::spawn(write_queue(writer, queue, connection.clone()));
        (Self { frames, connection }, task)
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
        match self.frames.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.connection.cancel();
                Err(OutboxError::Full)
            }
            Err(TrySendError::Closed(_)) => Err(OutboxError::Closed),
        }
    }
}

async fn write_queue(
    mut writer: FrameWriter,
    mut queue: mpsc::Receiver<Frame>,
    connection: CancellationToken,
) {
    loop {
        let frame = tokio::select! {
            biased;
            () = connection.cancelled() => return,
            frame = queue.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
        };
        // A cancelled write is fine here: the connection ends with it.
        let written = tokio::select! {
            biased;
            () = connection.cancelled() => return,
            written = tokio::time::timeout(WRITE_TIME_MAX, writer.write(&frame)) => written,
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "writing to a peer failed");
                connection.cancel();
                return;
            }
            Err(_) => {
                tracing::warn!("a peer took no bytes for {} s", WRITE_TIME_MAX.as_secs());
                connection.cancel();
                return;
            }
        }
    }
    let _ = tokio::time::timeout(WRITE_TIME_MAX, writer.shutdown()).await;
}
