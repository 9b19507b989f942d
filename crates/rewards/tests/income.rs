//! The theorem of `docs/rewards.md`, played through the public functions: what a share is expected to earn is its
//! expected block times its job's value, whoever else mines what, and whenever.
//!
//! Nothing is left to luck. Each share is taken for the block that it may be, what that block would pay is multiplied by
//! its chance, and the sum is the expected income, exactly: work and difficulties are powers of two.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use dovetail_rewards::{
    AccountId, CountedShare, OpenSlice, PoolFee, ShareId, ShareTerms, Slice, Weight, Weights,
    Window, WindowLength, WindowSlice, by_weight,
};
use dovetail_units::{Msat, SplitMix64, Work};
use proptest::collection::vec;
use proptest::prelude::*;

/// The reference: 3.2 bitcoin.
const REFERENCE_SAT: u64 = 320_000_000;
/// Chances are counted in 2^-CHANCE_BITS.
const CHANCE_BITS: u32 = 20;

/// A pool with what its miners are expected to have earned, in msat times 2^CHANCE_BITS.
struct Pool {
    open: OpenSlice,
    window: Window,
    weights: Weights,
    slices: HashMap<u64, Slice>,
    shares: u64,
    heaviest_slice: u128,
    /// The chances of all blocks together.
    chances: u128,
    earned: BTreeMap<AccountId, u128>,
    /// What each account's work is worth: its chances, each times the value of its job.
    worth: BTreeMap<AccountId, u128>,
}

#[derive(Clone, Copy)]
struct Share<'a> {
    by: &'a AccountId,
    work_log2: u32,
    block_work_log2: u32,
    value_sat: u64,
}

impl Pool {
    fn new() -> Self {
        Self {
            open: OpenSlice::new(0, Slice::SIZE).unwrap(),
            window: Window::new(WindowLength::new(1).unwrap()),
            weights: Weights::default(),
            slices: HashMap::new(),
            shares: 0,
            heaviest_slice: 0,
            chances: 0,
            earned: BTreeMap::new(),
            worth: BTreeMap::new(),
        }
    }

    fn add(&mut self, share: Share<'_>) {
        let chance = 1 << (CHANCE_BITS - (share.block_work_log2 - share.work_log2));
        let reward_msat = share.value_sat * 1_000;
        if self.window.is_full() {
            let reward = Msat::new(i64::try_from(reward_msat).unwrap());
            for credit in by_weight(reward, PoolFee::NONE, &self.weights)
                .unwrap()
                .credits
            {
                let amount = u128::try_from(credit.amount.get()).unwrap();
                *self.earned.entry(credit.account).or_default() += amount * chance;
            }
            self.chances += chance;
        }
        *self.worth.entry(share.by.clone()).or_default() += u128::from(reward_msat) * chance;
        let terms = ShareTerms {
            work: Work::new(1 << share.work_log2),
            block_work: Work::new(1 << share.block_work_log2),
            value_sat: share.value_sat,
            reference_sat: REFERENCE_SAT,
        };
        self.shares += 1;
        let counted = CountedShare {
            id: ShareId(u128::from(self.shares).to_le_bytes()),
            weight: terms.weight().unwrap(),
        };
        if let Some(closed) = self.open.add(share.by, &counted).unwrap() {
            self.take(closed);
        }
    }

    fn take(&mut self, closed: Slice) {
        let (number, total) = (closed.number(), closed.total());
        self.heaviest_slice = self.heaviest_slice.max(total.get());
        for (account, tally) in closed.accounts() {
            self.weights.add(account, tally.weight).unwrap();
        }
        self.slices.insert(number, closed);
        for gone in self.window.push(WindowSlice { number, total }).unwrap() {
            for (account, tally) in self.slices.remove(&gone.number).unwrap().accounts() {
                self.weights.subtract(account, tally.weight).unwrap();
            }
        }
        assert_eq!(self.weights.total(), self.window.total());
    }

    /// Whether the account has earned what its work was worth, within the theorem's bound: a slice in a window, and one
    /// msat a block.
    fn assert_fair(&self, account: &AccountId, what: &str) {
        let [earned, worth] =
            [&self.earned, &self.worth].map(|of| of.get(account).copied().unwrap_or_default());
        let window = Weight::PER_DIFFICULTY.get() >> 64;
        let slice = (self.heaviest_slice >> 64) + 1;
        let slack = worth * slice / window + self.chances + 1;
        assert!(
            earned.abs_diff(worth) <= slack,
            "{what}: {account} earned {earned} for work worth {worth}"
        );
    }
}

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

/// What is seen of the pool when a miner decides whether to mine the next share.
struct View {
    share: u32,
    /// How full the open slice is, in thousandths.
    fill: u128,
    /// Whether the difficulty doubles (or halves) within the next window.
    rises_soon: bool,
    falls_soon: bool,
}

