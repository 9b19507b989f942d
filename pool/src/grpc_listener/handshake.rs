//! TLS with one client, on a port that speaks nothing else. Whoever speaks without it is told so in the protocol that it began
//! with: it has the wrong address, and would else see nothing but a connection that breaks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::PREFACE_BYTES;
use super::socket::Socket;

/// The type of the record that TLS begins with (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// And what HTTP/2 does: no method of HTTP/1.1 begins so.
const HTTP2: [u8; 3] = *b"PRI";
/// A server's SETTINGS without any, and GOAWAY with INADEQUATE_SECURITY (RFC 9113, 6.5 and 6.8). The library of agents and
/// workers knows it by that code.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;
const INADEQUATE_SECURITY: u8 = 12;
/// The code of that in the HTTP API.
pub(crate) const HTTPS_REQUIRED: &str = "https_required";
/// What such a client is told.
const TLS_ONLY: &str = "this port speaks TLS only: write https:// in place of http://";
/// A frame's head: its length in three bytes, its type, and what does not matter here.
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
/// How much of what it sends is read before the connection is closed. A close with bytes unread would take the answer away
/// from it.
const UNREAD_BYTES_MAX: u64 = 64 * 1024;
/// And for how long.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(1);

/// The connection once both sides have shaken hands. A client that cannot, or takes longer, costs its connection and no more.
pub(super) async fn secure(
    socket: Socket,
    config: Arc<ServerConfig>,
    time_max: Duration,
) -> Option<TlsStream<Socket>> {
    let address = socket.stream.peer_addr().ok();
    let secured = timeout(time_max, shake_hands(socket, config)).await;
    match secured.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(?address, %error, "a connection ended before TLS stood");
            None
        }
    }
}

async fn shake_hands(
    mut socket: Socket,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<Socket>> {
    let mut beginning = [0; HTTP2.len()];
    let seen = socket.stream.peek(&mut beginning).await?;
    match beginning[..seen] {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        [HANDSHAKE_RECORD, ..] => TlsAcceptor::from(config).accept(socket).await,
        _ => {
            match beginning == HTTP2 {
                true => turn_away_http2(&mut socket).await?,
                false => turn_away(&mut socket, &http1_answer()).await?,
            }
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it spoke without TLS",
            ))
        }
    }
}

/// With its first request: a connection that ends before that says nothing to whoever makes one, in most libraries.
async fn turn_away_http2(socket: &mut Socket) -> io::Result<()> {
    socket.write_all(&SETTINGS).await?;
    // Whatever came of it, it is told.
    let _ = timeout(UNREAD_TIME_MAX, http2_request(socket)).await;
    turn_away(socket, &goaway()).await
}

/// Reads to the first request's headers.
async fn http2_request(socket: &mut Socket) -> io::Result<()> {
    let mut reader = socket.take(UNREAD_BYTES_MAX);
    reader.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        reader.read_exact(&mut head).await?;
        let [a, b, c, kind, ..] = head;
        if kind == HEADERS {
            return Ok(());
        }
        let mut rest = (&mut reader).take(u64::from(u32::from_be_bytes([0, a, b, c])));
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    }
}

async fn turn_away(socket: &mut Socket, answer: &[u8]) -> io::Result<()> {
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    let mut unread = socket.take(UNREAD_BYTES_MAX);
    let mut nowhere = tokio::io::sink();
    let read = tokio::io::copy(&mut unread, &mut nowhere);
    // Whatever came of it, the connection is closed now.
    let _ = timeout(UNREAD_TIME_MAX, read).await;
    Ok(())
}

/// In the envelope of the API's errors.
fn http1_answer() -> Vec<u8> {
    let body = serde_json::json!({ "error": {
        "message": TLS_ONLY, "type": "invalid_request_error", "param": null, "code": HTTPS_REQUIRED,
    }});
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn goaway() -> Vec<u8> {
    // The last stream that was taken, none, and the reason; both are 32 bits.
    let reason = [0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY];
    let length = u8::try_from(reason.len() + TLS_ONLY.len()).expect("it is a short sentence");
    let head = [0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
    let mut frame = Vec::from(head);
    frame.extend_from_slice(&reason);
    frame.extend_from_slice(TLS_ONLY.as_bytes());
    frame
}
