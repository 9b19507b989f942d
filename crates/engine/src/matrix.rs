//! int8 matrices, the quantised vectors they meet, and their products.

use crate::arith;
use crate::factor::Factor;
use crate::kernels::{Packed, Rows, Vectors};
use crate::runtime::Runtime;
use crate::scale::RowScale;
use crate::tied::TiedHead;

/// How many products are computed before they are scaled: 128 KiB of them.
const BLOCK_PRODUCTS: usize = 1 << 15;

/// A matrix of int8 weights with one scale per row (output channel): `[rows, columns]`.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    columns: usize,
    /// Row after row, each within -127..=127.
    weights: Vec<i8>,
    scales: Vec<RowScale>,
    /// The sum of each row, for kernels that make activations unsigned.
    sums: Vec<i32>,
    /// Added to each row's result, in Q16; empty where there is none.
    bias: Vec<i32>,
    /// Results saturate here.
    max: i32,
}

impl Matrix {
    /// A matrix; `weights` has `scales.len() * columns` entries, and `bias` none or one per row.
    pub(crate) fn new(
        columns: usize,
        weights: Vec<i8>,
        scales: Vec<RowScale>,
        bias: Vec<i32>,
        max: i32,
    ) -> Self {
        debug_assert_eq!(weights.len(), scales.len() * columns);
        debug_assert!(bias.is_empty() || bias.len() == scales.len());
        let sum = |row: &[i8]| row.iter().map(|weight| i32::from(*weight)).sum();
        Self {
            columns,
            sums: weights.chunks_exact(columns).map(sum).collect(),
            weights,
            scales,
            bias,
            max,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.scales.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&self.weights[..])
            + size_of_val(&self.scales[..])
            + size_of_val(&self.sums[..])
            + size_of_val(&self.bias[..])
    }

    /// Weights, scales and bias of a row.
    #[cfg(test)]
    pub(crate) fn parts(&self, row: usize) -> (&[i8], RowScale, i32) {
        let weights = &self.weights[row * self.columns..][..self.columns];
        let bias = self.bias.get(row).copied().unwrap_or(0);
        (weights, self.scales[row], bias)
    }

    /// One row as a Q16 vector: how embeddings are looked up.
    pub(crate) fn row(&self, index: usize) -> impl Iterator<Item = i32> {
        let scale = self.scales[index];
        self.weights[index * self.columns..][..self.columns]
            .iter()
            .map(move |weight| scale.dequantise(*weight))
    }

    /// The products with each vector, in Q16: `[tokens, rows]`.
    pub(crate) fn apply(&self, runtime: &Runtime, x: &Activations) -> Vec<i32> {
        let [out] = Self::apply_each(runtime, x, [self]);
        out
    }

    /// The products of several matrices with the same vectors, in one go.
    pub(crate) fn apply_each<const N: usize>(
        runtime: &Runtime,
        x: &Activations,
        matrices: [&Self; N],
    ) -> [Vec<i32>; N] {
        let tokens = x.factors.len();
        let mut outs = matrices.map(|matrix| vec![0; tokens * matrix.rows()]);
        let products: usize = matrices.iter().map(|m| m.weights.len() * tokens).sum();
        let parts = runtime.parts(products);
        let mut jobs = Vec::with_capacity(N * parts);
        for (matrix, out) in matrices.iter().zip(&mut outs) {
            jobs.extend(matrix.split(out, parts));
        }
        runtime.each(products, jobs, |job| job.run(runtime, x));
        outs
    }

    /// The products of some rows with all vectors. `outs`: each token's, as long as there are rows.
    fn block(&self, runtime: &Runtime, x: &Activations, first: usize, outs: &mut [&mut [i32]]) {
        let count = outs.first().map_or(0, |out| out.len());
        let range = first..first + count;
        let rows = Rows {
            data: &self.weights[first * self.columns..],
            stride: self.columns,
            columns: self.columns,
            count,
            sums: &self.sums[range.clone()],
        };
        runtime.kernel.products(&rows, &x.vectors(), outs);
        let scales = &self.scales[range.clone()];
        for (out, factor) in outs.iter_mut().zip(&x.factors) {
            runtime.kernel.requantise(out, scales, *factor, self.max);
            if !self.bias.is_empty() {
                runtime.kernel.add(out, &self.bias[range.clone()], self.max);
            }
        }
    }

