//! Fixed-point arithmetic. Real values are `i32` or `i64` in Q16 (value times 2^16) unless a name
//! says otherwise; every division rounds half up (towards positive infinity). docs/engine.md has
//! the overflow arguments.

/// Values are kept within this bound, which is 1024.0 in Q16: saturation is part of the definition.
pub(crate) const VALUE_MAX: i64 = 1 << 26;
/// The base-2 logarithm of e in Q32.
const LOG2_E_Q32: u64 = 6_196_328_019;
/// Beyond this many halvings a Q30 number is zero.
const EXP_HALVINGS_MAX: u64 = 31;
/// What RMSNorm adds to the mean square: 10^-5 in Q32.
const NORM_EPSILON_Q32: u64 = 42_950;

/// `n / d`, rounded half up. `d` is positive.
pub(crate) fn div_round(n: i128, d: i128) -> i128 {
    (n + d / 2).div_euclid(d)
}

/// `n / 2^shift`, rounded half up.
pub(crate) fn shift_round(n: i64, shift: u32) -> i64 {
    (n + (1 << (shift - 1))) >> shift
}

/// Saturates to the range of values.
pub(crate) fn clamp(value: i64) -> i32 {
    i32::try_from(value.clamp(-VALUE_MAX, VALUE_MAX)).expect("the range of values fits")
}

/// The tables behind [`Exp::neg`]: powers of two with negative fractional exponents, in Q62.
#[derive(Debug, Clone)]
pub(crate) struct Exp {
    /// 2^(-k/256).
    coarse: Vec<u128>,
    /// 2^(-k/65536).
    fine: Vec<u128>,
}

impl Exp {
    /// Builds the tables from integer square roots alone.
    pub(crate) fn new() -> Self {
        // roots[j] = 2^(-2^-j) in Q62: each is the square root of the one before.
        let mut roots = vec![1_u128 << 61];
        for _ in 0..16 {
            let last = roots.last().copied().unwrap_or_default();
            roots.push((last << 62).isqrt());
        }
        let power = |bits: usize, lowest: usize| {
            (0..8).fold(1_u128 << 62, |product, bit| {
                if bits >> bit & 1 == 1 {
                    (product * roots[lowest - bit]) >> 62
                } else {
                    product
                }
            })
        };
        Self {
            coarse: (0..256).map(|bits| power(bits, 8)).collect(),
            fine: (0..256).map(|bits| power(bits, 16)).collect(),
        }
    }

    /// `exp(-x)` in Q30 for `x >= 0` in Q16.
    pub(crate) fn neg(&self, x: u64) -> u64 {
        // As a power of two: x * log2(e), rounded down to Q16.
        let exponent = (u128::from(x) * u128::from(LOG2_E_Q32)) >> 32;
        let halvings = u64::try_from(exponent >> 16).unwrap_or(u64::MAX);
        if halvings > EXP_HALVINGS_MAX {
            return 0;
        }
        let (high, low) = ((exponent >> 8) as usize & 255, exponent as usize & 255);
        let power = (self.coarse[high] * self.fine[low]) >> 62;
        u64::try_from(power >> (32 + halvings)).expect("a power below 1 in Q30 fits")
    }

    /// `x / (1 + exp(-x))`, Q16 to Q16.
    pub(crate) fn silu(&self, x: i32) -> i32 {
        let e = i128::from(self.neg(u64::from(x.unsigned_abs())));
        let one = 1_i128 << 30;
        let numerator = if x >= 0 { one } else { e };
        clamp_wide(div_round(i128::from(x) * numerator, one + e))
    }

    /// Weights proportional to `exp(score)`, in Q30 against the largest score; and their sum.
    /// `scores` is not empty; there are at most 2^20 of them.
    pub(crate) fn softmax(&self, scores: &[i64]) -> (Vec<u64>, u64) {
        let top = scores.iter().copied().max().unwrap_or_default();
        let weights: Vec<u64> = scores
            .iter()
            .map(|score| self.neg(top.abs_diff(*score)))
            .collect();
        let sum = weights.iter().sum();
        (weights, sum)
    }
}

/// Saturates a wide intermediate to the range of values.
pub(crate) fn clamp_wide(value: i128) -> i32 {
    let bound = i128::from(VALUE_MAX);
    i32::try_from(value.clamp(-bound, bound)).expect("the range of values fits")
}

/// RMSNorm: `x * gain / sqrt(mean(x^2) + 10^-5)`; all in Q16.
pub(crate) fn rms_norm(x: &[i32], gain: &[i32]) -> Vec<i32> {
    let squares: u128 = x
        .iter()
        .map(|v| u128::from(v.unsigned_abs()) * u128::from(v.unsigned_abs()))
        .sum();
    let mean = u64::try_from(squares / x.len().max(1) as u128)
        .expect("squares of values have at most 52 bits");
    let root = i128::from((mean + NORM_EPSILON_Q32).isqrt());
    x.iter()
        .zip(gain)
        .map(|(v, g)| clamp_wide(div_round(i128::from(*v) * i128::from(*g), root)))
        .collect()
}

