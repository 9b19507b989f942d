//! A disk that takes its time.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dovetail_share_log::{AppendError, Config, Disk, Position, ShareLog};

use crate::support::{
    SEGMENT_BYTES, append, block_on, config, long_record, read_from, record, wait_for_spare,
};

/// A door that the disk's syncs go through.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    writes: AtomicUsize,
}

impl Gate {
    fn set_shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.opened.notify_all();
    }
}

struct Gated(Arc<Gate>);

impl Disk for Gated {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        let mut is_shut = self.0.is_shut.lock().unwrap();
        while *is_shut {
            is_shut = self.0.opened.wait(is_shut).unwrap();
        }
        Ok(())
    }
}

#[test]
fn a_record_is_not_durable_before_its_sync_and_all_that_waits_shares_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Gated(Arc::clone(&gate)));
    let (log, _) = ShareLog::open_on(dir.path(), config(), disk).unwrap();
    wait_for_spare(dir.path());
    append(&log, &record(0));
    gate.set_shut(true);
    let before = gate.writes.load(Ordering::SeqCst);
    let mut first = log.try_append(&record(1)).unwrap();
    while gate.writes.load(Ordering::SeqCst) == before {
        std::thread::yield_now();
    }
    // The first one is written and is being synced; these wait.
    let others: Vec<_> = (2..200)
        .map(|at| log.try_append(&record(at)).unwrap())
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    let early = block_on(async {
        tokio::time::timeout(Duration::from_millis(50), &mut first.durable).await
    });
    assert!(early.is_err(), "durable before the sync");
    assert_eq!(log.end(), Position(1));
    let mut reader = log.reader(Position(0)).unwrap();
    assert_eq!(reader.read(10).unwrap().len(), 1, "read before the sync");
    gate.set_shut(false);
    block_on(first.durable).unwrap();
    for appended in others {
        block_on(appended.durable).unwrap();
    }
    assert_eq!(gate.writes.load(Ordering::SeqCst) - before, 2);
    assert_eq!(read_from(&log, Position(0)).len(), 200);
}

#[test]
fn what_waits_for_the_disk_is_bounded_and_append_waits_for_space() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Gated(Arc::clone(&gate)));
    let (log, _) = ShareLog::open_on(dir.path(), config(), disk).unwrap();
    gate.set_shut(true);
    let (mut taken, mut waiting) = (0, Vec::new());
    loop {
        match log.try_append(&long_record(taken, 1_000)) {
            Ok(appended) => waiting.push(appended),
            Err(AppendError::Busy) => break,
            Err(error) => panic!("{error}"),
        }
        taken += 1;
        assert!(taken < 1_000, "it is not bounded");
    }
    let opener = {
        let gate = Arc::clone(&gate);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            gate.set_shut(false);
        })
    };
    block_on(async {
        let appended = log.append(&long_record(taken, 1_000)).await.unwrap();
        assert_eq!(appended.position, Position(taken));
        appended.durable.await.unwrap();
        for appended in waiting {
            appended.durable.await.unwrap();
        }
    });
    opener.join().unwrap();
}

#[test]
fn a_file_that_is_becoming_a_segment_counts_towards_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Gated(Arc::clone(&gate)));
    let config = Config {
        bytes_max: 2 * SEGMENT_BYTES,
        ..config()
    };
    let (log, _) = ShareLog::open_on(dir.path(), config, disk).unwrap();
    wait_for_spare(dir.path());
    for position in 0..4 {
        append(&log, &long_record(position, 30_000));
    }
    gate.set_shut(true);
    // The spare's header is being synced.
    let appended = log.try_append(&long_record(4, 30_000)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "lock" && name != "checkpoint")
        .collect();
    gate.set_shut(false);
    block_on(appended.durable).unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
}
