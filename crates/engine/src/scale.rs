//! Scales: what one unit of an integer is worth. A row of weights has one in the model file, a
//! quantised vector gets one as it is made; a product is requantised with both.

use crate::EngineError;
use crate::arith::{RESIDUAL_MAX, saturate, shift_round};
use crate::factor::Factor;

/// The scale of a row of weights: `mantissa / 2^(23 + exponent)`, the exponent in the highest byte
/// and 24 bits of mantissa below it, of which the first is set. Zero for a row of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowScale(u32);

/// Scales lie below 2 and, unless they are zero, from 2^-40 on.
const EXPONENT_MAX: u32 = 40;

impl RowScale {
    /// A scale as it stands in a file.
    pub(crate) fn from_bits(bits: u32) -> Result<Self, EngineError> {
        let scale = Self(bits);
        let normal = scale.mantissa() >> 23 == 1 && scale.exponent() <= EXPONENT_MAX;
        if bits == 0 || normal {
            Ok(scale)
        } else {
            Err(EngineError::Format("a row's scale is not normal"))
        }
    }

    /// `numerator / 2^32`, for scales that are made without floating point.
    pub(crate) fn from_q32(numerator: u32) -> Self {
        if numerator == 0 {
            return Self(0);
        }
        let length = 32 - numerator.leading_zeros();
        let mantissa = (u64::from(numerator) << 24) >> length;
        let mantissa = u32::try_from(mantissa).expect("24 bits fit");
        Self((33 - length) << 24 | mantissa)
    }

    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn mantissa(self) -> u32 {
        self.0 & 0xff_ffff
    }

    #[inline(always)]
    pub(crate) fn exponent(self) -> u32 {
        self.0 >> 24
    }

    /// `weight` times this, in Q16.
    pub(crate) fn dequantise(self, weight: i8) -> i32 {
        let wide = (i64::from(weight) * i64::from(self.mantissa())) << 16;
        saturate(
            shift_round(wide, (23 + self.exponent()).min(62)),
            RESIDUAL_MAX,
        )
    }
}

/// The scale of a row of weights as it stands in a file: `mantissa / 2^(23 + exponent)`, where
/// 2^23 <= mantissa < 2^24 and exponent <= 40. `None` outside of those.
pub fn scale_bits(mantissa: u32, exponent: u32) -> Option<u32> {
    let in_range = mantissa >> 23 == 1 && exponent <= EXPONENT_MAX;
    in_range.then_some(exponent << 24 | (mantissa & 0xff_ffff))
}

/// Turns the exact sums of one token into Q16 values, in place: `sums[r]` with the scale of row `r`
/// and the factor of the token, saturated to `max`. Two roundings: to the sum's own unit, then to Q16.
#[inline(always)]
pub(crate) fn requantise(sums: &mut [i32], scales: &[RowScale], factor: Factor, max: i32) {
    let mantissa = i64::from(factor.mantissa.cast_signed());
    for (sum, scale) in sums.iter_mut().zip(scales) {
        // As long as the sum at most; 32 bits let compilers multiply them as such.
        let product = i64::from(*sum) * i64::from(scale.mantissa().cast_signed());
        let scaled = i64::from(shift_round(product, 24) as i32);
        // scaled * 2^24 / 2^(23 + exponent) * mantissa / 2^shift.
        let shift = (scale.exponent() + factor.shift - 1).min(62);
        *sum = saturate(shift_round(scaled * mantissa, shift), max);
    }
}
