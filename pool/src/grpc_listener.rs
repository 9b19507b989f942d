//! What the gRPC listeners of the pool have in common: `TCP_NODELAY`, and for the port that strangers reach, over HTTP/1.1
//! as well, a bound on connections, a time for the first words of each, and one for what it is to take.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use dovetail_sv2::places::Place;
use dovetail_sv2::{Listener, PlaceLimits};
use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpIncoming};

/// What HTTP/2 begins with (RFC 9113, 3.4). From then on its own pings find out who is gone; a client of HTTP/1.1, whose
/// first line and one header are as long, has 30 seconds for the headers of each request (hyper).
const PREFACE_BYTES: usize = 24;
/// The time for it.
const PREFACE_TIME_MAX: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long of what is sent to it loses its connection: HTTP/1.1 has no pings, and whoever
/// reads nothing would keep its place for as long as its task runs.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

/// The connections of a gRPC listener, with `TCP_NODELAY` set. Tokens and verdicts travel in small frames:
/// without it, Nagle's algorithm holds each one back for up to 40 ms.
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// The same for a port that strangers reach, until `shutdown`.
pub(crate) fn limited(
    listener: TcpListener,
    limits: PlaceLimits,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    limited_in(listener, limits, PREFACE_TIME_MAX, shutdown)
}

fn limited_in(
    listener: TcpListener,
    limits: PlaceLimits,
    preface_time_max: Duration,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let state = (Listener::new(listener, limits), shutdown, 0);
    stream::unfold(state, move |(listener, shutdown, before)| async move {
        let (stream, place) = listener.next(&shutdown).await?;
        let number = before + 1;
        // It only makes small frames slow if it fails.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            _place: place,
            origin: Origin {
                connection: number,
                address: stream.peer_addr().ok().map(|address| address.ip()),
            },
            stream,
            write_deadline: None,
            write_time_max: WRITE_TIME_MAX,
            preface: Some(Preface {
                left: PREFACE_BYTES,
                deadline: Box::pin(tokio::time::sleep(preface_time_max)),
            }),
        };
        Some((Ok(connection), (listener, shutdown, number)))
    })
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
    /// The first to be dropped: whoever sees the end of the stream finds the place free.
    _place: Place,
    origin: Origin,
    stream: TcpStream,
    /// While something waits for the client to take it.
    write_deadline: Option<Pin<Box<Sleep>>>,
    write_time_max: Duration,
    /// Until it is complete.
    preface: Option<Preface>,
}

#[derive(Debug)]
struct Preface {
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    /// What became of a write, or the end of a connection that takes nothing.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.write_deadline = None;
            return write;
        }
        let deadline = self
            .write_deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.write_time_max)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(preface) = &mut this.preface else {
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
            this.preface = None;
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
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, write)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.written(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;
    use tokio_stream::StreamExt;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn small_frames_are_sent_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = incoming(listener);
        let _client = TcpStream::connect(address).await.unwrap();
        let connection = connections.next().await.unwrap().unwrap();
        assert!(connection.nodelay().unwrap());
    }

    #[tokio::test]
    async fn connections_of_a_port_for_strangers_have_numbers_addresses_and_no_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let mut connections = Box::pin(limited(listener, PlaceLimits::total(2), shutdown));
        for number in 1..=2 {
            let client = TcpStream::connect(address).await.unwrap();
            let connection = connections.next().await.unwrap().unwrap();
            assert!(connection.stream.nodelay().unwrap());
            let origin = connection.connect_info();
            assert_eq!(origin.connection, number);
            assert_eq!(origin.address, Some(client.local_addr().unwrap().ip()));
        }
    }

    #[tokio::test]
    async fn whoever_takes_nothing_of_what_is_sent_loses_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let mut connections = Box::pin(limited(listener, PlaceLimits::total(2), shutdown));
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        connection.write_time_max = Duration::from_millis(50);
        let sent = async {
            loop {
                connection.write_all(&[0; 1 << 16]).await?;
            }
        };
        let refused: io::Result<()> = timeout(SOON, sent).await.unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// A port with two places for one address, and a tenth of a second for the preface.
    async fn serve(shutdown: &CancellationToken) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = PlaceLimits {
            per_address_max: 2,
            ..PlaceLimits::total(8)
        };
        let time = Duration::from_millis(100);
        let connections = limited_in(listener, limits, time, shutdown.clone());
        let (_, health) = tonic_health::server::health_reporter();
        let router = tonic::transport::Server::builder().add_service(health);
        tokio::spawn(router.serve_with_incoming(connections));
        address
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_half_a_word_is_closed_and_makes_room() {
        let shutdown = CancellationToken::new();
        let _stop = shutdown.clone().drop_guard();
        let address = serve(&shutdown).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"PRI * HTTP/2").await.unwrap();
        assert!(is_closed(&mut silent).await && is_closed(&mut slow).await);
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        // Whoever speaks may be silent afterwards.
        for _ in 0..3 {
            let request = HealthCheckRequest::default();
            timeout(SOON, client.check(request)).await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    #[tokio::test]
    async fn one_address_has_a_few_connections_and_the_next_is_closed_at_once() {
        let shutdown = CancellationToken::new();
        let _stop = shutdown.clone().drop_guard();
        let address = serve(&shutdown).await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let endpoint =
                tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            client.check(HealthCheckRequest::default()).await.unwrap();
            clients.push(client);
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(is_closed(&mut third).await);
        // The others notice nothing.
        clients[0]
            .check(HealthCheckRequest::default())
            .await
            .unwrap();
    }
}
