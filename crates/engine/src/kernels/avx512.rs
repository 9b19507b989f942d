//! Products with 512-bit registers and byte products (VNNI).
//!
//! The instruction multiplies unsigned with signed bytes and adds four products to a 32-bit sum without
//! saturation. Activations are made unsigned by adding 128; 128 times the row's sum is taken off at the
//! end. 255 * 127 * 32,768 < 2^31.
//!
//! A few tokens: four rows with up to four of them, along the rows. Many: a register holds four columns of
//! sixteen tokens, and each four weights of a row are spread over a register to meet them, so that
//! nothing has to be added across a register.
//!
//! Loops, not `map`: what the standard library calls is compiled without these instructions, and a closure
//! with them is not inlined there.

use std::arch::x86_64::{
    __m256i, __m512i, __mmask32, __mmask64, _MM_HINT_T0, _mm_add_epi32, _mm_prefetch,
    _mm_storeu_si128, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_maskz_loadu_epi8, _mm256_permute2x128_si256, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    _mm512_add_epi32, _mm512_castsi512_si256, _mm512_cvtepi8_epi16, _mm512_dpbusd_epi32,
    _mm512_dpwssd_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_maskz_loadu_epi8,
    _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_sub_epi32, _mm512_unpackhi_epi16, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi16, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

use super::elementwise::WEIGH_BLOCK;
use super::{Rows, Vectors, four_apart, quarter};

/// From this many tokens on, panels pay.
pub(super) const PANEL_TOKENS_MIN: usize = 12;
/// How many tokens a panel has, and how many bytes each four columns of it.
const PANEL_TOKENS: usize = 16;
const STEP: usize = 4 * PANEL_TOKENS;
/// How many rows meet two panels at once: sixteen sums, which with their operands stay in the 32 registers.
const TILE_ROWS: usize = 8;

/// # Safety
/// AVX-512 F, BW and VNNI are there, and the lengths are those that [`super::Kernel::products`] checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn products(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    if out.len() >= PANEL_TOKENS_MIN {
        return in_panels(rows, &x.packed.bytes, out);
    }
    if let ([sums], []) = (&mut *out, rows.sums) {
        return keys(rows, x.vector(0), sums);
    }
    for first in 0..quarter(rows.count) {
        let indices = four_apart(first, rows.count);
        // Missing rows repeat the first one; their sums are not kept.
        let (mut four, mut offsets) = ([rows.row(first); 4], [0; 4]);
        for ((row, offset), index) in four.iter_mut().zip(&mut offsets).zip(indices.clone()) {
            (*row, *offset) = (rows.row(index), 128 * sum_of(rows, index));
        }
        let mut token = 0;
        while token < out.len() {
            let left = (out.len() - token).min(4);
            let vector = |i: usize| x.vector(token + i);
            let sums = match left {
                1 => along(four, [vector(0)]),
                2 => along(four, [vector(0), vector(1)]),
                3 => along(four, [vector(0), vector(1), vector(2)]),
                _ => along(four, [vector(0), vector(1), vector(2), vector(3)]),
            };
            for (out, sums) in out[token..].iter_mut().zip(&sums).take(left) {
                let sums = sums.iter().zip(&offsets);
                for (index, (sum, offset)) in indices.clone().zip(sums) {
                    out[index] = sum - offset;
                }
            }
            token += left;
        }
    }
}

/// One vector with rows whose sums nobody knows: then the rows are made unsigned, and the vector's sum is
/// what has to be known.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn keys(rows: &Rows<'_>, vector: &[i8], out: &mut [i32]) {
    let bias = _mm512_set1_epi8(-128);
    let whole = Rows {
        data: vector,
        stride: vector.len(),
        columns: vector.len(),
        count: 1,
        sums: &[],
    };
    let offset = 128 * sum_of(&whole, 0);
    for (four, out) in out.chunks_mut(4).enumerate() {
        let mut sums = [_mm512_setzero_si512(); 4];
        for at in (0..vector.len()).step_by(64) {
            let mask = mask(vector.len() - at);
            let v = load(vector, at, mask);
            for (r, sum) in sums.iter_mut().enumerate().take(out.len()) {
                let row = _mm512_xor_si512(load(rows.row(4 * four + r), at, mask), bias);
                *sum = _mm512_dpbusd_epi32(*sum, row, v);
            }
        }
        for (out, sum) in out.iter_mut().zip(add_across(sums)) {
            *out = sum - offset;
        }
    }
}

