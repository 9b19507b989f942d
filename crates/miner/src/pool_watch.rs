//! Whether a pool still does its part while its connection stands: gives jobs, answers shares, follows the chain, and asks
//! for shares that can be found. One that does not is left, so that devices work for somebody else.
//!
//! Pure: whoever has the session says what happened, and asks. The node's tips are the miner's own node's, where there is
//! one; nothing here knows which of two chains is the better one.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::Target;
use dovetail_units::header::Tip;
use tokio::time::Instant;

use crate::search::{Hash256, hashes_of};
use crate::share_numbers::{AnswerTimes, ShareNumbers};

/// The network's easiest target of blocks on test networks that allow it after twenty minutes without one: there, two nodes
/// may name different targets for the same block.
const BITS_EASIEST: u32 = 0x1d00_ffff;
/// Blocks that a pool may be behind the miner's node for longer than a moment.
const BLOCKS_BEHIND_MAX: usize = 2;
/// A share that takes longer than this at the hash rate will not be found.
const SHARE_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a pool may leave what undone.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// No job that devices can hash, at the beginning and on each new tip.
    pub job: Duration,
    /// No answers to shares.
    pub answers: AnswerTimes,
    /// More than two blocks behind the node.
    pub far_behind: Duration,
    /// Any block behind the node, or on a tip that it does not know while it moves on.
    pub behind: Duration,
    /// A target that is not reached.
    pub target: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // A pool gives a job with the channel; one whose node has just found a block, a moment later.
            job: Duration::from_secs(25),
            answers: AnswerTimes {
                some: Duration::from_secs(120),
                each: Duration::from_secs(600),
                // Longer than a claim waits for its answer, which is longer than a pool takes by default in the worst case: a
                // turn, what is suspect, a validator, a replay, and another one that confirms it.
                claim: Duration::from_secs(660),
            },
            far_behind: Duration::from_secs(60),
            behind: Duration::from_secs(30 * 60),
            // It may ease the target once it is told what devices hash.
            target: Duration::from_secs(120),
        }
    }
}

/// What a pool leaves undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Neglect {
    /// No job came, or none that can be hashed.
    #[error("the pool has given no job that devices can hash for {} s", .0.as_secs())]
    NoJob(Duration),
    /// Shares are not answered.
    #[error("the pool does not answer shares: {0} wait for too long")]
    NoAnswer(usize),
    /// The pool's tip stands still while the node moves on.
    #[error("the pool works on a block that our node left {0} blocks ago")]
    Behind(usize),
    /// The node never hears of the pool's tip, and moves on.
    #[error("the pool works on a block that our node does not know, although it moves on")]
    Elsewhere,
    /// The network's target is another one for our node.
    #[error("the pool names the network target {pools:08x} where our node's is {ours:08x}")]
    NetworkTarget {
        /// The pool's.
        pools: u32,
        /// The node's.
        ours: u32,
    },
    /// Nothing that devices find would be a share.
    #[error("the pool asks for shares that our devices find less than once a day")]
    TooHard,
}

/// What is known of one pool in one session.
#[derive(Debug)]
pub struct PoolWatch {
    patience: Patience,
    /// When a job is missing, if none is there.
    no_job_since: Option<Instant>,
    tip: Option<Tip>,
    /// Since when the node has been ahead of the pool.
    behind_since: Option<Instant>,
    /// Since when the pool has been on a tip that the node does not know, and the node's tip then.
    elsewhere_since: Option<(Instant, Option<Hash256>)>,
    too_hard_since: Option<Instant>,
}

impl PoolWatch {
    /// Of a session that was opened now.
    pub fn new(patience: Patience, now: Instant) -> Self {
        Self {
            patience,
            no_job_since: Some(now),
            tip: None,
            behind_since: None,
            elsewhere_since: None,
            too_hard_since: None,
        }
    }

    /// The pool gave a job, or took one of ours. `usable` says whether devices can hash a job on its newest tip now.
    pub fn on_job(&mut self, usable: bool, now: Instant) {
        self.no_job_since = match usable {
            true => None,
            false => self.no_job_since.or(Some(now)),
        };
    }

    /// The pool has a new tip.
    pub fn on_tip(&mut self, tip: Tip, nodes: &VecDeque<Tip>, now: Instant) {
        self.tip = Some(tip);
        self.behind_since = None;
        self.elsewhere_since = None;
        self.on_node(nodes, now);
    }

    /// The miner's node has these tips, the newest last.
    pub fn on_node(&mut self, nodes: &VecDeque<Tip>, now: Instant) {
        let Some(tip) = self.tip.as_ref().filter(|_| !nodes.is_empty()) else {
            return;
        };
        match behind(tip, nodes) {
            Some(0) => {
                self.behind_since = None;
                self.elsewhere_since = None;
            }
            Some(_) => {
                self.behind_since.get_or_insert(now);
                self.elsewhere_since = None;
            }
            None => {
                let newest = nodes.back().map(|tip| tip.prev_hash);
                self.elsewhere_since.get_or_insert((now, newest));
            }
        }
    }

