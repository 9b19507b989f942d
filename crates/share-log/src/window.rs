//! Reads a file through one buffer of fixed size, whatever the file says of its lengths.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::frame::{RECORD_BYTES_MAX, frame_bytes};

/// How much is read at a time: more than the longest frame.
const WINDOW_BYTES: usize = 256 * 1_024;
const _: () = assert!(frame_bytes(RECORD_BYTES_MAX) <= WINDOW_BYTES);

#[derive(Debug, Default)]
pub(crate) struct Window {
    buffer: Vec<u8>,
    /// The file's offset of the buffer's first byte.
    start: u64,
    /// How much of the buffer was read.
    filled: usize,
}

impl Window {
    /// Forgets what was read: the file may have grown, or be another.
    pub(crate) fn forget(&mut self) {
        self.filled = 0;
    }

    /// `count` bytes at `offset`, fewer where the file ends, and never more than the window holds.
    pub(crate) fn bytes(&mut self, file: &File, offset: u64, count: usize) -> io::Result<&[u8]> {
        let count = count.min(WINDOW_BYTES);
        let held = |window: &Self| {
            let at = usize::try_from(offset.checked_sub(window.start)?).ok()?;
            (at.checked_add(count)? <= window.filled).then_some(at)
        };
        let at = match held(self) {
            Some(at) => at,
            None => {
                self.fill(file, offset)?;
                0
            }
        };
        let end = (at + count).min(self.filled);
        Ok(&self.buffer[at..end])
    }

    fn fill(&mut self, file: &File, offset: u64) -> io::Result<()> {
        self.buffer.resize(WINDOW_BYTES, 0);
        self.start = offset;
        self.filled = 0;
        while self.filled < WINDOW_BYTES {
            let at = offset.saturating_add(self.filled as u64);
            match file.read_at(&mut self.buffer[self.filled..], at) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.filled = 0;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
