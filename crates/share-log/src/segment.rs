//! A segment: a file of fixed size, full of zeros when it is made. Its first page says of which log it is and which
//! record it begins with; then frames follow, without gaps, until zeros or what a recycled file held before.
//!
//! It carries its name only once its header is durable: a segment without a good header is damage, not a crash.
//! Header: magic (8 bytes), format (4), zeros (4), log id (8), first position (8), size (8), CRC-32C of these (4).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::config::SEGMENT_BYTES_MAX;
use crate::disk::Disk;
use crate::error::{Failure, OpenError};
use crate::frame::{CRC, Tag};
use crate::place::POSITION_MAX;
use crate::{Position, directory};

/// A page of its own, which is not written again while records are.
pub(crate) const HEADER_BYTES: u64 = 4_096;
const MAGIC: [u8; 8] = *b"DVTLSLOG";
const FORMAT: u32 = 1;
const FIELDS_BYTES: usize = 44;
/// How many zeros are written at a time.
static ZEROS: [u8; 64 * 1_024] = [0; 64 * 1_024];

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u64,
    pub(crate) first: Position,
    /// The file's size in bytes.
    pub(crate) size: u64,
}

impl SegmentHeader {
    pub(crate) fn tag(&self) -> Tag {
        Tag::new(self.log_id, self.first)
    }

    fn encode(&self) -> [u8; FIELDS_BYTES] {
        let mut bytes = [0; FIELDS_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.size.to_le_bytes());
        let crc = CRC.checksum(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Writes the header and makes it durable.
    pub(crate) fn write(&self, disk: &dyn Disk, file: &File, path: &Path) -> Result<(), Failure> {
        disk.write_at(file, &self.encode(), 0)
            .map_err(Failure::of("write", path))?;
        disk.sync(file).map_err(Failure::of("sync", path))
    }

    /// Reads the header of the segment that is named after `first` in the log `log_id`.
    pub(crate) fn read(
        dir: &Path,
        file: &File,
        log_id: u64,
        first: Position,
    ) -> Result<Self, OpenError> {
        let path = directory::segment(dir, first);
        let corrupt = |reason| OpenError::Corrupt {
            path: path.clone(),
            offset: 0,
            position: first,
            reason,
        };
        let mut bytes = [0; FIELDS_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("the file ends in its header"));
            }
            Err(error) => return Err(Failure::new("read", &path, &error).into()),
        }
        if bytes[..8] != MAGIC {
            return Err(corrupt("it is not a segment of a log"));
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version != FORMAT {
            return Err(OpenError::Version { path, version });
        }
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let header = Self {
            log_id: number(16),
            first: Position(number(24)),
            size: number(32),
        };
        if header.encode() != bytes {
            return Err(corrupt("its header's checksum is wrong"));
        }
        if header.log_id != log_id {
            return Err(corrupt("it belongs to another log"));
        }
        if header.first != first || first.0 > POSITION_MAX {
            return Err(corrupt("it has another segment's name"));
        }
        if !(HEADER_BYTES..=SEGMENT_BYTES_MAX).contains(&header.size) {
            return Err(corrupt("its size is impossible"));
        }
        Ok(header)
    }
}

/// How many zeros are synced at a time: appends that are synced meanwhile wait for no more than these.
const FILL_SYNC_BYTES: u64 = 2 << 20;

/// Fills a new file with zeros and makes them durable, so that appending later changes no metadata and cannot meet a
/// full disk. `go_on` is asked now and then; `Ok(false)` if it said no.
pub(crate) fn fill(
    disk: &dyn Disk,
    file: &File,
    size: u64,
    go_on: impl Fn() -> bool,
) -> io::Result<bool> {
    let mut offset = 0;
    while offset < size {
        if !go_on() {
            return Ok(false);
        }
        let bytes = (size - offset).min(ZEROS.len() as u64);
        // At most the length of `ZEROS`.
        disk.write_at(file, &ZEROS[..bytes as usize], offset)?;
        offset += bytes;
        if offset % FILL_SYNC_BYTES == 0 {
            disk.sync(file)?;
        }
    }
    disk.sync(file)?;
    Ok(true)
}

/// Writes zeros from `offset` on, up to `size`, wherever there are none, so that nothing that a torn write left can
/// ever follow a later record. Returns whether anything was written; the caller syncs.
pub(crate) fn clear_from(
    disk: &dyn Disk,
    file: &File,
    mut offset: u64,
    size: u64,
) -> io::Result<bool> {
    let mut buffer = vec![0; ZEROS.len()];
    let length = file.metadata()?.len();
    let mut written = false;
    while offset < size {
        let bytes = (size - offset).min(ZEROS.len() as u64);
        let chunk = &mut buffer[..bytes as usize];
        let is_clear = if offset + bytes <= length {
            file.read_exact_at(chunk, offset)?;
            chunk.iter().all(|byte| *byte == 0)
        } else {
            // The file is too short: writing gives it its size again.
            false
        };
        if !is_clear {
            disk.write_at(file, &ZEROS[..bytes as usize], offset)?;
            written = true;
        }
        offset += bytes;
    }
    Ok(written)
}
