//! Random operations against a small model of what a log is.

use std::sync::Arc;

use dovetail_share_log::{AppendError, Config, Position, ReadError, Recovered, ShareLog};
use proptest::prelude::*;

use crate::support::{SEGMENT_BYTES, Unsynced, block_on, config};

#[derive(Debug, Clone)]
enum Step {
    /// Records of these lengths, in one call.
    Append(Vec<usize>),
    /// This part, in percent, of what is not acknowledged.
    Acknowledge(u64),
    /// From a position in percent of what there is and a little more.
    Read(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(prop_oneof![0..300usize, 0..20_000usize], 1..6).prop_map(Step::Append),
        2 => (0..=100u64).prop_map(Step::Acknowledge),
        3 => (0..=110u64).prop_map(Step::Read),
        1 => Just(Step::Reopen),
    ]
}

const SEGMENTS: u64 = 4;

struct Model {
    records: Vec<Vec<u8>>,
    acknowledged: u64,
}

fn open(dir: &std::path::Path) -> (ShareLog, Recovered) {
    let config = Config {
        bytes_max: SEGMENTS * SEGMENT_BYTES,
        ..config()
    };
    ShareLog::open_on(dir, config, Arc::new(Unsynced)).unwrap()
}

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn append(&mut self, log: &ShareLog, lengths: &[usize]) {
        let fill = |(index, length): (usize, &usize)| {
            let seed = self.end() + index as u64;
            (0..*length)
                .map(|at| (seed.wrapping_mul(31) + at as u64) as u8)
                .collect()
        };
        let new: Vec<Vec<u8>> = lengths.iter().enumerate().map(fill).collect();
        match block_on(log.append_all(&new)) {
            Ok(appended) => {
                assert_eq!(appended.position, Position(self.end()));
                block_on(appended.durable).unwrap();
                self.records.extend(new);
            }
            Err(AppendError::Full { .. }) => {
                // All segments but the first (which may be acknowledged for the most part) and the last are in use,
                // but for what one record leaves free.
                let waiting = &self.records[self.acknowledged as usize..];
                let bytes = |records: &[Vec<u8>]| -> u64 {
                    records
                        .iter()
                        .map(|record| 24 + record.len().next_multiple_of(8) as u64)
                        .sum()
                };
                let least = (SEGMENTS - 1) * (SEGMENT_BYTES - 4_096 - 20_024);
                let held = bytes(waiting) + bytes(&new);
                assert!(held >= least, "full with {held} bytes");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(log.end(), Position(self.end()));
    }

    fn read(&self, log: &ShareLog, from: u64) {
        match log.reader(Position(from)) {
            Ok(mut reader) => {
                let mut at = from;
                loop {
                    let records = reader.read(3).unwrap();
                    if records.is_empty() {
                        break;
                    }
                    for (position, record) in records.iter() {
                        assert_eq!(position, Position(at));
                        assert_eq!(record, self.records[at as usize]);
                        at += 1;
                    }
                }
                assert_eq!(at, self.end());
            }
            Err(ReadError::Gone { .. }) => assert!(from < self.acknowledged),
            Err(ReadError::Ahead { .. }) => assert!(from > self.end()),
            Err(error) => panic!("{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_what_the_model_is(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        let mut model = Model { records: Vec::new(), acknowledged: 0 };
        for step in steps {
            match step {
                Step::Append(lengths) => model.append(&log, &lengths),
                Step::Acknowledge(percent) => {
                    model.acknowledged += (model.end() - model.acknowledged) * percent / 100;
                    log.acknowledge(Position(model.acknowledged)).unwrap();
                    prop_assert!(log.acknowledge(Position(model.end() + 1)).is_err());
                }
                Step::Read(percent) => model.read(&log, (model.end() + 3) * percent / 100),
                Step::Reopen => {
                    drop(log);
                    let (reopened, recovered) = open(dir.path());
                    log = reopened;
                    prop_assert_eq!(recovered.end, Position(model.end()));
                    prop_assert_eq!(recovered.acknowledged, Position(model.acknowledged));
                    prop_assert!(recovered.first <= recovered.acknowledged);
                    prop_assert_eq!(recovered.torn, None);
                }
            }
            model.read(&log, model.acknowledged);
        }
    }
}
