//! A disk that fails or is full.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_share_log::{
    AppendError, Config, Disk, DurabilityError, Position, ReadError, ShareLog,
};

use crate::support::{
    SEGMENT_BYTES, append, block_on, config, long_record, open, read_from, record, wait_for_spare,
};

/// What is asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Create,
    Write { bytes: usize },
    Sync,
    Rename,
    SyncDir,
}

type Rule = Box<dyn FnMut(Op) -> io::Result<()> + Send>;

/// Asks a rule before each operation. A failed write has written the first half of its bytes.
struct Ruled {
    rule: Mutex<Rule>,
}

impl Ruled {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            rule: Mutex::new(Box::new(|_| Ok(()))),
        })
    }

    fn set(&self, rule: impl FnMut(Op) -> io::Result<()> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    fn ask(&self, op: Op) -> io::Result<()> {
        (self.rule.lock().unwrap())(op)
    }
}

impl Disk for Ruled {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.ask(Op::Create)?;
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let asked = self.ask(Op::Write { bytes: bytes.len() });
        let count = if asked.is_ok() {
            bytes.len()
        } else {
            bytes.len() / 2
        };
        file.write_all_at(&bytes[..count], offset)?;
        asked
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.ask(Op::Sync)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Op::Rename)?;
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.ask(Op::SyncDir)
    }
}

fn open_ruled(dir: &Path, disk: &Arc<Ruled>) -> ShareLog {
    let disk: Arc<dyn Disk> = Arc::<Ruled>::clone(disk);
    ShareLog::open_on(dir, config(), disk).unwrap().0
}

