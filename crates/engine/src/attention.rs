//! What each position takes from those before it. Positions are weighed block by block, each block with an exponent of
//! its own, and the blocks are brought together by shifts: so blocks can be computed by any thread in any order, and
//! small weights keep their bits beside large ones of another block.

use crate::arith::{LOG2_E_Q32, bits, clamp, peak, shift_round};
use crate::cache::LayerCache;
use crate::factor::Factor;
use crate::kernels::{Rows, Share, Softmax, Vectors};
use crate::manifest::Architecture;
use crate::runtime::Runtime;

/// How many positions share an exponent: a part of the definition. Their weighted sum fits 31 bits.
pub(crate) const BLOCK_POSITIONS: usize = 512;
/// How many query heads, of one position or several, meet a block of keys at once: enough for the kernels to be at
/// their best, few enough that their scores stay in the second cache.
const QUERIES_MAX: usize = 32;
/// With fewer, kernels that take one at a time are faster: the block of keys stays in the first cache meanwhile.
const QUERIES_TOGETHER_MIN: usize = 12;

/// How many positions of a sequence are computed together.
pub(crate) fn tile_rows(arch: &Architecture) -> usize {
    (QUERIES_MAX / (arch.heads / arch.kv_heads)).max(1)
}

/// One key and value head with the query heads that use it, over positions of one sequence that follow each other.
pub(crate) struct Job<'a> {
    pub(crate) cache: &'a LayerCache,
    pub(crate) kv_head: usize,
    /// Of the first row.
    pub(crate) position: usize,
    /// Each row's queries, `[heads of the group * head_dim]` in Q16.
    pub(crate) queries: Vec<&'a [i32]>,
    /// Where each row's results go: likewise.
    pub(crate) outs: Vec<&'a mut [i32]>,
}

/// The queries of a job in int8, one after the other.
struct Queries {
    /// Of each row.
    per_row: usize,
    values: Vec<i8>,
    factors: Vec<Factor>,
}

/// What a block gives to each query, in the order of the queries.
struct Block {
    /// Those that see nothing of it have none.
    shares: Vec<Option<Share>>,
    /// `[queries, head_dim]`: weighted sums of values in int8.
    sums: Vec<i64>,
}

impl Job<'_> {
    /// Computes all of it. `split` says whether other threads have nothing better to do.
    pub(crate) fn run(self, runtime: &Runtime, arch: &Architecture, split: bool) {
        let queries = Queries::new(runtime, arch, &self.queries);
        let blocks = (self.position + self.queries.len()).div_ceil(BLOCK_POSITIONS);
        let block = |index| self.block(runtime, arch, &queries, index);
        let blocks = if split {
            runtime.collect(blocks, block)
        } else {
            (0..blocks).map(block).collect()
        };
        let outs = self.outs.into_iter();
        let outs = outs.flat_map(|out| out.chunks_exact_mut(arch.head_dim));
        for (query, out) in outs.enumerate() {
            let shares = blocks.iter().filter_map(|block| {
                let sums = &block.sums[query * arch.head_dim..][..arch.head_dim];
                block.shares[query].map(|share| (share, sums))
            });
            merge(shares.collect(), out);
        }
    }

    fn block(
        &self,
        runtime: &Runtime,
        arch: &Architecture,
        queries: &Queries,
        index: usize,
    ) -> Block {
        let kernel = runtime.kernel;
        let from = index * BLOCK_POSITIONS;
        let to = (self.position + self.queries.len()).min(from + BLOCK_POSITIONS);
        let (keys, key_peaks) = self.cache.keys.head(arch, self.kv_head, from..to);
        let (values, value_peaks) = self.cache.values.head(arch, self.kv_head, from..to);
        let count = queries.factors.len();
        let mut scores = queries.products(runtime, &keys);
        let mut block = Block {
            shares: vec![None; count],
            sums: vec![0; count * arch.head_dim],
        };
        let mut weights = [0; BLOCK_POSITIONS];
        let places = block
            .shares
            .iter_mut()
            .zip(block.sums.chunks_exact_mut(arch.head_dim));
        let scores = scores.chunks_exact_mut(keys.count);
        for (query, (scores, (share, sums))) in scores.zip(places).enumerate() {
            // Each row sees the positions up to its own.
            let end = self.position + query / queries.per_row + 1;
            let seen = end.clamp(from, to) - from;
            if seen == 0 {
                continue;
            }
            let mut softmax = Softmax {
                scores: &mut scores[..seen],
                key_peaks: &key_peaks[..seen],
                value_peaks: &value_peaks[..seen],
                query: queries.factors[query],
                weights: &mut weights[..seen],
                share: Share::default(),
            };
            kernel.softmax(&mut softmax);
            *share = Some(softmax.share);
            let mut values = values;
            values.count = seen;
            kernel.weigh(&weights[..seen], &values, sums);
        }
        block
    }
}

