//! What waits for the disk, and where it will go. Pure: no file is touched and nobody waits in here.
//!
//! An append gets its position and its place in a segment at once, so whether there is room is known when it is asked
//! for, and the bytes that wait are already those that will be written.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::config::Config;
use crate::error::{AppendError, DurabilityError};
use crate::frame::{self, RECORD_BYTES_MAX, Tag, frame_bytes};
use crate::log::Room;
use crate::place::{Place, Position};
use crate::segment::HEADER_BYTES;

/// A segment that counts towards the log's size: one with records that are not acknowledged, or the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) first: Position,
    pub(crate) size: u64,
}

/// Somebody who waits until a record is durable.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) position: Position,
    pub(crate) answer: oneshot::Sender<Result<(), DurabilityError>>,
}

/// What goes into one segment in one write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Where its first byte goes.
    pub(crate) place: Place,
    /// Where its bytes end in [`Batch::bytes`]; they begin where those of the part before end.
    pub(crate) bytes_end: usize,
    /// The position after its last record.
    pub(crate) end: Position,
}

/// What is written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    /// In the order of their positions.
    pub(crate) waiters: Vec<Waiter>,
}

impl Batch {
    /// Empties it and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.waiters.clear();
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    config: Config,
    log_id: u64,
    pending: Batch,
    /// The next record's position ..
    next: Position,
    /// .. its place, if it fits there ..
    plan: Place,
    /// .. and the tag of that segment.
    tag: Tag,
    /// How many records wait to be written to the planned segment.
    group_records: u32,
    /// Ascending, with those that are only planned. Never empty.
    live: VecDeque<Live>,
}

/// What an append changes, to take it back.
struct Mark {
    bytes: usize,
    parts: usize,
    last_part: Option<Part>,
    next: Position,
    plan: Place,
    tag: Tag,
    group_records: u32,
    live: usize,
}

