//! A bound on messages that cost a pool nothing and bring nobody anything, and on the lines that the log has for what a
//! pool says.

use std::time::{Duration, Instant};

use crate::worker::session_failure::SessionFailure;

const MINUTE: Duration = Duration::from_secs(60);
/// Useless messages in a minute. A message may cross another on its way and come to nothing; ten a second do not.
const USELESS_MAX: u32 = 600;
/// Lines in a minute.
const LINES_MAX: u32 = 600;

/// What is counted of a session in the present minute.
#[derive(Debug)]
pub(in crate::worker) struct Chatter {
    since: Instant,
    useless: u32,
    lines: u32,
    lines_left_out: u64,
}

impl Chatter {
    pub(in crate::worker) fn new(now: Instant) -> Self {
        Self {
            since: now,
            useless: 0,
            lines: 0,
            lines_left_out: 0,
        }
    }

    /// The pool sent something of no use.
    ///
    /// # Errors
    /// It has done so too often.
    pub(super) fn useless(&mut self) -> Result<(), SessionFailure> {
        self.useless_at(Instant::now())
    }

    /// Whether the log may have a line about a message of the pool.
    pub(super) fn may_log(&mut self) -> bool {
        self.may_log_at(Instant::now())
    }

    fn useless_at(&mut self, now: Instant) -> Result<(), SessionFailure> {
        self.look_at(now);
        self.useless = self.useless.saturating_add(1);
        match self.useless > USELESS_MAX {
            true => Err(SessionFailure::TooMuchTalk(USELESS_MAX)),
            false => Ok(()),
        }
    }

    fn may_log_at(&mut self, now: Instant) -> bool {
        self.look_at(now);
        let may = self.lines < LINES_MAX;
        match may {
            true => self.lines += 1,
            false => self.lines_left_out = self.lines_left_out.saturating_add(1),
        }
        may
    }

    fn look_at(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) < MINUTE {
            return;
        }
        if self.lines_left_out > 0 {
            tracing::warn!(
                lines = self.lines_left_out,
                "left lines out of the log: the pool talks very much"
            );
        }
        *self = Self::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_useless_messages_and_lines_and_the_next_one_too() {
        let start = Instant::now();
        let mut chatter = Chatter::new(start);
        for now in [start, start + MINUTE] {
            for _ in 0..USELESS_MAX {
                assert!(chatter.useless_at(now).is_ok());
            }
            for _ in 0..LINES_MAX {
                assert!(chatter.may_log_at(now));
            }
            let later = now + MINUTE / 2;
            assert!(!chatter.may_log_at(later));
            assert!(chatter.useless_at(later).is_err());
        }
    }
}