/// Rotates the pair by the angle whose cosine and sine are given in Q30.
pub(crate) fn rotate(a: i32, b: i32, cos: i32, sin: i32) -> (i32, i32) {
    let (a, b, cos, sin) = (i64::from(a), i64::from(b), i64::from(cos), i64::from(sin));
    (
        clamp(shift_round(a * cos - b * sin, 30)),
        clamp(shift_round(a * sin + b * cos, 30)),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation)]
    use super::*;
    use proptest::prelude::*;

    const ONE: i32 = 1 << 16;

    #[test]
    fn rounding_is_half_up_on_both_sides_of_zero() {
        assert_eq!([5, -5, 6, -6].map(|n| div_round(n, 2)), [3, -2, 3, -3]);
        assert_eq!([3, -3, -2].map(|n| shift_round(n, 1)), [2, -1, -1]);
    }

    #[test]
    fn golden_values_of_exp_silu_and_norm_never_change() {
        let exp = Exp::new();
        let points = [0, 1, 1 << 15, 1 << 16, 3 << 16, 10 << 16, 30 << 16];
        assert_eq!(points.map(|x| exp.neg(x)), GOLDEN_EXP);
        let points = [-8 * ONE, -ONE, -1, 0, 1, ONE, 8 * ONE];
        assert_eq!(points.map(|x| exp.silu(x)), GOLDEN_SILU);
        assert_eq!(
            rms_norm(&[ONE, -2 * ONE, 3 * ONE, 0], &[ONE, ONE, 2 * ONE, ONE]),
            GOLDEN_NORM
        );
        assert_eq!(rms_norm(&[0, 0], &[ONE, ONE]), [0, 0]);
    }

    #[test]
    fn golden_values_of_softmax_rotation_and_root_never_change() {
        let one = i64::from(ONE);
        let (weights, sum) = Exp::new().softmax(&[3 * one, one, -one, 3 * one - 1]);
        assert_eq!(weights, GOLDEN_SOFTMAX);
        assert_eq!(sum, 2_312_455_309);
        let far = Exp::new().softmax(&[1 << 44, -(1 << 44)]);
        assert_eq!(far, (vec![1 << 30, 0], 1 << 30));

        let eighth = 759_250_125;
        assert_eq!(rotate(ONE, -2 * ONE, eighth, eighth), (139_023, -46_341));
        assert_eq!(rotate(3, 5, 1 << 29, -(1 << 29)), (4, 1));
        let (most, turn) = (1 << 26, 1 << 30);
        assert_eq!(rotate(most, most, turn, -turn), (most, 0));

        // The divisor shows through a gain of 2^26: round(x * 2^26 / root(mean + 42950)).
        assert_eq!(rms_norm(&[1], &[most]), [324_197]);
        assert_eq!(rms_norm(&[ONE], &[most]), [most]);
        assert_eq!(rms_norm(&[most, -most], &[ONE, ONE]), [ONE, -ONE]);
        assert_eq!(rms_norm(&[ONE, 0], &[ONE, ONE]), [92_682, 0]);
    }
    const GOLDEN_SOFTMAX: [u64; 4] = [1_073_741_824, 145_316_574, 19_666_444, 1_073_730_467];
    const GOLDEN_EXP: [u64; 7] = [
        1_073_741_824,
        1_073_730_467,
        651_258_928,
        395_009_473,
        53_458_676,
        48_748,
        0,
    ];
    const GOLDEN_SILU: [i32; 7] = [-176, -17_625, 0, 0, 1, 47_911, 524_112];
    const GOLDEN_NORM: [i32; 4] = [35031, -70061, 210184, 0];

    proptest! {
        #[test]
        fn exp_is_near_the_real_one_and_falls(x in 0_u64..40 << 16, y in 0_u64..40 << 16) {
            let exp = Exp::new();
            #[allow(clippy::cast_precision_loss)]
            let real = (-(x as f64) / 65536.0).exp();
            #[allow(clippy::cast_precision_loss)]
            let ours = exp.neg(x) as f64 / f64::from(1 << 30);
            prop_assert!((real - ours).abs() < 2e-5, "{real} {ours}");
            let (less, more) = (x.min(y), x.max(y));
            prop_assert!(exp.neg(less) >= exp.neg(more));
        }

        #[test]
        fn nothing_overflows_within_the_range_of_values(x in -(1_i32 << 26)..=1 << 26, g in -(1_i32 << 26)..=1 << 26, c in -(1_i32 << 30)..=1 << 30, s in -(1_i32 << 30)..=1 << 30) {
            let bound = 1 << 26;
            let exp = Exp::new();
            prop_assert!(exp.silu(x).abs() <= bound);
            let (a, b) = rotate(x, g, c, s);
            prop_assert!(a.abs() <= bound && b.abs() <= bound);
            for v in rms_norm(&[x, g, bound, -bound], &[g, x, bound, -bound]) {
                prop_assert!(v.abs() <= bound);
            }
        }

        #[test]
        fn silu_is_near_the_real_one(x in -20 * ONE..20 * ONE) {
            let real = f64::from(x) / 65536.0;
            let real = real / (1.0 + (-real).exp());
            let ours = f64::from(Exp::new().silu(x)) / 65536.0;
            prop_assert!((real - ours).abs() < 2e-3, "{real} {ours}");
        }
    }
}
