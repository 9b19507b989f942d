//! Opening a log: what of its files is whole, what a crash tore, and what is damage.
//!
//! Only the last write of the last segment can be torn, since each write waits for the one before it. It was not
//! reported as durable, so it is cut off. Anything else that is not whole is an error, and then nothing is changed.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, CheckpointFile};
use crate::config::Config;
use crate::directory;
use crate::disk::Disk;
use crate::error::{Failure, OpenError};
use crate::keeper::{SPARES_MAX, Spare};
use crate::place::{Place, Position};
use crate::queue::Live;
use crate::scan::{self, Walk};
use crate::segment::{self, HEADER_BYTES, SegmentHeader};
use crate::window::Window;

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The log's number, drawn when it was made. A consumer that commits positions commits it with them: after a
    /// damaged log was replaced, positions begin again.
    pub log_id: u64,
    /// The first record that can be read. Some before `acknowledged` may still be there.
    pub first: Position,
    /// Up to where the records were acknowledged, as far as that was saved: exact after an orderly end; after a crash
    /// perhaps less, never more.
    pub acknowledged: Position,
    /// The position after the last record: the next one's.
    pub end: Position,
    /// What was cut off, if the last write was torn. None of its records had been reported as durable.
    pub torn: Option<Torn>,
}

/// A write that a crash left unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub path: PathBuf,
    /// Where it was cut, in bytes from the file's start.
    pub offset: u64,
}

/// All that the log's threads go on with.
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    pub(crate) checkpoint: CheckpointFile,
    pub(crate) saved: Checkpoint,
    pub(crate) live: VecDeque<Live>,
    pub(crate) released: Vec<Live>,
    pub(crate) spares: Vec<Spare>,
    /// The next number for a spare's name.
    pub(crate) number: u64,
    /// The last segment, and where it goes on.
    pub(crate) file: File,
    pub(crate) written: Place,
}

/// A segment that is read and whole.
struct Segment {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    walk: Walk,
    is_torn: bool,
}

/// Reads the log in a directory, or makes one in an empty directory. The caller has locked it.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, config: &Config) -> Result<Found, OpenError> {
    let listing = directory::list(dir)?;
    let opened = CheckpointFile::open(dir)?;
    if opened.is_none()
        && let Some(first) = listing.segments.first()
    {
        let (path, position) = (directory::checkpoint(dir), *first);
        return Err(OpenError::Missing { path, position });
    }
    let (released, segments) = match &opened {
        // A crash while the log was made may have left no segment; from its first one on there is always one.
        Some((file, saved)) if saved.newest.is_some() || !listing.segments.is_empty() => {
            let released = needed_from(dir, &listing.segments, file, saved)?;
            let (released, needed) = listing.segments.split_at(released);
            (released.to_vec(), read_all(dir, saved, needed)?)
        }
        _ => (Vec::new(), Vec::new()),
    };
    // From here on the directory is changed.
    let (spares, mut number) = take_leftovers(disk, dir, config, &listing.leftovers)?;
    let (checkpoint, saved) = match opened {
        Some(opened) => opened,
        None => CheckpointFile::create(disk, dir)?,
    };
    let mut live: VecDeque<Live> = segments.iter().map(Segment::live).collect();
    let last = match segments.into_iter().next_back() {
        Some(last) => last,
        None => {
            number += 1;
            first_segment(disk, dir, config, &saved, number)?
        }
    };
    if live.is_empty() {
        live.push_back(last.live());
    }
    let torn = last.settle(disk)?;
    let recovered = Recovered {
        log_id: saved.log_id,
        first: live.front().map_or(last.walk.end, |live| live.first),
        acknowledged: saved.acknowledged,
        end: last.walk.end,
        torn,
    };
    let released = released.into_iter().map(|first| Live {
        first,
        // Of no size that is kept if it cannot be read: the file is deleted then.
        size: directory::segment(dir, first)
            .metadata()
            .map_or(0, |file| file.len()),
    });
    Ok(Found {
        recovered,
        checkpoint,
        saved,
        live,
        released: released.collect(),
        spares,
        number: number + 1,
        written: last.place(),
        file: last.file,
    })
}

/// How many of the segments hold nothing but acknowledged records; those after them must be there without a gap.
fn needed_from(
    dir: &Path,
    segments: &[Position],
    file: &CheckpointFile,
    saved: &Checkpoint,
) -> Result<usize, OpenError> {
    let missing = |path, position| Err(OpenError::Missing { path, position });
    let holds_more = segments.partition_point(|first| *first <= saved.acknowledged);
    let Some(released) = holds_more.checked_sub(1) else {
        if file.has_bad_slot && !segments.is_empty() {
            return Err(OpenError::Corrupt {
                path: directory::checkpoint(dir),
                offset: 0,
                position: saved.acknowledged,
                reason: "one of its two slots is damaged, and the other one is older than the segments",
            });
        }
        return missing(dir.to_owned(), saved.acknowledged);
    };
    if let Some(newest) = saved.newest
        && segments.binary_search(&newest).is_err()
    {
        return missing(directory::segment(dir, newest), newest);
    }
    Ok(released)
}

/// Reads segments that must follow each other.
fn read_all(
    dir: &Path,
    saved: &Checkpoint,
    segments: &[Position],
) -> Result<Vec<Segment>, OpenError> {
    let mut window = Window::default();
    let mut read: Vec<Segment> = Vec::with_capacity(segments.len());
    for (index, first) in segments.iter().enumerate() {
        let next = segments.get(index + 1).copied();
        let segment = read_one(dir, saved.log_id, *first, next, &mut window)?;
        read.push(segment);
    }
    let end = read.last().map(|segment| segment.walk.end);
    match end {
        Some(end) if end < saved.acknowledged => Err(OpenError::Behind {
            acknowledged: saved.acknowledged,
            end,
        }),
        _ => Ok(read),
    }
}

