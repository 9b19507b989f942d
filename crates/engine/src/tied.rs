//! The embedding as the head. The gains of the final norm cannot be part of its weights, which also write to the
//! stream, so they stand apart and meet the stream unturned. docs/engine.md defines the operation.

use crate::arith::{NormRoot, bits, norm_root, peak, shift_round};
use crate::factor::Factor;
use crate::turn::Turn;

/// The largest gain, 1024.0 in Q16.
pub(crate) const GAIN_MAX: i32 = 1 << 26;
/// The lengths of the largest values between the steps, and at the end.
const BETWEEN_BITS: u32 = 30;
const LAST_BITS: u32 = 29;

/// The final norm's gains, where the embedding serves as the head.
#[derive(Debug, Clone)]
pub(crate) struct TiedHead {
    /// `[dim]`, Q16.
    pub(crate) gains: Vec<i32>,
    pub(crate) turn: Turn,
}

impl TiedHead {
    /// What the embedding meets, `[dim]`, with its peak at most 2^29, and what a unit of it, quantised, is worth. For a
    /// stream `y` that was turned by H that is H diag(gains) H y, over its norm. (The turn's random signs come twice and
    /// are gone.)
    ///
    /// Nothing overflows: `y` is at most 2^29, H has 2^14 rows at most, and gains 2^26. So sums have 44 bits, then 45 after
    /// the second turn, and products 57, since each step brings its largest value to at most 2^30.
    pub(crate) fn apply(&self, stream: &[i32], epsilon_q32: u32) -> (Vec<i32>, Factor) {
        let stream_peak = peak(stream);
        if stream_peak == 0 {
            return (vec![0; stream.len()], Factor::ZERO);
        }
        let NormRoot { root, .. } = norm_root(stream, stream_peak, epsilon_q32);
        let mut wide: Vec<i64> = stream.iter().map(|value| i64::from(*value)).collect();
        self.turn.apply(&mut wide, 1);
        let mut halvings = fit(&mut wide, BETWEEN_BITS);
        for (value, gain) in wide.iter_mut().zip(&self.gains) {
            *value *= i64::from(*gain);
        }
        halvings += fit(&mut wide, BETWEEN_BITS);
        self.turn.apply(&mut wide, 1);
        halvings += fit(&mut wide, LAST_BITS);
        let turned: Vec<i32> = wide
            .iter()
            .map(|value| i32::try_from(*value).expect("29 bits fit"))
            .collect();
        // A unit is peak 2^halvings / (127 order rms), and the rms is root / 2^(31 - bits).
        let order = self.turn.order() as u128;
        let factor = Factor::of(u128::from(peak(&turned)), 127 * root * order);
        let doublings = halvings + 31 - bits(stream_peak);
        (turned, factor.doubled(doublings))
    }
}

/// Halves all values, rounding once, until the largest has at most so many bits; returns how often.
fn fit(values: &mut [i64], bits_max: u32) -> u32 {
    let peak = values.iter().fold(0, |most, v| v.unsigned_abs().max(most));
    let halvings = (64 - peak.leading_zeros()).saturating_sub(bits_max);
    if halvings > 0 {
        for value in values {
            *value = shift_round(*value, halvings);
        }
    }
    halvings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::RESIDUAL_MAX;
    use proptest::prelude::*;

    /// What a unit of the vector is worth in Q16, times the vector: in floating point.
    fn real((vector, factor): (Vec<i32>, Factor)) -> Vec<f64> {
        let unit = f64::from(factor.mantissa) / f64::from(factor.shift).exp2();
        let peak = f64::from(peak(&vector).max(1));
        let value = |v: i32| f64::from(v) * 127.0 / peak * unit / 65_536.0;
        vector.into_iter().map(value).collect()
    }

    fn exact(head: &TiedHead, stream: &[i32]) -> Vec<f64> {
        let root = (head.turn.order() as f64).sqrt();
        let mut x: Vec<f64> = stream.iter().map(|v| f64::from(*v) / 65_536.0).collect();
        let squares: f64 = x.iter().map(|v| v * v).sum();
        let rms = (squares / x.len() as f64 + 42_950.0 / 65_536.0_f64.powi(2)).sqrt();
        head.turn.apply(&mut x, 1);
        for (x, gain) in x.iter_mut().zip(&head.gains) {
            *x *= f64::from(*gain) / 65_536.0 / root / rms;
        }
        head.turn.apply(&mut x, 1);
        x.iter().map(|x| x / root).collect()
    }

    proptest! {
        #[test]
        fn the_gains_meet_the_stream_as_it_was_before_its_turn(
            stream in proptest::collection::vec(-RESIDUAL_MAX..=RESIDUAL_MAX, 48),
            gains in proptest::collection::vec(-GAIN_MAX..=GAIN_MAX, 48),
            divide in 1_i32..1 << 22, gains_divide in 1_i32..1 << 12,
            order in proptest::sample::select(vec![1_usize, 2, 12, 24, 48]),
        ) {
            let head = TiedHead {
                gains: gains.iter().map(|gain| gain / gains_divide).collect(),
                turn: Turn::of_order(order).unwrap(),
            };
            let stream: Vec<i32> = stream.iter().map(|v| v / divide).collect();
            let expected = exact(&head, &stream);
            let found = real(head.apply(&stream, 42_950));
            let most = expected.iter().fold(1e-9_f64, |most, v| most.max(v.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-4 * most, "{found} {expected} {most}");
            }
        }
    }

    #[test]
    fn the_largest_stream_and_gains_give_factors_that_can_be_shifted_by() {
        for (width, order) in [(16_384, 16_384), (16_384, 1), (2, 2), (1, 1)] {
            let head = TiedHead {
                gains: vec![GAIN_MAX; width],
                turn: Turn::of_order(order).unwrap(),
            };
            let mut one = vec![0; width];
            one[0] = RESIDUAL_MAX;
            for stream in [vec![RESIDUAL_MAX; width], vec![-RESIDUAL_MAX; width], one] {
                let (turned, factor) = head.apply(&stream, 0);
                assert!(peak(&turned) <= 1 << 29);
                assert!(factor.shift >= 4, "{factor:?}");
            }
        }
    }
}
