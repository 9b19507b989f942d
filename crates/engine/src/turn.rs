//! Hadamard matrices of 2^a 12^b 20^c rows: what a residual stream is turned by, so that no element stands out. Exact
//! in integers; the importer takes the same one in floating point.

use std::ops::{Add, Sub};

/// A matrix of ones and minus ones whose rows stand at right angles: the Kronecker product of `twenties` ones of
/// order 20, `twelves` of order 12 and `twos` of order 2, the last of which mix neighbours. It is symmetric, so over
/// the root of its order it is its own inverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    twos: u32,
    twelves: u32,
    twenties: u32,
}

impl Turn {
    /// The one of this order, if there is one.
    pub fn of_order(order: usize) -> Option<Self> {
        let order = u32::try_from(order).ok().filter(|order| *order > 0)?;
        let (order, twelves) = without(order, 3);
        let (order, twenties) = without(order, 5);
        // An order of 12 or 20 has four of its own.
        let twos = order
            .trailing_zeros()
            .checked_sub(2 * (twelves + twenties))?;
        order.is_power_of_two().then_some(Self {
            twos,
            twelves,
            twenties,
        })
    }

    /// The largest whose order divides this width.
    pub fn largest(width: usize) -> Self {
        let mut dividing = (1..=width)
            .rev()
            .filter(|order| width.is_multiple_of(*order));
        let none = Self {
            twos: 0,
            twelves: 0,
            twenties: 0,
        };
        dividing.find_map(Self::of_order).unwrap_or(none)
    }

    /// How many rows it has.
    pub fn order(self) -> usize {
        (12_usize.pow(self.twelves) * 20_usize.pow(self.twenties)) << self.twos
    }

    /// The product with each column of `[rows, columns]`, block by block of rows, not divided by anything. Each result
    /// is a sum in the order of the rows, matrix by matrix, so floating-point numbers come out the same everywhere.
    pub fn apply<T>(self, matrix: &mut [T], columns: usize)
    where
        T: Copy + Add<Output = T> + Sub<Output = T>,
    {
        let orders = std::iter::repeat_n(2, self.twos as usize)
            .chain(std::iter::repeat_n(12, self.twelves as usize))
            .chain(std::iter::repeat_n(20, self.twenties as usize));
        let mut spare = Vec::new();
        for rows in matrix.chunks_exact_mut(self.order() * columns) {
            let mut stride = columns;
            for order in orders.clone() {
                for group in rows.chunks_exact_mut(order * stride) {
                    match order {
                        12 => by_signs(&TWELVE, group, stride, &mut spare),
                        20 => by_signs(&TWENTY, group, stride, &mut spare),
                        _ => by_two(group, stride),
                    }
                }
                stride *= order;
            }
        }
    }
}

/// The number without this prime factor, and how often it had it.
fn without(mut number: u32, prime: u32) -> (u32, u32) {
    let mut count = 0;
    while number.is_multiple_of(prime) {
        number /= prime;
        count += 1;
    }
    (number, count)
}

fn by_two<T: Copy + Add<Output = T> + Sub<Output = T>>(group: &mut [T], stride: usize) {
    let (upper, lower) = group.split_at_mut(stride);
    for (a, b) in upper.iter_mut().zip(lower) {
        (*a, *b) = (*a + *b, *a - *b);
    }
}

/// `minus` says where the matrix has minus ones; its first column has none.
fn by_signs<T: Copy + Add<Output = T> + Sub<Output = T>, const N: usize>(
    minus: &[[bool; N]; N],
    group: &mut [T],
    stride: usize,
    spare: &mut Vec<T>,
) {
    spare.clear();
    spare.extend_from_slice(group);
    for (out, minus) in group.chunks_exact_mut(stride).zip(minus) {
        let mut rows = spare.chunks_exact(stride).zip(minus);
        if let Some((first, _)) = rows.next() {
            out.copy_from_slice(first);
        }
        for (row, minus) in rows {
            for (out, value) in out.iter_mut().zip(row) {
                *out = if *minus { *out - *value } else { *out + *value };
            }
        }
    }
}

const TWELVE: [[bool; 12]; 12] = paley();
const TWENTY: [[bool; 20]; 20] = paley();

/// Paley's matrix of order `N`, where `N - 1` is a prime of the form 4n + 3, with its columns in the order that makes
/// it symmetric: ones in the first row and column; else minus one where (row + column - 2) mod (N - 1) is a square, 0
/// among them.
const fn paley<const N: usize>() -> [[bool; N]; N] {
    let prime = N - 1;
    let mut squares = [false; N];
    let mut root = 0;
    while root < prime {
        squares[root * root % prime] = true;
        root += 1;
    }
    let mut minus = [[false; N]; N];
    let mut row = 1;
    while row < N {
        let mut column = 1;
        while column < N {
            minus[row][column] = squares[(row + column - 2) % prime];
            column += 1;
        }
        row += 1;
    }
    minus
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(turn: Turn) -> Vec<Vec<i64>> {
        let order = turn.order();
        let column = |i: usize| {
            let mut unit = vec![0_i64; order];
            unit[i] = 1;
            turn.apply(&mut unit, 1);
            unit
        };
        (0..order).map(column).collect()
    }

    #[test]
    fn a_matrix_is_symmetric_of_ones_and_its_rows_stand_at_right_angles() {
        for order in [1, 2, 8, 12, 20, 24, 40, 144, 240, 576] {
            let matrix = matrix(Turn::of_order(order).unwrap());
            assert_eq!(matrix.len(), order);
            for (i, row) in matrix.iter().enumerate() {
                assert!(row.iter().all(|value| value.abs() == 1));
                for (j, other) in matrix.iter().enumerate() {
                    let product: i64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                    let expected = if i == j { order } else { 0 };
                    assert_eq!(product, i64::try_from(expected).unwrap(), "{order}");
                    assert_eq!(row[j], other[i], "{order}");
                }
            }
        }
    }

    #[test]
    fn the_largest_order_that_divides_a_width_is_found() {
        let widths = [
            (576, 576),
            (64, 64),
            (896, 128),
            (960, 960),
            (1536, 1536),
            (2560, 2560),
            (3584, 512),
            (5120, 5120),
            (24, 24),
            (6, 2),
            (9, 1),
            (30, 2),
            (60, 20),
        ];
        for (width, order) in widths {
            assert_eq!(Turn::largest(width).order(), order, "{width}");
        }
        for order in [0, 3, 6, 7, 36, 60, 1 << 40] {
            assert_eq!(Turn::of_order(order), None, "{order}");
        }
    }

    #[test]
    fn columns_are_turned_as_rows_of_the_transpose() {
        let mut matrix: Vec<i32> = (0..72).map(|i| i * i % 17).collect();
        let mut first: Vec<i32> = matrix.iter().step_by(3).copied().collect();
        let turn = Turn::of_order(24).unwrap();
        turn.apply(&mut matrix, 3);
        turn.apply(&mut first, 1);
        assert!(matrix.iter().step_by(3).eq(&first));
    }

    #[test]
    fn a_golden_row_of_order_12_never_changes() {
        let row = TWELVE[2].map(|minus| if minus { '-' } else { '+' });
        assert_eq!(row.iter().collect::<String>(), "+-+---+++-+-");
    }
}
