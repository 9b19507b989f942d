//! A line between an agent and a pool that breaks.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

/// Where to connect instead of the pool: bytes are passed on, and the first connections are cut after so long.
pub(crate) async fn to(pool: &str, cuts: u32, after: Duration) -> String {
    let pool = pool.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&pool).await.unwrap();
            tokio::spawn(async move {
                let passing = tokio::io::copy_bidirectional(&mut near, &mut far);
                let time = if number < cuts { after } else { LONG };
                let _ = tokio::time::timeout(time, passing).await;
            });
        }
    });
    url
}
