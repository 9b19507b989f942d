//! What the tests share: small configurations, disks that misbehave, and copies of a log's files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dovetail_share_log::{Config, Disk, Position, Recovered, ShareLog};

pub(crate) const SEGMENT_BYTES: u64 = 128 * 1_024;
/// Where a segment's records begin.
pub(crate) const HEADER_BYTES: usize = 4_096;

/// Eight of the smallest segments.
pub(crate) fn config() -> Config {
    Config {
        segment_bytes: SEGMENT_BYTES,
        bytes_max: 8 * SEGMENT_BYTES,
        pending_bytes_max: 64 * 1_024,
        ..Config::default()
    }
}

/// Real files without real syncs: for tests that open a log thousands of times and cut no power.
pub(crate) struct Unsynced;

impl Disk for Unsynced {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn open(dir: &Path) -> (ShareLog, Recovered) {
    ShareLog::open_on(dir, config(), Arc::new(Unsynced)).unwrap()
}

/// Runs a future, but not for ever.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("it hangs")
}

/// Appends a record and waits until it is durable.
pub(crate) fn append(log: &ShareLog, record: &[u8]) -> Position {
    append_all(log, &[record])
}

/// Appends records in one write and waits until they are durable.
pub(crate) fn append_all<R: AsRef<[u8]>>(log: &ShareLog, records: &[R]) -> Position {
    block_on(async {
        let appended = log.append_all(records).await.unwrap();
        appended.durable.await.unwrap();
        appended.position
    })
}

/// All records from a position to the end.
pub(crate) fn read_from(log: &ShareLog, from: Position) -> Vec<Vec<u8>> {
    let mut reader = log.reader(from).unwrap();
    let mut read = Vec::new();
    while reader.position() < log.end() {
        let records = reader.read(7).unwrap();
        assert!(!records.is_empty(), "nothing is read before the end");
        for (position, record) in records.iter() {
            assert_eq!(position.0, from.0 + read.len() as u64);
            read.push(record.to_vec());
        }
        assert_eq!(records.end(), reader.position());
    }
    read
}

/// What a record at a position must be: of a length and content of its own.
pub(crate) fn record(position: u64) -> Vec<u8> {
    let length = 8 + (position * 37 % 90) as usize;
    let seed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let content = seed.to_le_bytes().into_iter().cycle();
    content.take(length).collect()
}

/// Like [`record`], all of one length.
pub(crate) fn long_record(position: u64, length: usize) -> Vec<u8> {
    let mut long = record(position);
    long.resize(length, position as u8);
    long
}

/// A directory's files, without the lock.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn files(dir: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name != "lock") {
            // A spare may get its name meanwhile.
            if let Ok(bytes) = fs::read(&path) {
                files.insert(path.file_name().unwrap().into(), bytes);
            }
        }
    }
    files
}

pub(crate) fn restore(dir: &Path, files: &Files) {
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// The names of a directory's segments, ascending.
pub(crate) fn segments(files: &Files) -> Vec<PathBuf> {
    let is_segment = |name: &&PathBuf| name.extension().is_some_and(|end| end == "segment");
    files.keys().filter(is_segment).cloned().collect()
}

/// The position in a segment's name.
pub(crate) fn first_of(name: &Path) -> u64 {
    name.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// Until the keeper has made a segment ahead, the disk is not quiet.
pub(crate) fn wait_for_spare(dir: &Path) {
    for _ in 0..1_000 {
        let mut entries = fs::read_dir(dir).unwrap();
        if entries.any(|entry| {
            entry
                .unwrap()
                .path()
                .extension()
                .is_some_and(|end| end == "spare")
        }) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no spare is made");
}
