//! What every gRPC listener of the pool has in common.

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

/// The connections of a gRPC listener, with `TCP_NODELAY` set. Tokens and verdicts travel in small frames:
/// without it, Nagle's algorithm holds each one back for up to 40 ms.
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn small_frames_are_sent_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = incoming(listener);
        let _client = TcpStream::connect(address).await.unwrap();
        let connection = connections.next().await.unwrap().unwrap();
        assert!(connection.nodelay().unwrap());
    }
}
