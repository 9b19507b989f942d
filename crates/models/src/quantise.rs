//! int8 rows with one scale each, as the engine has them.

use dovetail_engine::scale_bits;
use rayon::prelude::*;

/// Some rows, quantised.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// int8, row after row.
    pub(crate) weights: Vec<u8>,
    /// u32, little-endian.
    pub(crate) scales: Vec<u8>,
    /// The sum of squares of what was lost.
    pub(crate) lost: f64,
    /// The sum of squares of what there was.
    pub(crate) total: f64,
    /// Rows of weights so small that all became zero.
    pub(crate) vanished: usize,
}

/// A weight is beyond what a scale can say.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// Quantises rows of this width. The step is the row's peak over 127: after the rotation rows are near
/// Gaussian, and clipping them costs more than the finer step brings (docs/models.md).
pub(crate) fn quantise(matrix: &[f32], columns: usize) -> Result<Rows, TooLarge> {
    let rows: Vec<Row> = matrix
        .par_chunks_exact(columns)
        .map(quantise_row)
        .collect::<Result<_, _>>()?;
    let mut all = Rows::default();
    // Added up in order, so that the report is the same on any number of threads.
    for row in rows {
        all.weights.extend(row.weights);
        all.scales.extend(row.scale.to_le_bytes());
        all.lost += row.lost;
        all.total += row.total;
        all.vanished += usize::from(row.vanished);
    }
    Ok(all)
}

impl Rows {
    pub(crate) fn append(&mut self, other: Self) {
        self.weights.extend(other.weights);
        self.scales.extend(other.scales);
        self.lost += other.lost;
        self.total += other.total;
        self.vanished += other.vanished;
    }

    /// What was lost, relative: the norm of the difference over the norm.
    pub(crate) fn error(&self) -> f64 {
        if self.total > 0.0 {
            (self.lost / self.total).sqrt()
        } else {
            0.0
        }
    }
}

struct Row {
    weights: Vec<u8>,
    scale: u32,
    lost: f64,
    total: f64,
    vanished: bool,
}

fn quantise_row(row: &[f32]) -> Result<Row, TooLarge> {
    // A turn of huge weights overflows, and a comparison with NaN would pass it by.
    if row.iter().any(|value| !value.is_finite()) {
        return Err(TooLarge);
    }
    let peak = row
        .iter()
        .fold(0.0_f32, |peak, value| peak.max(value.abs()));
    // The scale is rounded first, so that the weights are those nearest with the scale that counts.
    let (scale, step) = scale(f64::from(peak) / 127.0)?;
    let per_step = if step > 0.0 { (1.0 / step) as f32 } else { 0.0 };
    let step = step as f32;
    let (mut lost, mut total) = (0.0, 0.0);
    let weights = row
        .iter()
        .map(|value| {
            // Half away from zero.
            let steps = (value * per_step + 0.5_f32.copysign(*value)).clamp(-127.0, 127.0) as i8;
            let difference = f64::from(value - f32::from(steps) * step);
            lost += difference * difference;
            total += f64::from(*value) * f64::from(*value);
            steps.cast_unsigned()
        })
        .collect();
    Ok(Row {
        weights,
        scale,
        lost,
        total,
        vanished: scale == 0 && peak > 0.0,
    })
}

/// The nearest scale of 24 bits, as it stands in a file and as a number. Below 2^-40 it is zero.
fn scale(step: f64) -> Result<(u32, f64), TooLarge> {
    const MANTISSA_BITS: i32 = 23;
    const EXPONENT_MAX: i32 = 40;
    if step < 1.0 / f64::from(1 << 20) / f64::from(1 << 20) {
        return Ok((0, 0.0));
    }
    // The exponent of a normal number, by which its mantissa lies in 1..2.
    let exponent = i32::try_from(step.to_bits() >> 52 & 0x7ff).unwrap_or(0) - 1023;
    let (mut mantissa, mut exponent) = (
        (step * power_of_two(MANTISSA_BITS - exponent)).round(),
        exponent,
    );
    if mantissa >= power_of_two(MANTISSA_BITS + 1) {
        mantissa = power_of_two(MANTISSA_BITS);
        exponent += 1;
    }
    if !(-EXPONENT_MAX..=0).contains(&exponent) {
        return Err(TooLarge);
    }
    // Whole and below 2^24.
    let bits = scale_bits(mantissa as u32, exponent.unsigned_abs()).ok_or(TooLarge)?;
    Ok((bits, mantissa * power_of_two(exponent - MANTISSA_BITS)))
}

/// Exact, for exponents of normal numbers.
fn power_of_two(exponent: i32) -> f64 {
    let biased = u64::try_from(exponent + 1023).unwrap_or(0);
    f64::from_bits(biased << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_rounded_to_24_bits() {
        assert_eq!(scale(1.0).unwrap(), (0x80_0000, 1.0));
        assert_eq!(scale(0.375).unwrap(), (2 << 24 | 0xc0_0000, 0.375));
        let (bits, step) = scale(0.1).unwrap();
        assert_eq!(bits, 4 << 24 | 0xcc_cccd);
        assert!((step - 0.1).abs() < 1e-8);
        // Rounds up to a power of two.
        assert_eq!(scale(1.0 - 1e-12).unwrap().1, 1.0);
        assert_eq!(scale(0.0).unwrap(), (0, 0.0));
        assert_eq!(scale(9e-13).unwrap(), (0, 0.0));
        assert_eq!(scale(power_of_two(-40)).unwrap().0, 40 << 24 | 0x80_0000);
        assert!(scale(2.0).is_err() && scale(1e30).is_err());
    }

    #[test]
    fn the_peak_becomes_127_and_the_error_is_below_half_a_step() {
        let row = [0.5_f32, -1.27, 0.004, 1.27, 0.0151];
        let rows = quantise(&row, 5).unwrap();
        let weights: Vec<i8> = rows.weights.iter().map(|w| w.cast_signed()).collect();
        assert_eq!(weights, [50, -127, 0, 127, 2]);
        assert!(rows.lost.sqrt() < 0.005 * 5.0_f64.sqrt());
        assert!(quantise(&[1.0, f32::NAN], 2).is_err());
        let tiny = quantise(&[1e-20, 0.0, 0.0, 0.0], 2).unwrap();
        assert_eq!((tiny.vanished, tiny.scales), (1, vec![0; 8]));
        let zeros = quantise(&[0.0; 8], 4).unwrap();
        assert_eq!((zeros.weights, zeros.scales), (vec![0; 8], vec![0; 8]));
    }
}