impl Queries {
    fn new(runtime: &Runtime, arch: &Architecture, rows: &[&[i32]]) -> Self {
        let width = arch.head_dim;
        let per_row = arch.heads / arch.kv_heads;
        let heads = rows.iter().flat_map(|row| row.chunks_exact(width));
        let mut values = vec![0; rows.len() * per_row * width];
        let mut factors = Vec::with_capacity(rows.len() * per_row);
        for (head, values) in heads.zip(values.chunks_exact_mut(width)) {
            let peak = peak(head);
            runtime.kernel.quantise(head, peak, values);
            factors.push(score_factor(peak, width));
        }
        Self {
            per_row,
            values,
            factors,
        }
    }

    /// The exact product of each query with each key: `[queries, keys]`.
    fn products(&self, runtime: &Runtime, keys: &Rows<'_>) -> Vec<i32> {
        let kernel = runtime.kernel;
        let mut products = vec![0; self.factors.len() * keys.count];
        let mut outs: Vec<&mut [i32]> = products.chunks_exact_mut(keys.count).collect();
        if outs.len() < QUERIES_TOGETHER_MIN {
            for (query, out) in self.values.chunks_exact(keys.columns).zip(outs) {
                kernel.dots(keys, query, out);
            }
        } else {
            let packed = kernel.pack(&self.values, keys.columns);
            let vectors = Vectors {
                columns: keys.columns,
                values: &self.values,
                packed: &packed,
            };
            kernel.products(keys, &vectors, &mut outs);
        }
        products
    }
}

/// What a unit of (product of int8, times key peak, over 2^17) is worth as a score: in Q16, to base 2,
/// divided by the root of the head's width.
fn score_factor(query_peak: u32, head_dim: usize) -> Factor {
    let root_q16 = u128::from(((head_dim as u64) << 32).isqrt());
    let numerator = (u128::from(query_peak) * u128::from(LOG2_E_Q32)) << 17;
    Factor::of(numerator, (127 * 127 * root_q16) << 32)
}

/// Brings the blocks of a query together, `[head_dim]` in Q16.
///
/// A block has 512 positions and a context 256 blocks. A block's weights are at most 2^30 each, so all of them have
/// 47 bits; those of the block with the largest exponent are at least 2^29. A block's weighted sum has 31 bits, since
/// 512 * 32,767 * 127 < 2^31, and is shifted to the right alone: all blocks have 39 bits, which leave room for 23 of the
/// mantissa. A shift of the values is at most 42, as a weight times a peak has 57 bits.
fn merge(blocks: Vec<(Share, &[i64])>, out: &mut [i32]) {
    let exponents = blocks.iter().map(|(share, _)| share.exponent);
    let exponent = exponents.max().unwrap_or_default();
    // How many bits below the largest exponent a block lies.
    let below = |share: &Share| exponent.abs_diff(share.exponent);
    let sum: u64 = blocks
        .iter()
        .map(|(share, _)| share.sum >> below(share).min(63))
        .sum();
    // The largest unit, in which all are added. It is not negative: the block of the largest exponent has one.
    let unit = |share: &Share| i64::from(share.shift) - i64::from(below(share));
    let most = blocks.iter().map(|(share, _)| unit(share)).max();
    let most = most.unwrap_or_default().unsigned_abs();
    let mut totals = vec![0_i64; out.len()];
    for (share, sums) in &blocks {
        let halvings = most.cast_signed() - unit(share);
        match u32::try_from(halvings.min(62)) {
            Ok(0) | Err(_) => add(&mut totals, sums, |sum| sum),
            Ok(halvings) => add(&mut totals, sums, |sum| shift_round(sum, halvings)),
        }
    }
    let factor = Factor::of(1 << most, 127 * u128::from(sum));
    debug_assert!(bits(factor.mantissa) == 31);
    let (mantissa, shift) = (i64::from(factor.mantissa >> 8), factor.shift - 8);
    for (value, total) in out.iter_mut().zip(totals) {
        *value = clamp(shift_round(total * mantissa, shift.clamp(1, 62)));
    }
}

fn add(totals: &mut [i64], sums: &[i64], of: impl Fn(i64) -> i64) {
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += of(*sum);
    }
}

#[cfg(test)]
mod tests;
