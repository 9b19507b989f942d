//! A Noise-encrypted Sv2 connection over TCP (specification 4.6): the two halves that read and write
//! frames. How it begins is in `handshake.rs`; what a frame means is not known here.
//!
//! The cipher comes from `noise_sv2`. The framing is done here and not by `codec_sv2`'s decoder,
//! because that one grows its buffer to the length that the peer declares before a caller can look
//! at it; here the header is checked against the limit first, and memory follows the bytes that
//! really arrive.

use std::time::Duration;

use stratum_core::noise_sv2::{AEAD_MAC_LEN, NoiseDecryptor, NoiseEncryptor, NoiseEngine};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::certificate::Doubt;
use crate::frame::{CHANNEL_BIT, Frame, PAYLOAD_BYTES_MAX};
use crate::handshake::HandshakeHash;

/// Time for the TCP connection, and again for the whole Noise handshake. A peer that needs longer
/// over three messages is away or up to something.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// The payload limit unless a caller raises it: more than any mining message needs. Job declaration
/// and template distribution carry whole transactions and ask for more.
pub const PAYLOAD_BYTES_DEFAULT: usize = 64 * 1024;

const HEADER_BYTES: usize = 6;
const SEALED_HEADER_BYTES: usize = HEADER_BYTES + AEAD_MAC_LEN;
/// The longest Noise message (4.6), and what of it is not the MAC.
const SEALED_CHUNK_BYTES_MAX: usize = 65_535;
const CHUNK_BYTES_MAX: usize = SEALED_CHUNK_BYTES_MAX - AEAD_MAC_LEN;
/// What is read from the socket at once: some eighty shares.
const READ_BYTES: usize = 8 * 1024;

/// Why a connection cannot be used, or not any longer. After any of them it must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer hung up.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] std::io::Error),
    /// The peer took too long over connecting or over the handshake.
    #[error("no connection within {} s", HANDSHAKE_TIME_MAX.as_secs())]
    HandshakeTimeOut,
    /// The handshake failed: the peer does not speak Noise, or not this one.
    #[error("the Noise handshake failed: {0}")]
    Handshake(String),
    /// The client does not take the server's certificate.
    #[error(transparent)]
    Certificate(#[from] Doubt),
    /// A message does not carry a valid MAC (4.5), or an earlier error already ended the session.
    #[error("a message did not decrypt")]
    Decrypt,
    /// Sealing failed; the session has used up its nonces.
    #[error("a message could not be encrypted")]
    Encrypt,
    /// A header declares a payload over the limit. Nothing was allocated for it.
    #[error("a payload of {declared} bytes exceeds the limit of {limit}")]
    TooLong {
        /// What the header says.
        declared: usize,
        /// The limit of this connection.
        limit: usize,
    },
}

/// The two halves of a connection whose handshake is done.
pub(crate) fn halves(
    stream: TcpStream,
    engine: NoiseEngine,
    handshake: HandshakeHash,
) -> (FrameReader, FrameWriter) {
    let (encryptor, decryptor) = engine.into_split();
    let (read, write) = stream.into_split();
    let reader = FrameReader {
        io: read,
        arrived: Vec::new(),
        taken: 0,
        decryptor,
        payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
        sealed: Vec::new(),
        wanted: SEALED_HEADER_BYTES,
        partial: None,
        failed: false,
        handshake,
    };
    let writer = FrameWriter {
        io: write,
        encryptor,
    };
    (reader, writer)
}

/// The receiving half. It owns whatever has arrived of the next frame, so a cancelled
/// [`read`](Self::read) loses nothing.
#[derive(Debug)]
pub struct FrameReader {
    io: OwnedReadHalf,
    /// What was read of the socket at once. Nothing is kept for it while nothing is there: most connections are idle most
    /// of the time.
    arrived: Vec<u8>,
    /// Bytes of `arrived` that were taken.
    taken: usize,
    decryptor: NoiseDecryptor,
    payload_bytes_max: usize,
    /// The sealed header or chunk that is being received ..
    sealed: Vec<u8>,
    /// .. and the length that it will have.
    wanted: usize,
    /// The frame whose header has been opened, and the payload bytes it still lacks.
    partial: Option<(Frame, usize)>,
    /// Set by the first error: the cipher's state is gone, so no later read may succeed.
    failed: bool,
    handshake: HandshakeHash,
}

impl FrameReader {
    /// The hash of the messages that began this connection: both sides have the same, and no other connection does.
    pub fn handshake(&self) -> HandshakeHash {
        self.handshake
    }

    /// Sets the payload limit, at most what a header can declare (16 MiB less a byte).
    pub fn set_payload_bytes_max(&mut self, bytes: usize) {
        self.payload_bytes_max = bytes.min(PAYLOAD_BYTES_MAX);
    }

    /// The next frame. Cancellation-safe: dropped in a `select!`, it goes on where it was when it
    /// is called again.
    ///
    /// # Errors
    /// Every error is final.
    pub async fn read(&mut self) -> Result<Frame, ConnectionError> {
        if self.failed {
            return Err(ConnectionError::Decrypt);
        }
        let result = self.read_frame().await;
        self.failed = result.is_err();
        result
    }

    async fn read_frame(&mut self) -> Result<Frame, ConnectionError> {
        loop {
            while self.sealed.len() < self.wanted {
                if self.taken == self.arrived.len() {
                    self.arrive().await?;
                }
                let missing = self.wanted - self.sealed.len();
                let end = self.arrived.len().min(self.taken + missing);
                self.sealed
                    .extend_from_slice(&self.arrived[self.taken..end]);
                self.taken = end;
            }
            if let Some(frame) = self.open()? {
                return Ok(frame);
            }
        }
    }

