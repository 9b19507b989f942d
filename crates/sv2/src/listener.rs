//! A port with a limit of connections: what every Sv2 server here accepts through.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::places::{Place, PlaceLimits, Places};

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The system's queue of connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A port that is ours and not open yet. Whoever connects meanwhile is refused at once, and can go elsewhere.
pub struct BoundPort(TcpSocket);

impl BoundPort {
    /// Takes the port; 0 takes a free one.
    ///
    /// # Errors
    /// What the system says: most likely that another process listens there.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // For a start on the port of a process that has just ended. A free port must be nobody else's, although we do not
        // listen yet.
        socket.set_reuseaddr(address.port() != 0)?;
        socket.bind(address)?;
        Ok(Self(socket))
    }

    /// Where it is.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Opens it.
    ///
    /// # Errors
    /// What the system says: another process may have opened it before.
    pub fn listen(self) -> io::Result<TcpListener> {
        // Connections inherit it: those that linger after our end must not keep our successor from the port.
        self.0.set_reuseaddr(true)?;
        self.0.listen(BACKLOG)
    }
}

/// A bound port. At the limit of connections new ones wait in the system's queue, which is bounded
/// too.
pub struct Listener {
    listener: TcpListener,
    free: Arc<Semaphore>,
    places: Places,
}

impl Listener {
    /// A port with these limits.
    pub fn new(listener: TcpListener, limits: PlaceLimits) -> Self {
        Self {
            listener,
            free: Arc::new(Semaphore::new(limits.connections_max)),
            places: Places::new(limits),
        }
    }

    /// The next connection with its place, which is to be dropped when the connection has ended;
    /// none once `shutdown` is cancelled. A connection whose address may have no more is closed at once.
    pub async fn next(&self, shutdown: &CancellationToken) -> Option<(TcpStream, Place)> {
        tokio::select! {
            () = shutdown.cancelled() => None,
            accepted = self.accept() => accepted,
        }
    }

    async fn accept(&self) -> Option<(TcpStream, Place)> {
        // Nobody closes the semaphore.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match self.places.take(address.ip()) {
                    Ok(mut place) => {
                        place.hold(permit);
                        return Some((stream, place));
                    }
                    Err(refusal) => tracing::debug!(%address, %refusal, "a connection was refused"),
                },
                Err(error) => {
                    // Out of file descriptors, most likely: others have to leave first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn at_the_limit_a_connection_waits_for_a_place_and_a_shutdown_for_nobody() {
        let bound = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr().unwrap();
        let listener = Listener::new(bound, PlaceLimits::total(1));
        let shutdown = CancellationToken::new();
        let _first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let (_stream, place) = listener.next(&shutdown).await.unwrap();
        {
            let waiting = listener.next(&shutdown);
            tokio::pin!(waiting);
            let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
            assert!(early.is_err(), "a connection beyond the limit was taken");
            drop(place);
            assert!(waiting.await.is_some());
        }
        shutdown.cancel();
        assert!(listener.next(&shutdown).await.is_none());
    }
}