fn poisoned_by_failed(is_failing: fn(Op) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ruled::new();
    let log = open_ruled(dir.path(), &disk);
    append(&log, &record(0));
    append(&log, &record(1));
    let mut reader = log.reader(Position(0)).unwrap();
    wait_for_spare(dir.path());
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    disk.set(move |op| {
        if is_failing(op) && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    });
    let waiting: Vec<_> = (2..20).map(|at| log.try_append(&record(at))).collect();
    let mut refused = 0;
    for appended in waiting {
        match appended {
            Ok(appended) => {
                let error = block_on(appended.durable).unwrap_err();
                let DurabilityError::Poisoned(failure) = error else {
                    panic!("{error}")
                };
                assert!(failure.to_string().contains("injected"), "{failure}");
            }
            // It was poisoned meanwhile.
            Err(AppendError::Poisoned(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused < 18, "none was taken");
    // The disk works again, and is not asked: a sync that succeeds now would prove nothing.
    assert!(matches!(
        log.try_append(b"late"),
        Err(AppendError::Poisoned(_))
    ));
    assert!(matches!(
        block_on(log.append(b"late")),
        Err(AppendError::Poisoned(_))
    ));
    assert!(log.failure().is_some());
    assert_eq!(failures.load(Ordering::SeqCst), 1, "it was tried again");
    assert_eq!(log.end(), Position(2));
    // What is durable can still be drained.
    assert_eq!(reader.read(10).unwrap().len(), 2);
    assert!(matches!(block_on(reader.wait()), Err(ReadError::Ended)));
    drop((log, reader));
    let (log, recovered) = open(dir.path());
    assert!(recovered.end >= Position(2));
    let expected: Vec<_> = (0..recovered.end.0).map(record).collect();
    assert_eq!(read_from(&log, Position(0)), expected);
    append(&log, b"goes on");
}

#[test]
fn a_failed_sync_stops_the_log_and_is_never_tried_again() {
    poisoned_by_failed(|op| op == Op::Sync);
}

#[test]
fn a_failed_write_stops_the_log_and_nothing_of_it_is_acknowledged() {
    poisoned_by_failed(|op| matches!(op, Op::Write { .. }));
}

#[test]
fn a_segment_that_cannot_get_its_name_stops_the_log() {
    for failing in [Op::Rename, Op::SyncDir] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Ruled::new();
        let log = open_ruled(dir.path(), &disk);
        wait_for_spare(dir.path());
        for position in 0..4 {
            append(&log, &long_record(position, 30_000));
        }
        disk.set(move |op| {
            if op == failing {
                Err(io::Error::other("injected"))
            } else {
                Ok(())
            }
        });
        let appended = log.try_append(&long_record(4, 30_000)).unwrap();
        let error = block_on(appended.durable).unwrap_err();
        assert!(
            matches!(error, DurabilityError::Poisoned(_)),
            "{failing:?}: {error}"
        );
        drop(log);
        let (log, recovered) = open(dir.path());
        assert_eq!(recovered.end, Position(4), "{failing:?}");
        append(&log, b"goes on");
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_stops_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ruled::new();
    let log = open_ruled(dir.path(), &disk);
    for position in 0..9 {
        append(&log, &long_record(position, 30_000));
    }
    // A checkpoint has 52 bytes.
    disk.set(|op| match op {
        Op::Write { bytes: 52 } => Err(io::Error::other("injected")),
        _ => Ok(()),
    });
    log.acknowledge(Position(8)).unwrap();
    for _ in 0..1_000 {
        if log.failure().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(
        log.try_append(b"late"),
        Err(AppendError::Poisoned(_))
    ));
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!(
        (recovered.acknowledged, recovered.end),
        (Position(0), Position(9))
    );
    assert_eq!(read_from(&log, Position(0)).len(), 9, "nothing was deleted");
}

#[test]
fn a_full_disk_refuses_records_until_there_is_space_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ruled::new();
    let log = open_ruled(dir.path(), &disk);
    wait_for_spare(dir.path());
    // Zeros that fill a file are written 64 KiB at a time.
    disk.set(|op| match op {
        Op::Write { bytes: 65_536 } => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    // What is allocated already is used.
    for position in 0..8 {
        append(&log, &long_record(position, 30_000));
    }
    let records: Vec<_> = (8..11).map(|at| long_record(at, 30_000)).collect();
    for _ in 0..20 {
        let appended = log.try_append_all(&records).unwrap();
        assert_eq!(appended.position, Position(8));
        let error = block_on(appended.durable).unwrap_err();
        let DurabilityError::NoSegment(failure) = error else {
            panic!("{error}")
        };
        assert_eq!(failure.kind, io::ErrorKind::StorageFull);
    }
    assert_eq!(log.end(), Position(8));
    assert!(log.failure().is_none());
    // A record that fits in the segment that is there is taken.
    assert_eq!(append(&log, b"small"), Position(8));
    disk.set(|_| Ok(()));
    let mut tries = 0;
    while let Err(error) = block_on(log.try_append_all(&records).unwrap().durable) {
        assert!(matches!(error, DurabilityError::NoSegment(_)), "{error}");
        tries += 1;
        assert!(tries < 50, "it never recovers");
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut expected: Vec<_> = (0..8).map(|at| long_record(at, 30_000)).collect();
    expected.push(b"small".to_vec());
    expected.extend(records);
    assert_eq!(read_from(&log, Position(0)), expected);
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.torn, None);
    assert_eq!(read_from(&log, Position(0)), expected);
}

#[test]
fn acknowledging_makes_room_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ruled::new();
    let log = open_ruled(dir.path(), &disk);
    wait_for_spare(dir.path());
    disk.set(|op| match op {
        Op::Write { bytes: 65_536 } | Op::Create => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    for position in 0..8 {
        append(&log, &long_record(position, 30_000));
    }
    let refused = block_on(log.try_append(&[0; 30_000]).unwrap().durable);
    assert!(matches!(refused, Err(DurabilityError::NoSegment(_))));
    log.acknowledge(Position(8)).unwrap();
    let mut tries = 0;
    while block_on(log.try_append(&[0; 30_000]).unwrap().durable).is_err() {
        tries += 1;
        assert!(tries < 500, "the recycled file is not used");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Panics when it is asked to write a record.
struct Panics;

impl Disk for Panics {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        assert!(bytes.len() != 40, "injected panic");
        file.write_all_at(bytes, offset)
    }
}

#[test]
fn a_panic_of_a_thread_stops_the_log_instead_of_hanging_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = ShareLog::open_on(dir.path(), config(), Arc::new(Panics)).unwrap();
    // A frame of 40 bytes.
    let appended = log.try_append(&[1; 16]).unwrap();
    let error = block_on(appended.durable).unwrap_err();
    assert!(matches!(error, DurabilityError::Poisoned(_)), "{error}");
    while log.failure().is_none() {
        std::thread::yield_now();
    }
    assert!(matches!(
        log.try_append(b"late"),
        Err(AppendError::Poisoned(_))
    ));
}

#[test]
fn a_disk_that_is_full_at_the_start_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ruled::new();
    disk.set(|op| match op {
        Op::Write { bytes: 65_536 } => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    let rule: Arc<dyn Disk> = Arc::<Ruled>::clone(&disk);
    let config = Config {
        segment_bytes: 2 * SEGMENT_BYTES,
        ..config()
    };
    assert!(ShareLog::open_on(dir.path(), config.clone(), rule).is_err());
    let used: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(used < SEGMENT_BYTES / 4, "{used} bytes are left");
    let (log, _) = ShareLog::open(dir.path(), config).unwrap();
    append(&log, b"goes on");
}

/// Remembers where was written, and `None` for a sync.
#[derive(Default)]
struct Noted(Mutex<Vec<Option<(u64, usize)>>>);

impl Disk for Noted {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.0.lock().unwrap().push(Some((offset, bytes.len())));
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.0.lock().unwrap().push(None);
        Ok(())
    }
}

#[test]
fn the_last_write_is_written_again_before_it_is_said_to_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ruled::new();
    let log = open_ruled(dir.path(), &disk);
    wait_for_spare(dir.path());
    append(&log, &[1; 16]);
    // Two frames of 40 bytes are in the page cache, perhaps as clean pages that never reached the disk.
    disk.set(|op| {
        if op == Op::Sync {
            Err(io::Error::other("injected"))
        } else {
            Ok(())
        }
    });
    let appended = log.try_append_all(&[[2; 16], [3; 16]]).unwrap();
    block_on(appended.durable).unwrap_err();
    drop(log);
    let disk = Arc::new(Noted::default());
    let noted: Arc<dyn Disk> = Arc::<Noted>::clone(&disk);
    let (_log, recovered) = ShareLog::open_on(dir.path(), config(), noted).unwrap();
    assert_eq!(recovered.end, Position(3));
    let noted = disk.0.lock().unwrap();
    let rewritten = noted
        .iter()
        .position(|write| *write == Some((4_096 + 40, 80)));
    let rewritten = rewritten.expect("it is not written again");
    assert_eq!(noted[rewritten + 1], None, "it is not synced");
}
