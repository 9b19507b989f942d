//! The negotiation of extensions, which is extension 0x0001 itself: the client asks right after
//! `SetupConnection.Success`, and uses nothing that the server did not name.

use tokio::time::timeout;

use crate::connection::{FrameReader, FrameWriter};
use crate::frame::Frame;
use crate::messages::{
    RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess, Seq064KOwned,
};
use crate::setup::{SETUP_TIME_MAX, SetupError};

/// The server's answer: which of the requested extensions it speaks on this connection.
///
/// # Errors
/// The error to send: none of the requested ones is supported, or a required one is missing. The
/// connection stays open for another try.
pub fn answer(
    request: &RequestExtensions,
    supported: &[u16],
    required: &[u16],
) -> Result<RequestExtensionsSuccess, RequestExtensionsError> {
    let requested = request.requested_extensions.as_slice();
    let (granted, unsupported): (Vec<u16>, Vec<u16>) =
        requested.iter().partition(|e| supported.contains(e));
    let missing: Vec<u16> = required
        .iter()
        .filter(|e| !requested.contains(e))
        .copied()
        .collect();
    let sequence = |list: Vec<u16>| {
        Seq064KOwned::new(list).expect("no longer than the request or our own list")
    };
    if !missing.is_empty() || (granted.is_empty() && !requested.is_empty()) {
        return Err(RequestExtensionsError {
            request_id: request.request_id,
            unsupported_extensions: sequence(unsupported),
            required_extensions: sequence(missing),
        });
    }
    Ok(RequestExtensionsSuccess {
        request_id: request.request_id,
        supported_extensions: sequence(granted),
    })
}

/// The client's side: asks for `extensions` and returns those that were granted.
///
/// # Errors
/// [`SetupError::Refused`] if none was, or the server insists on others. A server that does not
/// know the negotiation discards the question, which is [`SetupError::TimeOut`].
pub async fn request(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    extensions: &[u16],
) -> Result<Vec<u16>, SetupError> {
    let question = RequestExtensions {
        request_id: 1,
        requested_extensions: Seq064KOwned::new(extensions.to_vec())
            .expect("a client asks for a handful of extensions"),
    };
    writer.write(&Frame::new(&question)?).await?;
    let frame = timeout(SETUP_TIME_MAX, reader.read())
        .await
        .map_err(|_| SetupError::TimeOut)??;
    if frame.is::<RequestExtensionsError>() {
        let (error, _) = frame.decode::<RequestExtensionsError>()?;
        return Err(SetupError::Refused {
            code: format!(
                "extensions: unsupported {:?}, required {:?}",
                error.unsupported_extensions.as_slice(),
                error.required_extensions.as_slice()
            ),
            flags: 0,
        });
    }
    let (success, _) = frame.decode::<RequestExtensionsSuccess>()?;
    let mut granted = success.supported_extensions.into_inner();
    granted.retain(|extension| extensions.contains(extension));
    Ok(granted)
}
