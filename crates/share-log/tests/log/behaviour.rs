//! What the log does when nothing fails.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dovetail_share_log::{
    AcknowledgeError, AppendError, Config, OpenError, Position, RECORD_BYTES_MAX, ReadError,
    ShareLog,
};

use crate::support::{
    SEGMENT_BYTES, Unsynced, append, append_all, block_on, config, files, long_record, open,
    read_from, record, segments,
};

#[test]
fn records_come_back_in_their_order_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    // A directory that does not exist yet is made.
    let dir = dir.path().join("a/log");
    let (log, recovered) = ShareLog::open(&dir, config()).unwrap();
    assert_eq!((recovered.first, recovered.end), (Position(0), Position(0)));
    let expected: Vec<_> = (0..50).map(record).collect();
    for (position, record) in expected.iter().enumerate() {
        assert_eq!(append(&log, record), Position(position as u64));
    }
    assert_eq!(append(&log, b""), Position(50), "a record may be empty");
    assert_eq!(read_from(&log, Position(0))[..50], expected);
    drop(log);
    let (log, again) = ShareLog::open(&dir, config()).unwrap();
    assert_eq!((again.end, again.log_id), (Position(51), recovered.log_id));
    assert_eq!(read_from(&log, Position(3))[..47], expected[3..]);
}

#[test]
fn a_log_that_is_in_use_is_refused_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let refused = ShareLog::open(dir.path(), config()).err().unwrap();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    let reader = log.reader(Position(0)).unwrap();
    drop(log);
    // A reader holds it open: its files must not be recycled by another.
    assert!(ShareLog::open(dir.path(), config()).is_err());
    drop(reader);
    open(dir.path());
}

#[test]
fn what_was_taken_is_written_although_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for position in 0..500 {
        drop(block_on(log.append(&record(position))).unwrap());
    }
    drop(log);
    let (log, _) = open(dir.path());
    assert_eq!(
        read_from(&log, Position(0)),
        (0..500).map(record).collect::<Vec<_>>()
    );
}

#[test]
fn a_reader_follows_the_tail_over_segments_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let count = 2_000;
    let mut reader = log.reader(Position(0)).unwrap();
    let follower = std::thread::spawn(move || {
        let mut read = Vec::new();
        loop {
            match block_on(reader.wait()) {
                Ok(()) => {
                    let records = reader.read(100).unwrap();
                    assert!(!records.is_empty(), "woken for nothing");
                    read.extend(records.iter().map(|(_, record)| record.to_vec()));
                }
                Err(ReadError::Ended) => return read,
                Err(error) => panic!("{error}"),
            }
        }
    });
    for position in 0..count {
        // Now and then it gets to the tail.
        if position % 100 == 0 {
            append(&log, &long_record(position, 300));
        } else {
            drop(block_on(log.append(&long_record(position, 300))).unwrap());
        }
    }
    log.close();
    assert!(matches!(log.try_append(b"late"), Err(AppendError::Closed)));
    let read = follower.join().unwrap();
    assert_eq!(read.len() as u64, count);
    assert!((0..count).all(|at| read[at as usize] == long_record(at, 300)));
    assert!(segments(&files(dir.path())).len() > 3);
}

#[test]
fn threads_append_at_once_and_each_record_is_where_it_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let log = log.clone();
            std::thread::spawn(move || {
                let numbers = (0..200).map(|index| thread * 1_000 + index);
                let append = |number| (append(&log, &record(number)), number);
                numbers.map(append).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut said: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    said.sort_unstable();
    let read = read_from(&log, Position(0));
    assert_eq!(read.len(), said.len());
    for (index, (position, number)) in said.into_iter().enumerate() {
        assert_eq!(
            position.0, index as u64,
            "no position is given twice or left out"
        );
        assert_eq!(read[index], record(number));
    }
}

#[test]
fn what_is_acknowledged_is_deleted_and_stays_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for position in 0..18 {
        append(&log, &long_record(position, 30_000));
    }
    let mut late = log.reader(Position(0)).unwrap();
    assert_eq!(segments(&files(dir.path())).len(), 5);
    log.acknowledge(Position(11)).unwrap();
    log.acknowledge(Position(10)).unwrap();
    assert_eq!(log.acknowledged(), Position(11), "it never goes back");
    let gone = |error| {
        matches!(
            error,
            ReadError::Gone {
                first: Position(8),
                ..
            }
        )
    };
    assert!(gone(log.reader(Position(7)).err().unwrap()));
    assert!(gone(late.read(1).unwrap_err()));
    assert_eq!(
        log.acknowledge(Position(19)),
        Err(AcknowledgeError {
            upto: Position(19),
            end: Position(18)
        })
    );
    drop(late);
    drop(log);
    let left = segments(&files(dir.path()));
    assert_eq!(left[0], Path::new("00000000000000000008.segment"));
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.acknowledged, Position(11));
    assert_eq!(
        (recovered.first, recovered.end),
        (Position(8), Position(18))
    );
    assert_eq!(read_from(&log, Position(8))[0], long_record(8, 30_000));
    // All of it: only the current segment stays, and the log goes on.
    log.acknowledge(Position(18)).unwrap();
    append(&log, b"next");
    drop(log);
    assert_eq!(segments(&files(dir.path())).len(), 1);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.acknowledged, Position(18));
    assert_eq!(read_from(&log, Position(18)), [b"next"]);
    assert!(matches!(
        log.reader(Position(20)).err(),
        Some(ReadError::Ahead {
            wanted: Position(20),
            end: Position(19)
        })
    ));
}

