//! Bytes and codes as fields of Sv2 messages.

use stratum_core::binary_sv2::Str0255Owned;

use super::connection::Ended;

/// A byte string of ours as a message field; too long is a fault of ours.
pub(super) fn owned<T>(bytes: &[u8]) -> Result<T, Ended>
where
    T: TryFrom<Vec<u8>>,
{
    T::try_from(bytes.to_vec()).map_err(|_| Ended::Fault("a field of ours is too long"))
}

/// An error code as a message field.
pub(super) fn code_text(code: &str) -> Result<Str0255Owned, Ended> {
    owned(code.as_bytes())
}
