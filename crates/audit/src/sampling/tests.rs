use super::*;
use dovetail_units::SplitMix64;
use proptest::collection::vec;
use proptest::prelude::*;

fn stake(held_msat: i64) -> Stake {
    Stake::new(Msat::new(held_msat))
}

fn leaf(number: u64, value_msat: i64) -> WeighedLeaf {
    WeighedLeaf {
        leaf: LeafHash::from_bytes(tagged_hash("test", &[&number.to_le_bytes()])),
        value: Msat::new(value_msat),
    }
}

fn batch(values: &[i64]) -> Vec<WeighedLeaf> {
    (0..)
        .zip(values)
        .map(|(n, value)| leaf(n, *value))
        .collect()
}

#[test]
fn of_a_worker_that_holds_nothing_everything_is_replayed() {
    for held in [0, -1, i64::MIN] {
        for value in [0, 1, i64::MAX] {
            assert_eq!(
                stake(held).probability(Msat::new(value)),
                Probability::CERTAIN
            );
        }
    }
}

#[test]
fn what_is_worth_half_of_the_stake_is_replayed_for_certain_and_a_trifle_at_the_floor() {
    let probability = |value| stake(1_000).probability(Msat::new(value));
    assert_eq!(probability(500), Probability::CERTAIN);
    assert_eq!(probability(499).threshold(), ((998_u128 << 64) / 1_000) + 1);
    assert_eq!(probability(250).threshold(), 1 << 63);
    assert_eq!(probability(25), Probability::FLOOR);
    assert_eq!(probability(0), Probability::FLOOR);
    // What is no value is not believed.
    assert_eq!(probability(-1), Probability::CERTAIN);
    assert_eq!(probability(i64::MAX), Probability::CERTAIN);
}

#[test]
fn a_certain_leaf_is_replayed_whatever_is_drawn_and_the_floor_by_one_draw_in_twenty() {
    assert!(Probability::CERTAIN.covers(u64::MAX));
    assert!(Probability::FLOOR.covers(u64::MAX / 20));
    assert!(!Probability::FLOOR.covers(u64::MAX / 20 + 1));
}

/// The numbers of a machine that was checked by hand: another machine, or a change of the code, draws the same.
#[test]
fn a_draw_is_the_start_of_the_hash_of_output_and_leaf() {
    let (output, leaf) = ([7; 32], LeafHash::from_bytes([9; 32]));
    let hash = tagged_hash("dovetail/sample", &[&[7; 32], &[9; 32]]);
    let expected = hash
        .iter()
        .take(8)
        .rev()
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    assert_eq!(draw(&output, &leaf), expected);
}

#[test]
fn leaves_are_replayed_as_often_as_their_probability_says() {
    let values = [0, 50, 100, 250, 400, 500];
    let (batch, stake) = (batch(&values), stake(1_000));
    let (mut counts, mut random) = ([0_u32; 6], SplitMix64::new(1));
    for _ in 0..20_000 {
        for index in sample(&random.bytes32(), &batch, stake) {
            counts[index] += 1;
        }
    }
    for (count, expected) in counts
        .into_iter()
        .zip([1_000, 2_000, 4_000, 10_000, 16_000, 20_000])
    {
        // Five standard deviations are at most 354.
        assert!(count.abs_diff(expected) <= 360, "{counts:?}");
    }
    assert_eq!(counts[5], 20_000);
}

#[test]
fn draws_of_two_leaves_have_nothing_to_do_with_each_other() {
    let (batch, stake) = (batch(&[250, 250]), stake(1_000));
    let (mut both, mut random) = (0_u32, SplitMix64::new(2));
    for _ in 0..20_000 {
        both += u32::from(sample(&random.bytes32(), &batch, stake).len() == 2);
    }
    assert!(both.abs_diff(5_000) <= 310, "{both}");
}

proptest! {
    #[test]
    fn a_probability_is_never_less_than_its_ratio_and_less_than_one_draw_more(value in 0_i64..i64::MAX, held in 1_i64..i64::MAX) {
        let threshold = stake(held).probability(Msat::new(value)).threshold();
        let (value, held) = (u128::try_from(value).unwrap(), u128::try_from(held).unwrap());
        // threshold / 2^64 >= 2 value / held, or certain.
        prop_assert!(threshold == 1 << 64 || threshold.checked_mul(held).unwrap() >= (2 * value) << 64);
        prop_assert!((Probability::FLOOR.threshold()..=1 << 64).contains(&threshold));
        if threshold > Probability::FLOOR.threshold() && threshold < 1 << 64 {
            prop_assert!((threshold - 1) * held < (2 * value) << 64);
        }
    }

    #[test]
    fn more_value_or_a_smaller_stake_only_adds_to_a_sample(
        output: [u8; 32],
        leaves in vec((0..1_000_000_i64, 0..1_000_000_i64), 1..64),
        held in (0..10_000_000_i64, 0..10_000_000_i64),
    ) {
        let less: Vec<i64> = leaves.iter().map(|(a, b)| *a.min(b)).collect();
        let more: Vec<i64> = leaves.iter().map(|(a, b)| *a.max(b)).collect();
        let small = sample(&output, &batch(&less), stake(held.0.max(held.1)));
        let large = sample(&output, &batch(&more), stake(held.0.min(held.1)));
        prop_assert!(small.iter().all(|index| large.contains(index)));
    }

    #[test]
    fn neither_the_order_nor_the_other_leaves_change_whether_one_is_replayed(
        output: [u8; 32],
        values in vec(0..1_000_i64, 2..64),
        turn: usize,
        held in 0..10_000_i64,
    ) {
        let batch = batch(&values);
        let of = |batch: &[WeighedLeaf]| -> Vec<WeighedLeaf> {
            sample(&output, batch, stake(held)).into_iter().map(|index| batch[index]).collect()
        };
        let (whole, mut turned) = (of(&batch), batch.clone());
        turned.rotate_left(turn % values.len());
        let after = of(&turned);
        prop_assert_eq!(whole.len(), after.len());
        prop_assert!(whole.iter().all(|leaf| after.contains(leaf)));
        for leaf in &batch {
            prop_assert_eq!(of(&[*leaf]).len() == 1, whole.contains(leaf));
        }
    }

    /// The theorem of docs/audit.md, for the thresholds as they are: whatever the lies are cut into.
    #[test]
    fn no_composition_of_lies_is_worth_anything(
        honest in vec(0..1_000_000_i64, 0..64),
        lies in vec(1..1_000_000_i64, 1..64),
        held in prop_oneof![Just(0_i64), 1..100_i64, 100_i64..1_000_000, 1_000_000_i64..1_000_000_000],
    ) {
        let stake = stake(held);
        let missed: f64 = lies
            .iter()
            .map(|value| 1.0 - stake.probability(Msat::new(*value)).threshold() as f64 / 2_f64.powi(64))
            .product();
        let (honest, lied) = (honest.iter().sum::<i64>() as f64, lies.iter().sum::<i64>() as f64);
        let worth = missed * (honest + lied) - (1.0 - missed) * held as f64;
        // Of a worker that holds nothing all is replayed, and it gets nothing.
        prop_assert!(worth < honest || (held == 0 && worth == 0.0), "{worth} with lies, {honest} without");
        // And at least what the proof promises.
        let stake_unit = held as f64 / 2.0;
        if stake_unit > 0.0 {
            let x = lied / stake_unit;
            let most = honest - stake_unit * (2.0 - (2.0 + x) * (-x).exp());
            prop_assert!(worth <= most + 1e-9 * (1.0 + lied + honest + stake_unit), "{worth} > {most}");
        }
    }
}
