//! The thread that keeps house, so that appends need not wait for it: makes segments ahead, writes the checkpoint,
//! and recycles what is acknowledged.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::checkpoint::{Checkpoint, CheckpointFile};
use crate::directory;
use crate::disk::Disk;
use crate::error::Failure;
use crate::queue::Live;
use crate::segment::{self, SegmentHeader};
use crate::shared::{PoisonOnPanic, Shared, State, Status};

/// How many files are kept ahead of their use: one for the next segment, one for the one after it. Making one writes
/// as many zeros as it has bytes, so a recycled one is worth keeping; more would only occupy the disk.
pub(crate) const SPARES_MAX: usize = 2;

/// A file of a segment's size, all of it allocated.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Spare {
    /// Makes one. `None` if `go_on` said no.
    pub(crate) fn make(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        size: u64,
        go_on: impl Fn() -> bool,
    ) -> Result<Option<Self>, Failure> {
        let unfinished = directory::unfinished(dir, number);
        let made = Self::fill(disk, &unfinished, size, go_on).and_then(|file| {
            let Some(file) = file else { return Ok(None) };
            let path = directory::spare(dir, number);
            disk.rename(&unfinished, &path)
                .map_err(Failure::of("rename", &unfinished))?;
            disk.sync_dir(dir).map_err(Failure::of("sync", dir))?;
            Ok(Some(Self { file, path }))
        });
        if !matches!(made, Ok(Some(_))) {
            // Gives back what was taken of a full disk. If that fails too, the next start does it.
            let _ = disk.remove(&unfinished);
        }
        made
    }

    fn fill(
        disk: &dyn Disk,
        path: &Path,
        size: u64,
        go_on: impl Fn() -> bool,
    ) -> Result<Option<File>, Failure> {
        let file = disk.create(path).map_err(Failure::of("create", path))?;
        let is_filled =
            segment::fill(disk, &file, size, go_on).map_err(Failure::of("fill", path))?;
        Ok(is_filled.then_some(file))
    }

    /// Gives it its header, then its name.
    pub(crate) fn become_segment(
        &self,
        disk: &dyn Disk,
        header: &SegmentHeader,
        path: &Path,
        dir: &Path,
    ) -> Result<(), Failure> {
        header.write(disk, &self.file, &self.path)?;
        disk.rename(&self.path, path)
            .map_err(Failure::of("rename", &self.path))?;
        disk.sync_dir(dir).map_err(Failure::of("sync", dir))
    }
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    checkpoint: CheckpointFile,
    /// What the file says.
    saved: Checkpoint,
    /// Of the next spare's name.
    number: u64,
}

enum Job {
    /// Write the checkpoint, then recycle.
    Save(Checkpoint, Vec<Live>),
    MakeSpare,
    Stop,
}

impl Keeper {
    /// `number`: no file in the directory has it or a higher one.
    pub(crate) fn new(
        shared: Arc<Shared>,
        checkpoint: CheckpointFile,
        saved: Checkpoint,
        number: u64,
    ) -> Self {
        Self {
            shared,
            checkpoint,
            saved,
            number,
        }
    }

    /// Runs until it is stopped, or something it must do fails.
    pub(crate) fn run(mut self) {
        let _guard = PoisonOnPanic(Arc::clone(&self.shared));
        loop {
            let done = match self.next() {
                Job::Save(checkpoint, released) => self.save(checkpoint, &released),
                Job::MakeSpare => {
                    self.make_spare();
                    Ok(())
                }
                Job::Stop => return,
            };
            if let Err(failure) = done {
                self.shared.poison(failure);
                return;
            }
        }
    }

    fn next(&self) -> Job {
        let mut state = self.shared.lock();
        loop {
            let checkpoint = Checkpoint {
                log_id: self.saved.log_id,
                acknowledged: state.acknowledged,
                newest: Some(state.written.segment),
            };
            // What is acknowledged is saved when a file can go for it, and at the end: a consumer commits its
            // position with what it does with the records, and needs no second one.
            let is_due = checkpoint.newest != self.saved.newest || !state.released.is_empty();
            if is_due || (state.keeper_must_stop && checkpoint != self.saved) {
                return Job::Save(checkpoint, std::mem::take(&mut state.released));
            }
            if state.keeper_must_stop {
                return Job::Stop;
            }
            if self.needs_spare(&state) {
                return Job::MakeSpare;
            }
            let wake = &self.shared.keeper_wake;
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether another file is needed now, or will be next and has room.
    fn needs_spare(&self, state: &State) -> bool {
        if state.spare_failure.is_some() || !matches!(state.status, Status::Open | Status::Closed) {
            return false;
        }
        let planned = state.queue.planned(state.written);
        state.spares() < planned
            || (matches!(state.status, Status::Open)
                && state.spares() == planned
                && self.has_room(state))
    }

    /// Whether the log has room for one spare more than what is there and planned.
    fn has_room(&self, state: &State) -> bool {
        let planned = state.queue.planned(state.written);
        let ahead = state.spares().saturating_sub(planned) as u64 + 1;
        let config = &self.shared.config;
        state.queue.live_bytes() + ahead * config.segment_bytes <= config.bytes_max
    }

    fn make_spare(&mut self) {
        let shared = &self.shared;
        let size = shared.config.segment_bytes;
        let go_on = || !shared.lock().keeper_must_stop;
        let made = Spare::make(shared.disk.as_ref(), &shared.dir, self.number, size, go_on);
        self.number += 1;
        let mut state = shared.lock();
        match made {
            Ok(Some(spare)) => state.spares.push(spare),
            // It must stop.
            Ok(None) => {}
            Err(failure) => {
                // Appends go on in the segment that is there.
                tracing::warn!(%failure, "cannot make a segment ahead");
                state.spare_failure = Some((Instant::now(), failure));
            }
        }
        drop(state);
        shared.spare_wake.notify_one();
    }

    fn save(&mut self, checkpoint: Checkpoint, released: &[Live]) -> Result<(), Failure> {
        self.checkpoint
            .write(self.shared.disk.as_ref(), &checkpoint)?;
        self.saved = checkpoint;
        for live in released {
            self.recycle(live)?;
        }
        Ok(())
    }

    /// Keeps an acknowledged segment's file for a later one, or deletes it. Its old records need not be wiped: they
    /// carry the tag of the segment that it was.
    fn recycle(&mut self, live: &Live) -> Result<(), Failure> {
        let (disk, dir) = (self.shared.disk.as_ref(), &self.shared.dir);
        let old = directory::segment(dir, live.first);
        let is_kept = {
            let state = self.shared.lock();
            let planned = state.queue.planned(state.written);
            live.size == self.shared.config.segment_bytes
                && state.spares() < planned + SPARES_MAX
                && self.has_room(&state)
        };
        if !is_kept {
            disk.remove(&old).map_err(Failure::of("delete", &old))?;
            self.shared.lock().spare_failure = None;
            return Ok(());
        }
        let path = directory::spare(dir, self.number);
        self.number += 1;
        disk.rename(&old, &path)
            .map_err(Failure::of("rename", &old))?;
        // The directory needs no sync: if a crash gives the file its old name back, with whatever header by then, the
        // checkpoint says that it holds nothing, and it is recycled again without being read.
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(Failure::of("open", &path))?;
        let mut state = self.shared.lock();
        state.spares.push(Spare { file, path });
        state.spare_failure = None;
        drop(state);
        self.shared.spare_wake.notify_one();
        Ok(())
    }
}
