//! int8 matrices and their products with dynamically quantised vectors.

use crate::arith::{clamp_wide, div_round};

/// A matrix of int8 weights with one scale per row (output channel).
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    columns: usize,
    /// Row after row.
    weights: Vec<i8>,
    /// What one unit of a row's weights is worth, in Q32; below 1.
    scales: Vec<u32>,
}

/// A vector in int8, with what 127 units are worth in Q16.
#[derive(Debug, Clone)]
pub(crate) struct Quantised {
    values: Vec<i8>,
    peak: i32,
}

impl Quantised {
    /// Quantises a Q16 vector: `q = round(127 x / peak)`, `peak = max |x|`.
    pub(crate) fn new(x: &[i32]) -> Self {
        let peak = x.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
        let values = if peak == 0 {
            vec![0; x.len()]
        } else {
            x.iter()
                .map(|v| {
                    let q = div_round(i128::from(*v) * 127, i128::from(peak));
                    i8::try_from(q).expect("a value over the peak is at most 127")
                })
                .collect()
        };
        Self {
            values,
            peak: i32::try_from(peak).expect("values have at most 27 bits"),
        }
    }
}

impl Matrix {
    /// A matrix; `weights` has `rows * columns` entries and `scales` has `rows`.
    pub(crate) fn new(rows: usize, columns: usize, weights: Vec<i8>, scales: Vec<u32>) -> Self {
        debug_assert_eq!(weights.len(), rows * columns);
        debug_assert_eq!(scales.len(), rows);
        Self {
            columns,
            weights,
            scales,
        }
    }

    /// The product, in Q16: one exact i32 sum per row, then one rounding.
    pub(crate) fn apply(&self, x: &Quantised) -> Vec<i32> {
        debug_assert_eq!(x.values.len(), self.columns);
        self.weights
            .chunks_exact(self.columns)
            .zip(&self.scales)
            .map(|(row, scale)| {
                let sum = dot(row, &x.values);
                let wide = i128::from(sum) * i128::from(x.peak) * i128::from(*scale);
                clamp_wide(div_round(wide, 127 << 32))
            })
            .collect()
    }

    /// One row as a Q16 vector: how embeddings are looked up.
    pub(crate) fn row(&self, index: usize) -> Vec<i32> {
        let scale = i128::from(self.scales[index]);
        self.weights[index * self.columns..(index + 1) * self.columns]
            .iter()
            .map(|w| clamp_wide(div_round(i128::from(*w) * scale, 1 << 16)))
            .collect()
    }
}

/// The exact inner product. No overflow: `127 * 127 * columns < 2^31` up to 133,000 columns, and a
/// model has at most 32,768.
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(x, y)| i32::from(*x) * i32::from(*y))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_product_rounds_once() {
        // (127 * 127 - 127 * 64) * peak 2^16 * scale 2^24 / (127 * 2^32).
        let matrix = Matrix::new(1, 2, vec![127, -127], vec![1 << 24]);
        let x = Quantised::new(&[1 << 16, 1 << 15]);
        assert_eq!(x.values, [127, 64]);
        assert_eq!(matrix.apply(&x), [GOLDEN_PRODUCT]);
        assert_eq!(matrix.apply(&Quantised::new(&[0, 0])), [0]);
        assert_eq!(matrix.row(0), [127 << 8, -127 << 8]);
    }
    const GOLDEN_PRODUCT: i32 = 8001 * 256 / 127;

    #[test]
    fn golden_values_of_quantisation_and_requantisation_never_change() {
        let one = 1 << 16;
        let most = 1 << 26;
        let x = Quantised::new(&[one, -3 * one, one / 2, 127, -1, 0]);
        assert_eq!(
            (x.values.as_slice(), x.peak),
            ([42, -127, 21, 0, 0, 0].as_slice(), 3 * one)
        );
        assert_eq!(
            Quantised::new(&[most, -most, most / 2, 1]).values,
            [127, -127, 64, 0]
        );

        let weights = vec![127, -127, 1, 1, 2, 3, 127, 127, 127];
        let matrix = Matrix::new(3, 3, weights, vec![1 << 24, 1 << 30, u32::MAX]);
        let y = matrix.apply(&Quantised::new(&[one, one / 2, -5]));
        assert_eq!(y, [16_128, 32_897, 12_517_376]);
        let y = matrix.apply(&Quantised::new(&[most, most, most]));
        assert_eq!(y, [262_144, most, most]);
    }

    proptest! {
        #[test]
        fn the_largest_value_becomes_127(x in proptest::collection::vec(-(1_i32 << 26)..=1 << 26, 1..50)) {
            let q = Quantised::new(&x);
            let peak = x.iter().map(|v| v.unsigned_abs()).max();
            if peak > Some(0) {
                prop_assert_eq!(q.values.iter().map(|v| v.unsigned_abs()).max(), Some(127));
            }
        }
    }
}
