//! Choosing the next token from logits, in integers: greedy, or drawn with temperature, top-k and
//! top-p from randomness that the seed and the position fix.

use dovetail_commitment::{SamplingParams, tagged_hash};

use crate::arith::{Exp, div_round};

/// The next token. Ties go to the lower token id.
pub(crate) fn choose(
    exp: &Exp,
    logits: &[i32],
    sampling: &SamplingParams,
    seed: &[u8; 32],
    position: u32,
) -> u32 {
    if sampling.temperature_milli == 0 {
        return greedy(logits);
    }
    // The likeliest first.
    let mut order: Vec<u32> = (0..).take(logits.len()).collect();
    order.sort_by_key(|token| (std::cmp::Reverse(logits[*token as usize]), *token));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let temperature = i128::from(sampling.temperature_milli);
    let scores: Vec<i64> = order
        .iter()
        .map(|token| {
            let scaled = div_round(i128::from(logits[*token as usize]) * 1000, temperature);
            i64::try_from(scaled).expect("a logit times 1000 has 37 bits")
        })
        .collect();
    let (mut weights, sum) = exp.softmax(&scores);
    truncate_top_p(&mut weights, sum, sampling.top_p_milli);
    draw(&order, &weights, seed, position)
}

fn greedy(logits: &[i32]) -> u32 {
    let best = (0_u32..)
        .zip(logits)
        .min_by_key(|(token, logit)| (std::cmp::Reverse(**logit), *token));
    best.map_or(0, |(token, _)| token)
}

/// Keeps the fewest first weights that together reach `top_p_milli` thousandths of `sum`.
fn truncate_top_p(weights: &mut Vec<u64>, sum: u64, top_p_milli: u32) {
    let wanted = u128::from(sum) * u128::from(top_p_milli);
    let mut reached = 0_u128;
    let kept = weights
        .iter()
        .position(|weight| {
            reached += u128::from(*weight) * 1000;
            reached >= wanted
        })
        .map_or(weights.len(), |last| last + 1);
    weights.truncate(kept);
}

fn draw(order: &[u32], weights: &[u64], seed: &[u8; 32], position: u32) -> u32 {
    let hash = tagged_hash("dovetail/token", &[seed, &position.to_le_bytes()]);
    let (random, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    // A point in 0..sum.
    let mut point = (u128::from(u64::from_le_bytes(*random)) * sum) >> 64;
    for (token, weight) in order.iter().zip(weights) {
        if point < u128::from(*weight) {
            return *token;
        }
        point -= u128::from(*weight);
    }
    order.first().copied().unwrap_or(0)
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
        let choice = choose(&Exp::new(), &[1, 5, 5, 2], &params(0, 0, 1000), &[0; 32], 0);
        assert_eq!(choice, 1);
    }

    #[test]
    fn golden_draws_never_change() {
        let logits = [0, 1 << 16, 2 << 16, 3 << 16, -5 << 16];
        let draws = |params: &SamplingParams| {
            let exp = Exp::new();
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
                .map(|position| choose(&exp, &logits, params, &[7; 32], position))
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
            let exp = Exp::new();
            let one = choose(&exp, &logits, &params(1500, 1, 1000), &seed, position);
            prop_assert_eq!(one, greedy(&logits));
        }

        #[test]
        fn a_drawn_token_is_among_the_likeliest_k(logits in proptest::collection::vec(-(1_i32 << 20)..1 << 20, 1..50), k in 1_u32..50, seed: [u8; 32]) {
            let token = choose(&Exp::new(), &logits, &params(1000, k, 900), &seed, 7);
            let better = logits.iter().filter(|l| **l > logits[token as usize]).count();
            prop_assert!(better < k as usize);
        }

        #[test]
        fn the_same_seed_and_position_draw_the_same_token(seed: [u8; 32], position: u32) {
            let logits = [0, 1 << 16, 2 << 16, 3 << 16];
            let exp = Exp::new();
            let draw = || choose(&exp, &logits, &params(1000, 0, 1000), &seed, position);
            prop_assert_eq!(draw(), draw());
        }
    }
}