    /// Jobs for `parts` ranges of rows. Each has its own part of every token's output.
    fn split<'a>(&'a self, out: &'a mut [i32], parts: usize) -> Vec<Job<'a>> {
        // Kernels take up to eight rows at a time.
        let per_part = self.rows().div_ceil(parts).next_multiple_of(8);
        let mut jobs: Vec<Job<'a>> = (0..self.rows())
            .step_by(per_part)
            .map(|first| Job {
                matrix: self,
                first,
                outs: Vec::new(),
            })
            .collect();
        for sums in out.chunks_exact_mut(self.rows()) {
            for (job, part) in jobs.iter_mut().zip(sums.chunks_mut(per_part)) {
                job.outs.push(part);
            }
        }
        jobs
    }
}

/// Some rows of a matrix with all vectors.
struct Job<'a> {
    matrix: &'a Matrix,
    first: usize,
    /// A part of each token's output.
    outs: Vec<&'a mut [i32]>,
}

impl<'a> Job<'a> {
    /// Block by block, so that the products of many tokens are still in the cache when they are scaled.
    fn run(mut self, runtime: &Runtime, x: &Activations) {
        let tokens = self.outs.len().max(1);
        let per_block = (BLOCK_PRODUCTS / tokens).next_multiple_of(8);
        let mut first = self.first;
        while self.outs.first().is_some_and(|out| !out.is_empty()) {
            let block = |out: &mut &'a mut [i32]| {
                let count = out.len().min(per_block);
                out.split_off_mut(..count).unwrap_or_default()
            };
            let mut outs: Vec<&mut [i32]> = self.outs.iter_mut().map(block).collect();
            self.matrix.block(runtime, x, first, &mut outs);
            first += per_block;
        }
    }
}

/// Vectors in int8, one per token, with what a unit of each is worth in Q16.
#[derive(Debug, Clone)]
pub(crate) struct Activations {
    columns: usize,
    values: Vec<i8>,
    /// See [`Vectors::packed`].
    packed: Packed,
    factors: Vec<Factor>,
}

impl Activations {
    /// Quantises Q16 vectors, `[tokens, columns]`.
    pub(crate) fn new(runtime: &Runtime, x: &[i32], columns: usize) -> Self {
        Self::quantised(runtime, x, columns, |_, peak| {
            Factor::of(u128::from(peak), 127)
        })
    }

    /// RMSNorm (without gains, which are part of the weights behind it), then the same.
    pub(crate) fn normed(runtime: &Runtime, x: &[i32], columns: usize, epsilon_q32: u32) -> Self {
        Self::quantised(runtime, x, columns, |x, peak| {
            arith::norm_factor(x, peak, epsilon_q32)
        })
    }

    /// What the embedding meets where it serves as the head: see [`TiedHead::apply`].
    pub(crate) fn tied(
        runtime: &Runtime,
        x: &[i32],
        columns: usize,
        epsilon_q32: u32,
        head: &TiedHead,
    ) -> Self {
        let mut turned = vec![0; x.len()];
        let mut factors = vec![Factor::ZERO; x.len() / columns];
        let items = x
            .chunks_exact(columns)
            .zip(turned.chunks_exact_mut(columns))
            .zip(&mut factors)
            .collect();
        // Some fifty additions of 64 bits an element.
        runtime.each(64 * x.len(), items, |((x, turned), factor)| {
            let (vector, worth) = head.apply(x, epsilon_q32);
            turned.copy_from_slice(&vector);
            *factor = worth;
        });
        Self {
            factors,
            ..Self::quantised(runtime, &turned, columns, |_, _| Factor::ZERO)
        }
    }

    fn quantised(
        runtime: &Runtime,
        x: &[i32],
        columns: usize,
        factor: impl Fn(&[i32], u32) -> Factor + Sync,
    ) -> Self {
        let tokens = x.len() / columns;
        let mut values = vec![0; x.len()];
        let mut factors = vec![Factor::ZERO; tokens];
        let items = x
            .chunks_exact(columns)
            .zip(values.chunks_exact_mut(columns))
            .zip(&mut factors)
            .collect();
        // An element costs about as much as a few products.
        runtime.each(if tokens > 1 { 8 * x.len() } else { 0 }, items, |item| {
            let ((x, values), place) = item;
            let peak = arith::peak(x);
            runtime.kernel.quantise(x, peak, values);
            *place = factor(x, peak);
        });
        Self {
            packed: runtime.kernel.pack(&values, columns),
            columns,
            values,
            factors,
        }
    }

    fn vectors(&self) -> Vectors<'_> {
        Vectors {
            columns: self.columns,
            values: &self.values,
            packed: &self.packed,
        }
    }
}