#[test]
fn a_full_log_refuses_until_something_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let used = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap();
        let sizes = entries.map(|entry| entry.unwrap().metadata().map_or(0, |file| file.len()));
        sizes.sum::<u64>()
    };
    let mut count = 0;
    let mut was_near_full = false;
    let refused = loop {
        let near_full = log.room().near_full;
        assert!(near_full || !was_near_full);
        was_near_full = near_full;
        match block_on(log.append(&long_record(count, 30_000))) {
            Ok(appended) => block_on(appended.durable).unwrap(),
            Err(error) => break error,
        }
        count += 1;
        assert!(
            used(dir.path()) <= config().bytes_max + 8_192,
            "the bound is kept"
        );
        assert!(count < 100, "it never gets full");
    };
    let AppendError::Full {
        used_bytes,
        bytes_max,
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(count, 32, "four in each of eight segments");
    assert!(used_bytes <= bytes_max && used_bytes > bytes_max * 9 / 10);
    assert!(was_near_full && log.room().fraction() > 0.9);
    // Smaller ones still fit where it does not.
    append(&log, b"small");
    drop(log);
    let (log, _) = open(dir.path());
    assert!(matches!(
        log.try_append(&[0; 30_000]),
        Err(AppendError::Full { .. })
    ));
    log.acknowledge(Position(4)).unwrap();
    for position in 33..37 {
        append(&log, &long_record(position, 30_000));
    }
    assert!(matches!(
        log.try_append(&[0; 30_000]),
        Err(AppendError::Full { .. })
    ));
    log.acknowledge(log.end()).unwrap();
    assert!(!log.room().near_full);
    append(&log, &long_record(37, 30_000));
    assert!(used(dir.path()) <= config().bytes_max + SEGMENT_BYTES + 8_192);
}

#[test]
fn several_records_are_taken_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    append(&log, b"first");
    let long = vec![1; RECORD_BYTES_MAX];
    let too_long = vec![2; RECORD_BYTES_MAX + 1];
    // Over a segment's end, so that a planned segment is taken back as well.
    let records = [&long, &long, &long, &too_long];
    let room = log.room();
    assert!(matches!(
        log.try_append_all(&records),
        Err(AppendError::TooLong { bytes }) if bytes == RECORD_BYTES_MAX + 1
    ));
    assert_eq!(log.room(), room);
    assert_eq!(append_all(&log, &records[..3]), Position(1));
    append_all::<&[u8]>(&log, &[]);
    assert_eq!(append(&log, b"last"), Position(4));
    drop(log);
    let (log, _) = open(dir.path());
    let read = read_from(&log, Position(0));
    assert_eq!(
        read,
        [
            b"first".to_vec(),
            long.clone(),
            long.clone(),
            long,
            b"last".to_vec()
        ]
    );
}

#[test]
fn the_size_of_segments_may_change_and_spares_of_another_size_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for segment_bytes in [SEGMENT_BYTES, 2 * SEGMENT_BYTES, SEGMENT_BYTES] {
        let config = Config {
            segment_bytes,
            bytes_max: 16 * SEGMENT_BYTES,
            ..config()
        };
        let (log, _) = ShareLog::open_on(dir.path(), config, Arc::new(Unsynced)).unwrap();
        for _ in 0..12 {
            let record = long_record(expected.len() as u64, 30_000);
            append(&log, &record);
            expected.push(record);
        }
        assert_eq!(read_from(&log, Position(0)), expected);
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = [
        Config {
            segment_bytes: 4_096,
            ..config()
        },
        Config {
            segment_bytes: SEGMENT_BYTES + 1,
            ..config()
        },
        Config {
            segment_bytes: 2 << 30,
            bytes_max: 8 << 30,
            ..config()
        },
        Config {
            bytes_max: SEGMENT_BYTES,
            ..config()
        },
        Config {
            pending_bytes_max: 0,
            ..config()
        },
        Config {
            near_full: f64::NAN,
            ..config()
        },
    ];
    for wrong in wrong {
        let refused = ShareLog::open(dir.path(), wrong.clone()).err();
        assert!(matches!(refused, Some(OpenError::Config(_))), "{wrong:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
