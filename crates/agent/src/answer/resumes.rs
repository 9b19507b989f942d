//! How often, and after which wait, a stream that broke is opened again.

use std::time::Duration;

/// A stream that breaks this often without a token in between is given up.
const IN_A_ROW_MAX: u32 = 5;
/// And one that breaks this often in all: more than a bad line in a quarter of an hour.
const IN_ALL_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(300);

/// The resumptions of one answer.
#[derive(Debug, Default)]
pub(super) struct Resumes {
    in_a_row: u32,
    in_all: u32,
}

impl Resumes {
    /// The wait before the next one; none if there were enough.
    pub(super) fn next(&mut self) -> Option<Duration> {
        if self.in_a_row >= IN_A_ROW_MAX || self.in_all >= IN_ALL_MAX {
            return None;
        }
        self.in_a_row += 1;
        self.in_all += 1;
        Some(PAUSE * self.in_a_row)
    }

    /// A token came.
    pub(super) fn went_on(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_brings_nothing_is_given_up_soon() {
        let mut resumes = Resumes::default();
        let waits: Vec<Duration> = std::iter::from_fn(|| resumes.next()).collect();
        assert_eq!(waits.len(), 5);
        assert!(waits.is_sorted());
    }

    #[test]
    fn a_stream_that_breaks_after_every_token_is_given_up_too() {
        let mut resumes = Resumes::default();
        let mut breaks = 0;
        while resumes.next().is_some() {
            resumes.went_on();
            breaks += 1;
        }
        assert_eq!(breaks, 50);
    }
}
