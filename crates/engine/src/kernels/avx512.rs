//! Products with 512-bit registers and byte products (VNNI).
//!
//! The instruction multiplies unsigned with signed bytes and adds four products to a 32-bit sum without
//! saturation. Activations are made unsigned by adding 128; 128 times the row's sum, which comes from
//! the same instruction, is taken off at the end. 255 * 127 * 32,768 < 2^31.

use std::arch::x86_64::{
    __m512i, __mmask64, _mm512_dpbusd_epi32, _mm512_maskz_loadu_epi8, _mm512_reduce_add_epi32,
    _mm512_set1_epi8, _mm512_setzero_si512, _mm512_xor_si512,
};

use super::{Rows, Vectors};

/// # Safety
/// AVX-512 F, BW and VNNI are there, and the lengths are those that [`super::Kernel::products`] checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn products(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    for first in (0..rows.count).step_by(4) {
        let count = (rows.count - first).min(4);
        // Missing rows repeat the last one; their sums are not kept.
        let four = [0, 1, 2, 3].map(|i| rows.row(first + i.min(count - 1)));
        let mut token = 0;
        while token < out.len() {
            let left = (out.len() - token).min(4);
            let vector = |i: usize| x.vector(token + i);
            let sums = match left {
                1 => tile(four, [vector(0)]),
                2 => tile(four, [vector(0), vector(1)]),
                3 => tile(four, [vector(0), vector(1), vector(2)]),
                _ => tile(four, [vector(0), vector(1), vector(2), vector(3)]),
            };
            for (out, sums) in out[token..].iter_mut().zip(&sums).take(left) {
                out[first..first + count].copy_from_slice(&sums[..count]);
            }
            token += left;
        }
    }
}

/// Four rows with `N <= 4` vectors, all of one length.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const N: usize>(rows: [&[i8]; 4], vectors: [&[i8]; N]) -> [[i32; 4]; 4] {
    let columns = vectors[0].len();
    let ones = _mm512_set1_epi8(1);
    let offset = _mm512_set1_epi8(-128);
    let mut sums = [[_mm512_setzero_si512(); 4]; N];
    let mut weights = [_mm512_setzero_si512(); 4];
    for at in (0..columns).step_by(64) {
        let mask = mask(columns - at);
        let v = vectors.map(|vector| _mm512_xor_si512(load(vector, at, mask), offset));
        for (r, row) in rows.into_iter().enumerate() {
            let w = load(row, at, mask);
            weights[r] = _mm512_dpbusd_epi32(weights[r], ones, w);
            for (sums, v) in sums.iter_mut().zip(v) {
                sums[r] = _mm512_dpbusd_epi32(sums[r], v, w);
            }
        }
    }
    let weights = weights.map(|sum| _mm512_reduce_add_epi32(sum));
    let mut totals = [[0; 4]; 4];
    for (totals, sums) in totals.iter_mut().zip(sums) {
        for ((total, sum), weights) in totals.iter_mut().zip(sums).zip(weights) {
            *total = _mm512_reduce_add_epi32(sum) - 128 * weights;
        }
    }
    totals
}

/// Which of the next 64 bytes there are. What is not there is loaded as 0.
fn mask(left: usize) -> __mmask64 {
    if left >= 64 {
        u64::MAX
    } else {
        (1 << left) - 1
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn load(bytes: &[i8], at: usize, mask: __mmask64) -> __m512i {
    debug_assert!(at + mask.count_ones() as usize <= bytes.len());
    // SAFETY: only bytes under the mask are read, and those lie within the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().add(at)) }
}
