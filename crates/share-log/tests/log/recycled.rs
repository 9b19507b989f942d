//! Files that held other records before.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use dovetail_share_log::Position;

use crate::support::{
    HEADER_BYTES, append, files, first_of, open, read_from, record, restore, segments,
};

/// All records of one length, so that old ones lie exactly where new ones would.
fn equal_record(position: u64) -> Vec<u8> {
    let mut equal = record(position);
    equal.resize(1_000, 7);
    equal
}

#[test]
fn records_of_a_files_earlier_life_are_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered) = open(dir.path());
    let (mut count, mut inodes, mut segments_seen) = (0, BTreeSet::new(), BTreeSet::new());
    while segments_seen.len() < 12 {
        append(&log, &equal_record(count));
        count += 1;
        log.acknowledge(Position(count)).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "segment") {
                // It may be gone by now.
                inodes.extend(fs::metadata(&path).map(|file| file.ino()));
                segments_seen.insert(first_of(&path));
            }
        }
    }
    append(&log, &equal_record(count));
    count += 1;
    drop(log);
    assert!(inodes.len() < segments_seen.len(), "no file was recycled");

    // What lies behind the last record is an old one, whole and at its place.
    let whole = files(dir.path());
    let name = segments(&whole).pop().unwrap();
    let bytes = &whole[&name];
    let here = count - first_of(&name);
    let end = HEADER_BYTES + here as usize * (24 + 1_000);
    let old_position = u64::from_le_bytes(bytes[end + 8..end + 16].try_into().unwrap());
    assert!(
        old_position > 0 && old_position < count,
        "nothing old is there"
    );
    assert_eq!(bytes[end + 24..end + 1_024], equal_record(old_position));

    let (log, again) = open(dir.path());
    assert_eq!((again.end, again.torn), (Position(count), None));
    drop(log);

    // Not even if it had the position that is looked for.
    let mut forged = whole;
    let bytes = forged.get_mut(&name).unwrap();
    bytes[end + 8..end + 16].copy_from_slice(&count.to_le_bytes());
    restore(dir.path(), &forged);
    let (log, again) = open(dir.path());
    assert_eq!(again.end, Position(count));
    append(&log, b"new");
    assert_eq!(read_from(&log, Position(count)), [b"new"]);
    assert_eq!(log.log_id(), recovered.log_id);
}

#[test]
fn a_crash_while_a_file_changes_its_name_or_header_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for position in 0..300 {
        append(&log, &equal_record(position));
    }
    log.acknowledge(Position(200)).unwrap();
    drop(log);
    let whole = files(dir.path());
    let names = segments(&whole);
    let spare = whole
        .keys()
        .find(|name| name.extension().is_some_and(|end| end == "spare"));
    let spare = spare.expect("an acknowledged segment is kept").clone();
    // A spare has a segment's header already, but not its name; something unfinished is there as well.
    let mut crashed = whole.clone();
    let header = whole[&names[0]][..HEADER_BYTES].to_vec();
    crashed.get_mut(&spare).unwrap()[..HEADER_BYTES].copy_from_slice(&header);
    // An acknowledged file has its old name back, and the header of a later life.
    crashed.insert(
        "00000000000000000000.segment".into(),
        whole[&names[0]].clone(),
    );
    crashed.insert("77.unfinished".into(), vec![0; 10_000]);
    crashed.insert("checkpoint.unfinished".into(), vec![1; 10]);
    crashed.insert("99999999999999999999999.spare".into(), vec![1; 10]);
    crashed.insert("short.spare".into(), vec![1; 10]);
    restore(dir.path(), &crashed);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.end, Position(300));
    for position in 300..500 {
        append(&log, &equal_record(position));
    }
    let expected: Vec<_> = (200..500).map(equal_record).collect();
    assert_eq!(read_from(&log, Position(200)), expected);
    drop(log);
    let left = files(dir.path());
    let strange = |name: &&std::path::PathBuf| {
        let name = name.to_str().unwrap();
        name.contains("unfinished") || name.contains("short") || name.contains("999999")
    };
    assert_eq!(left.keys().find(strange), None);
}
