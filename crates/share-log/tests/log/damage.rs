//! Files that are cut, changed or gone: what was acknowledged is there or the log says that it is not, and nothing is
//! ever invented.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dovetail_share_log::{OpenError, Position, Recovered, ShareLog};

use crate::support::{
    Files, HEADER_BYTES, Unsynced, append, append_all, config, files, long_record, open, read_from,
    record, restore, segments,
};

/// A log in one segment: three records that are written one by one, then three in one write.
struct Written {
    dir: tempfile::TempDir,
    files: Files,
    segment: PathBuf,
    /// The bytes of the last write.
    last_write: Range<usize>,
}

const BEFORE: u64 = 3;
const ALL: u64 = 6;

fn written() -> Written {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for position in 0..BEFORE {
        append(&log, &record(position));
    }
    let segment = segments(&files(dir.path())).remove(0);
    let before = files(dir.path()).remove(&segment).unwrap();
    append_all(&log, &(BEFORE..ALL).map(record).collect::<Vec<_>>());
    drop(log);
    let files = files(dir.path());
    let after = &files[&segment];
    let differs = |at: &usize| before[*at] != after[*at];
    let start = (0..after.len()).find(differs).unwrap();
    let end = (0..after.len()).rfind(differs).unwrap() + 1;
    assert!(start > HEADER_BYTES && end - start > 100);
    Written {
        dir,
        files,
        segment,
        last_write: start..end,
    }
}

fn try_open(dir: &Path) -> Result<(ShareLog, Recovered), OpenError> {
    ShareLog::open_on(dir, config(), Arc::new(Unsynced))
}

/// The log opens with a prefix of what was appended, and goes on from there.
fn opens_with_a_prefix(dir: &Path, at_least: u64, what: &str) -> Recovered {
    let (log, recovered) = try_open(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let end = recovered.end.0;
    assert!((at_least..=ALL).contains(&end), "{what}: ends at {end}");
    let mut expected: Vec<_> = (0..end).map(record).collect();
    assert_eq!(read_from(&log, Position(0)), expected, "{what}");
    // As long as the first one of the last write: what is left of that must not follow it.
    let new = vec![0xee; record(BEFORE).len()];
    assert_eq!(append(&log, &new), recovered.end, "{what}");
    expected.push(new);
    drop(log);
    let (log, again) = try_open(dir).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!(again.torn, None, "{what}, again");
    assert_eq!(read_from(&log, Position(0)), expected, "{what}, again");
    recovered
}

#[test]
fn a_write_that_is_cut_at_any_byte_loses_only_its_own_records() {
    let written = written();
    let dir = written.dir.path();
    let mut full = 0;
    for cut in written.last_write.clone() {
        for after_it in ["nothing", "zeros", "garbage", "an old file's bytes"] {
            let mut files = written.files.clone();
            let bytes = files.get_mut(&written.segment).unwrap();
            match after_it {
                "nothing" => bytes.truncate(cut),
                "zeros" => bytes[cut..].fill(0),
                "garbage" => bytes[cut..].fill(0xa5),
                _ => {
                    let old = bytes[HEADER_BYTES..].to_vec();
                    let length = bytes.len() - cut;
                    bytes[cut..].copy_from_slice(&old[..length]);
                }
            }
            restore(dir, &files);
            let what = format!("cut at {cut}, {after_it} behind");
            let recovered = opens_with_a_prefix(dir, BEFORE, &what);
            full += u64::from(recovered.end.0 == ALL);
        }
    }
    // Only what ends in zeros may miss its end.
    assert!(full <= 32, "{full} cuts lost nothing");
}

#[test]
fn whole_records_behind_a_torn_one_are_cut_off_and_never_come_back() {
    let written = written();
    for torn in [0, 5, 30] {
        let mut files = written.files.clone();
        let bytes = files.get_mut(&written.segment).unwrap();
        let at = written.last_write.start + torn;
        bytes[at] ^= 0xff;
        restore(written.dir.path(), &files);
        let (log, recovered) = try_open(written.dir.path()).unwrap();
        assert_eq!(recovered.end, Position(BEFORE));
        let torn = recovered.torn.unwrap();
        assert_eq!(torn.path, written.dir.path().join(&written.segment));
        assert_eq!(torn.offset as usize, written.last_write.start);
        drop(log);
        restore(written.dir.path(), &files);
        opens_with_a_prefix(written.dir.path(), BEFORE, "torn in the middle");
    }
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let written = written();
    let dir = written.dir.path();
    let (mut refused, mut cut) = (0, 0);
    let header = 0..44;
    for at in header.chain(HEADER_BYTES..written.last_write.end + 64) {
        for flip in [0x01, 0x80, 0xff] {
            let mut files = written.files.clone();
            files.get_mut(&written.segment).unwrap()[at] ^= flip;
            restore(dir, &files);
            match try_open(dir) {
                Ok((log, recovered)) => {
                    // Whatever is before the last write had been durable when that began.
                    assert!(
                        at >= written.last_write.start,
                        "byte {at} ^ {flip:#x} is overlooked"
                    );
                    let end = recovered.end.0;
                    assert!((BEFORE..=ALL).contains(&end), "byte {at}");
                    let expected: Vec<_> = (0..end).map(record).collect();
                    assert_eq!(read_from(&log, Position(0)), expected, "byte {at}");
                    if at < written.last_write.end {
                        assert!(end < ALL, "byte {at} ^ {flip:#x} is overlooked");
                        cut += 1;
                    }
                }
                Err(error) => {
                    assert!(at < written.last_write.start, "byte {at}: {error}");
                    assert!(
                        matches!(error, OpenError::Corrupt { .. } | OpenError::Version { .. }),
                        "byte {at}: {error}"
                    );
                    let mut now = crate::support::files(dir);
                    now.remove(Path::new("lock"));
                    assert!(now == files, "byte {at}: a refused log was changed");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 300 && cut > 300, "{refused} refused, {cut} cut");
}

#[test]
fn damage_is_named_with_its_file_and_its_place() {
    let written = written();
    let mut files = written.files.clone();
    files.get_mut(&written.segment).unwrap()[HEADER_BYTES + 30] ^= 1;
    restore(written.dir.path(), &files);
    let error = try_open(written.dir.path()).err().unwrap();
    let OpenError::Corrupt {
        path,
        offset,
        position,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*path, written.dir.path().join(&written.segment));
    assert_eq!((*offset as usize, *position), (HEADER_BYTES, Position(0)));
    assert!(
        error.to_string().contains("Restore the file from a copy"),
        "{error}"
    );
}

/// A log in several segments, not acknowledged: the files, and how many records.
fn several_segments(dir: &Path) -> (Files, u64) {
    let (log, _) = open(dir);
    let count = 18;
    for position in 0..count {
        append(&log, &long_record(position, 30_000));
    }
    drop(log);
    let files = files(dir);
    assert_eq!(segments(&files).len(), 5);
    (files, count)
}

#[test]
fn a_changed_byte_in_an_earlier_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, count) = several_segments(dir.path());
    let names = segments(&whole);
    for name in &names[..names.len() - 1] {
        // Four records of 30,024 bytes.
        let records = HEADER_BYTES..HEADER_BYTES + 4 * 30_024;
        let heads = (0..4).flat_map(|index| {
            let start = HEADER_BYTES + index * 30_024;
            start..start + 28
        });
        for at in heads.chain(records.step_by(4_999)) {
            let mut files = whole.clone();
            files.get_mut(name).unwrap()[at] ^= 0x10;
            restore(dir.path(), &files);
            let error = try_open(dir.path()).err();
            let error = error.unwrap_or_else(|| panic!("{name:?}, byte {at} is overlooked"));
            assert!(
                matches!(error, OpenError::Corrupt { .. }),
                "byte {at}: {error}"
            );
        }
    }
    restore(dir.path(), &whole);
    let (log, _) = try_open(dir.path()).unwrap();
    assert_eq!(read_from(&log, Position(0)).len() as u64, count);
}

#[test]
fn a_missing_file_is_an_error_whichever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = several_segments(dir.path());
    let names = segments(&whole)
        .into_iter()
        .chain([PathBuf::from("checkpoint")]);
    for name in names {
        let mut files = whole.clone();
        files.remove(&name);
        restore(dir.path(), &files);
        let error = try_open(dir.path()).err();
        let error = error.unwrap_or_else(|| panic!("{name:?} is not missed"));
        assert!(
            matches!(error, OpenError::Missing { .. }),
            "{name:?}: {error}"
        );
    }
}

#[test]
fn a_file_of_another_place_or_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = several_segments(dir.path());
    let other = tempfile::tempdir().unwrap();
    let (foreign, _) = several_segments(other.path());
    let names = segments(&whole);
    for stranger in [&whole[&names[1]], &foreign[&names[2]]] {
        let mut files = whole.clone();
        files.insert(names[2].clone(), stranger.clone());
        restore(dir.path(), &files);
        let error = try_open(dir.path()).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_log_that_is_older_than_its_acknowledgement_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    append(&log, b"one");
    let old = files(dir.path());
    append(&log, b"two");
    log.acknowledge(Position(2)).unwrap();
    drop(log);
    let mut mixed = files(dir.path());
    let segment = segments(&mixed).remove(0);
    mixed.insert(segment.clone(), old[&segment].clone());
    restore(dir.path(), &mixed);
    let error = try_open(dir.path()).err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Behind {
                acknowledged: Position(2),
                end: Position(1)
            }
        ),
        "{error}"
    );
}

