//! Reads durable records in order, and waits for more.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::directory;
use crate::error::{Failure, ReadError};
use crate::frame::{Tag, frame_bytes};
use crate::log::ShareLog;
use crate::place::Position;
use crate::queue::Live;
use crate::scan::frame_at;
use crate::segment::HEADER_BYTES;
use crate::shared::Progress;
use crate::window::Window;

/// One read ends with the record that reaches it: it bounds what a read allocates, however many records are asked for.
pub const READ_BYTES_MAX: usize = 4 << 20;

/// Records that follow each other, in one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    first: Position,
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<usize>,
}

impl Records {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The position after the last one: what to acknowledge once they are done with.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.first.0 + self.ends.len() as u64)
    }

    /// Each record with its position.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Position, &[u8])> {
        self.ends.iter().enumerate().map(|(index, end)| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            let position = Position(self.first.0 + index as u64);
            (position, &self.bytes[start..*end])
        })
    }
}

/// Reads from a position on. It holds the log open.
pub struct Reader {
    log: ShareLog,
    progress: watch::Receiver<Progress>,
    position: Position,
    segment: Option<Segment>,
    window: Window,
}

struct Segment {
    live: Live,
    file: File,
    path: Arc<Path>,
    tag: Tag,
    /// Where the record at the reader's position begins.
    offset: u64,
}

impl Reader {
    pub(crate) fn new(log: ShareLog, from: Position) -> Result<Self, ReadError> {
        let progress = log.inner.shared.progress.subscribe();
        let end = progress.borrow().end;
        if from > end {
            return Err(ReadError::Ahead { wanted: from, end });
        }
        log.inner.shared.segment_of(from)?;
        Ok(Self {
            log,
            progress,
            position: from,
            segment: None,
            window: Window::default(),
        })
    }

    /// The next record's position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// [`ReadError::Ended`] if nothing more will come.
    pub async fn wait(&mut self) -> Result<(), ReadError> {
        let position = self.position;
        let is_over = |progress: &Progress| progress.end > position || progress.has_ended;
        let progress = self.progress.wait_for(is_over).await;
        match progress {
            Ok(progress) if progress.end > position => Ok(()),
            _ => Err(ReadError::Ended),
        }
    }

    /// Reads up to `records_max` records that are durable, perhaps none; [`READ_BYTES_MAX`] ends it too. The reader
    /// goes on behind them. It blocks for the disk, if the records are not in the page cache.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if the records were acknowledged meanwhile, [`ReadError::Corrupt`] if they are damaged, or
    /// [`ReadError::Disk`]. Records before the failed one are returned first.
    pub fn read(&mut self, records_max: usize) -> Result<Records, ReadError> {
        let end = self.progress.borrow().end;
        let mut records = Records {
            first: self.position,
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        // What lay behind the end when it was read may have been written since.
        self.window.forget();
        while self.position < end
            && records.len() < records_max
            && records.bytes.len() < READ_BYTES_MAX
        {
            match self.read_one(&mut records) {
                Ok(()) => {}
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    fn read_one(&mut self, records: &mut Records) -> Result<(), ReadError> {
        if self.read_here(Some(records))? {
            return Ok(());
        }
        // The segment has ended, or none is open yet, or it was recycled.
        self.enter_segment()?;
        if self.read_here(Some(records))? {
            return Ok(());
        }
        Err(self.damage())
    }

    /// Goes over the record at the reader's place, and keeps it if there is something to keep it in. `false` if it is
    /// not there.
    fn read_here(&mut self, records: Option<&mut Records>) -> Result<bool, ReadError> {
        let Some(segment) = &mut self.segment else {
            return Ok(false);
        };
        let (file, size) = (&segment.file, segment.live.size);
        let found = frame_at(&mut self.window, file, size, segment.offset, segment.tag)
            .map_err(Failure::of("read", &segment.path))?;
        let Some((frame, record)) = found else {
            return Ok(false);
        };
        if let Some(records) = records {
            if frame.position != self.position {
                return Ok(false);
            }
            records.bytes.extend_from_slice(record);
            records.ends.push(records.bytes.len());
            self.position = Position(self.position.0 + 1);
        }
        segment.offset += frame_bytes(frame.record_bytes) as u64;
        Ok(true)
    }

    /// Opens the segment that holds the reader's position, and goes there.
    fn enter_segment(&mut self) -> Result<(), ReadError> {
        let shared = &self.log.inner.shared;
        let live = shared.segment_of(self.position)?;
        if self.segment.as_ref().is_some_and(|open| open.live == live) {
            return Err(self.damage());
        }
        let path = directory::segment(&shared.dir, live.first);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                // Acknowledged between the question and the answer?
                shared.segment_of(self.position)?;
                return Err(Failure::new("open", &path, &error).into());
            }
        };
        self.window.forget();
        self.segment = Some(Segment {
            live,
            file,
            path: path.into(),
            tag: Tag::new(shared.log_id, live.first),
            offset: HEADER_BYTES,
        });
        for _ in live.first.0..self.position.0 {
            if !self.read_here(None)? {
                let damage = self.damage();
                // The next try begins anew.
                self.segment = None;
                return Err(damage);
            }
        }
        Ok(())
    }

    /// Why the record at the reader's position cannot be read, although it was durable.
    fn damage(&self) -> ReadError {
        let shared = &self.log.inner.shared;
        match (shared.segment_of(self.position), &self.segment) {
            (Err(gone), _) => gone,
            (Ok(live), open) => ReadError::Corrupt {
                path: directory::segment(&shared.dir, live.first).into(),
                offset: open.as_ref().map_or(0, |open| open.offset),
                position: self.position,
            },
        }
    }
}
