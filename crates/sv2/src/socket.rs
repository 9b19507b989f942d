//! How every connection of ours is set up at the system: no waiting for full packets, and a peer that is gone without a
//! word is noticed, whether something is being sent to it or not.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a connection may be quiet before the system asks the peer for a sign of life ..
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// .. and how long it waits before it asks again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that has not confirmed what it was sent, or not answered the questions above, for so long is gone. A network
/// that loses packets for some seconds is no reason to part.
const UNCONFIRMED_TIME_MAX: Duration = Duration::from_secs(50);

/// Sets a connection up.
pub(crate) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    // Without it what was sent is repeated for a quarter of an hour before the system gives up.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_TIME_MAX))?;
    Ok(())
}
