//! The definition of the products.

use super::{Rows, Vectors};

pub(super) fn products(rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
    for (token, sums) in out.iter_mut().enumerate() {
        let vector = x.vector(token);
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = dot(rows.row(row), vector);
        }
    }
}

/// The exact inner product. No overflow: `127 * 127 * columns < 2^31` up to 133,000 columns, and a
/// model has at most 32,768.
pub(super) fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(x, y)| i32::from(*x) * i32::from(*y))
        .sum()
}
