//! Bytes and codes as fields of Sv2 messages.

use dovetail_sv2::EndReason;
use stratum_core::binary_sv2::Str0255Owned;

/// An error code of the Sv2 specification, as `stratum_core` lists them.
pub(super) type StandardCode = &'static str;

/// Why there is nothing to mine: the template source is away, and its last work is stale. The specification has no code
/// for it.
pub(super) const SOURCE_AWAY: StandardCode = "template-source-away";

/// The pool's bytes as a message field. Bytes that do not fit are a fault of the pool.
pub(super) fn owned<T>(bytes: &[u8]) -> Result<T, EndReason>
where
    T: TryFrom<Vec<u8>>,
{
    T::try_from(bytes.to_vec()).map_err(|_| EndReason::Fault("a field of the pool's is too long"))
}

/// An error code as a message field.
pub(super) fn code_text(code: &str) -> Result<Str0255Owned, EndReason> {
    owned(code.as_bytes())
}
