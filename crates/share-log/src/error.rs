//! One error per operation, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Position, RECORD_BYTES_MAX};

/// What the disk refused. It can be cloned, because one failure is the answer to all that waited.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {doing} {}: {detail}", path.display())]
pub struct Failure {
    /// What was tried, as a verb: "write", "sync" ..
    pub doing: &'static str,
    /// On which file or directory.
    pub path: Arc<Path>,
    /// The kind of the system's error, [`io::ErrorKind::StorageFull`] for instance.
    pub kind: io::ErrorKind,
    /// The system's words.
    pub detail: Arc<str>,
}

impl Failure {
    pub(crate) fn new(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        Self {
            doing,
            path: path.into(),
            kind: error.kind(),
            detail: error.to_string().into(),
        }
    }

    /// Names what was done to which file, for `map_err`.
    pub(crate) fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(doing, path, &error)
    }
}

/// Why a log was not opened. Nothing was changed, except that what a crash left unfinished may have been cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("the log's configuration: {0}")]
    Config(&'static str),
    /// Another process (or another part of this one) has the log open.
    #[error("{} is in use: one log has one pool. Stop the other one, or give this one a directory of its own", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// Bytes that had been durable are not what was written.
    #[error(
        "{} is damaged at byte {offset} (record {position}): {reason}. Nothing was changed. Restore the file from a \
         copy. Without one, find the position that the ledger has committed: if it is above {position} and no segment \
         holds a later record, or if what is lost can be accepted, move the whole directory aside and start with an \
         empty one", path.display()
    )]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Bytes from its start.
        offset: u64,
        /// The first record that cannot be read.
        position: Position,
        /// What was found.
        reason: &'static str,
    },
    /// A file that must be there is not.
    #[error(
        "{} is missing in the log, which needs record {position}. Nothing was changed. Put the file back; if it \
         cannot be found, compare with the position that the ledger has committed, then move the whole directory \
         aside and start with an empty one", path.display()
    )]
    Missing {
        /// The file, or the directory if the file's name is not known.
        path: PathBuf,
        /// The first record that is missing.
        position: Position,
    },
    /// Records were acknowledged that the log does not hold any more: it was replaced by an older copy, or its disk
    /// lost what it had confirmed.
    #[error(
        "the log ends before record {end}, but was acknowledged up to {acknowledged}: it is an older copy, or the \
         disk lost what it had confirmed. Nothing was changed. Move the directory aside and start with an empty one"
    )]
    Behind {
        /// Up to where the consumer was.
        acknowledged: Position,
        /// Where the records end.
        end: Position,
    },
    /// Another release wrote it.
    #[error(
        "{} has format {version}, which this release does not read: use the release that wrote it until the log is \
         drained", path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        version: u32,
    },
    /// The disk or the system refused.
    #[error(transparent)]
    Disk(#[from] Failure),
}

/// Why a record was not taken. It is not in the log and never will be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The log has its full size. Acknowledging what is drained makes room.
    #[error("the log is full: {used_bytes} of {bytes_max} bytes wait to be acknowledged")]
    Full {
        /// What is in use.
        used_bytes: u64,
        /// What may be.
        bytes_max: u64,
    },
    /// As much waits for the disk as may. [`append`](crate::ShareLog::append) waits instead.
    #[error("the disk is behind: as much waits for it as may")]
    Busy,
    /// Longer than [`RECORD_BYTES_MAX`].
    #[error("a record of {bytes} bytes: {RECORD_BYTES_MAX} are allowed")]
    TooLong {
        /// The record's length.
        bytes: usize,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// A write or a sync failed before. Only opening the log again helps.
    #[error("the log has stopped: {0}")]
    Poisoned(Failure),
}

/// Why a record that was taken is not durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DurabilityError {
    /// No segment could be made for it, the disk being full for instance. It is not in the log; later appends may
    /// succeed.
    #[error("no new segment: {0}")]
    NoSegment(Failure),
    /// The log stopped, because a write or a sync failed. Whether the next open finds the record is not known; it
    /// must not be acknowledged.
    #[error("the log has stopped: {0}")]
    Poisoned(Failure),
}

/// Why nothing could be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The records were acknowledged, and are deleted or may be at any time.
    #[error("record {wanted} is gone: the log begins at {first}")]
    Gone {
        /// What was asked for.
        wanted: Position,
        /// The first record that can be read.
        first: Position,
    },
    /// The position lies behind the log's end: it belongs to another log.
    #[error("position {wanted} lies behind the log's end, {end}: it belongs to another log")]
    Ahead {
        /// What was asked for.
        wanted: Position,
        /// Where the durable records end.
        end: Position,
    },
    /// A durable record is not what was written.
    #[error("{} is damaged at byte {offset} (record {position}): stop, and see what the next start says", path.display())]
    Corrupt {
        /// The damaged file.
        path: Arc<Path>,
        /// Bytes from its start.
        offset: u64,
        /// The record.
        position: Position,
    },
    /// The log is closed or poisoned, and all that was durable has been read.
    #[error("the log has ended")]
    Ended,
    /// The disk or the system refused. Trying again is harmless.
    #[error(transparent)]
    Disk(#[from] Failure),
}

/// Why an acknowledgement was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("position {upto} cannot be acknowledged: durable records end at {end}")]
pub struct AcknowledgeError {
    /// What was acknowledged.
    pub upto: Position,
    /// Where the durable records end.
    pub end: Position,
}
