//! The codes of `SubmitShares.Error` for headers that break a rule of their job (Sv2 specification, section 5.3.14).

use dovetail_units::header::BadHeader;
use stratum_core::mining_sv2 as codes;

/// What a miner is told of such a share.
pub fn share_code(bad: BadHeader) -> &'static str {
    match bad {
        BadHeader::ExtranonceSize => codes::ERROR_CODE_SUBMIT_SHARES_BAD_EXTRANONCE_SIZE,
        BadHeader::Time => codes::ERROR_CODE_SUBMIT_SHARES_INVALID_SHARE,
        BadHeader::VersionBits => codes::ERROR_CODE_SUBMIT_SHARES_INVALID_NON_ROLLABLE_VERSION_BIT,
        BadHeader::VersionRolling => codes::ERROR_CODE_VERSION_ROLLING_NOT_ALLOWED,
    }
}