    /// What the pool asks of shares, and what devices do, in h/s; 0 says nothing.
    pub fn on_target(&mut self, target: &Hash256, hash_rate: f64, now: Instant) {
        self.too_hard_since = match is_reached(target, hash_rate) {
            true => None,
            false => self.too_hard_since.or(Some(now)),
        };
    }

    /// Whether the pool does its part. `nodes` are the node's tips, or none while it is away.
    ///
    /// # Errors
    /// What it leaves undone.
    pub fn check(
        &self,
        shares: &ShareNumbers,
        nodes: &VecDeque<Tip>,
        now: Instant,
    ) -> Result<(), Neglect> {
        let lasts = |since: Option<Instant>, time_max: Duration| {
            since.is_some_and(|since| now.duration_since(since) >= time_max)
        };
        let patience = &self.patience;
        if lasts(self.no_job_since, patience.job) {
            return Err(Neglect::NoJob(patience.job));
        }
        match shares.overdue(&patience.answers, now) {
            0 => {}
            overdue => return Err(Neglect::NoAnswer(overdue)),
        }
        if lasts(self.too_hard_since, patience.target) {
            return Err(Neglect::TooHard);
        }
        let Some(tip) = self.tip.as_ref().filter(|_| !nodes.is_empty()) else {
            return Ok(());
        };
        check_bits(tip, nodes)?;
        let blocks = behind(tip, nodes).unwrap_or(0);
        let time_max = match blocks > BLOCKS_BEHIND_MAX {
            true => patience.far_behind,
            false => patience.behind,
        };
        if blocks > 0 && lasts(self.behind_since, time_max) {
            return Err(Neglect::Behind(blocks));
        }
        let moved = |then: Option<Hash256>| nodes.back().map(|tip| tip.prev_hash) != then;
        match self.elsewhere_since {
            Some((since, then)) if moved(then) && lasts(Some(since), patience.behind) => {
                Err(Neglect::Elsewhere)
            }
            _ => Ok(()),
        }
    }
}

/// How many blocks the node has gone on from a tip; `None` if it is not among those that it had lately.
fn behind(tip: &Tip, nodes: &VecDeque<Tip>) -> Option<usize> {
    nodes
        .iter()
        .rev()
        .position(|node| node.prev_hash == tip.prev_hash)
}

/// Whether the node asks as much of the block as the pool says. The node of a test network may go on to its easiest
/// target, or not have done so yet.
fn check_bits(tip: &Tip, nodes: &VecDeque<Tip>) -> Result<(), Neglect> {
    let mut ours = nodes
        .iter()
        .rev()
        .filter(|node| node.prev_hash == tip.prev_hash);
    match ours.next() {
        Some(node)
            if node.nbits != tip.nbits && ![node.nbits, tip.nbits].contains(&BITS_EASIEST) =>
        {
            Err(Neglect::NetworkTarget {
                pools: tip.nbits,
                ours: node.nbits,
            })
        }
        _ => Ok(()),
    }
}