/// Plays three windows and more: one that fills, one in which `name` mines by its `strategy`, one that drains. All the
/// others mine jobs of any value. The difficulty doubles and halves meanwhile.
fn play(
    seed: u64,
    names: &[(AccountId, u64)],
    strategy: &dyn Fn(&View, &mut SplitMix64) -> bool,
) -> Pool {
    let (mut pool, mut random) = (Pool::new(), SplitMix64::new(seed));
    let before = account("before and after");
    let others = account("the others");
    let window = 1 << 12;
    let (from, until) = (2 * window, 4 * window);
    let changes = [
        from + window / 4,
        from + window,
        from + window / 2 + window,
        until + window / 2,
    ];
    for share in 0..7 * window {
        let difficulty = changes.iter().filter(|at| **at <= share).count();
        let (rises_soon, falls_soon) = match changes.get(difficulty) {
            Some(at) if at - share < window => (difficulty % 2 == 0, difficulty % 2 == 1),
            _ => (false, false),
        };
        let block_work_log2 = 79 + u32::from(difficulty % 2 == 1);
        let is_measured = (from..until).contains(&share);
        let view = View {
            share,
            fill: pool.open.total().get() * 1_000 / Slice::SIZE.get(),
            rises_soon,
            falls_soon,
        };
        let mut by = if is_measured { &others } else { &before };
        let mut value_sat = REFERENCE_SAT - random.below(REFERENCE_SAT / 2);
        if is_measured && strategy(&view, &mut random) {
            let of = random.below(names.len() as u64);
            (by, value_sat) = {
                let (name, value_sat) = &names[usize::try_from(of).unwrap()];
                (name, *value_sat)
            };
        }
        // A share is the 2^-10th to the 2^-14th part of a block.
        let work_log2 = 66 + u32::try_from(random.below(4)).unwrap();
        pool.add(Share {
            by,
            work_log2,
            block_work_log2,
            value_sat,
        });
    }
    for (name, _) in names {
        assert_eq!(
            pool.weights.of(name),
            Weight::ZERO,
            "all of it has left the window"
        );
    }
    pool
}

#[test]
fn income_for_a_hash_is_the_value_of_its_job_for_every_value_up_to_the_reference() {
    let names = [
        (account("all"), REFERENCE_SAT),
        (account("nearly all"), REFERENCE_SAT - 1),
        (account("half"), REFERENCE_SAT / 2),
        (account("a trifle"), 1_000),
    ];
    for seed in 0..4 {
        let pool = play(seed, &names, &|_, random| random.below(2) == 0);
        for (name, _) in &names {
            pool.assert_fair(name, "values");
        }
        // What some of them leave out costs nobody else anything.
        pool.assert_fair(&account("the others"), "values");
    }
}

#[test]
fn no_choice_of_the_moment_earns_more_than_another() {
    type Strategy = fn(&View, &mut SplitMix64) -> bool;
    let strategies: [(&str, Strategy); 7] = [
        ("always", |_, _| true),
        ("rarely", |_, random| random.below(50) == 0),
        ("in bursts", |view, _| view.share % 700 < 40),
        ("in empty slices", |view, _| view.fill == 0),
        ("in slices that are nearly full", |view, _| view.fill > 700),
        ("before the difficulty rises", |view, _| view.rises_soon),
        ("before the difficulty falls", |view, _| view.falls_soon),
    ];
    let names = [(account("hopper"), REFERENCE_SAT)];
    for (what, strategy) in strategies {
        for seed in 0..2 {
            play(seed, &names, &strategy).assert_fair(&names[0].0, what);
        }
    }
}

#[test]
fn many_names_earn_what_one_does() {
    let one = [(account("one"), REFERENCE_SAT)];
    let many: Vec<_> = (0..8)
        .map(|n| (account(&format!("one of {n}")), REFERENCE_SAT))
        .collect();
    let mine = |_: &View, random: &mut SplitMix64| random.below(3) == 0;
    let earned = |names: &[(AccountId, u64)]| {
        let pool = play(9, names, &mine);
        for (name, _) in names {
            pool.assert_fair(name, "names");
        }
        let of =
            |of: &BTreeMap<AccountId, u128>| names.iter().map(|(name, _)| of[name]).sum::<u128>();
        (of(&pool.earned), of(&pool.worth), pool.chances)
    };
    let (once, worth, _) = earned(&one);
    let (split, same_worth, chances) = earned(&many);
    assert!(
        worth.abs_diff(same_worth) * 20 < worth,
        "about as much work"
    );
    // Per unit of work: the difference is one msat a name and block, and what each is off the fair amount.
    let [once, split] = [once * 1_000_000 / worth, split * 1_000_000 / same_worth];
    assert!(once.abs_diff(split) <= 2 * 2_000 + 8 * chances * 1_000_000 / worth);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any values, any names, any hours: a miner mines in shifts that it has drawn, each with its own eagerness.
    #[test]
    fn any_strategy_earns_what_its_work_is_worth(
        seed: u64,
        values in vec(1_000..=REFERENCE_SAT, 1..6),
        shifts in vec(0_u64..=8, 1..40),
        shift_shares in 1_u32..600,
        fullness in 0_u128..1_000,
    ) {
        let names: Vec<_> = (0..)
            .zip(&values)
            .map(|(n, value_sat): (u32, _)| (account(&format!("miner {n}")), *value_sat))
            .collect();
        let strategy = |view: &View, random: &mut SplitMix64| {
            let shift = usize::try_from(view.share / shift_shares).unwrap() % shifts.len();
            let is_eager = random.below(8) < shifts[shift];
            is_eager && (view.fill >= fullness || view.share.is_multiple_of(5))
        };
        let pool = play(seed, &names, &strategy);
        let others = account("the others");
        for name in names.iter().map(|(name, _)| name).chain([&others]) {
            if pool.worth.contains_key(name) {
                pool.assert_fair(name, "any");
            }
        }
    }
}
