//! Choosing the next token from logits, in integers: greedy, or drawn with temperature, top-k and
//! top-p from randomness that the seed and the position fix.

use dovetail_commitment::{SamplingParams, tagged_hash};
use dovetail_guide::Mask;

use crate::arith::{LOG2_E_Q32, VALUE_MAX, tables};

/// How many of the likeliest tokens are sorted at first; eight times as many whenever they do not
/// suffice. Sorting a whole vocabulary would take longer than a small model's layers.
const SORTED_FIRST: usize = 64;

/// The next token, of those that `allowed` has, or of all. Ties go to the lower token id.
pub(crate) fn choose(
    logits: &[i32],
    allowed: Option<&Mask>,
    sampling: &SamplingParams,
    seed: &[u8; 32],
    position: u32,
) -> u32 {
    if sampling.temperature_milli == 0 {
        return allowed.map_or_else(|| greedy(logits), |mask| greedy_among(logits, mask));
    }
    let mut candidates = Candidates::new(logits, allowed, sampling.top_k as usize);
    let top = candidates.sorted(1).first().copied().unwrap_or(0);
    // A logit's distance from the top in Q16, to base 2, over the temperature.
    let per_unit = 1000 * LOG2_E_Q32 / u64::from(sampling.temperature_milli);
    let weight = |key: u64| {
        let distance = (u128::from((key >> 32) - (top >> 32)) * u128::from(per_unit)) >> 32;
        u64::from(tables().power(u32::try_from(distance).unwrap_or(u32::MAX)))
    };
    let total: u64 = candidates.keys.iter().map(|key| weight(*key)).sum();
    let kept = candidates.top_p(&weight, total, sampling.top_p_milli);
    let point = (u128::from(random(seed, position)) * u128::from(kept)) >> 64;
    candidates.at(&weight, u64::try_from(point).unwrap_or(u64::MAX))
}

fn greedy(logits: &[i32]) -> u32 {
    // Block by block: which one has the largest is found in wide steps, where in it one by one.
    const BLOCK: usize = 256;
    let (mut most, mut block) = (i32::MIN, 0);
    for (index, logits) in logits.chunks(BLOCK).enumerate() {
        let here = logits.iter().fold(i32::MIN, |most, logit| most.max(*logit));
        if here > most {
            (most, block) = (here, index);
        }
    }
    let mut rest = logits.iter().skip(block * BLOCK);
    let at = rest.position(|logit| *logit == most).unwrap_or(0);
    u32::try_from(block * BLOCK + at).unwrap_or(0)
}

fn greedy_among(logits: &[i32], mask: &Mask) -> u32 {
    let likelier = |best: (u32, i32), token: u32| match logits.get(token as usize) {
        Some(logit) if *logit > best.1 => (token, *logit),
        _ => best,
    };
    mask.tokens().fold((0, i32::MIN), likelier).0
}

