use super::*;
use crate::weight::Weight;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn weights<'a>(of: impl IntoIterator<Item = (&'a str, u128)>) -> Weights {
    let mut weights = Weights::default();
    for (name, weight) in of {
        let weight = Weight::new(weight).unwrap();
        weights.add(&account(name), weight).unwrap();
    }
    weights
}

fn amounts(division: &Division) -> Vec<(String, i64)> {
    let amount = |credit: &Credit| (credit.account.to_string(), credit.amount.get());
    division.credits.iter().map(amount).collect()
}

fn divide<const N: usize>(reward: i64, of: [(&str, u128); N]) -> Vec<(String, i64)> {
    let division = by_weight(Msat::new(reward), PoolFee::NONE, &weights(of)).unwrap();
    amounts(&division)
}

fn named<const N: usize>(of: [(&str, i64); N]) -> Vec<(String, i64)> {
    of.map(|(name, amount)| (name.to_owned(), amount)).into()
}

#[test]
fn the_largest_remainders_get_what_is_left_and_among_equals_the_first() {
    // 10 / 3 leaves one for the first of three equals.
    let equal = divide(10, [("b", 1), ("a", 1), ("c", 1)]);
    assert_eq!(equal, named([("a", 4), ("b", 3), ("c", 3)]));
    // 10 * (1, 2, 4) / 7 = 1.43, 2.86, 5.71.
    let unequal = divide(10, [("a", 1), ("b", 2), ("c", 4)]);
    assert_eq!(unequal, named([("a", 1), ("b", 3), ("c", 6)]));
    // The first two of four with half an msat each.
    let halves = divide(2, [("d", 5), ("c", 5), ("b", 5), ("a", 5)]);
    assert_eq!(halves, named([("a", 1), ("b", 1)]));
}

#[test]
fn the_fee_is_rounded_down_and_the_rest_is_the_miners() {
    let fee = PoolFee::from_millionths(10_000).unwrap();
    let division = by_weight(Msat::new(199), fee, &weights([("a", 1)])).unwrap();
    assert_eq!(
        (division.fee.get(), division.credits[0].amount.get()),
        (1, 198)
    );
    let all = PoolFee::from_millionths(1_000_000).unwrap();
    let division = by_weight(Msat::new(199), all, &weights([("a", 1)])).unwrap();
    assert_eq!((division.fee.get(), division.credits.len()), (199, 0));
    assert_eq!(PoolFee::from_millionths(1_000_001), Err(FeeTooHigh));
}

#[test]
fn the_finder_takes_all_but_the_fee() {
    let fee = PoolFee::from_millionths(20_000).unwrap();
    let division = to_finder(Msat::new(1_000), fee, &account("a")).unwrap();
    assert_eq!(
        (division.fee.get(), amounts(&division)),
        (20, named([("a", 980)]))
    );
    let nothing = to_finder(Msat::ZERO, fee, &account("a")).unwrap();
    assert_eq!((nothing.fee, nothing.credits.len()), (Msat::ZERO, 0));
}

#[test]
fn what_cannot_be_divided_is_refused() {
    let one = weights([("a", 1)]);
    let negative = by_weight(Msat::new(-1), PoolFee::NONE, &one);
    assert_eq!(negative, Err(DivisionError::Negative));
    let nobody = by_weight(Msat::new(1), PoolFee::NONE, &Weights::default());
    assert_eq!(nobody, Err(DivisionError::NoWeight));
    let finder = to_finder(Msat::new(i64::MIN), PoolFee::NONE, &account("a"));
    assert_eq!(finder, Err(DivisionError::Negative));
}

#[test]
fn the_largest_reward_over_the_largest_weight_is_divided_exactly() {
    let half = Weight::MAX.get() / 2;
    let of = divide(i64::MAX, [("a", half), ("b", half)]);
    assert_eq!(of, named([("a", i64::MAX / 2 + 1), ("b", i64::MAX / 2)]));
    let of = divide(i64::MAX, [("a", 1), ("b", Weight::MAX.get() - 1)]);
    assert_eq!(of, named([("b", i64::MAX)]));
}

