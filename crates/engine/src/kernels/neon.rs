//! Products with 128-bit registers of AArch64: bytes are multiplied to 16 bits, neighbours added into
//! 32.

use std::arch::aarch64::{
    vaddvq_s32, vdupq_n_s32, vget_low_s8, vld1q_s8, vmull_high_s8, vmull_s8, vpadalq_s16,
};

use super::scalar::dot;
use super::{Rows, Vectors};

/// # Safety
/// The lengths are those that [`super::Kernel::products`] checks. NEON is part of AArch64.
#[target_feature(enable = "neon")]
pub(super) unsafe fn products(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    for row in 0..rows.count {
        let weights = rows.row(row);
        let mut token = 0;
        while token < out.len() {
            let left = (out.len() - token).min(4);
            let vector = |i: usize| x.vector(token + i);
            let sums = match left {
                1 => dots(weights, [vector(0)]),
                2 => dots(weights, [vector(0), vector(1)]),
                3 => dots(weights, [vector(0), vector(1), vector(2)]),
                _ => dots(weights, [vector(0), vector(1), vector(2), vector(3)]),
            };
            for (out, sum) in out[token..].iter_mut().zip(sums).take(left) {
                out[row] = sum;
            }
            token += left;
        }
    }
}

/// One row with `N <= 4` vectors, all of one length.
#[target_feature(enable = "neon")]
fn dots<const N: usize>(row: &[i8], vectors: [&[i8]; N]) -> [i32; 4] {
    let columns = row.len();
    let whole = columns / 16 * 16;
    let mut sums = [vdupq_n_s32(0); N];
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16 <= columns`, the length of the row and of each vector.
        let w = unsafe { vld1q_s8(row.as_ptr().add(at)) };
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            debug_assert!(vector.len() == columns);
            // SAFETY: as above.
            let v = unsafe { vld1q_s8(vector.as_ptr().add(at)) };
            *sum = vpadalq_s16(*sum, vmull_s8(vget_low_s8(w), vget_low_s8(v)));
            *sum = vpadalq_s16(*sum, vmull_high_s8(w, v));
        }
    }
    let mut totals = [0; 4];
    for ((total, sum), vector) in totals.iter_mut().zip(sums).zip(vectors) {
        *total = vaddvq_s32(sum) + dot(&row[whole..], &vector[whole..]);
    }
    totals
}
