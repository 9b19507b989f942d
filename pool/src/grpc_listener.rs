//! What the gRPC listeners of the pool have in common: `TCP_NODELAY`, and for the port that strangers reach, over HTTP/1.1
//! as well, a bound on connections, TLS where the operator has a certificate, a time for the first words of each connection,
//! and one for what it is to take.

mod certificate;
mod handshake;
mod socket;

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use dovetail_sv2::{Listener, PlaceLimits};
use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpIncoming};

use socket::Socket;

pub(crate) use certificate::{Renewal, Shown, TlsFiles};
pub(crate) use handshake::HTTPS_REQUIRED;

/// What HTTP/2 begins with (RFC 9113, 3.4). From then on its own pings find out who is gone; a client of HTTP/1.1, whose
/// first line and one header are as long, has 30 seconds for the headers of each request (hyper).
const PREFACE_BYTES: usize = 24;

/// How long a client may take to begin.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// For TLS, where it is spoken.
    handshake: Duration,
    /// And then for the preface.
    preface: Duration,
}

const TIMES: Times = Times {
    handshake: Duration::from_secs(10),
    preface: Duration::from_secs(10),
};

/// The connections of a gRPC listener, with `TCP_NODELAY` set. Tokens and verdicts travel in small frames:
/// without it, Nagle's algorithm holds each one back for up to 40 ms.
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// The same for a port that strangers reach, until `shutdown`; with a certificate, over TLS and nothing else.
pub(crate) fn limited(
    listener: TcpListener,
    limits: PlaceLimits,
    shown: Option<Shown>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    limited_in(listener, limits, shown, TIMES, shutdown)
}

fn limited_in(
    listener: TcpListener,
    limits: PlaceLimits,
    shown: Option<Shown>,
    times: Times,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let port = Port {
        listener: Listener::new(listener, limits),
        shown,
        times,
        shutdown,
        before: 0,
        handshakes: JoinSet::new(),
    };
    stream::unfold(port, async |mut port| {
        let connection = port.next().await?;
        Some((Ok(connection), port))
    })
}

/// A port that strangers reach.
struct Port {
    listener: Listener,
    /// The certificate, if it speaks TLS.
    shown: Option<Shown>,
    times: Times,
    shutdown: CancellationToken,
    /// How many connections there were.
    before: u64,
    /// Those that are not through it yet. Each has its place, so there are no more than places, and of one address no more than
    /// one address has; who is slow delays nobody.
    handshakes: JoinSet<Option<Connection>>,
}

impl Port {
    /// The next connection that can be spoken on; none once the pool stops, and with that the handshakes end too.
    async fn next(&mut self) -> Option<Connection> {
        loop {
            let (stream, place) = tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Some(connection)) => return Some(connection),
                    // It was told of where it happened.
                    Ok(None) | Err(_) => continue,
                },
                accepted = self.listener.next(&self.shutdown) => accepted?,
            };
            self.before += 1;
            // It only makes small frames slow if it fails.
            let _ = stream.set_nodelay(true);
            let origin = Origin {
                connection: self.before,
                address: stream.peer_addr().ok().map(|address| address.ip()),
            };
            let (socket, times) = (Socket::new(stream, place), self.times);
            let Some(shown) = &self.shown else {
                return Some(Connection::new(Wire::Plain(socket), origin, times.preface));
            };
            let config = shown.now();
            self.handshakes.spawn(async move {
                let stream = handshake::secure(socket, config, times.handshake).await?;
                let wire = Wire::Tls(Box::new(stream));
                Some(Connection::new(wire, origin, times.preface))
            });
        }
    }
}

/// Where a request comes from; tonic keeps it among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The connection's number on its port.
    pub(crate) connection: u64,
    /// `None` of a connection that has ended.
    pub(crate) address: Option<IpAddr>,
}

/// A client's connection, which holds its place.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    origin: Origin,
    /// Until it is complete.
    preface: Option<Preface>,
}

#[derive(Debug)]
enum Wire {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

#[derive(Debug)]
struct Preface {
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(wire: Wire, origin: Origin, preface_time_max: Duration) -> Self {
        Self {
            wire,
            origin,
            preface: Some(Preface {
                left: PREFACE_BYTES,
                deadline: Box::pin(tokio::time::sleep(preface_time_max)),
            }),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin
    }
}

/// The same call on whichever wire it is.
macro_rules! on_wire {
    ($connection:expr, $wire:ident => $call:expr) => {
        match &mut $connection.get_mut().wire {
            Wire::Plain($wire) => {
                let $wire = Pin::new($wire);
                $call
            }
            Wire::Tls($wire) => {
                let $wire = Pin::new($wire.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = on_wire!(self.as_mut(), wire => wire.poll_read(context, buffer));
        let Some(preface) = &mut self.preface else {
            return read;
        };
        if read.is_pending() {
            return match preface.deadline.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            };
        }
        preface.left = preface.left.saturating_sub(buffer.filled().len() - before);
        if preface.left == 0 {
            self.preface = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, wire => wire.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, wire => wire.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(socket) => socket.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
