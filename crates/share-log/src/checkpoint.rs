//! The checkpoint: which log this is, up to where it is acknowledged, and which segment is its newest.
//!
//! Two slots in a file that is never renamed, written in turn: a write that is torn leaves the other one, and a full
//! disk cannot keep the log from recycling what is acknowledged. A slot: magic (8 bytes), format (4), zeros (4), log
//! id (8), sequence (8), acknowledged (8), newest segment (8), CRC-32C of these (4).

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::disk::Disk;
use crate::error::{Failure, OpenError};
use crate::frame::CRC;
use crate::{Position, directory};

const MAGIC: [u8; 8] = *b"DVTLSCKP";
const FORMAT: u32 = 1;
const FIELDS_BYTES: usize = 52;
/// Each slot has a page of its own.
const SLOT_BYTES: u64 = 4_096;

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Drawn when the log is made, so that no file of another log is taken for one of this one.
    pub(crate) log_id: u64,
    pub(crate) acknowledged: Position,
    /// The newest segment that was known then. `None` in a log that is being made.
    pub(crate) newest: Option<Position>,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    file: File,
    path: PathBuf,
    sequence: u64,
    /// A slot could not be read: its write was torn, or it was damaged since.
    pub(crate) has_bad_slot: bool,
}

impl CheckpointFile {
    /// Makes the checkpoint of a new log.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path) -> Result<(Self, Checkpoint), Failure> {
        let checkpoint = Checkpoint {
            log_id: draw_id(),
            acknowledged: Position(0),
            newest: None,
        };
        let path = directory::checkpoint(dir);
        let unfinished = path.with_extension("unfinished");
        let file = disk
            .create(&unfinished)
            .map_err(Failure::of("create", &unfinished))?;
        let mut made = Self {
            file,
            path: unfinished.clone(),
            sequence: 0,
            has_bad_slot: false,
        };
        made.write(disk, &checkpoint)?;
        made.write(disk, &checkpoint)?;
        disk.rename(&unfinished, &path)
            .map_err(Failure::of("rename", &unfinished))?;
        disk.sync_dir(dir).map_err(Failure::of("sync", dir))?;
        made.path = path;
        Ok((made, checkpoint))
    }

    /// Reads the checkpoint; `None` if there is none.
    pub(crate) fn open(dir: &Path) -> Result<Option<(Self, Checkpoint)>, OpenError> {
        let path = directory::checkpoint(dir);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new("open", &path, &error).into()),
        };
        let slots = [
            read_slot(&file, &path, 0)?,
            read_slot(&file, &path, SLOT_BYTES)?,
        ];
        let newest = slots.iter().flatten().max_by_key(|slot| slot.0).copied();
        let Some((sequence, checkpoint)) = newest else {
            return Err(OpenError::Corrupt {
                path,
                offset: 0,
                position: Position(0),
                reason: "neither of its two slots is whole",
            });
        };
        let file = Self {
            file,
            path,
            sequence,
            has_bad_slot: slots.iter().any(Option::is_none),
        };
        Ok(Some((file, checkpoint)))
    }

    /// Returns once it is durable.
    pub(crate) fn write(
        &mut self,
        disk: &dyn Disk,
        checkpoint: &Checkpoint,
    ) -> Result<(), Failure> {
        self.sequence += 1;
        let slot = encode(self.sequence, checkpoint);
        // The slot that is not the latest.
        let offset = self.sequence % 2 * SLOT_BYTES;
        disk.write_at(&self.file, &slot, offset)
            .map_err(Failure::of("write", &self.path))?;
        disk.sync(&self.file)
            .map_err(Failure::of("sync", &self.path))
    }
}

fn encode(sequence: u64, checkpoint: &Checkpoint) -> [u8; FIELDS_BYTES] {
    let mut bytes = [0; FIELDS_BYTES];
    let newest = checkpoint.newest.map_or(u64::MAX, |position| position.0);
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&checkpoint.log_id.to_le_bytes());
    bytes[24..32].copy_from_slice(&sequence.to_le_bytes());
    bytes[32..40].copy_from_slice(&checkpoint.acknowledged.0.to_le_bytes());
    bytes[40..48].copy_from_slice(&newest.to_le_bytes());
    let crc = CRC.checksum(&bytes[..48]);
    bytes[48..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A slot's sequence and what it says; `None` if it is not whole.
fn read_slot(
    file: &File,
    path: &Path,
    offset: u64,
) -> Result<Option<(u64, Checkpoint)>, OpenError> {
    let mut bytes = [0; FIELDS_BYTES];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Failure::new("read", path, &error).into()),
    }
    let crc = u32::from_le_bytes([bytes[48], bytes[49], bytes[50], bytes[51]]);
    if bytes[..8] != MAGIC || CRC.checksum(&bytes[..48]) != crc {
        return Ok(None);
    }
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if version != FORMAT {
        let path = path.to_owned();
        return Err(OpenError::Version { path, version });
    }
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let newest = number(40);
    let checkpoint = Checkpoint {
        log_id: number(16),
        acknowledged: Position(number(32)),
        newest: (newest != u64::MAX).then_some(Position(newest)),
    };
    // The last number of a log that never ends; no arithmetic overflows below it.
    Ok(Some((number(24).min(u64::MAX - 1), checkpoint)))
}

/// Random enough: it tells logs apart, and keeps no secret. The system's randomness comes through `RandomState`.
fn draw_id() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    if let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        hasher.write_u128(now.as_nanos());
    }
    hasher.write_u32(std::process::id());
    hasher.finish()
}
