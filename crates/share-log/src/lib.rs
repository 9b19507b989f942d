//! An append-only, durable, ordered log of opaque records in local files: what a share is written to before it is
//! acknowledged, and what the ledger is filled from afterwards.
//!
//! The interface is that of an ordered durable stream: append, read from a position, acknowledge. This crate knows
//! neither shares nor Postgres, and needs no async runtime: two threads of its own do all that waits for the disk.
//!
//! # What it promises
//! - A record whose [`Durable`] resolved to `Ok` is found by every later [`ShareLog::open`], until it is acknowledged.
//! - Records keep their order, and positions have no gaps.
//! - A reader never sees a record that is not durable, nor one that was not appended.
//! - A record whose append failed with [`DurabilityError::NoSegment`] is not in the log. After
//!   [`DurabilityError::Poisoned`] it may be found by the next open: what cannot be known is not claimed.
//!
//! # How
//! Segments of one fixed size hold the records (`segment`, `frame`). One thread (`writer`) writes all that waits in
//! one write and one `fdatasync`, as soon as the last one is done. Another (`keeper`) makes segments ahead, writes the
//! checkpoint, and recycles what is acknowledged. After a failed write or sync the log is poisoned: a kernel may drop
//! dirty pages after a failed sync, so a second one that succeeds would prove nothing.

mod checkpoint;
mod config;
mod directory;
mod disk;
mod error;
mod frame;
mod keeper;
mod log;
mod place;
mod queue;
mod reader;
mod recovery;
mod scan;
mod segment;
mod shared;
mod window;
mod writer;

pub use config::Config;
pub use disk::{Disk, RealDisk};
pub use error::{AcknowledgeError, AppendError, DurabilityError, Failure, OpenError, ReadError};
pub use frame::RECORD_BYTES_MAX;
pub use log::{Appended, Durable, Room, ShareLog};
pub use place::Position;
pub use reader::{READ_BYTES_MAX, Reader, Records};
pub use recovery::{Recovered, Torn};