impl Queue {
    /// `next` goes to `plan`, which is in the last of the live segments.
    pub(crate) fn new(
        config: Config,
        log_id: u64,
        live: VecDeque<Live>,
        next: Position,
        plan: Place,
    ) -> Self {
        assert_eq!(live.back().map(|last| last.first), Some(plan.segment));
        Self {
            config,
            log_id,
            pending: Batch::default(),
            next,
            plan,
            tag: Tag::new(log_id, plan.segment),
            group_records: 0,
            live,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.parts.is_empty()
    }

    /// Queues records, all or none; the first one's position. One call's records may exceed what may wait.
    pub(crate) fn push<R: AsRef<[u8]>>(
        &mut self,
        records: &[R],
        answer: oneshot::Sender<Result<(), DurabilityError>>,
    ) -> Result<Position, AppendError> {
        if self.pending.bytes.len() >= self.config.pending_bytes_max {
            return Err(AppendError::Busy);
        }
        let first = self.next;
        if records.is_empty() {
            // Nothing is not waited for. The caller may have gone.
            let _ = answer.send(Ok(()));
            return Ok(first);
        }
        let mark = self.mark();
        for record in records {
            if let Err(error) = self.push_one(record.as_ref()) {
                self.take_back(&mark);
                return Err(error);
            }
        }
        self.pending.waiters.push(Waiter {
            position: Position(self.next.0.saturating_sub(1)),
            answer,
        });
        Ok(first)
    }

    fn push_one(&mut self, record: &[u8]) -> Result<(), AppendError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(AppendError::TooLong {
                bytes: record.len(),
            });
        }
        let frame_bytes = frame_bytes(record.len()) as u64;
        if self.plan.offset + frame_bytes > self.plan.size {
            self.plan_segment()?;
        }
        let last = self.pending.parts.last();
        if last.is_none_or(|part| part.place.segment != self.plan.segment) {
            self.pending.parts.push(Part {
                place: self.plan,
                bytes_end: self.pending.bytes.len(),
                end: self.next,
            });
            self.group_records = 0;
        }
        let bytes = &mut self.pending.bytes;
        frame::encode(bytes, self.tag, self.next, self.group_records, record);
        self.next = Position(self.next.0 + 1);
        self.plan.offset += frame_bytes;
        self.group_records += 1;
        if let Some(part) = self.pending.parts.last_mut() {
            part.bytes_end = self.pending.bytes.len();
            part.end = self.next;
        }
        Ok(())
    }

    fn plan_segment(&mut self) -> Result<(), AppendError> {
        let size = self.config.segment_bytes;
        if self.live_bytes() + size > self.config.bytes_max {
            return Err(AppendError::Full {
                used_bytes: self.used_bytes(),
                bytes_max: self.config.bytes_max,
            });
        }
        self.live.push_back(Live {
            first: self.next,
            size,
        });
        self.plan = Place {
            segment: self.next,
            size,
            offset: HEADER_BYTES,
        };
        self.tag = Tag::new(self.log_id, self.next);
        Ok(())
    }

    fn mark(&self) -> Mark {
        Mark {
            bytes: self.pending.bytes.len(),
            parts: self.pending.parts.len(),
            last_part: self.pending.parts.last().copied(),
            next: self.next,
            plan: self.plan,
            tag: self.tag,
            group_records: self.group_records,
            live: self.live.len(),
        }
    }

    fn take_back(&mut self, mark: &Mark) {
        self.pending.bytes.truncate(mark.bytes);
        self.pending.parts.truncate(mark.parts);
        if let (Some(part), Some(was)) = (self.pending.parts.last_mut(), mark.last_part) {
            *part = was;
        }
        self.next = mark.next;
        self.plan = mark.plan;
        self.tag = mark.tag;
        self.group_records = mark.group_records;
        self.live.truncate(mark.live);
    }

    /// Exchanges all that waits for an empty batch.
    pub(crate) fn take(&mut self, batch: &mut Batch) {
        std::mem::swap(&mut self.pending, batch);
        self.group_records = 0;
    }

    /// Forgets all that is not written: records go on at `next` in `written`. Who waited for what waited is returned.
    pub(crate) fn rewind(&mut self, next: Position, written: Place) -> Vec<Waiter> {
        let waiters = std::mem::take(&mut self.pending.waiters);
        self.pending.clear();
        self.next = next;
        self.plan = written;
        self.tag = Tag::new(self.log_id, written.segment);
        self.group_records = 0;
        while self
            .live
            .back()
            .is_some_and(|last| last.first > written.segment)
        {
            self.live.pop_back();
        }
        waiters
    }

    /// Takes out the segments whose records are all below `upto`. The one that is written to stays, even if it is
    /// full and the next one is planned: if that cannot be made, records that fit go on in this one.
    pub(crate) fn release(&mut self, upto: Position, written: Place) -> Vec<Live> {
        let mut released = Vec::new();
        // A segment ends where the next one begins.
        let ends_by = |next: &Live| next.first <= upto && next.first <= written.segment;
        while self.live.get(1).is_some_and(ends_by) {
            released.extend(self.live.pop_front());
        }
        released
    }

    /// The first record that can be read.
    pub(crate) fn first(&self) -> Position {
        self.live.front().map_or(self.next, |live| live.first)
    }

    /// The segment that holds a record.
    pub(crate) fn segment_of(&self, position: Position) -> Option<Live> {
        let index = self.live.partition_point(|live| live.first <= position);
        index
            .checked_sub(1)
            .and_then(|index| self.live.get(index))
            .copied()
    }

    /// How many segments are planned that do not exist yet.
    pub(crate) fn planned(&self, written: Place) -> usize {
        let is_planned = |live: &&Live| live.first > written.segment;
        self.live.iter().rev().take_while(is_planned).count()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.iter().map(|live| live.size).sum()
    }

    fn used_bytes(&self) -> u64 {
        self.live_bytes() - (self.plan.size - self.plan.offset)
    }

    pub(crate) fn room(&self) -> Room {
        Room::new(self.used_bytes(), &self.config)
    }
}
