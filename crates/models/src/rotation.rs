//! Rotating vectors so that no element stands out. An int8 vector's step is its largest element over 127,
//! so one outlier coarsens all others; an orthonormal rotation spreads it, and the same rotation of the weights
//! behind it takes it back, exactly in real arithmetic.
//!
//! The rotation is a Hadamard matrix ([`Turn`]), its own inverse; the residual stream's also has
//! random signs before it (as in QuaRot), so that what vectors have in common lands nowhere special. Only
//! additions and one multiplication, in a fixed order: every machine gets the same bits.

use dovetail_engine::Turn;
use dovetail_units::SplitMix64;

/// The residual stream's signs come from this; it is part of what an import is, so it never changes.
const SIGNS_SEED: u64 = 0x646f_7665_7461_696c;

/// The matrix of one row, which leaves everything as it is.
pub(crate) fn no_turn() -> Turn {
    Turn::largest(1)
}

/// The matrix of this order, a power of two.
pub(crate) fn turn_of_power(order: usize) -> Turn {
    debug_assert!(order.is_power_of_two());
    Turn::of_order(order).unwrap_or_else(no_turn)
}

/// The residual stream's rotation.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    signs: Vec<f32>,
    turn: Turn,
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
            turn: Turn::largest(width),
        }
    }

    /// The rotation that leaves everything as it is.
    pub(crate) fn none(width: usize) -> Self {
        Self {
            signs: vec![1.0; width],
            turn: no_turn(),
        }
    }

    /// The order of its matrix.
    pub(crate) fn order(&self) -> usize {
        self.turn.order()
    }

    /// Rotates each row: for matrices that read the stream, and for the embedding.
    pub(crate) fn rows(&self, matrix: &mut [f32]) {
        for row in matrix.chunks_exact_mut(self.signs.len()) {
            for (value, sign) in row.iter_mut().zip(&self.signs) {
                *value *= sign;
            }
        }
        turn_rows(matrix, self.turn);
    }

    /// Rotates each column: for matrices that write to the stream.
    pub(crate) fn columns(&self, matrix: &mut [f32]) {
        let columns = matrix.len() / self.signs.len();
        for (row, sign) in matrix.chunks_exact_mut(columns).zip(&self.signs) {
            for value in row {
                *value *= sign;
            }
        }
        turn_columns(matrix, columns, self.turn);
    }
}

/// Turns as many neighbours as the matrix has rows, and the next ones, and so on.
pub(crate) fn turn_rows(values: &mut [f32], turn: Turn) {
    turn_columns(values, 1, turn);
}

/// Turns each column of `[rows, columns]`, in blocks of rows.
pub(crate) fn turn_columns(matrix: &mut [f32], columns: usize, turn: Turn) {
    if turn.order() == 1 {
        return;
    }
    turn.apply(matrix, columns);
    let size = 1.0 / (turn.order() as f32).sqrt();
    for value in matrix {
        *value *= size;
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
        assert_eq!(rotation.order(), 24);
        rotation.rows(&mut a);
        assert!(dot(&a, &a) > 1.0 && a != vector(1));
        // A matrix of one column is rotated like a row.
        rotation.columns(&mut b);
        assert!((dot(&a, &b) - before).abs() < 1e-4);
    }

    #[test]
    fn an_outlier_is_spread_over_its_block_and_comes_back() {
        let mut x = vec![0.0; 64];
        x[17] = 8.0;
        let turn = turn_of_power(64);
        turn_rows(&mut x, turn);
        assert!(x.iter().all(|value| (value.abs() - 1.0).abs() < 1e-6));
        turn_rows(&mut x, turn);
        assert!((x[17] - 8.0).abs() < 1e-5 && x[16].abs() < 1e-5);
    }
}
