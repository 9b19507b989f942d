//! The thread that writes: all that waits, in one write and one sync, as soon as the one before is durable. A group is
//! as large as what came in the meantime; nobody waits for a clock.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::directory;
use crate::error::{DurabilityError, Failure};
use crate::place::{Place, Position};
use crate::queue::{Batch, Part};
use crate::segment::{HEADER_BYTES, SegmentHeader};
use crate::shared::{PoisonOnPanic, Shared, answer_all};

pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: File,
    path: PathBuf,
    /// Up to where the file is written and durable.
    written: Place,
    /// The position that follows.
    end: Position,
}

/// Why a part is not durable.
enum NotWritten {
    /// Nothing was changed.
    NoSegment(Failure),
    /// What is on the disk is not known.
    Failed(Failure),
}

impl Writer {
    /// Goes on behind `end`, at `written` in `file`.
    pub(crate) fn new(shared: Arc<Shared>, file: File, written: Place, end: Position) -> Self {
        let path = directory::segment(&shared.dir, written.segment);
        Self {
            shared,
            file,
            path,
            written,
            end,
        }
    }

    /// Runs until the log is closed and all is written, or the log is poisoned.
    pub(crate) fn run(mut self) {
        let _guard = PoisonOnPanic(Arc::clone(&self.shared));
        let mut batch = Batch::default();
        while self.shared.take(&mut batch) {
            self.write(&mut batch);
            batch.clear();
        }
        self.shared.end();
    }

    fn write(&mut self, batch: &mut Batch) {
        let mut waiters = batch.waiters.drain(..).peekable();
        let mut start = 0;
        for part in &batch.parts {
            match self.write_part(part, &batch.bytes[start..part.bytes_end]) {
                Ok(()) => self.shared.advance(self.end, self.written),
                Err(NotWritten::NoSegment(failure)) => {
                    tracing::error!(%failure, "records are refused: no new segment can be made");
                    // First, so that who appends again upon the answer is not refused with these.
                    self.shared.refuse(self.end, &failure);
                    answer_all(waiters, &DurabilityError::NoSegment(failure));
                    return;
                }
                Err(NotWritten::Failed(failure)) => {
                    self.shared.poison(failure.clone());
                    answer_all(waiters, &DurabilityError::Poisoned(failure));
                    return;
                }
            }
            start = part.bytes_end;
            while let Some(waiter) = waiters.next_if(|waiter| waiter.position < part.end) {
                // Whoever waited may have gone; the record stays.
                let _ = waiter.answer.send(Ok(()));
            }
        }
    }

    fn write_part(&mut self, part: &Part, bytes: &[u8]) -> Result<(), NotWritten> {
        if part.place.segment != self.written.segment {
            self.enter_segment(part.place)?;
        }
        assert_eq!(part.place, self.written, "records are written without gaps");
        let disk = &self.shared.disk;
        disk.write_at(&self.file, bytes, self.written.offset)
            .map_err(|error| NotWritten::Failed(Failure::new("write", &self.path, &error)))?;
        disk.sync(&self.file)
            .map_err(|error| NotWritten::Failed(Failure::new("sync", &self.path, &error)))?;
        self.written.offset += bytes.len() as u64;
        self.end = part.end;
        Ok(())
    }

    /// All records of the segment before are durable by now: a part never spans two.
    fn enter_segment(&mut self, place: Place) -> Result<(), NotWritten> {
        let spare = self.shared.take_spare().map_err(NotWritten::NoSegment)?;
        let header = SegmentHeader {
            log_id: self.shared.log_id,
            first: place.segment,
            size: place.size,
        };
        let path = directory::segment(&self.shared.dir, place.segment);
        let disk = self.shared.disk.as_ref();
        spare
            .become_segment(disk, &header, &path, &self.shared.dir)
            .map_err(NotWritten::Failed)?;
        self.file = spare.file;
        self.path = path;
        self.written = Place {
            offset: HEADER_BYTES,
            ..place
        };
        let room = self.shared.enter(self.written);
        if room.near_full {
            let (used_bytes, bytes_max) = (room.used_bytes, room.bytes_max);
            tracing::warn!(used_bytes, bytes_max, "the log is nearly full");
        }
        Ok(())
    }
}
