//! The span of time for which a server's certificate holds (Sv2 specification 4.5.3), and why a client does not take one.
//! A client whose clock is off cannot check a certificate. That is told in words: nothing else shows it.

use std::time::Duration;

/// How long before now a certificate begins to hold, for clients whose clocks are behind. It costs nothing: each
/// connection has a certificate of its own. Boards without a battery are minutes behind until they have asked for the time.
pub const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(300);

/// Why a client does not take a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// By the client's clock it does not hold yet.
    #[error(
        "this machine's clock is behind: the server's certificate begins {by_s} s after the time that it shows; set \
         the clock (NTP), or tell the operator of the server if it is right"
    )]
    ClockBehind {
        /// How much the two differ at least, in seconds.
        by_s: u32,
    },
    /// By the client's clock it holds no longer.
    #[error(
        "this machine's clock is ahead: the server's certificate ended {by_s} s before the time that it shows; set \
         the clock (NTP), or tell the operator of the server if it is right"
    )]
    ClockAhead {
        /// How much the two differ at least, in seconds.
        by_s: u32,
    },
    /// It is signed by another key than the one that was asked for.
    #[error(
        "the server's certificate is not signed with the authority key that was asked for: the key is mistyped, or \
         this is another server"
    )]
    OtherAuthority,
}

impl Doubt {
    /// About a certificate that holds between these times, at a client whose clock shows `now`.
    pub(crate) fn of(valid_from: u32, not_valid_after: u32, now: u32) -> Self {
        match (
            valid_from.checked_sub(now).filter(|by_s| *by_s > 0),
            now.checked_sub(not_valid_after).filter(|by_s| *by_s > 0),
        ) {
            (Some(by_s), _) => Self::ClockBehind { by_s },
            (None, Some(by_s)) => Self::ClockAhead { by_s },
            (None, None) => Self::OtherAuthority,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_holds_now_and_is_not_taken_has_another_signature() {
        assert_eq!(Doubt::of(100, 200, 100), Doubt::OtherAuthority);
        assert_eq!(Doubt::of(100, 200, 200), Doubt::OtherAuthority);
        assert_eq!(Doubt::of(100, 200, 99), Doubt::ClockBehind { by_s: 1 });
        assert_eq!(Doubt::of(100, 200, 201), Doubt::ClockAhead { by_s: 1 });
    }
}
