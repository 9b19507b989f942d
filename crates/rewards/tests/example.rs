//! The example of `docs/rewards.md`: every number of it is computed here, and stands there.

#![allow(clippy::unwrap_used)]

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, CountedShare, OpenSlice, PoolFee, ShareId, ShareTerms, Slice, SliceRoot, SumTree,
    Weight, Weights, by_weight, locate, points, to_finder,
};
use dovetail_units::{Msat, Work};

/// Hashes that a block takes in the example.
const BLOCK_WORK: u128 = 1 << 79;
const REFERENCE_SAT: u64 = 320_000_000;

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn share(work: u128, value_sat: u64) -> Weight {
    let terms = ShareTerms {
        work: Work::new(work),
        block_work: Work::new(BLOCK_WORK),
        value_sat,
        reference_sat: REFERENCE_SAT,
    };
    terms.weight().unwrap()
}

/// Difficulties with four decimals, which are all that the example needs.
fn difficulties(weight: Weight) -> String {
    let scaled = weight.get() * 10_000;
    let one = Weight::PER_DIFFICULTY.get();
    assert_eq!(scaled % one, 0, "no more than four decimals");
    let (whole, part) = (scaled / one / 10_000, scaled / one % 10_000);
    format!("{whole}.{part:04}")
}

/// With a comma before every three digits.
fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    let miners = [
        ("alice", 131_072_u128, 320_000_000),
        ("bob", 98_304, 300_000_000),
        ("carol", 38_912, 330_000_000),
    ];
    let mut window = Weights::default();
    for (name, shares, value_sat) in miners {
        let of_one = share(1 << 64, value_sat).get();
        let weight = Weight::new(of_one * shares).unwrap();
        window.add(&account(name), weight).unwrap();
        lines.push(format!(
            "| {name} | {} | {} | {} |",
            grouped(shares),
            grouped(value_sat),
            difficulties(weight)
        ));
    }
    lines.push(format!(
        "| together | | | {} |",
        difficulties(window.total())
    ));

    let fee = PoolFee::from_millionths(10_000).unwrap();
    let reward = Msat::new(300_000_001_000);
    let division = by_weight(reward, fee, &window).unwrap();
    lines.push(format!(
        "| the pool's fee | {} |",
        grouped(division.fee.get())
    ));
    for credit in &division.credits {
        lines.push(format!(
            "| {} | {} |",
            credit.account,
            grouped(credit.amount.get())
        ));
    }
    let sum: i64 = division
        .credits
        .iter()
        .map(|credit| credit.amount.get())
        .sum();
    lines.push(format!(
        "| together | {} |",
        grouped(sum + division.fee.get())
    ));
    let solo = to_finder(reward, fee, &account("bob")).unwrap();
    lines.push(format!(
        "bob would have {} msat",
        grouped(solo.credits[0].amount.get())
    ));
    lines.extend(slice_lines());
    lines
}

fn slice_lines() -> Vec<String> {
    let mut open = OpenSlice::new(0, Slice::SIZE).unwrap();
    let shares = [
        ("alice", 320_000_000),
        ("bob", 300_000_000),
        ("alice", 320_000_000),
    ];
    let shares = shares
        .into_iter()
        .chain([("bob", 300_000_000), ("carol", 330_000_000)]);
    let mut closed = None;
    for ((name, value_sat), n) in shares.zip(1..) {
        assert_eq!(closed, None);
        let counted = CountedShare {
            id: ShareId([n; 16]),
            weight: share(1 << 67, value_sat),
        };
        closed = open.add(&account(name), &counted).unwrap();
    }
    let tree = SumTree::new(closed.unwrap());
    let genesis = SliceRoot::genesis(&[1; 32], &HeaderHash::from_bytes([2; 32]), &[3; 32]);
    let header = tree.header(genesis);
    let mut lines = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let proof = tree.proof(&account(name)).unwrap();
        let range = proof.verify(&header).unwrap();
        let steps = proof.siblings.len();
        let (start, end) = (grouped(range.start >> 80), grouped(range.end >> 80));
        lines.push(format!(
            "| {name} | {} | {start} up to {end} | {steps} |",
            proof.tally.shares
        ));
    }
    lines.push(format!("root {}", header.root()));
    let block = HeaderHash::from_bytes([4; 32]);
    for point in points(&block, &header.root(), header.total, 3) {
        let accounts = tree.slice().accounts();
        let found = locate(point, accounts.values().map(|tally| tally.weight)).unwrap();
        let (name, _) = accounts.iter().nth(found.index).unwrap();
        lines.push(format!("point {} falls on {name}", grouped(point >> 80)));
    }
    lines
}

#[test]
fn the_page_s_example_is_what_the_functions_compute() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rewards.md");
    let page = std::fs::read_to_string(page).unwrap();
    let lines = lines();
    let missing: Vec<_> = lines.iter().filter(|line| !page.contains(*line)).collect();
    assert!(
        missing.is_empty(),
        "not in docs/rewards.md: {missing:#?}\nof {lines:#?}"
    );
}
