//! The worker's side of the game.

use dovetail_units::SplitMix64;

use super::pool::{Audit, Judged, Key, Leaf};

/// The price of a token; only ratios matter.
const TOKEN_MSAT: i64 = 1_000;
/// An honest leaf.
const LEAF_MSAT: i64 = 64 * TOKEN_MSAT;
/// The longest output.
const HEAVY_MSAT: i64 = 4_096 * TOKEN_MSAT;
/// Leaves of a whole batch.
const LEAVES: usize = 64;
/// After so many honest batches as much is held as ever will be, and version 1 replays least.
const STEADY: u32 = 32;
/// The credit of honest batches has matured after so many batches that are worth nothing much.
const EBB: u32 = 16;
/// Batches that are claimed at once, where that is possible.
const AT_ONCE: usize = 8;
/// Keys of one owner.
const KEYS: usize = 16;

/// How a worker plays. All but the first lie; all that lie later are honest until much is held, and begin again with
/// that when they are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Computes everything.
    Honest,
    /// Lies in all leaves of every batch.
    FromTheStart,
    /// Lies in one leaf of every batch, with a new key each time.
    FreshKeys,
    /// Lies in so many of the leaves of every batch.
    EachBatch(usize),
    /// The same with sixteen keys by turns.
    ManyKeys(usize),
    /// Puts a long lie among 63 short truths, then claims sixteen batches of one short truth, and again.
    HeavyAmongTrifles,
    /// Leaves with one batch of lies: worth so many tenths of `J`, in so many leaves.
    Exit { tenths: i64, leaves: usize },
    /// Lets credit mature, and lies when least is held.
    LowWater,
    /// Claims eight batches of lies that are sampled against the same held credit.
    AtOnce,
}

/// Every strategy, with the rules of the pool that it plays against.
pub(super) const GAMES: [(Strategy, Audit, &str); 19] = [
    (Strategy::Honest, Audit::ByValue, "honest"),
    (
        Strategy::FromTheStart,
        Audit::ByValue,
        "all lies, from the start",
    ),
    (
        Strategy::FreshKeys,
        Audit::ByValue,
        "one lie of 64, a new key each time",
    ),
    (
        Strategy::EachBatch(1),
        Audit::ByValue,
        "1 lie of 64 in each batch",
    ),
    (
        Strategy::EachBatch(6),
        Audit::ByValue,
        "6 lies of 64 in each batch",
    ),
    (
        Strategy::EachBatch(32),
        Audit::ByValue,
        "32 lies of 64 in each batch",
    ),
    (
        Strategy::EachBatch(64),
        Audit::ByValue,
        "64 lies of 64 in each batch",
    ),
    (
        Strategy::ManyKeys(6),
        Audit::ByValue,
        "6 lies of 64, sixteen keys by turns",
    ),
    (
        Strategy::HeavyAmongTrifles,
        Audit::ByValue,
        "a long lie among trifles",
    ),
    (
        Strategy::Exit {
            tenths: 1,
            leaves: 1,
        },
        Audit::ByValue,
        "leaves with a lie of 0.1 J in one leaf",
    ),
    (
        Strategy::Exit {
            tenths: 1,
            leaves: 64,
        },
        Audit::ByValue,
        "leaves with a lie of 0.1 J in 64 leaves",
    ),
    (
        Strategy::Exit {
            tenths: 10,
            leaves: 64,
        },
        Audit::ByValue,
        "leaves with a lie of J in 64 leaves",
    ),
    (
        Strategy::Exit {
            tenths: 40,
            leaves: 64,
        },
        Audit::ByValue,
        "leaves with a lie of 4 J in 64 leaves",
    ),
    (
        Strategy::LowWater,
        Audit::ByValue,
        "lies when least is held",
    ),
    (
        Strategy::AtOnce,
        Audit::ByValue,
        "lies of J in eight batches against the same H",
    ),
    (
        Strategy::HeavyAmongTrifles,
        Audit::ByCount,
        "version 1: a long lie among trifles",
    ),
    (
        Strategy::EachBatch(6),
        Audit::ByCount,
        "version 1: 6 lies of 64 in each batch",
    ),
    (
        Strategy::EachBatch(32),
        Audit::ToldEarly,
        "if samples were told early: 32 lies of 64",
    ),
    (
        Strategy::EachBatch(64),
        Audit::MaturesMeanwhile,
        "if credit matured during an audit: 64 lies of 64",
    ),
];

