//! A record as bytes in a segment. All numbers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | the segment's tag |
//! | 4..8 | the record's length in bytes |
//! | 8..16 | its position |
//! | 16..20 | how many records of the same write come before it |
//! | 20..24 | CRC-32C over the 20 bytes above, the record and its padding |
//! | 24.. | the record, padded with zeros to a multiple of 8 |
//!
//! The tag says of which segment of which log the record is, so that what a recycled file held before is never taken
//! for a record. The number of records before it in the same write tells a torn write from damage: a write begins only
//! once the one before it is durable, so whatever precedes a write that was begun must be whole.

use crc::{CRC_32_ISCSI, Crc, Table};

use crate::Position;
use crate::place::POSITION_MAX;

/// The longest record in bytes. A share has some hundred.
pub const RECORD_BYTES_MAX: usize = 64 * 1_024;
/// Bytes before a record.
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// Frames begin at multiples of it, so that a search needs not look at every byte.
pub(crate) const FRAME_ALIGN: usize = 8;

/// CRC-32C, sixteen bytes at a time.
pub(crate) static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// A segment's mark on its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u32);

impl Tag {
    pub(crate) fn new(log_id: u64, segment: Position) -> Self {
        let mut digest = CRC.digest();
        digest.update(&log_id.to_le_bytes());
        digest.update(&segment.0.to_le_bytes());
        Self(digest.finalize())
    }
}

/// How many bytes a record of this length takes.
pub(crate) const fn frame_bytes(record_bytes: usize) -> usize {
    FRAME_HEADER_BYTES + record_bytes.next_multiple_of(FRAME_ALIGN)
}

/// What a frame says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) position: Position,
    pub(crate) record_bytes: usize,
    /// The first record of the same write.
    pub(crate) group: Position,
    crc: u32,
}

/// Appends a record's frame. The caller has checked its length.
pub(crate) fn encode(
    into: &mut Vec<u8>,
    tag: Tag,
    position: Position,
    group_index: u32,
    record: &[u8],
) {
    let start = into.len();
    let length = u32::try_from(record.len()).expect("checked against RECORD_BYTES_MAX");
    into.extend_from_slice(&tag.0.to_le_bytes());
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&position.0.to_le_bytes());
    into.extend_from_slice(&group_index.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(record);
    into.resize(start + frame_bytes(record.len()), 0);
    let crc = checksum(&into[start..]).to_le_bytes();
    into[start + 20..start + 24].copy_from_slice(&crc);
}

/// Reads a frame's first bytes. `None`: they are not a frame of this segment.
pub(crate) fn header(bytes: &[u8], tag: Tag) -> Option<FrameHeader> {
    let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
    if u32_at(bytes, 0) != tag.0 {
        return None;
    }
    let record_bytes = usize::try_from(u32_at(bytes, 4)).ok()?;
    let position = u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32;
    let group = position.checked_sub(u64::from(u32_at(bytes, 16)))?;
    // The position after it must be one as well.
    (record_bytes <= RECORD_BYTES_MAX && position < POSITION_MAX).then_some(FrameHeader {
        position: Position(position),
        record_bytes,
        group: Position(group),
        crc: u32_at(bytes, 20),
    })
}

/// Whether a whole frame, from its header to its padding, is what was written.
pub(crate) fn is_whole(frame: &[u8], header: &FrameHeader) -> bool {
    frame.len() == frame_bytes(header.record_bytes) && checksum(frame) == header.crc
}

fn checksum(frame: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&frame[..20]);
    digest.update(&frame[FRAME_HEADER_BYTES..]);
    digest.finalize()
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader does: header first, then the whole.
    fn decode(bytes: &[u8], tag: Tag) -> Option<(FrameHeader, Vec<u8>)> {
        let header = header(bytes, tag)?;
        let frame = bytes.get(..frame_bytes(header.record_bytes))?;
        let record = &frame[FRAME_HEADER_BYTES..][..header.record_bytes];
        is_whole(frame, &header).then(|| (header, record.to_vec()))
    }

    #[test]
    fn the_checksum_is_the_one_that_is_named() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_no_changed_bit_does(
            record in proptest::collection::vec(any::<u8>(), 0..300),
            position in 5u64..1_000_000_000_000,
            group_index in 0u32..5,
            flip in any::<proptest::sample::Index>(),
        ) {
            let tag = Tag::new(7, Position(1));
            let mut bytes = Vec::new();
            encode(&mut bytes, tag, Position(position), group_index, &record);
            prop_assert_eq!(bytes.len() % FRAME_ALIGN, 0);
            let (header, read) = decode(&bytes, tag).unwrap();
            prop_assert_eq!(header.position, Position(position));
            prop_assert_eq!(header.group, Position(position - u64::from(group_index)));
            prop_assert_eq!(read, record);
            prop_assert!(decode(&bytes, Tag::new(7, Position(2))).is_none());
            prop_assert!(decode(&bytes, Tag::new(8, Position(1))).is_none());
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, tag).is_none());
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let tag = Tag::new(1, Position(1));
            if let Some(start) = bytes.first_chunk_mut() {
                *start = tag.0.to_le_bytes();
            }
            prop_assert!(decode(&bytes, tag).is_none());
        }
    }
}
