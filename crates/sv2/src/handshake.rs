//! How a connection begins (Sv2 specification 4.5): the Noise handshake, with the server's certificate in it.

use std::time::Duration;

use bitcoin::secp256k1::rand::rngs::OsRng;
use dovetail_commitment::tagged_hash;
use dovetail_units::time::header_time_now;
use stratum_core::noise_sv2::{
    ELLSWIFT_ENCODING_SIZE, Error as NoiseError, INITIATOR_EXPECTED_HANDSHAKE_MESSAGE_SIZE,
    Initiator, Responder,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::certificate::{CLOCK_BEHIND_MAX, Doubt};
use crate::connection::{ConnectionError, FrameReader, FrameWriter, HANDSHAKE_TIME_MAX, halves};
use crate::keys::{AuthorityKeys, AuthorityPublicKey};
use crate::socket;

/// A hash of a handshake's two messages, by which a signature can be for one connection alone. The Noise library keeps
/// its own handshake hash to itself; the messages have all that goes into it but the keys' agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeHash([u8; 32]);

impl HandshakeHash {
    /// A hash as it was told.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    fn of(first: &[u8], second: &[u8]) -> Self {
        // Both have fixed lengths.
        Self(tagged_hash("dovetail/handshake", &[first, second]))
    }
}

/// Takes the server's side of a handshake on an accepted socket. The certificate that is signed for this connection
/// holds from [`CLOCK_BEHIND_MAX`] before now until `cert_validity` after now.
///
/// # Errors
/// A peer that does not finish the handshake in [`HANDSHAKE_TIME_MAX`], or does it wrongly.
pub async fn accept(
    stream: TcpStream,
    keys: &AuthorityKeys,
    cert_validity: Duration,
) -> Result<(FrameReader, FrameWriter), ConnectionError> {
    let responder = Responder::from_authority_kp(
        &keys.public().to_bytes(),
        &keys.secret().secret_bytes(),
        cert_validity.saturating_add(CLOCK_BEHIND_MAX),
    )
    .map_err(|error| ConnectionError::Handshake(format!("{error:?}")))?;
    timeout(HANDSHAKE_TIME_MAX, respond(stream, responder))
        .await
        .map_err(|_| ConnectionError::HandshakeTimeOut)?
}

async fn respond(
    mut stream: TcpStream,
    mut responder: Box<Responder>,
) -> Result<(FrameReader, FrameWriter), ConnectionError> {
    socket::set_up(&stream)?;
    let mut first = [0; ELLSWIFT_ENCODING_SIZE];
    stream.read_exact(&mut first).await.map_err(closed_or_io)?;
    let behind_s = u32::try_from(CLOCK_BEHIND_MAX.as_secs()).expect("it is a few minutes");
    let valid_from = header_time_now().saturating_sub(behind_s);
    let (second, engine) = responder
        .step_1_with_now_rng(first, valid_from, &mut OsRng)
        .map_err(|error| ConnectionError::Handshake(error.to_string()))?;
    stream.write_all(&second).await?;
    Ok(halves(stream, engine, HandshakeHash::of(&first, &second)))
}

/// Connects to `address` (host:port) and takes the client's side of the handshake. Without an
/// authority key the server is not authenticated, which is for tests and trusted networks.
///
/// # Errors
/// No connection in [`HANDSHAKE_TIME_MAX`], or a server whose certificate is not to be taken: [`Doubt`].
pub async fn connect(
    address: &str,
    authority: Option<AuthorityPublicKey>,
) -> Result<(FrameReader, FrameWriter), ConnectionError> {
    let stream = timeout(HANDSHAKE_TIME_MAX, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectionError::HandshakeTimeOut)??;
    connect_over(stream, authority).await
}

/// Takes the client's side of the handshake on a connected socket.
///
/// # Errors
/// As [`connect`].
pub async fn connect_over(
    stream: TcpStream,
    authority: Option<AuthorityPublicKey>,
) -> Result<(FrameReader, FrameWriter), ConnectionError> {
    connect_at(stream, authority, header_time_now()).await
}

/// The same by a clock that shows `now`.
async fn connect_at(
    stream: TcpStream,
    authority: Option<AuthorityPublicKey>,
    now: u32,
) -> Result<(FrameReader, FrameWriter), ConnectionError> {
    let initiator = match authority {
        Some(key) => Initiator::from_raw_k(key.to_bytes()),
        None => Initiator::without_pk(),
    }
    .map_err(|error| ConnectionError::Handshake(format!("{error:?}")))?;
    timeout(HANDSHAKE_TIME_MAX, initiate(stream, initiator, now))
        .await
        .map_err(|_| ConnectionError::HandshakeTimeOut)?
}

