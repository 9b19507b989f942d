//! The least rate at which a file must come. A server that sends a byte a minute would hold a connection for ever.

use std::time::Duration;

use tokio::time::Instant;

use super::FetchError;

/// A stream that brought less than this brought nothing.
const PROGRESS_BYTES_MIN: u64 = 16 << 10;

/// So many bytes must come in each span of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The least that must come,
    pub bytes: u64,
    /// in this time.
    pub window: Duration,
}

impl Default for Pace {
    /// 64 KiB a minute: slower than any line that somebody would fetch a model over.
    fn default() -> Self {
        Self {
            bytes: 64 << 10,
            window: Duration::from_secs(60),
        }
    }
}

impl Pace {
    /// Whether so many bytes in this time are worth another attempt.
    pub(super) fn is_kept(&self, bytes: u64, time: Duration) -> bool {
        let came = u128::from(bytes) * self.window.as_millis();
        let due = u128::from(self.bytes) * time.as_millis();
        bytes >= PROGRESS_BYTES_MIN && came >= due
    }
}

/// One stream, held to its pace.
pub(super) struct Meter {
    pace: Pace,
    window_ends: Instant,
    bytes: u64,
}

impl Meter {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            window_ends: Instant::now() + pace.window,
            bytes: 0,
        }
    }

    /// When the window ends.
    pub(super) fn due(&self) -> Instant {
        self.window_ends
    }

    /// So many bytes came.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// The window has ended; the next one begins.
    ///
    /// # Errors
    /// [`FetchError::Silent`] if nothing came in it, [`FetchError::TooSlow`] if not enough.
    pub(super) fn turn(&mut self) -> Result<(), FetchError> {
        match self.bytes {
            0 => return Err(FetchError::Silent),
            bytes if bytes < self.pace.bytes => return Err(FetchError::TooSlow(self.pace)),
            _ => {}
        }
        self.window_ends = Instant::now() + self.pace.window;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        bytes: 64 << 10,
        window: Duration::from_secs(60),
    };

    #[test]
    fn every_window_has_to_bring_enough_however_much_came_before() {
        let mut meter = Meter::new(PACE);
        meter.count(1 << 30);
        meter.turn().unwrap();
        meter.count(65_535);
        assert!(matches!(meter.turn(), Err(FetchError::TooSlow(_))));
        meter.count(1);
        meter.turn().unwrap();
        assert!(matches!(meter.turn(), Err(FetchError::Silent)));
    }

    #[test]
    fn little_is_nothing_and_so_is_much_that_took_too_long() {
        assert!(!PACE.is_kept(1, Duration::ZERO));
        assert!(PACE.is_kept(16 << 10, Duration::from_secs(15)));
        assert!(!PACE.is_kept(16 << 10, Duration::from_secs(16)));
    }
}
