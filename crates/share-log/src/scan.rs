//! Walks through a segment's frames, and judges what comes after the last whole one.

use std::fs::File;
use std::io;

use crate::Position;
use crate::frame::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, Tag, frame_bytes};
use crate::segment::{HEADER_BYTES, SegmentHeader};
use crate::window::Window;

/// The whole frame at `offset`: its header and its record. `None` if there is none.
pub(crate) fn frame_at<'a>(
    window: &'a mut Window,
    file: &File,
    size: u64,
    offset: u64,
    tag: Tag,
) -> io::Result<Option<(FrameHeader, &'a [u8])>> {
    let start = window.bytes(file, offset, FRAME_HEADER_BYTES)?;
    let Some(header) = frame::header(start, tag) else {
        return Ok(None);
    };
    let length = frame_bytes(header.record_bytes);
    if offset.saturating_add(length as u64) > size {
        return Ok(None);
    }
    let frame = window.bytes(file, offset, length)?;
    if !frame::is_whole(frame, &header) {
        return Ok(None);
    }
    let record = &frame[FRAME_HEADER_BYTES..][..header.record_bytes];
    Ok(Some((header, record)))
}

/// Where a segment's records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walk {
    /// The position after the last record.
    pub(crate) end: Position,
    /// The byte after it.
    pub(crate) offset: u64,
    /// Where the last write began.
    pub(crate) group_offset: u64,
}

/// Walks through the records from the first one up to what is none.
pub(crate) fn walk(window: &mut Window, file: &File, header: &SegmentHeader) -> io::Result<Walk> {
    window.forget();
    let mut walk = Walk {
        end: header.first,
        offset: HEADER_BYTES,
        group_offset: HEADER_BYTES,
    };
    while let Some((frame, _)) = frame_at(window, file, header.size, walk.offset, header.tag())? {
        if frame.position != walk.end {
            break;
        }
        if frame.group == frame.position {
            walk.group_offset = walk.offset;
        }
        walk.offset += frame_bytes(frame.record_bytes) as u64;
        walk.end = Position(walk.end.0 + 1);
    }
    Ok(walk)
}

/// What a segment holds where its records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Remains {
    /// Something of this segment lies there: a write was torn.
    pub(crate) torn: bool,
    /// A whole record of a later write lies there, at this byte. Since a write begins only once the one before it is
    /// durable, the record where the walk ended had been durable: this is damage.
    pub(crate) later_write: Option<u64>,
}

/// Looks through all that comes after a walk.
pub(crate) fn remains(
    window: &mut Window,
    file: &File,
    header: &SegmentHeader,
    walk: &Walk,
) -> io::Result<Remains> {
    const STEP: usize = 64 * 1_024;
    let tag = header.tag();
    let mark = tag.0.to_le_bytes();
    let mut remains = Remains::default();
    let mut hits = Vec::with_capacity(STEP / FRAME_ALIGN);
    let mut offset = walk.offset;
    while offset < header.size {
        let chunk = window.bytes(file, offset, STEP)?;
        if chunk.is_empty() {
            break;
        }
        hits.clear();
        for (index, word) in chunk.chunks(FRAME_ALIGN).enumerate() {
            if word.starts_with(&mark) {
                hits.push(offset + (index * FRAME_ALIGN) as u64);
            }
        }
        remains.torn |= !hits.is_empty();
        for &at in &hits {
            let found = frame_at(window, file, header.size, at, tag)?;
            if found.is_some_and(|(frame, _)| frame.group > walk.end) {
                remains.later_write = Some(at);
                return Ok(remains);
            }
        }
        offset += STEP as u64;
    }
    Ok(remains)
}
