//! A Postgres that is further away: a proxy that holds back each byte for a while, in both directions.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Chunks that are under way in one direction at most.
const UNDER_WAY_MAX: usize = 1_024;
const CHUNK_BYTES: usize = 64 << 10;

/// Starts a proxy to the Postgres of this URL, which must be one with a Unix socket. Returns the URL to it; a round trip takes
/// `delay` longer. It ends with the runtime.
pub(crate) async fn delayed(url: &str, delay: Duration) -> anyhow::Result<String> {
    let options: PgConnectOptions = url.parse()?;
    let folder = options.get_socket().context("the URL names no socket")?;
    let socket = folder.join(format!(".s.PGSQL.{}", options.get_port()));
    let database = options
        .get_database()
        .context("the URL names no database")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let through = format!("postgres://{}@{address}/{database}", options.get_username());
    tokio::spawn(serve(listener, socket, delay / 2));
    Ok(through)
}

async fn serve(listener: TcpListener, socket: PathBuf, delay: Duration) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = UnixStream::connect(&socket).await else {
            return;
        };
        // Small messages go out at once, as they do over the socket.
        let _ = client.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(hold_back(from_client, to_server, delay));
        tokio::spawn(hold_back(from_server, to_client, delay));
    }
}

async fn hold_back(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send,
    delay: Duration,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let chunk = (Instant::now() + delay, buffer[..read].to_vec());
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    });
    while let Some((at, chunk)) = chunks.recv().await {
        sleep_until(at).await;
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}
