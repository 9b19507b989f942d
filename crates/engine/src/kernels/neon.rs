//! Products with 128-bit registers of AArch64.
//!
//! Four rows meet up to four vectors at once: sixteen sums, which with their operands stay in the 32
//! registers, and none of which waits for another. What adds sixteen products to a sum's four parts is
//! [`Plain`], or [`Dotprod`] on processors that have the instruction for it.
//!
//! What is generic is inlined into [`products`] or [`products_by_dotprod`] and so compiled for their
//! instructions.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vdupq_n_s8, vdupq_n_s32, vget_low_s8, vld1q_s8, vmlal_high_s8, vmull_s8,
    vpadalq_s16, vpaddq_s32, vst1q_s32,
};
use std::arch::asm;

use super::scalar::dot;
use super::{Rows, Vectors};

/// # Safety
/// The lengths are those that [`super::Kernel::products`] checks. NEON is part of AArch64.
#[target_feature(enable = "neon")]
pub(super) unsafe fn products(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    products_by::<Plain>(rows, x, out);
}

/// # Safety
/// As [`products`], and the processor has `dotprod`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn products_by_dotprod(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    products_by::<Dotprod>(rows, x, out);
}

/// Adds the products of sixteen bytes with sixteen others, each within -127..=127, to four sums: which of
/// them to which does not matter.
trait Multiply {
    /// # Safety
    /// The processor has the instructions.
    unsafe fn add_products(sums: int32x4_t, w: int8x16_t, v: int8x16_t) -> int32x4_t;
}

/// Two products are added in 16 bits (2 * 127 * 127 < 2^15), neighbours of those in 32.
struct Plain;

impl Multiply for Plain {
    #[inline(always)]
    unsafe fn add_products(sums: int32x4_t, w: int8x16_t, v: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of AArch64.
        unsafe {
            let pairs = vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(v)), w, v);
            vpadalq_s16(sums, pairs)
        }
    }
}

/// All in one instruction. (Rust's own name for it, `vdotq_s32`, is not stable.)
struct Dotprod;

impl Multiply for Dotprod {
    #[inline(always)]
    unsafe fn add_products(mut sums: int32x4_t, w: int8x16_t, v: int8x16_t) -> int32x4_t {
        // SAFETY: the caller has the instruction, which touches no memory and no flags.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {w:v}.16b, {v:v}.16b",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                v = in(vreg) v,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

#[inline(always)]
fn products_by<M: Multiply>(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    for first in (0..rows.count).step_by(4) {
        let count = (rows.count - first).min(4);
        // Missing rows repeat the last one; their sums are not kept.
        let four = [0, 1, 2, 3].map(|i| rows.row(first + i.min(count - 1)));
        let mut token = 0;
        while token < out.len() {
            let left = (out.len() - token).min(4);
            let vector = |i: usize| x.vector(token + i);
            let sums = match left {
                1 => tile::<M, 1>(four, [vector(0)]),
                2 => tile::<M, 2>(four, [vector(0), vector(1)]),
                3 => tile::<M, 3>(four, [vector(0), vector(1), vector(2)]),
                _ => tile::<M, 4>(four, [vector(0), vector(1), vector(2), vector(3)]),
            };
            for (out, sums) in out[token..].iter_mut().zip(&sums).take(left) {
                out[first..first + count].copy_from_slice(&sums[..count]);
            }
            token += left;
        }
    }
}

/// Four rows with `N <= 4` vectors, all of one length: `[vector][row]`.
#[inline(always)]
fn tile<M: Multiply, const N: usize>(rows: [&[i8]; 4], vectors: [&[i8]; N]) -> [[i32; 4]; 4] {
    let columns = rows[0].len();
    let mut all = rows.iter().chain(&vectors);
    assert!(all.all(|row| row.len() == columns));
    let whole = columns / 16 * 16;
    // SAFETY: NEON is part of AArch64.
    let zero = unsafe { (vdupq_n_s32(0), vdupq_n_s8(0)) };
    let (mut sums, mut w) = ([[zero.0; 4]; N], [zero.1; 4]);
    for at in (0..whole).step_by(16) {
        for (w, row) in w.iter_mut().zip(rows) {
            // SAFETY: `at + 16 <= columns`, the length of each row.
            *w = unsafe { vld1q_s8(row.as_ptr().add(at)) };
        }
        for (sums, vector) in sums.iter_mut().zip(vectors) {
            // SAFETY: as above, the length of each vector.
            let v = unsafe { vld1q_s8(vector.as_ptr().add(at)) };
            for (sum, w) in sums.iter_mut().zip(w) {
                // SAFETY: whoever calls with `M` has its instructions.
                *sum = unsafe { M::add_products(*sum, w, v) };
            }
        }
    }
    let mut totals = [[0; 4]; 4];
    for ((totals, [a, b, c, d]), vector) in totals.iter_mut().zip(&sums).zip(&vectors) {
        // SAFETY: NEON is part of AArch64, and four integers are 16 bytes.
        unsafe {
            let across = vpaddq_s32(vpaddq_s32(*a, *b), vpaddq_s32(*c, *d));
            vst1q_s32(totals.as_mut_ptr(), across);
        }
        if whole < columns {
            for (total, row) in totals.iter_mut().zip(rows) {
                *total += dot(&row[whole..], &vector[whole..]);
            }
        }
    }
    totals
}