fn random(seed: &[u8; 32], position: u32) -> u64 {
    let hash = tagged_hash("dovetail/token", &[seed, &position.to_le_bytes()]);
    let (random, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_le_bytes(*random)
}

/// The tokens that may be drawn, of which the likeliest are in order.
struct Candidates {
    /// How far the logit lies below the largest value there can be, then the token: the likeliest
    /// token has the smallest key.
    keys: Vec<u64>,
    sorted: usize,
}

impl Candidates {
    /// The `top_k` likeliest tokens of those that are allowed; all of them where that is 0.
    fn new(logits: &[i32], allowed: Option<&Mask>, top_k: usize) -> Self {
        let key = |(token, logit): (u64, &i32)| u64::from(VALUE_MAX.abs_diff(*logit)) << 32 | token;
        let mut keys: Vec<u64> = match allowed {
            None => (0..).zip(logits).map(key).collect(),
            Some(mask) => {
                let pair = |token: u32| Some((u64::from(token), logits.get(token as usize)?));
                mask.tokens().filter_map(pair).map(key).collect()
            }
        };
        if top_k > 0 && top_k < keys.len() {
            keys.select_nth_unstable(top_k - 1);
            keys.truncate(top_k);
        }
        Self { keys, sorted: 0 }
    }

    /// At least the first `count` in order, as far as there are so many.
    fn sorted(&mut self, count: usize) -> &[u64] {
        while self.sorted < count.min(self.keys.len()) {
            let next = (8 * self.sorted).max(SORTED_FIRST).min(self.keys.len());
            let rest = &mut self.keys[self.sorted..];
            let more = next - self.sorted;
            if more < rest.len() {
                rest.select_nth_unstable(more - 1);
            }
            rest[..more].sort_unstable();
            self.sorted = next;
        }
        &self.keys[..self.sorted]
    }

    /// The sum of the fewest first weights that together reach `top_p_milli` thousandths of `total`.
    fn top_p(&mut self, weight: &impl Fn(u64) -> u64, total: u64, top_p_milli: u32) -> u64 {
        if top_p_milli >= 1000 {
            return total;
        }
        let wanted = u128::from(total) * u128::from(top_p_milli);
        let mut kept = 0;
        for count in 1..=self.keys.len() {
            kept += weight(self.sorted(count)[count - 1]);
            if u128::from(kept) * 1000 >= wanted {
                break;
            }
        }
        kept
    }

    /// The token in whose weight the point falls, the weights laid end to end in order.
    fn at(&mut self, weight: &impl Fn(u64) -> u64, mut point: u64) -> u32 {
        for count in 1..=self.keys.len() {
            let key = self.sorted(count)[count - 1];
            match point.checked_sub(weight(key)) {
                Some(rest) => point = rest,
                None => return token_of(key),
            }
        }
        self.sorted(1).first().map_or(0, |key| token_of(*key))
    }
}

fn token_of(key: u64) -> u32 {
    u32::try_from(key & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(temperature_milli: u32, top_k: u32, top_p_milli: u32) -> SamplingParams {
        SamplingParams {
            temperature_milli,
            top_k,
            top_p_milli,
            max_tokens: 1,
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let choice = choose(&[1, 5, 5, 2], None, &params(0, 0, 1000), &[0; 32], 0);
        assert_eq!(choice, 1);
    }

    #[test]
    fn golden_draws_never_change() {
        let logits = [0, 1 << 16, 2 << 16, 3 << 16, -5 << 16];
        let draws = |params: &SamplingParams| {
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
                .map(|position| choose(&logits, None, params, &[7; 32], position))
        };
        assert_eq!(
            draws(&params(1000, 0, 1000)),
            [2, 3, 3, 3, 2, 3, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]
        );
        assert_eq!(
            draws(&params(2000, 4, 900)),
            [2, 3, 3, 3, 1, 3, 1, 2, 3, 2, 3, 3, 2, 3, 3, 2]
        );
        assert_eq!(
            draws(&params(1000, 0, 800)),
            [3, 3, 3, 3, 2, 3, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]
        );
    }

    proptest! {
        #[test]
        fn top_k_of_one_is_greedy(logits in proptest::collection::vec(-(1_i32 << 26)..1 << 26, 1..50), seed: [u8; 32], position: u32) {
                        let one = choose(&logits, None, &params(1500, 1, 1000), &seed, position);
            prop_assert_eq!(one, greedy(&logits));
        }

        #[test]
        fn a_drawn_token_is_among_the_likeliest_k(logits in proptest::collection::vec(-(1_i32 << 20)..1 << 20, 1..50), k in 1_u32..50, seed: [u8; 32]) {
            let token = choose(&logits, None, &params(1000, k, 900), &seed, 7);
            let better = logits.iter().filter(|l| **l > logits[token as usize]).count();
            prop_assert!(better < k as usize);
        }

        #[test]
        fn a_mask_leaves_the_choice_that_the_other_tokens_alone_would_give(
            logits in proptest::collection::vec(-(1_i32 << 20)..1 << 20, 2..50),
            bits in proptest::collection::vec(any::<bool>(), 50),
            temperature_milli in prop_oneof![Just(0_u32), 1..=2000_u32],
            top_k in 0_u32..10,
            seed: [u8; 32],
        ) {
            let kept: Vec<u32> = (0..).zip(&logits).filter(|(token, _)| bits[*token as usize]).map(|(token, _)| token).collect();
            prop_assume!(!kept.is_empty());
            let mask = Mask::of(&kept, logits.len());
            let params = params(temperature_milli, top_k, 900);
            let alone: Vec<i32> = kept.iter().map(|token| logits[*token as usize]).collect();
            let expected = kept[choose(&alone, None, &params, &seed, 3) as usize];
            prop_assert_eq!(choose(&logits, Some(&mask), &params, &seed, 3), expected);
        }

        #[test]
        fn the_same_seed_and_position_draw_the_same_token(seed: [u8; 32], position: u32) {
            let logits = [0, 1 << 16, 2 << 16, 3 << 16];
                        let draw = || choose(&logits, None, &params(1000, 0, 1000), &seed, position);
            prop_assert_eq!(draw(), draw());
        }
    }
}
