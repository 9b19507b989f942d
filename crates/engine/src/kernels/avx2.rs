//! Products with 256-bit registers.
//!
//! One token: bytes at once, the weight's sign moved to the activation, since the instruction
//! multiplies unsigned with signed (exact: 2 * 127 * 127 < 2^15). Several tokens: four rows are widened
//! to 16 bits once and meet two tokens at a time, which keeps eight sums in registers.

use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi8,
    _mm_unpacklo_epi8, _mm256_abs_epi8, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_si256,
};

use super::elementwise::WEIGH_BLOCK;
use super::scalar::dot;
use super::{Rows, Vectors, four_apart, quarter};

/// From this many tokens on, widening pays.
pub(super) const WIDE_TOKENS_MIN: usize = 3;
/// How many rows are widened at once, and how much of each: with three tokens, what stays in the
/// first cache. The more rows, the less often the tokens come from the second.
const PANEL_ROWS: usize = 8;
const BLOCK: usize = 1024;
/// How many tokens meet four rows at once: their eight sums, and what they are made of, stay in the
/// sixteen registers. (With twelve sums the compiler puts one into memory, which is four times slower.)
const TILE_TOKENS: usize = 2;

/// # Safety
/// AVX2 is there, and the lengths are those that [`super::Kernel::products`] checks.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn products(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    if out.len() >= WIDE_TOKENS_MIN {
        return wide(rows, x, out);
    }
    for first in 0..quarter(rows.count) {
        let indices = four_apart(first, rows.count);
        // Missing rows repeat the first one; their sums are not kept.
        let mut four = [rows.row(first); 4];
        for (row, index) in four.iter_mut().zip(indices.clone()) {
            *row = rows.row(index);
        }
        for (token, out) in out.iter_mut().enumerate() {
            let sums = dot_four(four, x.vector(token));
            for (index, sum) in indices.clone().zip(sums) {
                out[index] = sum;
            }
        }
    }
}

/// Four rows with one vector; all of one length.
#[target_feature(enable = "avx2")]
fn dot_four(rows: [&[i8]; 4], vector: &[i8]) -> [i32; 4] {
    let columns = vector.len();
    let whole = columns / 32 * 32;
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); 4];
    for at in (0..whole).step_by(32) {
        // SAFETY: `at + 32 <= columns`, the length of the vector and of each row.
        let v = unsafe { _mm256_loadu_si256(vector.as_ptr().add(at).cast()) };
        for (sum, row) in sums.iter_mut().zip(rows) {
            debug_assert!(row.len() == columns);
            // SAFETY: as above.
            let w = unsafe { _mm256_loadu_si256(row.as_ptr().add(at).cast()) };
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(v, w));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    let mut totals = add_across(sums);
    if whole < columns {
        for (total, row) in totals.iter_mut().zip(rows) {
            *total += dot(&row[whole..], &vector[whole..]);
        }
    }
    totals
}

/// The sum of each register's eight parts.
#[target_feature(enable = "avx2")]
fn add_across(sums: [__m256i; 4]) -> [i32; 4] {
    let pairs = (
        _mm256_hadd_epi32(sums[0], sums[1]),
        _mm256_hadd_epi32(sums[2], sums[3]),
    );
    let quads = _mm256_hadd_epi32(pairs.0, pairs.1);
    let total = _mm_add_epi32(
        _mm256_castsi256_si128(quads),
        _mm256_extracti128_si256::<1>(quads),
    );
    let mut totals = [0; 4];
    // SAFETY: four integers are 16 bytes.
    unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast(), total) };
    totals
}

/// The vectors in 16 bits, [`BLOCK`] columns of all tokens after another: what a panel meets lies
/// close together. (Vectors whose length is a power of two would fight for the same cache lines.)
pub(super) fn pack(values: &[i8], columns: usize) -> Vec<i16> {
    let mut wide = Vec::with_capacity(values.len());
    for from in (0..columns).step_by(BLOCK) {
        let width = (columns - from).min(BLOCK);
        for vector in values.chunks_exact(columns) {
            wide.extend(vector[from..from + width].iter().map(|v| i16::from(*v)));
        }
    }
    wide
}

#[target_feature(enable = "avx2")]
fn wide(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    assert_eq!(x.packed.words.len(), x.values.len());
    let mut panel = [0_i16; PANEL_ROWS * BLOCK];
    for from in (0..rows.columns).step_by(BLOCK) {
        let columns = (rows.columns - from).min(BLOCK);
        for first in (0..rows.count).step_by(PANEL_ROWS) {
            let count = (rows.count - first).min(PANEL_ROWS);
            for (i, place) in panel.chunks_exact_mut(BLOCK).take(count).enumerate() {
                widen(&rows.row(first + i)[from..from + columns], place);
            }
            let block = &x.packed.words[from * out.len()..][..columns * out.len()];
            for (pair, vectors) in block.chunks(TILE_TOKENS * columns).enumerate() {
                // A missing token repeats the last one; its sums are not kept.
                let (token, left) = (TILE_TOKENS * pair, vectors.len() / columns);
                let vectors = [&vectors[..columns], &vectors[vectors.len() - columns..]];
                let quads = panel.as_chunks::<{ 4 * BLOCK }>().0;
                for (quad, panel) in quads.iter().enumerate().take(count.div_ceil(4)) {
                    let sums = tile(panel, vectors);
                    let range = first + 4 * quad..(first + 4 * quad + 4).min(rows.count);
                    for (out, sums) in out[token..].iter_mut().zip(sums).take(left) {
                        gather(&mut out[range.clone()], sums, from == 0);
                    }
                }
            }
        }
    }
}