#[test]
fn a_damaged_checkpoint_never_acknowledges_more() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for position in 0..9 {
        append(&log, &long_record(position, 30_000));
    }
    log.acknowledge(Position(6)).unwrap();
    drop(log);
    let whole = files(dir.path());
    let (mut refused, mut opened) = (0, 0);
    for slot in [0, 4_096] {
        for at in slot..slot + 52 {
            let mut files = whole.clone();
            files.get_mut(Path::new("checkpoint")).unwrap()[at] ^= 0x40;
            restore(dir.path(), &files);
            match try_open(dir.path()) {
                Ok((log, recovered)) => {
                    opened += 1;
                    assert!(recovered.acknowledged <= Position(6), "byte {at}");
                    assert_eq!(recovered.end, Position(9), "byte {at}");
                    let expected: Vec<_> = (6..9).map(|at| long_record(at, 30_000)).collect();
                    assert_eq!(read_from(&log, Position(6)), expected);
                }
                Err(OpenError::Corrupt { path, .. }) => {
                    refused += 1;
                    assert_eq!(path, dir.path().join("checkpoint"), "byte {at}");
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
    assert!(opened >= 52, "{opened} opened, {refused} refused");
    let mut files = whole;
    let checkpoint = files.get_mut(Path::new("checkpoint")).unwrap();
    checkpoint.fill(0x55);
    restore(dir.path(), &files);
    assert!(matches!(
        try_open(dir.path()),
        Err(OpenError::Corrupt { .. })
    ));
}

#[test]
fn a_log_of_another_format_is_not_read() {
    let written = written();
    let mut files = written.files.clone();
    files.get_mut(&written.segment).unwrap()[8] = 2;
    restore(written.dir.path(), &files);
    let error = try_open(written.dir.path()).err().unwrap();
    assert!(
        matches!(error, OpenError::Version { version: 2, .. }),
        "{error}"
    );
}
