//! Where a record is: its position in the log, and the place in a segment where bytes go.

use std::fmt;

/// The largest position. Postgres' `bigint` holds every one, and no arithmetic on positions overflows.
pub(crate) const POSITION_MAX: u64 = i64::MAX as u64;

/// A record's number in its log: 0, 1, 2 .. without gaps. As a bound it is exclusive: "up to position 7" means the
/// records 0 to 6, and a consumer that has done these resumes at 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the next record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment, named by the position of its first record.
    pub(crate) segment: Position,
    /// The segment's size in bytes.
    pub(crate) size: u64,
    /// Bytes from the file's start.
    pub(crate) offset: u64,
}
