//! The time of day, read in one place. Intervals are not measured with it: the clock can be set back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970; zero where the clock stands before it.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds since 1970: what expiries are compared with.
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// Seconds since 1970 as a block header has them, in 32 bits: they end in 2106 for everybody.
pub fn header_time_now() -> u32 {
    u32::try_from(unix_now()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_same_seconds_as_an_expiry() {
        let before = unix_now();
        let header = u64::from(header_time_now());
        assert!((before..=unix_now()).contains(&header));
    }
}