/// Whether shares of this target are found at all. Without devices there is nothing to say.
fn is_reached(target: &Hash256, hash_rate: f64) -> bool {
    let hashes = hashes_of(Target::from_le_bytes(*target));
    hash_rate <= 0.0 || hashes / hash_rate <= SHARE_TIME_MAX.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BITS: u32 = 0x1703_0000;

    fn tip(byte: u8) -> Tip {
        Tip {
            prev_hash: [byte; 32],
            nbits: BITS,
            min_ntime: 0,
        }
    }

    fn tips(bytes: std::ops::RangeInclusive<u8>) -> VecDeque<Tip> {
        bytes.map(tip).collect()
    }

    /// A session that has had a job, and its clock.
    struct Fixture {
        watch: PoolWatch,
        start: Instant,
        shares: ShareNumbers,
    }

    impl Fixture {
        fn new() -> Self {
            let start = Instant::now();
            let mut watch = PoolWatch::new(Patience::default(), start);
            watch.on_job(true, start);
            Self {
                watch,
                start,
                shares: ShareNumbers::default(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn check(&self, nodes: &VecDeque<Tip>, seconds: u64) -> Result<(), Neglect> {
            self.watch.check(&self.shares, nodes, self.at(seconds))
        }
    }

    #[test]
    fn a_pool_that_gives_no_job_is_left_and_so_is_one_whose_jobs_are_none() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (shares, away) = (ShareNumbers::default(), VecDeque::new());
        let mut watch = PoolWatch::new(Patience::default(), start);
        assert_eq!(watch.check(&shares, &away, at(24)), Ok(()));
        let no_job = Err(Neglect::NoJob(Duration::from_secs(25)));
        assert_eq!(watch.check(&shares, &away, at(25)), no_job);
        watch.on_job(false, at(20));
        assert_eq!(watch.check(&shares, &away, at(25)), no_job);
        watch.on_job(true, at(25));
        assert_eq!(watch.check(&shares, &away, at(1_000)), Ok(()));
        // A tip whose job is none, and again: the time counts from the first.
        watch.on_job(false, at(1_000));
        watch.on_job(false, at(1_020));
        assert_eq!(watch.check(&shares, &away, at(1_024)), Ok(()));
        assert_eq!(watch.check(&shares, &away, at(1_025)), no_job);
    }

    #[test]
    fn a_pool_that_answers_no_share_is_left() {
        let fixture = Fixture::new();
        for number in 1..=3 {
            fixture.shares.submitted(number, false, fixture.at(0));
        }
        assert_eq!(fixture.check(&tips(1..=1), 119), Ok(()));
        assert_eq!(fixture.check(&tips(1..=1), 120), Err(Neglect::NoAnswer(3)));
    }

    #[test]
    fn a_tip_that_stands_while_the_node_moves_on_is_left() {
        let mut fixture = Fixture::new();
        fixture.watch.on_tip(tip(1), &tips(1..=1), fixture.at(0));
        assert_eq!(fixture.check(&tips(1..=1), 100_000), Ok(()));
        // The node has a block after a long time. The pool has a moment to hear of it.
        fixture.watch.on_node(&tips(1..=2), fixture.at(100_000));
        assert_eq!(fixture.check(&tips(1..=2), 101_799), Ok(()));
        assert_eq!(
            fixture.check(&tips(1..=2), 101_800),
            Err(Neglect::Behind(1))
        );
        // A node that is away says nothing.
        assert_eq!(fixture.check(&VecDeque::new(), 101_800), Ok(()));
        // Three blocks are more than a moment.
        fixture
            .watch
            .on_tip(tip(2), &tips(1..=2), fixture.at(200_000));
        fixture.watch.on_node(&tips(1..=3), fixture.at(200_010));
        fixture.watch.on_node(&tips(1..=5), fixture.at(200_020));
        assert_eq!(fixture.check(&tips(1..=5), 200_069), Ok(()));
        assert_eq!(
            fixture.check(&tips(1..=5), 200_070),
            Err(Neglect::Behind(3))
        );
        // The pool goes on.
        fixture
            .watch
            .on_tip(tip(5), &tips(1..=5), fixture.at(200_071));
        assert_eq!(fixture.check(&tips(1..=5), 300_000), Ok(()));
    }

    #[test]
    fn a_tip_that_the_node_never_hears_of_is_left_once_the_node_has_moved_on() {
        let mut fixture = Fixture::new();
        fixture.watch.on_tip(tip(9), &tips(1..=1), fixture.at(0));
        // The node stands still: it may be the one that is behind.
        assert_eq!(fixture.check(&tips(1..=1), 100_000), Ok(()));
        fixture.watch.on_node(&tips(1..=2), fixture.at(10));
        assert_eq!(fixture.check(&tips(1..=2), 1_799), Ok(()));
        assert_eq!(fixture.check(&tips(1..=2), 1_800), Err(Neglect::Elsewhere));
        fixture.watch.on_node(&tips(1..=9), fixture.at(1_800));
        assert_eq!(fixture.check(&tips(1..=9), 100_000), Ok(()));
    }

    #[test]
    fn a_network_target_that_is_not_the_nodes_is_left_at_once() {
        let mut fixture = Fixture::new();
        let easier = |nbits| Tip { nbits, ..tip(2) };
        for (nbits, expected) in [
            (BITS, Ok(())),
            (BITS_EASIEST, Ok(())),
            (
                0x207f_ffff,
                Err(Neglect::NetworkTarget {
                    pools: 0x207f_ffff,
                    ours: BITS,
                }),
            ),
        ] {
            // Before the node knows the block nothing can be said.
            fixture
                .watch
                .on_tip(easier(nbits), &tips(1..=1), fixture.at(0));
            assert_eq!(fixture.check(&tips(1..=1), 0), Ok(()));
            fixture.watch.on_node(&tips(1..=2), fixture.at(1));
            assert_eq!(fixture.check(&tips(1..=2), 1), expected);
        }
    }

    #[test]
    fn a_target_that_nobody_reaches_is_left_unless_it_is_eased() {
        let mut fixture = Fixture::new();
        let node = tips(1..=1);
        let mut hard = [0; 32];
        hard[0] = 0xff;
        fixture.watch.on_target(&hard, 1e15, fixture.at(0));
        assert_eq!(fixture.check(&node, 119), Ok(()));
        assert_eq!(fixture.check(&node, 120), Err(Neglect::TooHard));
        let mut easy = [0; 32];
        easy[27] = 1;
        fixture.watch.on_target(&easy, 1e15, fixture.at(121));
        assert_eq!(fixture.check(&node, 10_000), Ok(()));
        // No devices are no reason.
        fixture.watch.on_target(&hard, 0.0, fixture.at(10_000));
        assert_eq!(fixture.check(&node, 20_000), Ok(()));
    }
}
