//! Fixed-point arithmetic. Real values are `i32` or `i64` in Q16 (value times 2^16) unless a name
//! says otherwise; divisions round half up (towards positive infinity). docs/engine.md defines each
//! operation and has the overflow arguments.
//!
//! What runs once per element is `#[inline(always)]`, so that the kernels can compile the same code
//! for wider registers.

use std::sync::LazyLock;

use crate::factor::Factor;

/// Values are kept within this bound, which is 1024.0 in Q16: saturation is part of the definition.
pub(crate) const VALUE_MAX: i32 = 1 << 26;
/// The bound of the residual stream and of what is added to it, 8192.0.
pub(crate) const RESIDUAL_MAX: i32 = 1 << 29;
/// The base-2 logarithm of e in Q32.
pub(crate) const LOG2_E_Q32: u64 = 6_196_328_019;
/// From this many halvings on, a Q30 weight counts as zero.
const HALVINGS_MAX: u32 = 31;
/// Sigmoid is 1 from here on: 16.0 in Q16.
const SIGMOID_END: u32 = 16 << 16;

/// `n / 2^shift`, rounded half up; `shift` is 1..=62.
#[inline(always)]
pub(crate) fn shift_round(n: i64, shift: u32) -> i64 {
    (n + (1 << (shift - 1))) >> shift
}

/// Saturates to the range of values.
#[inline(always)]
pub(crate) fn clamp(value: i64) -> i32 {
    saturate(value, VALUE_MAX)
}

/// Saturates to a range.
#[inline(always)]
pub(crate) fn saturate(value: i64, max: i32) -> i32 {
    value.clamp(-i64::from(max), i64::from(max)) as i32
}

/// Bits of a number: 0 for 0, 27 for 2^26.
#[inline(always)]
pub(crate) fn bits(n: u32) -> u32 {
    32 - n.leading_zeros()
}

/// The tables behind powers of two and the sigmoid, made from integer roots and divisions alone.
pub(crate) struct Tables {
    /// 2^(-i/256) in Q30, `i` from 0 to 256.
    powers: [u32; 257],
    /// 1 / (1 + exp(-i/64)) in Q28, `i` from 0 to 1024.
    sigmoids: [u32; 1025],
}

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);

/// The tables.
pub(crate) fn tables() -> &'static Tables {
    &TABLES
}

impl Tables {
    fn new() -> Self {
        let exact = ExactExp::new();
        let mut powers = [1 << 29; 257];
        for (power, exact) in powers.iter_mut().zip(&exact.coarse) {
            *power = u32::try_from(exact >> 32).expect("a power of at most 1 fits in Q30");
        }
        let mut sigmoids = [0; 1025];
        for (i, sigmoid) in (0..).zip(&mut sigmoids) {
            let one_and_exp = (1_u64 << 30) + exact.neg(i << 10);
            let rounded = ((1 << 58) + one_and_exp / 2) / one_and_exp;
            *sigmoid = u32::try_from(rounded).expect("a sigmoid of at most 1 fits in Q28");
        }
        Self { powers, sigmoids }
    }

    /// `2^-z` in Q30 for `z` in Q16: between two entries of the table on a straight line.
    #[inline(always)]
    pub(crate) fn power(&self, z: u32) -> u32 {
        let (entry, part) = ((z >> 8 & 255) as usize, z & 255);
        let from = self.powers[entry];
        let value = from - (((from - self.powers[entry + 1]) * part + 128) >> 8);
        let halvings = z >> 16;
        if halvings < HALVINGS_MAX {
            value >> halvings
        } else {
            0
        }
    }

    /// `1 / (1 + exp(-x))` in Q28 for `x` in Q16.
    #[inline(always)]
    pub(crate) fn sigmoid(&self, x: i32) -> u32 {
        let size = x.unsigned_abs().min(SIGMOID_END - 1);
        let (entry, part) = ((size >> 10) as usize, size & 1023);
        let from = self.sigmoids[entry];
        let value = from + (((self.sigmoids[entry + 1] - from) * part + 512) >> 10);
        let value = if x.unsigned_abs() < SIGMOID_END {
            value
        } else {
            1 << 28
        };
        if x >= 0 { value } else { (1 << 28) - value }
    }

    /// SiLU of `gate` times `up`: both and the result in Q16.
    #[inline(always)]
    pub(crate) fn gated(&self, gate: i32, up: i32) -> i32 {
        let silu = shift_round(i64::from(gate) * i64::from(self.sigmoid(gate)), 28);
        clamp(shift_round(silu * i64::from(up), 16))
    }
}

/// `exp(-x)` by exact square roots: what the tables are made from.
struct ExactExp {
    /// 2^(-k/256) in Q62.
    coarse: Vec<u128>,
    /// 2^(-k/65536) in Q62.
    fine: Vec<u128>,
}