async fn initiate(
    mut stream: TcpStream,
    mut initiator: Box<Initiator>,
    now: u32,
) -> Result<(FrameReader, FrameWriter), ConnectionError> {
    socket::set_up(&stream)?;
    let first = initiator
        .step_0()
        .map_err(|error| ConnectionError::Handshake(error.to_string()))?;
    stream.write_all(&first).await?;
    let mut second = [0; INITIATOR_EXPECTED_HANDSHAKE_MESSAGE_SIZE];
    stream.read_exact(&mut second).await.map_err(closed_or_io)?;
    let hash = HandshakeHash::of(&first, &second);
    let engine = initiator
        .step_2_with_now(second, now)
        .map_err(|error| match error {
            NoiseError::InvalidCertificate(certificate) => {
                Doubt::of(certificate.valid_from, certificate.not_valid_after, now).into()
            }
            error => ConnectionError::Handshake(format!("{error:?}")),
        })?;
    Ok(halves(stream, engine, hash))
}

fn closed_or_io(error: std::io::Error) -> ConnectionError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ConnectionError::Closed,
        _ => ConnectionError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const VALIDITY_S: u32 = 3_600;
    /// What the Noise library allows besides.
    const LEEWAY_S: u32 = 10;
    /// More than the test takes.
    const SLACK_S: u32 = 60;

    /// Connects to a server whose clock is right, by a clock that is off by so many seconds.
    async fn by_a_clock_off_by(seconds: i64) -> Result<(), ConnectionError> {
        let keys = AuthorityKeys::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            accept(stream, &keys, Duration::from_secs(VALIDITY_S.into())).await
        };
        let now = u32::try_from(i64::from(header_time_now()) + seconds).unwrap();
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            connect_at(stream, Some(keys.public()), now).await
        };
        // The server has no word in it: for it the handshake is done once it has answered.
        let (served, connected) = tokio::join!(server, client);
        assert!(served.is_ok());
        connected.map(drop)
    }

    #[tokio::test]
    async fn both_sides_of_a_connection_have_its_hash_and_no_other_connection_does() {
        let keys = AuthorityKeys::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                accept(stream, &keys, Duration::from_secs(VALIDITY_S.into())).await
            };
            let (served, connected) = tokio::join!(server, connect(&address, Some(keys.public())));
            let (served, connected) = (served.unwrap().0, connected.unwrap().0);
            assert_eq!(served.handshake(), connected.handshake());
            seen.push(served.handshake());
        }
        assert_ne!(seen[0], seen[1]);
    }

    #[tokio::test]
    async fn a_client_whose_clock_is_minutes_behind_or_ahead_connects() {
        let behind_s = i64::try_from(CLOCK_BEHIND_MAX.as_secs()).unwrap();
        let ahead_s = i64::from(VALIDITY_S - SLACK_S);
        for off_s in [0, -11, -60, -behind_s, 11, 60, ahead_s] {
            let connected = by_a_clock_off_by(off_s).await;
            assert!(connected.is_ok(), "{off_s} s: {connected:?}");
        }
    }

    #[tokio::test]
    async fn a_client_whose_clock_is_too_far_off_is_told_so_and_by_how_much() {
        let behind_s = u32::try_from(CLOCK_BEHIND_MAX.as_secs()).unwrap();
        for (off_s, expected, bound_s) in [
            (-1_000_000, "clock is behind", 1_000_000 - behind_s),
            (
                -i64::from(behind_s + LEEWAY_S + SLACK_S),
                "clock is behind",
                SLACK_S,
            ),
            (
                i64::from(VALIDITY_S + LEEWAY_S + SLACK_S),
                "clock is ahead",
                SLACK_S,
            ),
            (1_000_000, "clock is ahead", 1_000_000 - VALIDITY_S),
        ] {
            let error = by_a_clock_off_by(off_s).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("NTP"), "{text}");
            let ConnectionError::Certificate(
                Doubt::ClockBehind { by_s } | Doubt::ClockAhead { by_s },
            ) = error
            else {
                panic!("{off_s} s: {error:?}");
            };
            assert!(by_s.abs_diff(bound_s) <= SLACK_S, "{off_s} s: {text}");
        }
    }
}
