//! What our Sv2 servers share (the pool's and the worker's mining ports, job declaration, template distribution):
//! taking connections on a port, the first exchanges on each, why one ends, and the clocks of a mining connection.
//! What the messages after that mean is not known here.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificate::CLOCK_BEHIND_MAX;
use crate::connection::{ConnectionError, FrameReader, FrameWriter};
use crate::frame::DecodeError;
use crate::handshake::accept;
use crate::keys::AuthorityKeys;
use crate::listener::Listener;
use crate::outbox::{Outbox, OutboxError};
use crate::places::{Place, PlaceLimits};
use crate::setup::{self, ServerPolicy, SetupError};

/// How often the difficulty of a mining connection's channels is reconsidered.
const VARDIFF_INTERVAL: Duration = Duration::from_secs(20);
/// A mining connection without a channel is closed after this (5.3.2).
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);

/// A port, and how a connection on it begins.
#[derive(Debug, Clone)]
pub struct Server {
    /// The authority that clients check the server by.
    pub keys: AuthorityKeys,
    /// How long the certificate of one connection holds.
    pub certificate_validity: Duration,
    /// What is spoken on the port.
    pub policy: ServerPolicy,
    /// Who may hold how many connections, and for how long.
    pub places: PlaceLimits,
    /// Frames that may wait for one client: the longest burst that a healthy one is sent.
    pub outbox_max: usize,
    /// The largest payload that is read of a client once its connection is set up.
    pub payload_bytes_max: usize,
}

/// A client whose connection is set up. Whoever serves it owns all of it.
#[derive(Debug)]
pub struct Client {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it asked for in `SetupConnection`; all of it is supported.
    pub flags: u32,
    /// What it sends.
    pub reader: FrameReader,
    /// What it is sent.
    pub outbox: Outbox,
    /// Its place on the port. Whoever serves it says what it has proven.
    pub place: Arc<Place>,
    /// Cancelled when the connection has to end: at shutdown, and where the client does not keep up. Cancelling it
    /// throws away what still waits in the outbox.
    pub token: CancellationToken,
}

impl Server {
    /// Takes connections until `shutdown` and serves each in a task of `connections`. `serve` is called once per
    /// client that is set up; when it returns, and everything that it held of the client is dropped, what waits in
    /// the outbox is still written. The tasks outlive this call: wait for them with the tracker.
    pub async fn run<Serve, Served>(
        self,
        listener: TcpListener,
        connections: &TaskTracker,
        shutdown: &CancellationToken,
        serve: Serve,
    ) where
        Serve: Fn(Client) -> Served + Clone + Send + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        let listener = Listener::new(listener, self.places);
        let server = Arc::new(self);
        while let Some((stream, place)) = listener.next(shutdown).await {
            let (server, serve) = (Arc::clone(&server), serve.clone());
            let token = shutdown.child_token();
            connections.spawn(async move {
                server
                    .serve_one(stream, Arc::new(place), token, serve)
                    .await;
            });
        }
    }

    async fn serve_one<Served: Future<Output = ()>>(
        &self,
        stream: TcpStream,
        place: Arc<Place>,
        token: CancellationToken,
        serve: impl Fn(Client) -> Served,
    ) {
        let Ok(address) = stream.peer_addr() else {
            return;
        };
        // Boxed, so that its room is free again while the client is served.
        let set_up = tokio::select! {
            () = token.cancelled() => return,
            set_up = Box::pin(self.set_up(stream)) => set_up,
        };
        let (mut reader, writer, flags) = match set_up {
            Ok(set_up) => set_up,
            Err(NotSetUp::Silent) => return self.tell_of_silence(address),
            Err(NotSetUp::Other(error)) => {
                return tracing::debug!(%address, %error, "a connection was not set up");
            }
        };
        reader.set_payload_bytes_max(self.payload_bytes_max);
        let (outbox, writing) = Outbox::spawn(writer, self.outbox_max, token.clone());
        let client = Client {
            address,
            flags,
            reader,
            outbox,
            place: Arc::clone(&place),
            token: token.clone(),
        };
        let mut serving = Box::pin(serve(client));
        tokio::select! {
            biased;
            () = &mut serving => {}
            () = place.expired() => {
                tracing::info!(%address, "a connection that has proven no work for too long is closed");
                token.cancel();
                (&mut serving).await;
            }
        }
        drop(serving);
        let _ = writing.await;
    }

    async fn set_up(&self, stream: TcpStream) -> Result<(FrameReader, FrameWriter, u32), NotSetUp> {
        let (mut reader, mut writer) = accept(stream, &self.keys, self.certificate_validity)
            .await
            .map_err(SetupError::from)?;
        let request = setup::serve(&mut reader, &mut writer, &self.policy)
            .await
            .map_err(NotSetUp::after_the_handshake)?;
        Ok((reader, writer, request.flags))
    }

    /// All that a server sees of a client that does not take its certificate.
    fn tell_of_silence(&self, address: SocketAddr) {
        tracing::info!(
            %address,
            authority = %self.keys.public(),
            "a client hung up as soon as it had our certificate: most likely its clock is off by more than {} s behind \
             or {} s ahead, or it asks for another authority key than ours",
            CLOCK_BEHIND_MAX.as_secs(),
            self.certificate_validity.as_secs(),
        );
    }
}

/// Why a connection was not set up, as the server tells it.
enum NotSetUp {
    /// The client went without a word once it had the server's certificate.
    Silent,
    Other(SetupError),
}

