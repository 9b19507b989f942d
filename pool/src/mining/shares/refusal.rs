//! The refusal of a share.

use dovetail_sv2::extension::codes::Code;

use crate::mining::fields::StandardCode;

/// Why a share was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShareRefusal {
    /// For a reason of the Sv2 specification.
    Standard(StandardCode),
    /// For a reason of the extension.
    Extension(Code),
    /// The channel cannot go on and is closed, for this reason.
    CloseChannel(&'static str),
}