/// The sum of a row's weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sum_of(rows: &Rows<'_>, index: usize) -> i32 {
    if let Some(sum) = rows.sums.get(index) {
        return *sum;
    }
    let row = rows.row(index);
    let mut sum = _mm512_setzero_si512();
    for at in (0..row.len()).step_by(64) {
        let weights = load(row, at, mask(row.len() - at));
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), weights);
    }
    _mm512_reduce_add_epi32(sum)
}

/// Four rows with `N <= 4` vectors plus 128, all of one length.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn along<const N: usize>(rows: [&[i8]; 4], vectors: [&[i8]; N]) -> [[i32; 4]; 4] {
    let columns = vectors[0].len();
    let offset = _mm512_set1_epi8(-128);
    let mut sums = [[_mm512_setzero_si512(); 4]; N];
    for at in (0..columns).step_by(64) {
        let mask = mask(columns - at);
        let mut v = [offset; N];
        for (v, vector) in v.iter_mut().zip(vectors) {
            *v = _mm512_xor_si512(load(vector, at, mask), offset);
        }
        for (r, row) in rows.into_iter().enumerate() {
            // The row of the next step; a prefetch touches nothing, wherever it points.
            _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(at + columns));
            let w = load(row, at, mask);
            for (sums, v) in sums.iter_mut().zip(v) {
                sums[r] = _mm512_dpbusd_epi32(sums[r], v, w);
            }
        }
    }
    let mut totals = [[0; 4]; 4];
    for (totals, sums) in totals.iter_mut().zip(sums) {
        *totals = add_across(sums);
    }
    totals
}

/// The sum of each register's sixteen parts.
#[target_feature(enable = "avx512f")]
fn add_across(sums: [__m512i; 4]) -> [i32; 4] {
    let pairs = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low, high) = (pairs(sums[0], sums[1]), pairs(sums[2], sums[3]));
    let quads = _mm512_add_epi32(
        _mm512_unpacklo_epi64(low, high),
        _mm512_unpackhi_epi64(low, high),
    );
    let half = _mm256_add_epi32(
        _mm512_castsi512_si256(quads),
        _mm512_extracti64x4_epi64::<1>(quads),
    );
    let total = _mm_add_epi32(
        _mm256_castsi256_si128(half),
        _mm256_extracti128_si256::<1>(half),
    );
    let mut totals = [0; 4];
    // SAFETY: four integers are 16 bytes.
    unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast(), total) };
    totals
}

/// The vectors plus 128 in panels of sixteen: four columns of each token after the other, then the next four
/// columns. What is not there is 0.
pub(super) fn pack(values: &[i8], columns: usize) -> Vec<u8> {
    let panel = columns.div_ceil(4) * STEP;
    let tokens = values.len() / columns;
    let mut bytes = vec![0; tokens.div_ceil(PANEL_TOKENS) * panel];
    let vectors = values.chunks(PANEL_TOKENS * columns);
    for (panel, vectors) in bytes.chunks_exact_mut(panel).zip(vectors) {
        for (lane, vector) in vectors.chunks_exact(columns).enumerate() {
            let (fours, rest) = vector.as_chunks::<4>();
            let (steps, last) = panel.as_chunks_mut::<STEP>().0.split_at_mut(fours.len());
            for (step, four) in steps.iter_mut().zip(fours) {
                let bytes = four.map(|value| value.cast_unsigned() ^ 0x80);
                step[4 * lane..4 * lane + 4].copy_from_slice(&bytes);
            }
            if let Some(step) = last.first_mut() {
                for (byte, value) in step[4 * lane..].iter_mut().zip(rest) {
                    *byte = value.cast_unsigned() ^ 0x80;
                }
            }
        }
    }
    bytes
}

