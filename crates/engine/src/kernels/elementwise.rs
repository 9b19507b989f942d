//! What runs once per element, as plain Rust that compilers vectorise. docs/engine.md is the
//! definition.

use super::{Rows, Share, Softmax};
use crate::arith::{self, MIX_BLOCK, shift_round, tables};
use crate::factor::Factor;
use crate::scale::{self, RowScale};

/// Scores saturate here: 16,384.0 in Q16.
const SCORE_MAX: i64 = 1 << 30;
/// How many positions' products of 15 and 7 bits fit a 31-bit sum.
pub(super) const WEIGH_BLOCK: usize = 512;

#[inline(always)]
pub(super) fn requantise(sums: &mut [i32], scales: &[RowScale], factor: Factor, max: i32) {
    scale::requantise(sums, scales, factor, max);
}

#[inline(always)]
pub(super) fn quantise(x: &[i32], peak: u32, out: &mut [i8]) {
    arith::quantise(x, peak, out);
}

#[inline(always)]
pub(super) fn gate(gate: &mut [i32], up: &[i32]) {
    let tables = tables();
    for (g, u) in gate.iter_mut().zip(up) {
        *g = tables.gated(*g, *u);
    }
}

#[inline(always)]
pub(super) fn mix_blocks(x: &mut [i32]) {
    for block in x.as_chunks_mut::<MIX_BLOCK>().0 {
        arith::mix_block(block);
    }
}

#[inline(always)]
pub(super) fn rotate_heads(heads: &mut [i32], cos: &[i32], sin: &[i32]) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        for i in 0..half {
            (first[i], second[i]) = arith::rotate(first[i], second[i], cos[i], sin[i]);
        }
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [i32], y: &[i32], max: i32) {
    for (a, b) in x.iter_mut().zip(y) {
        // Both are at most 2^29, so the sum fits.
        *a = (*a + *b).clamp(-max, max);
    }
}

/// Scores of a block of positions, weights `2^(score - exponent)` in Q30, and from those the weights of the quantised
/// values: weight times value peak, in at most 15 bits.
#[inline(always)]
pub(super) fn softmax(job: &mut Softmax<'_>) {
    let mut top = i32::MIN;
    for (score, key_peak) in job.scores.iter_mut().zip(job.key_peaks) {
        // At most 22 and 26 bits.
        let product = i64::from(*score) * i64::from(*key_peak as i32);
        // Both fit 32 bits, which lets compilers multiply them as such.
        let scaled = i64::from(shift_round(product, 17) as i32);
        let scaled = scaled * i64::from(job.query.mantissa as i32);
        let value = shift_round(scaled, job.query.shift.clamp(1, 62));
        *score = value.clamp(-SCORE_MAX, SCORE_MAX) as i32;
        top = top.max(*score);
    }
    let tables = tables();
    // The power of two at or above the largest weight, of which blocks are brought together by shifts alone.
    let exponent = (top + 0xffff) >> 16;
    let above = exponent << 16;
    let (mut sum, mut most) = (0_u64, 0_u64);
    for (score, value_peak) in job.scores.iter_mut().zip(job.value_peaks) {
        let weight = tables.power(above.abs_diff(*score));
        sum += u64::from(weight);
        most = most.max(u64::from(weight) * u64::from(*value_peak));
        // At most 2^30.
        *score = weight as i32;
    }
    let length = 64 - most.leading_zeros();
    let shift = length.saturating_sub(15);
    let half = (1_u64 << shift) >> 1;
    let scores = job.scores.iter().zip(job.value_peaks);
    for (weight, (score, value_peak)) in job.weights.iter_mut().zip(scores) {
        let wide = u64::from(score.unsigned_abs()) * u64::from(*value_peak);
        *weight = ((wide + half) >> shift).min(32_767) as i16;
    }
    job.share = Share {
        exponent,
        sum,
        shift,
    };
}

#[inline(always)]
pub(super) fn weigh(weights: &[i16], rows: &Rows<'_>, out: &mut [i64]) {
    out.fill(0);
    if rows.columns == 0 {
        return;
    }
    let mut sums = [0_i32; 256];
    let sums = &mut sums[..rows.columns];
    for (block, weights) in weights.chunks(WEIGH_BLOCK).enumerate() {
        sums.fill(0);
        for (p, weight) in weights.iter().enumerate() {
            let row = rows.row(block * WEIGH_BLOCK + p);
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*weight) * i32::from(*value);
            }
        }
        for (total, sum) in out.iter_mut().zip(sums.iter()) {
            *total += i64::from(*sum);
        }
    }
}
