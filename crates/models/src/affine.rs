//! A matrix of a checkpoint with its bias.

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