/// All rows with vectors that [`pack`] has packed.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn in_panels(rows: &Rows<'_>, packed: &[u8], out: &mut [&mut [i32]]) {
    let panel = rows.columns.div_ceil(4) * STEP;
    assert_eq!(packed.len(), out.len().div_ceil(PANEL_TOKENS) * panel);
    for first in (0..rows.count).step_by(TILE_ROWS) {
        let count = (rows.count - first).min(TILE_ROWS);
        // Missing rows repeat the last one; their sums are not kept.
        let (mut tile, mut offsets) = ([rows.row(0); TILE_ROWS], [0; TILE_ROWS]);
        for (i, (row, offset)) in tile.iter_mut().zip(&mut offsets).enumerate() {
            let index = first + i.min(count - 1);
            (*row, *offset) = (rows.row(index), 128 * sum_of(rows, index));
        }
        let range = first..first + count;
        let pairs = packed.chunks(2 * panel);
        for (pair, (panels, out)) in pairs.zip(out.chunks_mut(2 * PANEL_TOKENS)).enumerate() {
            let (left, right) = panels.split_at(panel);
            let is_first = pair == 0;
            if right.is_empty() {
                let [sums] = across(tile, [left], is_first);
                scatter(sums, offsets, out, range.clone());
            } else {
                let sums = across(tile, [left, right], is_first);
                let (left, right) = out.split_at_mut(PANEL_TOKENS);
                scatter(sums[0], offsets, left, range.clone());
                scatter(sums[1], offsets, right, range.clone());
            }
        }
    }
}

/// Eight rows of one length with `N` panels: a register of sixteen tokens' sums for each. The first panels to
/// meet them fetch the next eight rows meanwhile.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn across<const N: usize>(
    rows: [&[i8]; TILE_ROWS],
    panels: [&[u8]; N],
    is_first: bool,
) -> [[__m512i; TILE_ROWS]; N] {
    let columns = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == columns));
    assert!(panels.iter().all(|p| p.len() == columns.div_ceil(4) * STEP));
    let mut sums = [[_mm512_setzero_si512(); TILE_ROWS]; N];
    for step in 0..columns / 4 {
        let mut v = [_mm512_setzero_si512(); N];
        for (v, panel) in v.iter_mut().zip(panels) {
            // SAFETY: `step` is below the number of steps that a panel has.
            *v = unsafe { _mm512_loadu_si512(panel.as_ptr().add(step * STEP).cast()) };
        }
        if is_first && step.is_multiple_of(16) {
            for row in rows {
                // A prefetch touches nothing, wherever it points.
                let ahead = row.as_ptr().wrapping_add(4 * step + TILE_ROWS * columns);
                _mm_prefetch::<_MM_HINT_T0>(ahead);
            }
        }
        for (r, row) in rows.iter().enumerate() {
            // SAFETY: `4 * step + 4` is at most the row's length.
            let four = unsafe { row.as_ptr().add(4 * step).cast::<i32>().read_unaligned() };
            let w = _mm512_set1_epi32(four);
            for (sums, v) in sums.iter_mut().zip(v) {
                sums[r] = _mm512_dpbusd_epi32(sums[r], v, w);
            }
        }
    }
    if !columns.is_multiple_of(4) {
        let step = columns / 4;
        for (r, row) in rows.iter().enumerate() {
            let mut four = [0; 4];
            for (byte, weight) in four.iter_mut().zip(&row[4 * step..]) {
                *byte = weight.cast_unsigned();
            }
            let w = _mm512_set1_epi32(i32::from_le_bytes(four));
            for (sums, panel) in sums.iter_mut().zip(panels) {
                // SAFETY: a panel has one step more where there is a rest.
                let v = unsafe { _mm512_loadu_si512(panel.as_ptr().add(step * STEP).cast()) };
                sums[r] = _mm512_dpbusd_epi32(sums[r], v, w);
            }
        }
    }
    sums
}

