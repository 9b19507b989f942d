//! Power cuts, at each operation on the disk in turn: what was written and not synced is kept or lost sector by
//! sector, and names that were not synced are as before. A seed decides; it is printed with a failure.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dovetail_share_log::{Disk, Position, ShareLog};

use crate::support::{block_on, config, long_record, open, read_from};

const SECTOR_BYTES: u64 = 512;

/// What a file had at an offset before it was written there.
struct Before {
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct State {
    operations_left: u64,
    has_power: bool,
    /// By inode.
    unsynced: HashMap<u64, Vec<Before>>,
    renames: Vec<(PathBuf, PathBuf)>,
}

/// Remembers what a power cut can take back, and fails from one operation on.
#[derive(Default)]
struct Volatile(Mutex<State>);

impl Volatile {
    fn step(state: &mut State) -> io::Result<()> {
        state.has_power &= state.operations_left > 0;
        state.operations_left = state.operations_left.saturating_sub(1);
        if state.has_power {
            Ok(())
        } else {
            Err(io::Error::other("no power"))
        }
    }
}

impl Disk for Volatile {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let had_power = state.has_power;
        let cut = Self::step(&mut state);
        if !had_power {
            return cut;
        }
        // The write that the cut hits still reaches the disk's cache.
        let mut before = vec![0; bytes.len()];
        let mut held = 0;
        while held < before.len() {
            match file.read_at(&mut before[held..], offset + held as u64)? {
                0 => break,
                read => held += read,
            }
        }
        let inode = file.metadata()?.ino();
        let unsynced = state.unsynced.entry(inode).or_default();
        unsynced.push(Before {
            offset,
            bytes: before,
        });
        file.write_all_at(bytes, offset)?;
        cut
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        state.unsynced.remove(&file.metadata()?.ino());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        fs::rename(from, to)?;
        state.renames.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Self::step(&mut self.0.lock().unwrap())?;
        fs::remove_file(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        state.renames.clear();
        Ok(())
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Leaves in the directory what a disk may have after the cut.
fn lose(dir: &Path, state: &mut State, random: &mut Random) {
    // How much survives: nothing, all, or a part.
    let kept_of_four = random.below(5);
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(unsynced) = state.unsynced.get(&fs::metadata(&path).unwrap().ino()) else {
            continue;
        };
        let file = File::options().write(true).open(&path).unwrap();
        for before in unsynced.iter().rev() {
            let end = before.offset + before.bytes.len() as u64;
            let mut at = before.offset;
            while at < end {
                let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                if random.below(4) >= kept_of_four {
                    let range = (at - before.offset) as usize..(next - before.offset) as usize;
                    file.write_all_at(&before.bytes[range], at).unwrap();
                }
                at = next;
            }
        }
    }
    let kept = random.below(state.renames.len() as u64 + 1) as usize;
    for (from, to) in state.renames.drain(kept..).rev() {
        fs::rename(to, from).unwrap();
    }
}

/// Runs a log until the power is cut at an operation; what was durable, and acknowledged, by then.
fn run_until_cut(dir: &Path, disk: &Arc<Volatile>) -> Option<(u64, u64)> {
    let disk: Arc<dyn Disk> = Arc::<Volatile>::clone(disk);
    let (log, recovered) = ShareLog::open_on(dir, config(), disk).ok()?;
    let (mut durable, mut acknowledged) = (recovered.end.0, recovered.acknowledged.0);
    for round in 0..40 {
        // Groups of several records, some over a segment's end.
        let count = 1 + round % 5;
        let records: Vec<_> = (durable..durable + count)
            .map(|position| long_record(position, 200 + position as usize % 7 * 2_900))
            .collect();
        let Ok(appended) = log.try_append_all(&records) else {
            break;
        };
        if block_on(appended.durable).is_err() {
            break;
        }
        durable += count;
        if round % 6 == 5 {
            acknowledged = durable - 10;
            log.acknowledge(Position(acknowledged)).unwrap();
        }
    }
    Some((durable, acknowledged))
}

#[test]
fn what_was_durable_survives_a_power_cut_at_any_operation() {
    let (mut torn, mut cut_in_run) = (0, 0);
    for operation in 0..150 {
        for seed in 1..=3u64 {
            let what = format!("operation {operation}, seed {seed}");
            let mut random = Random(seed * 1_000_003 + operation + 1);
            let dir = tempfile::tempdir().unwrap();
            let (mut durable, mut acknowledged) = (0, 0);
            // Then again, early in the next run: what that one found must be durable as well.
            for operations in [operation, random.below(40)] {
                let disk = Arc::new(Volatile::default());
                {
                    let mut state = disk.0.lock().unwrap();
                    (state.operations_left, state.has_power) = (operations, true);
                }
                if let Some(ran) = run_until_cut(dir.path(), &disk) {
                    (durable, acknowledged) = ran;
                    cut_in_run += 1;
                }
                lose(dir.path(), &mut disk.0.lock().unwrap(), &mut random);
            }
            let opened = ShareLog::open(dir.path(), config());
            let (log, recovered) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            torn += u32::from(recovered.torn.is_some());
            assert!(
                recovered.end.0 >= durable,
                "{what}: {durable} lost, {recovered:?}"
            );
            assert!(recovered.acknowledged.0 <= acknowledged, "{what}");
            let check = |log: &ShareLog, to: u64| {
                let read = read_from(log, recovered.first);
                for (position, read) in (recovered.first.0..to).zip(&read) {
                    let length = 200 + position as usize % 7 * 2_900;
                    assert_eq!(*read, long_record(position, length), "{what}");
                }
                read.len() as u64 - (to - recovered.first.0)
            };
            assert_eq!(check(&log, recovered.end.0), 0, "{what}");
            let appended = log.try_append(b"new").unwrap();
            block_on(appended.durable).unwrap();
            drop(log);
            let (log, again) = open(dir.path());
            assert_eq!(again.torn, None, "{what}");
            assert_eq!(again.end.0, recovered.end.0 + 1, "{what}");
            assert_eq!(check(&log, recovered.end.0), 1, "{what}");
        }
    }
    assert!(
        torn > 20 && cut_in_run > 300,
        "{torn} torn, {cut_in_run} in runs"
    );
}