/// What came of a life.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Life {
    pub(super) claims: u32,
    pub(super) caught: u32,
    pub(super) lied_msat: i64,
    pub(super) worth_msat: i64,
    pub(super) expected_msat: f64,
}

impl Life {
    fn count(&mut self, leaves: &[Leaf], judged: Judged) {
        let lies = leaves.iter().filter(|leaf| leaf.is_lie);
        self.lied_msat += lies.map(|leaf| leaf.msat).sum::<i64>();
        self.claims += 1;
        self.caught += u32::from(judged.is_caught);
        self.worth_msat += judged.worth_msat;
        self.expected_msat += judged.expected_msat;
    }
}

/// One of the keys, and its claims since it began or was caught.
struct Hand {
    key: Key,
    turn: u32,
}

impl Hand {
    fn new(audit: Audit) -> Self {
        Self {
            key: Key::new(audit),
            turn: 0,
        }
    }
}

/// Lives for about so many claims.
pub(super) fn live(strategy: Strategy, audit: Audit, claims: u32, random: &mut SplitMix64) -> Life {
    let mut life = Life::default();
    let keys = if matches!(strategy, Strategy::ManyKeys(_)) {
        KEYS
    } else {
        1
    };
    let mut hands: Vec<Hand> = (0..keys).map(|_| Hand::new(audit)).collect();
    let mut next = (0..keys).cycle();
    while life.claims < claims {
        let hand = &mut hands[next.next().unwrap_or(0)];
        let (stake, batches) = (hand.key.stake(), turn(strategy, hand));
        let mut is_caught = false;
        for batch in &batches {
            let judged = hand.key.claim(batch, stake, random);
            life.count(batch, judged);
            is_caught |= judged.is_caught;
        }
        hand.turn += 1;
        if is_caught && audit != Audit::ToldEarly {
            hand.turn = 0;
        }
        if is_over(strategy, hand.turn) {
            *hand = Hand::new(audit);
        }
    }
    life
}

/// Whether the worker goes on with a new key.
fn is_over(strategy: Strategy, turn: u32) -> bool {
    match strategy {
        Strategy::FreshKeys => true,
        Strategy::Exit { .. } => turn > STEADY,
        Strategy::LowWater => turn > STEADY + EBB,
        _ => false,
    }
}

/// What is claimed next, all of it against what is held now.
fn turn(strategy: Strategy, hand: &Hand) -> Vec<Vec<Leaf>> {
    let is_steady = hand.turn >= STEADY;
    // `J`, rounded down to what makes whole leaves.
    let unit = hand.key.held_msat() / 2;
    let batch = match strategy {
        Strategy::FromTheStart => equal(LEAVES, LEAF_MSAT, LEAVES),
        Strategy::FreshKeys => equal(LEAVES, LEAF_MSAT, 1),
        Strategy::EachBatch(lies) | Strategy::ManyKeys(lies) if is_steady => {
            equal(LEAVES, LEAF_MSAT, lies)
        }
        Strategy::HeavyAmongTrifles if is_steady => heavy_or_trifle(hand.turn - STEADY),
        Strategy::Exit { tenths, leaves } if is_steady => {
            let leaf = unit * tenths / 10 / i64::try_from(leaves).unwrap_or(1);
            equal(leaves, leaf.max(1), leaves)
        }
        Strategy::LowWater if hand.turn == STEADY + EBB => equal(LEAVES, unit / 128, LEAVES),
        Strategy::LowWater if is_steady => equal(1, TOKEN_MSAT, 0),
        Strategy::AtOnce if is_steady => {
            return vec![equal(LEAVES, unit / 64, LEAVES); AT_ONCE];
        }
        _ => equal(LEAVES, LEAF_MSAT, 0),
    };
    vec![batch]
}

fn heavy_or_trifle(turn: u32) -> Vec<Leaf> {
    if !turn.is_multiple_of(17) {
        return equal(1, TOKEN_MSAT, 0);
    }
    let mut batch = equal(LEAVES, TOKEN_MSAT, 1);
    batch[0].msat = HEAVY_MSAT;
    batch
}

/// So many leaves of one value, the first of which are lies.
fn equal(leaves: usize, msat: i64, lies: usize) -> Vec<Leaf> {
    let leaf = |at| Leaf {
        msat,
        is_lie: at < lies,
    };
    (0..leaves).map(leaf).collect()
}