impl NotSetUp {
    fn after_the_handshake(error: SetupError) -> Self {
        match error {
            SetupError::Connection(ConnectionError::Closed | ConnectionError::Io(_)) => {
                Self::Silent
            }
            error => Self::Other(error),
        }
    }
}

impl From<SetupError> for NotSetUp {
    fn from(error: SetupError) -> Self {
        Self::Other(error)
    }
}

/// Why a server ended a client's connection, or found it ended.
#[derive(Debug, thiserror::Error)]
pub enum EndReason {
    /// The peer is gone or does not keep up, or the server stops.
    #[error("the connection closed")]
    Closed,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// A message did not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A message of ours breaks one of its limits; only this connection suffers.
    #[error("a message of ours does not fit: {0}")]
    Encode(String),
    /// Something of ours is wrong; only this connection suffers.
    #[error("internal fault: {0}")]
    Fault(&'static str),
    /// There is no work that is worth anything; the peer may find some elsewhere.
    #[error("there is nothing to work on: the template source is away")]
    NoWork,
    /// No channel for too long.
    #[error("the connection had no channel for too long")]
    Idle,
}

impl EndReason {
    /// A message of ours could not be built.
    pub fn encode(error: impl Display) -> Self {
        Self::Encode(error.to_string())
    }
}

impl From<OutboxError> for EndReason {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Encode(error) => Self::encode(error),
            OutboxError::Full | OutboxError::Closed => Self::Closed,
        }
    }
}

/// The clocks of a mining connection: when difficulty is reconsidered, and how long there has been no channel.
#[derive(Debug)]
pub struct MiningClock {
    vardiff: Interval,
    idle_since: Instant,
}

impl MiningClock {
    /// Of a connection that was set up now.
    pub fn start() -> Self {
        let now = Instant::now();
        let mut vardiff = interval_at(now + VARDIFF_INTERVAL, VARDIFF_INTERVAL);
        vardiff.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            vardiff,
            idle_since: now,
        }
    }

    /// Returns when difficulty is to be reconsidered. Cancellation-safe.
    pub async fn tick(&mut self) {
        self.vardiff.tick().await;
    }

    /// To be called at each tick.
    ///
    /// # Errors
    /// [`EndReason::Idle`] if the connection has had no channel for too long.
    pub fn check_idle(&mut self, has_channels: bool) -> Result<(), EndReason> {
        self.check_idle_at(has_channels, Instant::now())
    }

    fn check_idle_at(&mut self, has_channels: bool, now: Instant) -> Result<(), EndReason> {
        if has_channels {
            self.idle_since = now;
        }
        match now.duration_since(self.idle_since) > IDLE_TIME_MAX {
            true => Err(EndReason::Idle),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::PAYLOAD_BYTES_DEFAULT;
    use crate::frame::Frame;
    use crate::handshake::connect_over;
    use crate::messages::SetupConnection;
    use crate::setup::SetupProtocol;
    use socket2::SockRef;

    #[tokio::test]
    async fn a_connection_is_idle_once_it_has_had_no_channel_for_two_minutes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = MiningClock::start();
        assert!(clock.check_idle_at(false, at(100)).is_ok());
        assert!(clock.check_idle_at(true, at(110)).is_ok());
        assert!(clock.check_idle_at(false, at(229)).is_ok());
        let idle = clock.check_idle_at(false, at(231));
        assert!(matches!(idle, Err(EndReason::Idle)));
    }

    fn server() -> Server {
        Server {
            keys: AuthorityKeys::generate(),
            certificate_validity: Duration::from_secs(60),
            policy: ServerPolicy {
                protocol: SetupProtocol::MiningProtocol,
                supported_flags: 0,
                required_flags: 0,
                success_flags: |_| 0,
            },
            places: PlaceLimits::total(1),
            outbox_max: 1,
            payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
        }
    }

    /// How the server sees a client that has taken its certificate, and leaves after these messages.
    async fn left_after(messages: &[SetupConnection]) -> NotSetUp {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            server().set_up(stream).await.map(drop)
        };
        let leaving = async {
            let stream = TcpStream::connect(address).await.unwrap();
            // What is written to it from its end on fails at once.
            let at_once = Some(Duration::ZERO);
            SockRef::from(&stream).set_linger(at_once).unwrap();
            let (_reader, mut writer) = connect_over(stream, None).await.unwrap();
            for message in messages {
                let frame = Frame::new(message).unwrap();
                writer.write(&frame).await.unwrap();
            }
        };
        let (served, ()) = tokio::join!(serving, leaving);
        served.unwrap_err()
    }

    #[tokio::test]
    async fn only_a_client_that_went_without_a_word_is_said_to_doubt_the_certificate() {
        assert!(matches!(left_after(&[]).await, NotSetUp::Silent));
        let request = |protocol| setup::request(protocol, 0, "127.0.0.1:1", "test").unwrap();
        for protocol in [
            SetupProtocol::MiningProtocol,
            // It is refused, and hears no more of it.
            SetupProtocol::JobDeclarationProtocol,
        ] {
            let left = left_after(&[request(protocol)]).await;
            let NotSetUp::Other(error) = left else {
                panic!("{protocol:?}: it is said to doubt the certificate");
            };
            assert!(matches!(error, SetupError::Unanswered(_)), "{error}");
        }
    }
}