    /// Waits for bytes, and reads what there is. All that had arrived was taken.
    async fn arrive(&mut self) -> Result<(), ConnectionError> {
        self.arrived = Vec::new();
        self.taken = 0;
        loop {
            // A peer that sends without end does not keep others from this thread.
            tokio::task::coop::consume_budget().await;
            self.io.readable().await?;
            let mut bytes = [0; READ_BYTES];
            match self.io.try_read(&mut bytes) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => {
                    self.arrived = bytes[..count].to_vec();
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens the sealed header or chunk that has arrived; returns the frame it completes.
    fn open(&mut self) -> Result<Option<Frame>, ConnectionError> {
        self.decryptor
            .decrypt(&mut self.sealed)
            .map_err(|_| ConnectionError::Decrypt)?;
        let (frame, missing) = match self.partial.take() {
            None => self.header()?,
            Some((mut frame, missing)) => {
                frame.payload.extend_from_slice(&self.sealed);
                let missing = missing
                    .checked_sub(self.sealed.len())
                    .ok_or(ConnectionError::Decrypt)?;
                (frame, missing)
            }
        };
        self.sealed.clear();
        if missing == 0 {
            self.wanted = SEALED_HEADER_BYTES;
            // A long frame's room is not kept for the short ones behind it.
            self.sealed.shrink_to(SEALED_HEADER_BYTES);
            return Ok(Some(frame));
        }
        self.wanted = missing.min(CHUNK_BYTES_MAX) + AEAD_MAC_LEN;
        self.partial = Some((frame, missing));
        Ok(None)
    }

    /// The frame of an opened header, and the length of the payload it declares.
    fn header(&self) -> Result<(Frame, usize), ConnectionError> {
        let header: [u8; HEADER_BYTES] = self.sealed[..]
            .try_into()
            .map_err(|_| ConnectionError::Decrypt)?;
        let [e0, e1, message_type, l0, l1, l2] = header;
        let extension_type = u16::from_le_bytes([e0, e1]);
        let declared = u32::from_le_bytes([l0, l1, l2, 0]) as usize;
        if declared > self.payload_bytes_max {
            return Err(ConnectionError::TooLong {
                declared,
                limit: self.payload_bytes_max,
            });
        }
        let frame = Frame {
            extension_type: extension_type & !CHANNEL_BIT,
            channel_msg: extension_type & CHANNEL_BIT != 0,
            message_type,
            payload: Vec::new(),
        };
        Ok((frame, declared))
    }
}

/// The sending half.
#[derive(Debug)]
pub struct FrameWriter {
    io: OwnedWriteHalf,
    encryptor: NoiseEncryptor,
}

impl FrameWriter {
    /// Seals a frame and writes it. Not cancellation-safe: a cancelled write leaves half a frame
    /// behind, after which the connection must be dropped. An [`Outbox`](crate::Outbox) gives
    /// the half to a task of its own.
    ///
    /// # Errors
    /// Every error is final.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        self.write_all(std::slice::from_ref(frame)).await
    }

    /// Seals frames and writes them with one call of the system. Their sealed bytes are in memory together. As [`write`](Self::write) otherwise.
    ///
    /// # Errors
    /// Every error is final.
    pub async fn write_all<F: AsRef<Frame>>(
        &mut self,
        frames: &[F],
    ) -> Result<(), ConnectionError> {
        let mut sealed = Vec::new();
        for frame in frames {
            self.seal(frame.as_ref(), &mut sealed)?;
        }
        self.io.write_all(&sealed).await?;
        Ok(())
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// A socket that is gone already.
    pub async fn shutdown(&mut self) -> Result<(), ConnectionError> {
        Ok(self.io.shutdown().await?)
    }

    /// Puts the sealed frame behind what is there.
    fn seal(&mut self, frame: &Frame, sealed: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let declared = frame.payload.len();
        if declared > PAYLOAD_BYTES_MAX {
            return Err(ConnectionError::TooLong {
                declared,
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        let extension_type = match frame.channel_msg {
            true => frame.extension_type | CHANNEL_BIT,
            false => frame.extension_type & !CHANNEL_BIT,
        };
        let mut header = Vec::with_capacity(SEALED_HEADER_BYTES);
        header.extend_from_slice(&extension_type.to_le_bytes());
        header.push(frame.message_type);
        // The length was checked above to fit three bytes.
        header.extend_from_slice(&declared.to_le_bytes()[..3]);
        sealed.extend_from_slice(&self.seal_chunk(header)?);
        for chunk in frame.payload.chunks(CHUNK_BYTES_MAX) {
            sealed.extend_from_slice(&self.seal_chunk(chunk.to_vec())?);
        }
        Ok(())
    }

    fn seal_chunk(&mut self, mut chunk: Vec<u8>) -> Result<Vec<u8>, ConnectionError> {
        self.encryptor
            .encrypt(&mut chunk)
            .map_err(|_| ConnectionError::Encrypt)?;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{accept, connect};
    use crate::keys::AuthorityKeys;
    use socket2::SockRef;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn both_sides_of_a_connection_notice_a_peer_that_is_gone_without_a_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let keys = AuthorityKeys::generate();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            accept(stream, &keys, HANDSHAKE_TIME_MAX).await.unwrap()
        };
        let (server, client) = tokio::join!(served, connect(&address, Some(keys.public())));
        for (reader, _writer) in [server, client.unwrap()] {
            let stream: &TcpStream = reader.io.as_ref();
            let socket = SockRef::from(stream);
            assert!(socket.keepalive().unwrap());
            let (idle, interval) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
            assert!(idle.unwrap() + interval.unwrap() < Duration::from_secs(60));
            let unconfirmed = socket.tcp_user_timeout().unwrap();
            assert!(unconfirmed.is_some_and(|time| time <= Duration::from_secs(60)));
        }
    }
}
