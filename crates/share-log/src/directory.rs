//! The names in a log's directory, and the lock on it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::Position;
use crate::error::{Failure, OpenError};

const SEGMENT_END: &str = ".segment";
const SPARE_END: &str = ".spare";
const UNFINISHED_END: &str = ".unfinished";
/// More files than that are not ours; it bounds what listing them takes.
const FILES_MAX: usize = 100_000;

pub(crate) fn segment(dir: &Path, first: Position) -> PathBuf {
    // All digits, so that names sort as positions do.
    dir.join(format!("{:020}{SEGMENT_END}", first.0))
}

/// A file of a segment's size that waits to become one.
pub(crate) fn spare(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}{SPARE_END}"))
}

/// A spare that is being made.
pub(crate) fn unfinished(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}{UNFINISHED_END}"))
}

pub(crate) fn checkpoint(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// What is in the directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The first positions of all segments, ascending.
    pub(crate) segments: Vec<Position>,
    /// Spares and what a crash left of their making.
    pub(crate) leftovers: Vec<PathBuf>,
}

pub(crate) fn list(dir: &Path) -> Result<Listing, OpenError> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir).map_err(Failure::of("list", dir))? {
        let entry = entry.map_err(Failure::of("list", dir))?;
        let name = entry.file_name();
        // Names of others are not ours to judge.
        let Some(name) = name.to_str() else { continue };
        if let Some(first) = name.strip_suffix(SEGMENT_END) {
            let first = first.parse().ok().map(Position);
            match first.filter(|first| segment(dir, *first) == entry.path()) {
                Some(first) => listing.segments.push(first),
                None => tracing::warn!(name, "a file in the log's directory has a strange name"),
            }
        } else if name.ends_with(SPARE_END) || name.ends_with(UNFINISHED_END) {
            listing.leftovers.push(entry.path());
        }
        if listing.segments.len() + listing.leftovers.len() > FILES_MAX {
            let error = io::Error::other("it has too many files to be a log");
            return Err(Failure::new("list", dir, &error).into());
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// A directory that is this process' own until it is dropped.
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Closing the file would not do if a child process is being started: until it runs its program it has a copy.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the log's directory");
        }
    }
}

/// Makes the directory if need be, and locks it.
pub(crate) fn lock(dir: &Path) -> Result<Lock, OpenError> {
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(Failure::of("make", dir))?;
        // Or a crash could take the directory, and with it all that is durable inside.
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(Failure::of("sync", parent))?;
        }
    }
    let path = dir.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Failure::of("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(Failure::new("lock", &path, &error).into()),
    }
}