/// Puts or adds up to four sums. That they fit is argued where rows are bounded.
#[target_feature(enable = "avx2")]
fn gather(out: &mut [i32], sums: [i32; 4], is_first: bool) {
    if let Some(out) = out.as_mut_array::<4>() {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if is_first { sum } else { out.wrapping_add(sum) };
        }
        return;
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = if is_first { sum } else { out.wrapping_add(sum) };
    }
}

/// Sign-extends a row to 16 bits. `place` is at least as long.
#[target_feature(enable = "avx2")]
fn widen(row: &[i8], place: &mut [i16]) {
    let place = &mut place[..row.len()];
    let whole = row.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is at most the length of both.
        unsafe {
            let bytes = _mm_loadu_si128(row.as_ptr().add(at).cast());
            let words = _mm256_cvtepi8_epi16(bytes);
            _mm256_storeu_si256(place.as_mut_ptr().add(at).cast(), words);
        }
    }
    for (word, byte) in place[whole..].iter_mut().zip(&row[whole..]) {
        *word = i16::from(*byte);
    }
}

/// Four widened rows, [`BLOCK`] apart in `panel`, with two vectors of at most that length.
#[target_feature(enable = "avx2")]
fn tile(panel: &[i16; 4 * BLOCK], vectors: [&[i16]; TILE_TOKENS]) -> [[i32; 4]; TILE_TOKENS] {
    let columns = vectors[0].len();
    assert!(columns <= BLOCK && vectors.iter().all(|vector| vector.len() == columns));
    let whole = columns / 16 * 16;
    let mut sums = [[_mm256_setzero_si256(); 4]; TILE_TOKENS];
    for at in (0..whole).step_by(16) {
        for row in 0..4 {
            // SAFETY: `at + 16 <= columns <= BLOCK`, and the panel has four times that.
            let w = unsafe { _mm256_loadu_si256(panel.as_ptr().add(row * BLOCK + at).cast()) };
            for (sums, vector) in sums.iter_mut().zip(vectors) {
                // SAFETY: `at + 16 <= columns`, the length of each vector.
                let v = unsafe { _mm256_loadu_si256(vector.as_ptr().add(at).cast()) };
                sums[row] = _mm256_add_epi32(sums[row], _mm256_madd_epi16(w, v));
            }
        }
    }
    let mut totals = sums.map(|sums| add_across(sums));
    for (total, vector) in totals.iter_mut().zip(vectors) {
        for at in whole..columns {
            for (row, total) in total.iter_mut().enumerate() {
                *total += i32::from(panel[row * BLOCK + at]) * i32::from(vector[at]);
            }
        }
    }
    totals
}

/// See [`super::Kernel::weigh`]: two positions at a time, their bytes put side by side and widened.
#[target_feature(enable = "avx2")]
pub(super) fn weigh(weights: &[i16], rows: &Rows<'_>, out: &mut [i64]) {
    let mut whole = 0;
    while rows.columns - whole >= 64 {
        weigh_columns::<4>(weights, rows, whole, &mut out[whole..whole + 64]);
        whole += 64;
    }
    while rows.columns - whole >= 16 {
        weigh_columns::<1>(weights, rows, whole, &mut out[whole..whole + 16]);
        whole += 16;
    }
    let rest = Rows {
        data: &rows.data[whole..],
        columns: rows.columns - whole,
        ..*rows
    };
    super::elementwise::weigh(weights, &rest, &mut out[whole..]);
}

/// [`weigh`] for `16 * GROUPS` columns from `at` on; of several groups, a position's weight is spread once for all.
#[target_feature(enable = "avx2")]
fn weigh_columns<const GROUPS: usize>(
    weights: &[i16],
    rows: &Rows<'_>,
    at: usize,
    out: &mut [i64],
) {
    out.fill(0);
    for (block, weights) in weights.chunks(WEIGH_BLOCK).enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 2]; GROUPS];
        for (pair, weights) in weights.chunks(2).enumerate() {
            let position = block * WEIGH_BLOCK + 2 * pair;
            let first = &rows.row(position)[at..at + 16 * GROUPS];
            // A missing row has the weight 0.
            let (second, weight) = match weights {
                [first, second] => (position + 1, i32::from(*second) << 16 | i32::from(*first)),
                _ => (position, i32::from(weights[0])),
            };
            let second = &rows.row(second)[at..at + 16 * GROUPS];
            let weight = _mm256_set1_epi32(weight);
            for (group, sums) in sums.iter_mut().enumerate() {
                let (low, high) = interleaved(first, second, 16 * group);
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, weight));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, weight));
            }
        }
        for (out, sum) in out.chunks_exact_mut(8).zip(sums.as_flattened()) {
            let mut total = [0_i32; 8];
            // SAFETY: eight integers are 32 bytes.
            unsafe { _mm256_storeu_si256(total.as_mut_ptr().cast(), *sum) };
            for (out, total) in out.iter_mut().zip(total) {
                *out += i64::from(total);
            }
        }
    }
}

/// Sixteen bytes of two rows from `at` on, side by side and sign-extended: of the first eight columns, and of the others.
#[target_feature(enable = "avx2")]
fn interleaved(first: &[i8], second: &[i8], at: usize) -> (__m256i, __m256i) {
    debug_assert!(at + 16 <= first.len().min(second.len()));
    // SAFETY: `at + 16` is at most the length of both.
    let (first, second) = unsafe {
        (
            _mm_loadu_si128(first.as_ptr().add(at).cast()),
            _mm_loadu_si128(second.as_ptr().add(at).cast()),
        )
    };
    (
        _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, second)),
        _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(first, second)),
    )
}
