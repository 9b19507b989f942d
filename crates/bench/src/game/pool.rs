//! The pool's side of the game: what is held for a key, what is drawn of its batches, and what that costs it. The
//! sampling is the audit's own; the rules that fell are here to show that the game finds them.

use std::collections::VecDeque;

use dovetail_audit::{Probability, Stake, WeighedLeaf, sample};
use dovetail_commitment::LeafHash;
use dovetail_units::{Msat, SplitMix64};

/// Credit is held for so many claims of its worker at least: ten minutes, a claim each minute.
const LEAST_CLAIMS: u32 = 10;
/// So many later batches made credit mature in version 1 of the extension.
const LATER_BATCHES: usize = 16;

/// The rules of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audit {
    /// Those of docs/audit.md.
    ByValue,
    /// Version 1: a number of leaves, fewer the more transcripts have passed; credit matures by the number of batches.
    ByCount,
    /// By value, but an audit that could not be done tells its sample, and a slow one can be had.
    ToldEarly,
    /// By value, but all that was held when the sample was drawn has matured when the lie is found.
    MaturesMeanwhile,
}

/// A leaf of a batch, as its worker knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf {
    pub(super) msat: i64,
    pub(super) is_lie: bool,
}

/// How a claim ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) is_caught: bool,
    /// By how much the worker's credit, held and matured, has grown beyond the worth of what it computed.
    pub(super) worth_msat: i64,
    /// What that was expected to be.
    pub(super) expected_msat: f64,
}

struct Held {
    msat: i64,
    since: u32,
}

/// A worker key at the pool.
pub(super) struct Key {
    audit: Audit,
    held: VecDeque<Held>,
    /// Claims so far: the game's clock.
    claims: u32,
    /// Transcripts that have passed since it was caught last.
    passed: usize,
}

impl Key {
    /// A new one.
    pub(super) fn new(audit: Audit) -> Self {
        Self {
            audit,
            held: VecDeque::new(),
            claims: 0,
            passed: 0,
        }
    }

    /// What a lie would cost now.
    pub(super) fn held_msat(&self) -> i64 {
        self.held.iter().map(|held| held.msat).sum()
    }

    /// What samples are drawn against now.
    pub(super) fn stake(&self) -> Stake {
        Stake::new(Msat::new(self.held_msat()))
    }

    /// Audits a batch whose sample is drawn against `stake`, which should be the one of this moment.
    pub(super) fn claim(
        &mut self,
        leaves: &[Leaf],
        stake: Stake,
        random: &mut SplitMix64,
    ) -> Judged {
        let (missed, is_caught) = match self.audit {
            Audit::ByCount => self.draw_by_count(leaves, random),
            _ => draw_by_value(leaves, stake, random),
        };
        if self.audit == Audit::MaturesMeanwhile {
            self.held.clear();
        }
        let worth = |is_lie| -> i64 {
            let of = leaves.iter().filter(|leaf| leaf.is_lie == is_lie);
            of.map(|leaf| leaf.msat).sum()
        };
        let (honest, lied) = (worth(false), worth(true));
        // Who sees the sample first never claims what would be caught, and puts its honest leaves into another batch.
        let lost = match self.audit {
            Audit::ToldEarly => 0,
            _ => honest + self.held_msat(),
        };
        let is_punished = is_caught && self.audit != Audit::ToldEarly;
        if is_punished {
            self.held.clear();
            self.passed = 0;
        } else {
            let msat = if is_caught { honest } else { honest + lied };
            let since = self.claims;
            self.held.push_back(Held { msat, since });
            self.passed += leaves.len();
        }
        self.claims += 1;
        self.mature();
        Judged {
            is_caught,
            worth_msat: if is_caught { -lost } else { lied },
            expected_msat: missed * lied as f64 - (1.0 - missed) * lost as f64,
        }
    }

    fn mature(&mut self) {
        while let Some(oldest) = self.held.front() {
            let later: i64 = self.held.iter().skip(1).map(|held| held.msat).sum();
            let is_due = match self.audit {
                Audit::ByCount => self.held.len() > LATER_BATCHES,
                _ => self.claims - oldest.since >= LEAST_CLAIMS && later >= oldest.msat,
            };
            if !is_due {
                break;
            }
            self.held.pop_front();
        }
    }

    /// The chance that no lie is drawn, and whether one is: as many leaves as version 1 took, each as likely.
    fn draw_by_count(&self, leaves: &[Leaf], random: &mut SplitMix64) -> (f64, bool) {
        let (n, bad) = (
            leaves.len(),
            leaves.iter().filter(|leaf| leaf.is_lie).count(),
        );
        let drawn = match self.passed {
            0..=100 => n,
            passed => (n * 100).div_ceil(passed).max(n.div_ceil(20)).min(n),
        };
        // Hypergeometric, at 0: Feller, An Introduction to Probability Theory and Its Applications, vol. 1, II.6.
        let missed = (0..drawn)
            .map(|at| n.saturating_sub(bad + at) as f64 / (n - at) as f64)
            .product();
        let mut places: Vec<bool> = leaves.iter().map(|leaf| leaf.is_lie).collect();
        let is_caught = (0..drawn).fold(false, |is_caught, _| {
            let place = random.below(places.len() as u64);
            let place = usize::try_from(place).expect("a place in a batch");
            places.swap_remove(place) || is_caught
        });
        (missed, is_caught)
    }
}

fn draw_by_value(leaves: &[Leaf], stake: Stake, random: &mut SplitMix64) -> (f64, bool) {
    let weighed: Vec<WeighedLeaf> = leaves
        .iter()
        .map(|leaf| WeighedLeaf {
            leaf: LeafHash::from_bytes(random.bytes32()),
            value: Msat::new(leaf.msat),
        })
        .collect();
    let lies = leaves.iter().filter(|leaf| leaf.is_lie);
    let missed = lies
        .map(|lie| 1.0 - share(stake.probability(Msat::new(lie.msat))))
        .product();
    let drawn = sample(&random.bytes32(), &weighed, stake);
    (missed, drawn.iter().any(|place| leaves[*place].is_lie))
}

fn share(probability: Probability) -> f64 {
    probability.threshold() as f64 / Probability::CERTAIN.threshold() as f64
}
