//! A matrix of a checkpoint with its bias.

use dovetail_engine::Stored;

/// A matrix and what is added to its result; nothing where empty.
pub(crate) struct Affine {
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Affine {
    /// The expected square of these rows' results, for inputs of unit variance.
    pub(crate) fn mean_square(&self, rows: &[usize], columns: usize) -> f64 {
        let square = |value: &f32| f64::from(*value) * f64::from(*value);
        let of_row = |row: &usize| -> f64 {
            let weights = &self.weights[row * columns..][..columns];
            weights.iter().map(square).sum::<f64>() + self.bias.get(*row).map_or(0.0, square)
        };
        let sum: f64 = rows.iter().map(of_row).sum();
        let count = rows.len() as f64;
        sum / count
    }

    /// Multiplies these rows and their biases.
    pub(crate) fn scale_rows(&mut self, rows: &[usize], columns: usize, factor: f32) {
        for row in rows {
            for weight in &mut self.weights[row * columns..][..columns] {
                *weight *= factor;
            }
            if let Some(bias) = self.bias.get_mut(*row) {
                *bias *= factor;
            }
        }
    }
}

pub(crate) fn two_to_minus(shift: u32) -> f32 {
    1.0 / (1_u32 << shift) as f32
}

pub(crate) fn scale_all(weights: &mut [f32], factor: f32) {
    for weight in weights {
        *weight *= factor;
    }
}

pub(crate) fn scale_columns(weights: &mut [f32], gain: &[f32]) {
    for row in weights.chunks_exact_mut(gain.len()) {
        for (weight, gain) in row.iter_mut().zip(gain) {
            *weight *= gain;
        }
    }
}

/// Biases of queries, keys and values, little-endian; `None` where one is out of the engine's bounds.
pub(crate) fn bias_q16(bias: &[f32]) -> Option<Vec<u8>> {
    q16(bias, 1.0)
}

/// Gains times 2^shift, likewise: their bound is the same.
pub(crate) fn gains_q16(gains: &[f32], shift: u32) -> Option<Vec<u8>> {
    q16(gains, f64::from(1_u32 << shift))
}

fn q16(values: &[f32], factor: f64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4 * values.len());
    for value in values {
        let value = (f64::from(*value) * factor * 65_536.0).round();
        if value.abs() > f64::from(Stored::Query.max_q16()) || value.is_nan() {
            return None;
        }
        bytes.extend((value as i32).to_le_bytes());
    }
    Some(bytes)
}
