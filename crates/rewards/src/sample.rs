//! Which shares an auditor asks for, once a block's hash has chosen them.
//!
//! A window's weight is a line: slice after slice, in a slice account after account, in an account share after share.
//! Points on it are drawn from the hash of a block that was found *after* the newest header was published, and whatever
//! a point falls on has to be shown. If a part `f` of the line is fake, `k` points miss it with `(1 - f)^k`, however it is
//! spread: it is found with `1 - (1 - f)^k`.

use dovetail_commitment::{HeaderHash, tagged_hash};

use crate::chain::SliceRoot;
use crate::proportion::proportion;
use crate::weight::Weight;

/// Bits of a draw. Rounding to points of the line makes a stretch of it, say a share, less likely by 2^-124 at most.
const DRAW_BITS: u32 = 124;

/// The points that this block draws on a window of this weight whose newest slice has this root (which binds the slices
/// before it): `count` numbers from 0 to below `total`, independent of each other, in the order in which they are drawn.
/// More points begin with the fewer. None if the window is empty.
pub fn points(
    block: &HeaderHash,
    newest: &SliceRoot,
    total: Weight,
    count: u32,
) -> impl Iterator<Item = u128> + use<> {
    let (block, newest) = (*block, *newest);
    let count = if total == Weight::ZERO { 0 } else { count };
    (0..count).map(move |n| {
        let parts: [&[u8]; 3] = [block.as_bytes(), newest.as_bytes(), &n.to_le_bytes()];
        let hash = tagged_hash("dovetail/reward-sample", &parts);
        let (random, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        let draw = u128::from_le_bytes(*random) >> (u128::BITS - DRAW_BITS);
        // Below the total, since the draw is below 2^124.
        proportion(total.get(), draw, 1 << DRAW_BITS).quotient
    })
}

/// What a point falls on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the parts, from 0.
    pub index: usize,
    /// How far behind its beginning: the point on the part's own line.
    pub offset: u128,
}

/// Which of the parts of a line a point falls on: of a window's slices, a slice's accounts, or an account's shares, in
/// their order. `None` behind the last.
pub fn locate(point: u128, parts: impl IntoIterator<Item = Weight>) -> Option<Place> {
    let mut offset = point;
    for (index, part) in parts.into_iter().enumerate() {
        match offset.checked_sub(part.get()) {
            Some(behind) => offset = behind,
            None => return Some(Place { index, offset }),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_units::SplitMix64;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn weight(of: u128) -> Weight {
        Weight::new(of).unwrap()
    }

    fn draw(random: &mut SplitMix64, total: u128, count: u32) -> Vec<u128> {
        let block = HeaderHash::from_bytes(random.bytes32());
        points(
            &block,
            &SliceRoot::from_bytes([1; 32]),
            weight(total),
            count,
        )
        .collect()
    }

    #[test]
    fn a_point_falls_on_the_part_that_holds_it() {
        let parts = || [3, 0, 2].map(weight);
        let found: Vec<_> = (0..6)
            .map(|point| locate(point, parts()).map(|place| (place.index, place.offset)))
            .collect();
        let expected = [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)].map(Some);
        assert_eq!(found[..5], expected);
        assert_eq!(found[5], None);
    }

    #[test]
    fn another_block_another_chain_or_another_number_draws_anew() {
        let of = |block: u8, root: u8, count| {
            let (block, root) = ([block; 32], [root; 32]);
            let root = SliceRoot::from_bytes(root);
            points(&HeaderHash::from_bytes(block), &root, Weight::MAX, count).collect::<Vec<_>>()
        };
        let all = [of(1, 1, 3), of(2, 1, 3), of(1, 2, 3)].concat();
        for (n, point) in all.iter().enumerate() {
            assert!(!all[..n].contains(point));
        }
        assert_eq!(of(1, 1, 2), of(1, 1, 3)[..2]);
        let root = SliceRoot::from_bytes([1; 32]);
        let none = points(&HeaderHash::from_bytes([1; 32]), &root, Weight::ZERO, 3);
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn every_point_is_as_likely() {
        let mut random = SplitMix64::new(3);
        let mut counts = [0_u32; 7];
        for point in draw(&mut random, 7, 70_000) {
            counts[usize::try_from(point).unwrap()] += 1;
        }
        // Five standard deviations are 463.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) <= 463),
            "{counts:?}"
        );
    }

    /// The theorem, played: fake parts of any sizes at any places, together one percent, are found by 300 points in 95
    /// of 100 blocks, and one in twenty by 50 in 92.
    #[test]
    fn fake_weight_is_found_as_often_as_the_formula_says() {
        let mut random = SplitMix64::new(4);
        let total = 1_000_000_u64;
        for (fake, count) in [(10_000, 300), (50_000, 50), (500_000, 3)] {
            // Fake parts at seven places, cut at random.
            let is_fake = |point: u128, starts: &[u64; 7]| {
                let point = u64::try_from(point).unwrap();
                let near = |start: &u64| (point + total - start) % total < fake / 7;
                starts.iter().any(near)
            };
            let starts =
                [0, 1, 2, 3, 4, 5, 6].map(|n| n * total / 7 + random.below(total / 7 - fake / 7));
            let part = f64::from(u32::try_from(fake / 7 * 7).unwrap()) / 1e6;
            let blocks = 2_000;
            let found = (0..blocks)
                .filter(|_| {
                    let points = draw(&mut random, total.into(), count);
                    points.into_iter().any(|point| is_fake(point, &starts))
                })
                .count();
            let chance = 1.0 - (1.0 - part).powf(f64::from(count));
            let expected = chance * f64::from(blocks);
            let deviation = (expected * (1.0 - chance)).sqrt();
            let found = f64::from(u32::try_from(found).unwrap());
            assert!(
                (found - expected).abs() < 5.0 * deviation,
                "{found} of {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_point_of_a_line_is_in_one_part(parts in vec(0_u128..1_000, 0..20), at: u64) {
            let total: u128 = parts.iter().sum();
            let point = u128::from(at) % (total + 1);
            match locate(point, parts.iter().map(|part| weight(*part))) {
                None => prop_assert_eq!(point, total),
                Some(place) => {
                    prop_assert!(place.offset < parts[place.index]);
                    let before: u128 = parts[..place.index].iter().sum();
                    prop_assert_eq!(before + place.offset, point);
                }
            }
        }

        #[test]
        fn points_are_below_the_total(seed: u64, total in 1_u128..=1 << 120) {
            for point in draw(&mut SplitMix64::new(seed), total, 20) {
                prop_assert!(point < total);
            }
        }
    }
}
