//! The game played: batch by batch, with the audit's own sampling.

use std::collections::VecDeque;

use dovetail_audit::{sample, sample_size};
use dovetail_commitment::{HeaderHash, tagged_hash};
use dovetail_units::SplitMix64;

use super::Rules;

/// How a worker plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Computes everything.
    Honest,
    /// Lies in every batch, with one key.
    FromTheStart,
    /// Lies in every batch, with a new key after each that is caught.
    FreshKeys,
    /// Is honest until it is replayed at the floor, lies until it is caught, begins again.
    OnceTrusted,
    /// The same, but withholds shares until one's sample suits, which it guesses with the newest
    /// value of the beacon that it has seen.
    Withheld,
    /// The same in a pool without a beacon: the header alone draws the sample.
    SampleKnown,
}

impl Strategy {
    /// Everything but honesty.
    pub(crate) const LIES: [Self; 5] = [
        Self::FromTheStart,
        Self::FreshKeys,
        Self::OnceTrusted,
        Self::Withheld,
        Self::SampleKnown,
    ];

    /// For people and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::FromTheStart => "lies from the start",
            Self::FreshKeys => "lies, a new key when caught",
            Self::OnceTrusted => "lies once trusted",
            Self::Withheld => "lies once trusted, withholds shares",
            Self::SampleKnown => "the same without a beacon",
        }
    }
}

/// What came of it.
pub(crate) struct Played {
    /// Mean profit per batch.
    pub(crate) profit: f64,
    /// Of the mean, over the workers.
    pub(crate) standard_error: f64,
    pub(crate) caught_per_batch: f64,
}

/// Lets many workers live with this strategy.
pub(crate) fn play(rules: &Rules, strategy: Strategy, bad_leaves: usize) -> Played {
    let mut random = SplitMix64::new(rules.seed);
    let batches = f64::from(rules.batches);
    let (mut sum, mut squares, mut caught) = (0.0, 0.0, 0.0);
    for _ in 0..rules.workers {
        let mut worker = Worker::default();
        for _ in 0..rules.batches {
            worker.batch(rules, strategy, bad_leaves, &mut random);
        }
        let profit = worker.profit / batches;
        sum += profit;
        squares += profit * profit;
        caught += f64::from(worker.caught);
    }
    let workers = f64::from(rules.workers);
    let mean = sum / workers;
    let variance = (squares / workers - mean * mean).max(0.0);
    Played {
        profit: mean,
        standard_error: (variance / workers).sqrt(),
        caught_per_batch: caught / (workers * batches),
    }
}

#[derive(Default)]
struct Worker {
    profit: f64,
    caught: u32,
    /// Transcripts that passed since it was last caught.
    trust: u64,
    /// Pay that has not matured.
    held: VecDeque<f64>,
    /// The newest value of the beacon that it has seen.
    seen: [u8; 32],
}

impl Worker {
    fn batch(
        &mut self,
        rules: &Rules,
        strategy: Strategy,
        bad_leaves: usize,
        random: &mut SplitMix64,
    ) {
        let leaves = rules.leaves;
        let replayed = sample_size(self.trust, leaves);
        let at_the_floor = replayed == rules.replayed_at_the_floor();
        let bad = match strategy {
            Strategy::Honest => 0,
            Strategy::FromTheStart | Strategy::FreshKeys => bad_leaves,
            _ if at_the_floor => bad_leaves,
            _ => 0,
        };
        // Where the lies stand makes no difference: every leaf is drawn as often.
        let suits = |header: &HeaderHash, value: &[u8; 32]| {
            let output = tagged_hash("dovetail/bench", &[header.as_bytes(), value]);
            let drawn = sample(&output, leaves, replayed);
            drawn.iter().all(|index| *index >= bad)
        };
        let value = match strategy {
            Strategy::SampleKnown => [0; 32],
            _ => random.bytes32(),
        };
        let mut header = HeaderHash::from_bytes(random.bytes32());
        if matches!(strategy, Strategy::Withheld | Strategy::SampleKnown) {
            let believed = match strategy {
                Strategy::SampleKnown => value,
                _ => self.seen,
            };
            for _ in 1..rules.shares {
                if suits(&header, &believed) {
                    break;
                }
                header = HeaderHash::from_bytes(random.bytes32());
            }
        }
        self.profit -= rules.cost * (leaves - bad) as f64 / leaves as f64;
        self.seen = value;
        if suits(&header, &value) {
            self.profit += 1.0;
            self.trust += leaves as u64;
            self.held.push_back(1.0);
            while self.held.len() > rules.collateral_batches {
                self.held.pop_front();
            }
        } else {
            // A new key has what a caught one is left with: nothing held, no trust.
            self.profit -= self.held.drain(..).sum::<f64>();
            self.trust = 0;
            self.caught += 1;
        }
    }
}