#[test]
fn twenty_thousand_accounts_are_divided_exactly() {
    let mut weights = Weights::default();
    let mut random = dovetail_units::SplitMix64::new(1);
    for n in 0_u32..20_000 {
        let weight = Weight::new(u128::from(random.bits()) << 24).unwrap();
        weights
            .add(&AccountId::new(n.to_le_bytes()).unwrap(), weight)
            .unwrap();
    }
    let reward = 312_500_000_007;
    let division = by_weight(Msat::new(reward), PoolFee::NONE, &weights).unwrap();
    let sum: i64 = division
        .credits
        .iter()
        .map(|credit| credit.amount.get())
        .sum();
    assert_eq!(sum, reward);
}

fn some_weights() -> impl Strategy<Value = Weights> {
    let weight = (any::<u128>(), 18_u32..128).prop_map(|(bits, shift)| (bits >> shift).max(1));
    btree_map(vec(any::<u8>(), 1..4), weight, 1..40).prop_map(|of| {
        let mut weights = Weights::default();
        for (name, weight) in of {
            let account = AccountId::new(name).unwrap();
            weights.add(&account, Weight::new(weight).unwrap()).unwrap();
        }
        weights
    })
}

fn amount_of(division: &Division, account: &AccountId) -> i64 {
    let credit = division
        .credits
        .iter()
        .find(|credit| credit.account == *account);
    credit.map_or(0, |credit| credit.amount.get())
}

proptest! {
    /// The sum is the reward, and nobody is a whole msat from the exact part.
    #[test]
    fn parts_add_up_and_are_floor_or_ceiling(weights in some_weights(), reward in 0..=i64::MAX, fee in 0..=1_000_000_u32) {
        let fee = PoolFee::from_millionths(fee).unwrap();
        let division = by_weight(Msat::new(reward), fee, &weights).unwrap();
        let sum: i64 = division.credits.iter().map(|credit| credit.amount.get()).sum();
        prop_assert_eq!(sum + division.fee.get(), reward);
        prop_assert!(division.credits.is_sorted_by(|a, b| a.account < b.account));
        let rest = u128::try_from(sum).unwrap();
        for (account, weight) in weights.iter() {
            let exact = proportion(rest, weight.get(), weights.total().get());
            let more = u128::try_from(amount_of(&division, account)).unwrap() - exact.quotient;
            prop_assert!(more <= u128::from(exact.remainder > 0));
        }
    }

    /// An account that calls itself by k names gets at most k msat more of a block, and at most k less, whatever the
    /// names and however it spreads its weight.
    #[test]
    fn names_gain_at_most_one_msat_each(
        others in some_weights(),
        cuts in vec(0_u128..1 << 105, 1..12),
        names in vec(vec(any::<u8>(), 5..8), 12),
        reward in 0_i64..1 << 45,
    ) {
        let mine = AccountId::new("mine").unwrap();
        let (mut whole, mut split) = (others.clone(), others);
        let mut own = Weights::default();
        for (weight, name) in cuts.iter().zip(&names) {
            let weight = Weight::new(*weight).unwrap();
            whole.add(&mine, weight).unwrap();
            let name = AccountId::new(name).unwrap();
            split.add(&name, weight).unwrap();
            own.add(&name, weight).unwrap();
        }
        let before = by_weight(Msat::new(reward), PoolFee::NONE, &whole).unwrap();
        let after = by_weight(Msat::new(reward), PoolFee::NONE, &split).unwrap();
        let gained = own.iter().map(|(name, _)| amount_of(&after, name)).sum::<i64>() - amount_of(&before, &mine);
        prop_assert!(gained.unsigned_abs() <= own.len() as u64, "{}", gained);
    }

    /// What is divided depends on nothing but the weights: not on the order in which they came.
    #[test]
    fn the_order_of_additions_changes_nothing(parts in vec((vec(any::<u8>(), 1..3), 1_u128..1 << 100), 1..30), reward in 0..=i64::MAX) {
        let divide = |parts: &mut dyn Iterator<Item = &(Vec<u8>, u128)>| {
            let mut weights = Weights::default();
            for (name, weight) in parts {
                weights.add(&AccountId::new(name).unwrap(), Weight::new(*weight).unwrap()).unwrap();
            }
            by_weight(Msat::new(reward), PoolFee::NONE, &weights).unwrap()
        };
        prop_assert_eq!(divide(&mut parts.iter()), divide(&mut parts.iter().rev()));
    }
}
