//! Sizes, with a reason beside each limit.

use crate::frame::{RECORD_BYTES_MAX, frame_bytes};
use crate::segment::HEADER_BYTES;

/// A segment must hold the largest record.
const SEGMENT_BYTES_MIN: u64 = 128 * 1_024;
const _: () = assert!(HEADER_BYTES + frame_bytes(RECORD_BYTES_MAX) as u64 <= SEGMENT_BYTES_MIN);
/// One segment is read at least at each start, and written with zeros at least once.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Whole pages, so that segments never share one with what follows.
const SEGMENT_BYTES_STEP: u64 = 4_096;

/// How large the log may become.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The size of a segment's file. A multiple of 4,096 from 128 KiB to 1 GiB. It may change from one start to the
    /// next; segments that exist keep theirs. Default: 64 MiB, half a million shares.
    pub segment_bytes: u64,
    /// The size of all segments together, at least two segments. Beyond it appends are refused with
    /// [`AppendError::Full`](crate::AppendError::Full) until something is acknowledged. Default: 4 GiB, more than
    /// eight hours at a thousand shares a second.
    pub bytes_max: u64,
    /// How many bytes may wait for the disk in memory. Twice as much is allocated at most: what waits, and what is
    /// being written. Default: 8 MiB, far more than a disk takes in one write while others wait.
    pub pending_bytes_max: usize,
    /// From which part of `bytes_max` on [`Room::near_full`](crate::Room::near_full) says so: above 0, at most 1.
    /// Default: 0.8.
    pub near_full: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
            pending_bytes_max: 8 << 20,
            near_full: 0.8,
        }
    }
}

impl Config {
    /// For so many bytes, at least a mebibyte: a segment is a 64th of it, so that whole ones are freed in small steps, and
    /// a small log begins small. At least 128 KiB and at most 64 MiB.
    #[must_use]
    pub fn of_size(bytes_max: u64) -> Self {
        let segment_bytes = (bytes_max / 64).clamp(SEGMENT_BYTES_MIN, 64 << 20);
        Self {
            segment_bytes: segment_bytes / SEGMENT_BYTES_STEP * SEGMENT_BYTES_STEP,
            bytes_max,
            ..Self::default()
        }
    }

    /// What is wrong with it, if anything.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err("segment_bytes must be from 128 KiB to 1 GiB");
        }
        if !self.segment_bytes.is_multiple_of(SEGMENT_BYTES_STEP) {
            return Err("segment_bytes must be a multiple of 4,096");
        }
        // One segment takes records while the one before it waits to be acknowledged.
        if self.bytes_max / 2 < self.segment_bytes {
            return Err("bytes_max must hold two segments at least");
        }
        if self.pending_bytes_max == 0 {
            return Err("pending_bytes_max must not be 0");
        }
        if !(self.near_full > 0.0 && self.near_full <= 1.0) {
            return Err("near_full must be above 0 and at most 1");
        }
        Ok(())
    }
}
