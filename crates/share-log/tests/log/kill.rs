//! `kill -9` in the middle of appends, to a process of its own: this test binary, run again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dovetail_share_log::{Position, ShareLog};

use crate::support::{block_on, config, long_record, read_from};

const DIR: &str = "SHARE_LOG_KILL_TEST_DIR";
const IN_FLIGHT: usize = 100;

/// What a record at a position is, in every process.
fn record_at(position: u64) -> Vec<u8> {
    long_record(position, 100 + (position % 900) as usize)
}

/// Not a test: what the killed process does. It appends for ever, and says what is durable.
#[test]
#[ignore = "run by the test below, in a process that is killed"]
fn child_appends() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (log, recovered) = ShareLog::open(Path::new(&dir), config()).unwrap();
    let mut next = recovered.end.0;
    let mut waiting = std::collections::VecDeque::new();
    let say = |word: &str, number: u64| {
        let line = format!("\n{word} {number}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    loop {
        while waiting.len() < IN_FLIGHT {
            let appended = block_on(log.append(&record_at(next))).unwrap();
            assert_eq!(appended.position, Position(next));
            waiting.push_back(appended);
            next += 1;
        }
        for _ in 0..IN_FLIGHT / 2 {
            let appended = waiting.pop_front().unwrap();
            block_on(appended.durable).unwrap();
            say("durable", appended.position.0);
        }
        // It keeps some segments, and lets others be recycled.
        let upto = log.end().0.saturating_sub(300);
        say("acknowledged", upto);
        log.acknowledge(Position(upto)).unwrap();
    }
}

#[test]
fn what_was_durable_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rounds_with_records, mut end_before) = (0, 0);
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_appends", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut durable, mut acknowledged) = (None, 0);
        let hear = |line: &str, durable: &mut Option<u64>, acknowledged: &mut u64| {
            let Some((word, number)) = line.trim().split_once(' ') else {
                return;
            };
            match (word, number.parse()) {
                ("durable", Ok(number)) => *durable = Some(number),
                ("acknowledged", Ok(number)) => *acknowledged = number,
                _ => {}
            }
        };
        let mut line = String::new();
        while durable.is_none() {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended");
            hear(&line, &mut durable, &mut acknowledged);
        }
        std::thread::scope(|scope| {
            // At another moment in each round; its output must go on being read.
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(17 * round * round + 3));
                child.kill().unwrap();
                child.wait().unwrap();
            });
            loop {
                line.clear();
                if output.read_line(&mut line).unwrap() == 0 {
                    break;
                }
                // A line that was cut has no end.
                if line.ends_with('\n') {
                    hear(&line, &mut durable, &mut acknowledged);
                }
            }
        });
        let durable = durable.unwrap();
        let (log, recovered) = ShareLog::open(dir.path(), config()).unwrap();
        assert!(
            recovered.end.0 > durable,
            "{durable} was durable, and {recovered:?} is there"
        );
        assert!(recovered.end.0 <= durable + 1 + 2 * IN_FLIGHT as u64);
        assert!(recovered.first.0 <= recovered.acknowledged.0);
        assert!(recovered.acknowledged.0 <= acknowledged.max(end_before));
        let read = read_from(&log, recovered.first);
        let positions = recovered.first.0..recovered.end.0;
        assert_eq!(read.len() as u64, positions.end - positions.start);
        assert!(
            positions
                .zip(&read)
                .all(|(position, read)| *read == record_at(position))
        );
        rounds_with_records += u64::from(recovered.end.0 > end_before);
        end_before = recovered.end.0;
    }
    assert_eq!(rounds_with_records, 8);
}