impl ExactExp {
    fn new() -> Self {
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

    /// `exp(-x)` in Q30 for `x` in Q16 up to 20.0.
    fn neg(&self, x: u64) -> u64 {
        let exponent = (x * LOG2_E_Q32) >> 32;
        let (high, low) = ((exponent >> 8) as usize & 255, exponent as usize & 255);
        let power = (self.coarse[high] * self.fine[low]) >> 62;
        u64::try_from(power >> (32 + (exponent >> 16))).expect("a power below 1 in Q30 fits")
    }
}

/// The largest magnitude.
#[inline(always)]
pub(crate) fn peak(x: &[i32]) -> u32 {
    x.iter().fold(0, |most, v| most.max(v.unsigned_abs()))
}

/// Quantises to int8: `q = round(127 x / peak)`, by way of a reciprocal as docs/engine.md says.
/// `peak` is that of `x` and below 2^31.
#[inline(always)]
pub(crate) fn quantise(x: &[i32], peak: u32, out: &mut [i8]) {
    if peak == 0 {
        out.fill(0);
        return;
    }
    let shift = 31 - bits(peak);
    // Below 2^25, since the divisor has 31 bits.
    let reciprocal = i64::from(((127_i64 << 47) / i64::from(peak << shift)) as i32);
    for (q, v) in out.iter_mut().zip(x) {
        *q = ((i64::from(v << shift) * reciprocal + (1 << 46)) >> 47) as i8;
    }
}

/// What RMSNorm followed by quantisation is worth per unit, in Q16: `peak / (127 rms)`.
/// `epsilon_q32` is what the norm adds to the mean square.
pub(crate) fn norm_factor(x: &[i32], peak: u32, epsilon_q32: u32) -> Factor {
    if peak == 0 {
        return Factor::ZERO;
    }
    let NormRoot { root, peak } = norm_root(x, peak, epsilon_q32);
    Factor::of(peak << 23, 127 * root)
}

/// The root mean square of a vector, epsilon included, at the scale at which its peak has 24 bits.
pub(crate) struct NormRoot {
    /// Times 2^7.
    pub(crate) root: u128,
    /// The peak at that scale.
    pub(crate) peak: u128,
}

/// See [`norm_factor`]; `peak` is that of `x`, above 0 and below 2^30.
pub(crate) fn norm_root(x: &[i32], peak: u32, epsilon_q32: u32) -> NormRoot {
    // All to the scale at which the peak has 24 bits, so that squares add up in 64.
    let up = 24_u32.saturating_sub(bits(peak));
    let down = bits(peak).saturating_sub(24);
    let squares: u64 = x
        .iter()
        .map(|v| {
            let scaled = u64::from(((v << up) >> down).unsigned_abs());
            scaled * scaled
        })
        .sum();
    let mean = u128::from(squares / x.len().max(1) as u64);
    let epsilon = (u128::from(epsilon_q32) << (2 * up)) >> (2 * down);
    NormRoot {
        root: ((mean + epsilon) << 14).isqrt(),
        peak: u128::from((peak << up) >> down),
    }
}

/// Rotates the pair by the angle whose cosine and sine are given in Q30.
#[inline(always)]
pub(crate) fn rotate(a: i32, b: i32, cos: i32, sin: i32) -> (i32, i32) {
    let (a, b, cos, sin) = (i64::from(a), i64::from(b), i64::from(cos), i64::from(sin));
    (
        clamp(shift_round(a * cos - b * sin, 30)),
        clamp(shift_round(a * sin + b * cos, 30)),
    )
}

/// How many neighbours [`mix_block`] turns into each other.
pub(crate) const MIX_BLOCK: usize = 64;

/// The Hadamard transform of 64 values, divided by 8, in three passes of which each halves with
/// rounding. It spreads an outlier over its block; the weights behind it are turned likewise.
/// Values up to 2^26 become at most 2^29.
#[inline(always)]
pub(crate) fn mix_block(x: &mut [i32; MIX_BLOCK]) {
    // Neighbours, then those four apart, then those sixteen apart. In between the block, seen as a matrix of four
    // columns, is turned, so that each pass works on whole rows of sixteen.
    for _ in 0..3 {
        let mut turned = [[0; MIX_BLOCK / 4]; 4];
        for (i, four) in x.as_chunks::<4>().0.iter().enumerate() {
            for (row, value) in turned.iter_mut().zip(four) {
                row[i] = *value;
            }
        }
        let [a, b, c, d] = &mut turned;
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (sum, difference) = ((*a + *b, *c + *d), (*a - *b, *c - *d));
            *a = (sum.0 + sum.1 + 1) >> 1;
            *b = (difference.0 + difference.1 + 1) >> 1;
            *c = (sum.0 - sum.1 + 1) >> 1;
            *d = (difference.0 - difference.1 + 1) >> 1;
        }
        x.copy_from_slice(turned.as_flattened());
    }
}

#[cfg(test)]
mod tests;