fn read_one(
    dir: &Path,
    log_id: u64,
    first: Position,
    next: Option<Position>,
    window: &mut Window,
) -> Result<Segment, OpenError> {
    let path = directory::segment(dir, first);
    let failed = |error| Failure::new("read", &path, &error);
    let opened = File::options().read(true).write(true).open(&path);
    let file = opened.map_err(Failure::of("open", &path))?;
    let header = SegmentHeader::read(dir, &file, log_id, first)?;
    let walk = scan::walk(window, &file, &header).map_err(failed)?;
    let remains = scan::remains(window, &file, &header, &walk).map_err(failed)?;
    let corrupt = |reason| {
        Err(OpenError::Corrupt {
            path: path.clone(),
            offset: walk.offset,
            position: walk.end,
            reason,
        })
    };
    if remains.later_write.is_some() {
        return corrupt("records that were written later are whole");
    }
    match next {
        Some(next) if walk.end > next => {
            return corrupt("it holds records of the next segment");
        }
        // What begins like a record, or ends like one, was one.
        Some(next) if walk.end < next && remains.torn => {
            return corrupt("the next segment begins with a later record");
        }
        Some(next) if walk.end < next => {
            let holds_more = window
                .bytes(&file, walk.offset, crate::frame::FRAME_HEADER_BYTES)
                .map_err(failed)?
                .iter()
                .any(|byte| *byte != 0);
            if holds_more {
                return corrupt("the next segment begins with a later record");
            }
            return Err(OpenError::Missing {
                path: directory::segment(dir, walk.end),
                position: walk.end,
            });
        }
        _ => {}
    }
    Ok(Segment {
        is_torn: remains.torn,
        file,
        path,
        header,
        walk,
    })
}

impl Segment {
    fn live(&self) -> Live {
        Live {
            first: self.header.first,
            size: self.header.size,
        }
    }

    fn place(&self) -> Place {
        Place {
            segment: self.header.first,
            size: self.header.size,
            offset: self.walk.offset,
        }
    }

    /// Makes the last segment's records durable and clears what follows them.
    fn settle(&self, disk: &dyn Disk) -> Result<Option<Torn>, Failure> {
        let failed = |doing| Failure::of(doing, &self.path);
        // The last write may be in the page cache only, and after a failed sync perhaps even as clean pages: it is
        // written again before it is said to be durable.
        let mut buffer = vec![0; 64 * 1_024];
        let mut offset = self.walk.group_offset;
        while offset < self.walk.offset {
            let count = (self.walk.offset - offset).min(buffer.len() as u64) as usize;
            let chunk = &mut buffer[..count];
            let read = self.file.read_exact_at(chunk, offset);
            read.map_err(failed("read"))?;
            let written = disk.write_at(&self.file, chunk, offset);
            written.map_err(failed("write"))?;
            offset += count as u64;
        }
        let cleared = segment::clear_from(disk, &self.file, self.walk.offset, self.header.size);
        cleared.map_err(failed("clear"))?;
        disk.sync(&self.file).map_err(failed("sync"))?;
        if !self.is_torn {
            return Ok(None);
        }
        let (path, offset) = (self.path.clone(), self.walk.offset);
        tracing::warn!(path = %path.display(), offset, end = %self.walk.end, "a torn write was cut off");
        Ok(Some(Torn { path, offset }))
    }
}

/// Makes the first segment of a new log.
fn first_segment(
    disk: &dyn Disk,
    dir: &Path,
    config: &Config,
    saved: &Checkpoint,
    number: u64,
) -> Result<Segment, OpenError> {
    let header = SegmentHeader {
        log_id: saved.log_id,
        first: saved.acknowledged,
        size: config.segment_bytes,
    };
    let path = directory::segment(dir, header.first);
    let spare = Spare::make(disk, dir, number, header.size, || true)?
        .expect("making it is not interrupted");
    spare.become_segment(disk, &header, &path, dir)?;
    Ok(Segment {
        file: spare.file,
        path,
        header,
        walk: Walk {
            end: header.first,
            offset: HEADER_BYTES,
            group_offset: HEADER_BYTES,
        },
        is_torn: false,
    })
}

/// Takes the spares that an earlier run left, deletes what is unfinished or of another size, and returns the highest
/// number in their names.
fn take_leftovers(
    disk: &dyn Disk,
    dir: &Path,
    config: &Config,
    leftovers: &[PathBuf],
) -> Result<(Vec<Spare>, u64), OpenError> {
    let (mut spares, mut highest) = (Vec::new(), 0);
    for path in leftovers {
        let name = path.file_stem().and_then(|stem| stem.to_str());
        // Far below the end, so that counting on never overflows.
        let number = name.and_then(|name| name.parse::<u32>().ok());
        let whole = number.filter(|number| *path == directory::spare(dir, u64::from(*number)));
        highest = highest.max(number.map_or(0, u64::from));
        if whole.is_some() && spares.len() < SPARES_MAX {
            let opened = File::options().read(true).write(true).open(path);
            let file = opened.map_err(Failure::of("open", path))?;
            let length = file.metadata().map_err(Failure::of("look at", path))?.len();
            if length == config.segment_bytes {
                let path = path.clone();
                spares.push(Spare { file, path });
                continue;
            }
        }
        disk.remove(path).map_err(Failure::of("delete", path))?;
    }
    Ok((spares, highest))
}
