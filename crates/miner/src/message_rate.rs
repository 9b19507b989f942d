//! How many messages of one kind a peer may send in a minute.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts the messages of a kind, minute by minute.
#[derive(Debug)]
pub struct MessageRate {
    per_minute_max: u32,
    count: u32,
    since: Instant,
}

impl MessageRate {
    /// Nothing has come yet.
    pub fn new(per_minute_max: u32, now: Instant) -> Self {
        Self {
            per_minute_max,
            count: 0,
            since: now,
        }
    }

    /// Another message came. Whether it is still within bounds.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= MINUTE {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.per_minute_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_bound_in_a_minute_is_too_many_and_the_next_minute_begins_anew() {
        let start = Instant::now();
        let mut rate = MessageRate::new(3, start);
        let taken: Vec<bool> = (0..4).map(|_| rate.take(start)).collect();
        assert_eq!(taken, [true, true, true, false]);
        assert!(rate.take(start + MINUTE));
    }
}