/// Puts the sums of up to eight rows, less their offsets, to the up to sixteen tokens that they are of.
#[target_feature(enable = "avx512f,avx512bw")]
fn scatter(
    sums: [__m512i; TILE_ROWS],
    offsets: [i32; TILE_ROWS],
    out: &mut [&mut [i32]],
    range: std::ops::Range<usize>,
) {
    let mut halves = [[_mm256_setzero_si256(); TILE_ROWS]; 2];
    for (r, (sum, offset)) in sums.into_iter().zip(offsets).enumerate() {
        let total = _mm512_sub_epi32(sum, _mm512_set1_epi32(offset));
        halves[0][r] = _mm512_castsi512_si256(total);
        halves[1][r] = _mm512_extracti64x4_epi64::<1>(total);
    }
    let halves = [transposed(halves[0]), transposed(halves[1])];
    for (out, sums) in out.iter_mut().zip(halves.as_flattened()) {
        if let Some(eight) = out[range.clone()].as_mut_array::<TILE_ROWS>() {
            // SAFETY: eight integers are 32 bytes.
            unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), *sums) };
        } else {
            let mut eight = [0; TILE_ROWS];
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), *sums) };
            out[range.clone()].copy_from_slice(&eight[..range.len()]);
        }
    }
}

/// Rows become columns.
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    let low = |i: usize| _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
    let high = |i: usize| _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    let quad = |i: usize| {
        [
            _mm256_unpacklo_epi64(low(i), low(i + 2)),
            _mm256_unpackhi_epi64(low(i), low(i + 2)),
            _mm256_unpacklo_epi64(high(i), high(i + 2)),
            _mm256_unpackhi_epi64(high(i), high(i + 2)),
        ]
    };
    let (first, second) = (quad(0), quad(4));
    let lower = |i: usize| _mm256_permute2x128_si256::<0x20>(first[i], second[i]);
    let upper = |i: usize| _mm256_permute2x128_si256::<0x31>(first[i], second[i]);
    [
        lower(0),
        lower(1),
        lower(2),
        lower(3),
        upper(0),
        upper(1),
        upper(2),
        upper(3),
    ]
}

/// See [`super::Kernel::weigh`]: two positions at a time, their bytes widened and put side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn weigh(weights: &[i16], rows: &Rows<'_>, out: &mut [i64]) {
    for (out, at) in out.chunks_mut(32).zip((0..rows.columns).step_by(32)) {
        // As many ones as there are columns, 32 at most.
        let mask = u32::MAX >> (32 - out.len());
        out.fill(0);
        for (block, weights) in weights.chunks(WEIGH_BLOCK).enumerate() {
            let mut sums = [_mm512_setzero_si512(); 2];
            for (pair, weights) in weights.chunks(2).enumerate() {
                let position = block * WEIGH_BLOCK + 2 * pair;
                let first = load_wide(rows.row(position), at, mask);
                let (second, weight) = match weights {
                    [first, second] => (
                        load_wide(rows.row(position + 1), at, mask),
                        i32::from(*second) << 16 | i32::from(*first),
                    ),
                    _ => (_mm512_setzero_si512(), i32::from(weights[0])),
                };
                let weight = _mm512_set1_epi32(weight);
                let (low, high) = (
                    _mm512_unpacklo_epi16(first, second),
                    _mm512_unpackhi_epi16(first, second),
                );
                sums[0] = _mm512_dpwssd_epi32(sums[0], low, weight);
                sums[1] = _mm512_dpwssd_epi32(sums[1], high, weight);
            }
            let mut totals = [[0_i32; 16]; 2];
            for (total, sum) in totals.iter_mut().zip(sums) {
                // SAFETY: sixteen integers are 64 bytes.
                unsafe { _mm512_storeu_si512(total.as_mut_ptr().cast(), sum) };
            }
            // Interleaving works within each quarter of a register.
            let [low, high] = &totals;
            for (eight, (low, high)) in out.chunks_mut(8).zip(low.chunks(4).zip(high.chunks(4))) {
                for (out, total) in eight.iter_mut().zip(low.iter().chain(high)) {
                    *out += i64::from(*total);
                }
            }
        }
    }
}

/// Up to 32 bytes of a row, sign-extended; what is not there is 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_wide(row: &[i8], at: usize, mask: __mmask32) -> __m512i {
    debug_assert!(at + mask.count_ones() as usize <= row.len());
    // SAFETY: only bytes under the mask are read, and those lie within the row.
    _mm512_cvtepi8_epi16(unsafe { _mm256_maskz_loadu_epi8(mask, row.as_ptr().add(at)) })
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
