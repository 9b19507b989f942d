//! `SetupConnection` (Sv2 specification 3.6), the first exchange on every connection: what a
//! server answers, and both sides of the exchange.

use std::time::Duration;

use stratum_core::common_messages_sv2::Protocol;
use tokio::time::timeout;

use crate::connection::{ConnectionError, FrameReader, FrameWriter};
use crate::frame::{DecodeError, EncodeError, Frame};
use crate::messages::{
    SetupConnection, SetupConnectionError, SetupConnectionSuccess, Str0255Owned,
};

pub use stratum_core::common_messages_sv2::Protocol as SetupProtocol;

/// The one version of the protocol.
pub const PROTOCOL_VERSION: u16 = 2;
/// Time for a peer to send or answer `SetupConnection`.
pub const SETUP_TIME_MAX: Duration = Duration::from_secs(10);

/// Flags of a mining client.
pub mod mining_flags {
    /// The client takes standard jobs only.
    pub const REQUIRES_STANDARD_JOBS: u32 = 1;
    /// The client will send custom jobs.
    pub const REQUIRES_WORK_SELECTION: u32 = 1 << 1;
    /// The client rolls version bits.
    pub const REQUIRES_VERSION_ROLLING: u32 = 1 << 2;
    /// In the server's answer: jobs have a fixed version.
    pub const REQUIRES_FIXED_VERSION: u32 = 1;
    /// In the server's answer: no standard channels.
    pub const REQUIRES_EXTENDED_CHANNELS: u32 = 1 << 1;
}

/// Flags of a job-declaration client.
pub mod declaration_flags {
    /// The client reveals the transactions of its jobs.
    pub const DECLARE_TX_DATA: u32 = 1;
}

/// What a server speaks on a port.
#[derive(Debug, Clone, Copy)]
pub struct ServerPolicy {
    /// The protocol of the port.
    pub protocol: Protocol,
    /// The client flags it understands.
    pub supported_flags: u32,
    /// The client flags it insists on.
    pub required_flags: u32,
    /// The flags of its own answer to a client with these flags.
    pub success_flags: fn(u32) -> u32,
}

/// Why a connection was not set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The peer said nothing for [`SETUP_TIME_MAX`].
    #[error("the peer did not set the connection up in time")]
    TimeOut,
    /// The peer sent something else, or something malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Our own message breaks a limit.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The client had set the connection up, and was gone when it was to be answered.
    #[error("the client was gone before it was answered: {0}")]
    Unanswered(#[source] ConnectionError),
    /// We refused the client, or the server refused us.
    #[error("the connection was refused: {code} (flags {flags:#x})")]
    Refused {
        /// The error code.
        code: String,
        /// The flags that are at fault, if any.
        flags: u32,
    },
}

fn refusal(code: &str, flags: u32) -> SetupConnectionError {
    SetupConnectionError {
        flags,
        error_code: Str0255Owned::try_from(code).expect("our codes are shorter than 256 bytes"),
    }
}

/// The server's answer to a request.
///
/// # Errors
/// The refusal to send, after which the connection is closed. Its flags name everything that is
/// not supported, not only the first.
pub fn answer(
    request: &SetupConnection,
    policy: &ServerPolicy,
) -> Result<SetupConnectionSuccess, SetupConnectionError> {
    if request.protocol != policy.protocol {
        return Err(refusal("unsupported-protocol", 0));
    }
    if request.min_version > PROTOCOL_VERSION || request.max_version < PROTOCOL_VERSION {
        return Err(refusal("protocol-version-mismatch", 0));
    }
    let unsupported = request.flags & !policy.supported_flags;
    if unsupported != 0 {
        return Err(refusal("unsupported-feature-flags", unsupported));
    }
    let missing = policy.required_flags & !request.flags;
    if missing != 0 {
        let code = match policy.protocol {
            Protocol::JobDeclarationProtocol => "missing-declare-tx-data-flag",
            _ => "missing-feature-flags",
        };
        return Err(refusal(code, missing));
    }
    Ok(SetupConnectionSuccess {
        used_version: PROTOCOL_VERSION,
        flags: (policy.success_flags)(request.flags),
    })
}

/// The server's side: awaits the request and answers it, also where it refuses.
///
/// # Errors
/// The connection is to be dropped.
pub async fn serve(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    policy: &ServerPolicy,
) -> Result<SetupConnection, SetupError> {
    let frame = timeout(SETUP_TIME_MAX, reader.read())
        .await
        .map_err(|_| SetupError::TimeOut)??;
    let (answer, request) = match frame.decode::<SetupConnection>() {
        Ok((request, _)) => (answer(&request, policy), Ok(request)),
        // Among others a protocol number that nobody knows.
        Err(error) => (Err(refusal("unsupported-protocol", 0)), Err(error)),
    };
    match answer {
        Ok(success) => {
            let answer = Frame::new(&success)?;
            let written = writer.write(&answer).await;
            written.map_err(SetupError::Unanswered)?;
            Ok(request?)
        }
        Err(refusal) => {
            let answer = Frame::new(&refusal)?;
            let written = writer.write(&answer).await;
            written.map_err(SetupError::Unanswered)?;
            let _ = writer.shutdown().await;
            request?;
            Err(SetupError::Refused {
                code: refusal.error_code.as_utf8_or_hex(),
                flags: refusal.flags,
            })
        }
    }
}

/// A request of one of our clients. `endpoint` is the address it connected to.
///
/// # Errors
/// An endpoint of more than 255 bytes.
pub fn request(
    protocol: Protocol,
    flags: u32,
    endpoint: &str,
    firmware: &str,
) -> Result<SetupConnection, EncodeError> {
    let text = |text: &str| {
        Str0255Owned::try_from(text).map_err(|error| EncodeError {
            message_type: stratum_core::common_messages_sv2::MESSAGE_TYPE_SETUP_CONNECTION,
            reason: error.to_string(),
        })
    };
    let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, "0"));
    Ok(SetupConnection {
        protocol,
        min_version: PROTOCOL_VERSION,
        max_version: PROTOCOL_VERSION,
        flags,
        endpoint_host: text(host)?,
        endpoint_port: port.parse().unwrap_or(0),
        vendor: text("dovetail")?,
        hardware_version: text("")?,
        firmware: text(firmware)?,
        // The specification advises clients that send no telemetry to leave it empty.
        device_id: text("")?,
    })
}

/// The client's side: sends the request and awaits the answer.
///
/// # Errors
/// The connection is to be dropped; [`SetupError::Refused`] says what the server would not have.
pub async fn open(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    request: &SetupConnection,
) -> Result<SetupConnectionSuccess, SetupError> {
    writer.write(&Frame::new(request)?).await?;
    let frame = timeout(SETUP_TIME_MAX, reader.read())
        .await
        .map_err(|_| SetupError::TimeOut)??;
    if frame.is::<SetupConnectionError>() {
        let (error, _) = frame.decode::<SetupConnectionError>()?;
        return Err(SetupError::Refused {
            code: error.error_code.as_utf8_or_hex(),
            flags: error.flags,
        });
    }
    Ok(frame.decode::<SetupConnectionSuccess>()?.0)
}
