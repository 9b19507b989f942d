//! Rotating vectors so that no element stands out. An int8 vector's step is its largest element over 127,
//! so one outlier coarsens all others; an orthonormal rotation spreads it, and the same rotation of the weights
//! behind it takes it back, exactly in real arithmetic.
//!
//! The rotation is Sylvester's Hadamard matrix in blocks, its own inverse; the residual stream's also has
//! random signs before it (as in QuaRot), so that what vectors have in common lands nowhere special. Only
//! additions and one multiplication: every machine gets the same bits.

use dovetail_units::SplitMix64;

/// The residual stream's signs come from this; it is part of what an import is, so it never changes.
const SIGNS_SEED: u64 = 0x646f_7665_7461_696c;

/// The largest power of two that divides this.
pub(crate) fn block_of(width: usize) -> usize {
    1 << width.trailing_zeros().min(20)
}

/// The residual stream's rotation.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    signs: Vec<f32>,
    block: usize,
}

impl Rotation {
    pub(crate) fn new(width: usize) -> Self {
        let mut random = SplitMix64::new(SIGNS_SEED);
        let signs = (0..width)
            .map(|_| match random.bits() >> 63 {
                1 => -1.0,
                _ => 1.0,
            })
            .collect();
        Self {
            signs,
            block: block_of(width),
        }
    }

    /// The rotation that leaves everything as it is.
    pub(crate) fn none(width: usize) -> Self {
        Self {
            signs: vec![1.0; width],
            block: 1,
        }
    }

    /// Rotates each row: for matrices that read the stream, and for the embedding.
    pub(crate) fn rows(&self, matrix: &mut [f32]) {
        for row in matrix.chunks_exact_mut(self.signs.len()) {
            for (value, sign) in row.iter_mut().zip(&self.signs) {
                *value *= sign;
            }
            hadamard_rows(row, self.block);
        }
    }

    /// Rotates each column: for matrices that write to the stream.
    pub(crate) fn columns(&self, matrix: &mut [f32]) {
        let columns = matrix.len() / self.signs.len();
        for (row, sign) in matrix.chunks_exact_mut(columns).zip(&self.signs) {
            for value in row {
                *value *= sign;
            }
        }
        hadamard_columns(matrix, columns, self.block);
    }
}

/// The transform of each `block` neighbours, where `block` is a power of two.
pub(crate) fn hadamard_rows(values: &mut [f32], block: usize) {
    hadamard_columns(values, 1, block);
}

/// The transform of each column of `[rows, columns]`, in blocks of rows.
pub(crate) fn hadamard_columns(matrix: &mut [f32], columns: usize, block: usize) {
    if block <= 1 {
        return;
    }
    for rows in matrix.chunks_exact_mut(block * columns) {
        let mut stride = columns;
        while stride < rows.len() {
            for pair in rows.chunks_exact_mut(2 * stride) {
                let (upper, lower) = pair.split_at_mut(stride);
                for (a, b) in upper.iter_mut().zip(lower) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            stride *= 2;
        }
        let size = 1.0 / (block as f32).sqrt();
        for value in rows {
            *value *= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn products_stay_what_they_were() {
        let vector = |from: usize| -> Vec<f32> {
            (0..24).map(|i| ((from + i * i) % 7) as f32 - 3.0).collect()
        };
        let (mut a, mut b) = (vector(1), vector(5));
        let before = dot(&a, &b);
        let rotation = Rotation::new(24);
        assert_eq!(rotation.block, 8);
        rotation.rows(&mut a);
        // A matrix of one column is rotated like a row.
        rotation.columns(&mut b);
        assert!((dot(&a, &b) - before).abs() < 1e-4);
    }

    #[test]
    fn an_outlier_is_spread_over_its_block_and_comes_back() {
        let mut x = vec![0.0; 64];
        x[17] = 8.0;
        hadamard_rows(&mut x, 64);
        assert!(x.iter().all(|value| (value.abs() - 1.0).abs() < 1e-6));
        hadamard_rows(&mut x, 64);
        assert!((x[17] - 8.0).abs() < 1e-5 && x[16].abs() < 1e-5);
    }

    #[test]
    fn columns_are_rotated_as_rows_of_the_transpose() {
        let mut matrix: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut first: Vec<f32> = matrix.iter().step_by(3).copied().collect();
        hadamard_columns(&mut matrix, 3, 4);
        hadamard_rows(&mut first, 4);
        assert!(matrix.iter().step_by(3).eq(&first));
    }
}
