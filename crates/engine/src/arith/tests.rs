//! Golden values, which never change within an engine version, and nearness to the real functions.

use proptest::prelude::*;

use super::*;
use crate::scale::{RowScale, requantise};

const ONE: i32 = 1 << 16;

fn real(value: i32) -> f64 {
    f64::from(value) / 65_536.0
}

#[test]
fn rounding_is_half_up_on_both_sides_of_zero() {
    assert_eq!([3, -3, -2].map(|n| shift_round(n, 1)), [2, -1, -1]);
}

#[test]
fn golden_values_of_powers_and_gates_never_change() {
    let points = [
        0,
        1,
        1 << 15,
        1 << 16,
        3 << 16,
        10 << 16,
        30 << 16,
        31 << 16,
    ];
    assert_eq!(points.map(|z| tables().power(z)), GOLDEN_POWERS);
    let points = [-20 * ONE, -8 * ONE, -ONE, -1, 0, 1, ONE, 8 * ONE, 20 * ONE];
    assert_eq!(points.map(|x| tables().gated(x, 2 * ONE)), GOLDEN_GATES);
}
const GOLDEN_POWERS: [u32; 8] = [
    1_073_741_824,
    1_073_730_483,
    759_250_124,
    536_870_912,
    134_217_728,
    1_048_576,
    1,
    0,
];
const GOLDEN_GATES: [i32; 9] = [0, -352, -35_250, 0, 0, 2, 95_822, 1_048_224, 2_621_440];

#[test]
fn golden_values_of_rotation_and_mixing_never_change() {
    let eighth = 759_250_125;
    assert_eq!(rotate(ONE, -2 * ONE, eighth, eighth), (139_023, -46_341));
    assert_eq!(rotate(3, 5, 1 << 29, -(1 << 29)), (4, 1));
    let (most, turn) = (VALUE_MAX, 1 << 30);
    assert_eq!(rotate(most, most, turn, -turn), (most, 0));

    let mut block = [0; MIX_BLOCK];
    (block[0], block[37], block[63]) = (ONE, -3, 5 * ONE);
    mix_block(&mut block);
    assert_eq!(block[..8], GOLDEN_MIXED);
    let mut largest = [VALUE_MAX; MIX_BLOCK];
    mix_block(&mut largest);
    assert_eq!((largest[0], largest[1]), (8 * VALUE_MAX, 0));
}
const GOLDEN_MIXED: [i32; 8] = [
    49_152, -32_767, -32_768, 49_153, -32_767, 49_152, 49_153, -32_768,
];

#[test]
fn golden_values_of_quantisation_never_change() {
    let x = [ONE, -3 * ONE, ONE / 2, 127, -1, 0];
    let mut q = [0; 6];
    quantise(&x, peak(&x), &mut q);
    assert_eq!((q, peak(&x)), ([42, -127, 21, 0, 0, 0], 196_608));
    let norm = |x: &[i32]| {
        let factor = norm_factor(x, peak(x), 42_950);
        (factor.mantissa, factor.shift)
    };
    assert_eq!(
        [norm(&x), norm(&[1]), norm(&[VALUE_MAX; 3]), norm(&[0, 0])],
        GOLDEN_NORMS
    );

    let scale = |value| RowScale::from_q32(value);
    let scales = [scale(1 << 24), scale(1 << 30), scale(u32::MAX), scale(0)];
    let mut sums = [8001, -8001, 123_456_789, 55];
    requantise(&mut sums, &scales, Factor::of(65_536, 127), VALUE_MAX);
    assert_eq!(sums, GOLDEN_SUMS);
    assert_eq!(scales.map(|s| s.dequantise(-127)), GOLDEN_WEIGHTS);
    assert_eq!(scales.map(RowScale::to_bits), GOLDEN_SCALES);
}
const GOLDEN_NORMS: [(u32, u32); 4] = [
    (1_241_966_037, 20),
    (1_336_778_475, 29),
    (1_082_196_484, 21),
    (0, 62),
];
const GOLDEN_SUMS: [i32; 4] = [16_130, -1_032_063, 67_108_864, 0];
const GOLDEN_WEIGHTS: [i32; 4] = [-32_512, -2_080_768, -8_323_072, 0];
const GOLDEN_SCALES: [u32; 4] = [142_606_336, 41_943_040, 33_554_431, 0];

fn vectors() -> impl Strategy<Value = Vec<i32>> {
    proptest::collection::vec(-RESIDUAL_MAX..=RESIDUAL_MAX, 1..200)
}

proptest! {
    #[test]
    fn powers_are_near_the_real_ones_and_fall(z in 0_u32..40 << 16, other in 0_u32..40 << 16) {
        let ours = f64::from(tables().power(z)) / f64::from(1 << 30);
        let exact = (-f64::from(z) / 65_536.0).exp2();
        prop_assert!((exact - ours).abs() < 1e-6, "{exact} {ours}");
        prop_assert!(tables().power(z.min(other)) >= tables().power(z.max(other)));
    }

    #[test]
    fn gates_are_near_the_real_ones(gate in -20 * ONE..20 * ONE, up in -9 * ONE..9 * ONE) {
        let (g, u) = (real(gate), real(up));
        let exact = g / (1.0 + (-g).exp()) * u;
        let ours = real(tables().gated(gate, up));
        prop_assert!((exact - ours).abs() < 1e-3, "{exact} {ours}");
    }

    #[test]
    fn quantisation_is_near_the_real_one(x in vectors()) {
        let peak = peak(&x);
        let mut q = vec![0; x.len()];
        quantise(&x, peak, &mut q);
        for (q, x) in q.iter().zip(&x) {
            let exact = 127.0 * f64::from(*x) / f64::from(peak.max(1));
            prop_assert!((exact - f64::from(*q)).abs() < 0.5001, "{exact} {q}");
        }
        prop_assert_eq!(q.iter().map(|q| q.unsigned_abs()).max(), Some(if peak > 0 { 127 } else { 0 }));
    }

    #[test]
    fn the_norms_factor_is_near_the_real_one(x in vectors(), divide in 1_i32..1 << 20) {
        let x: Vec<i32> = x.iter().map(|v| v / divide).collect();
        let peak = peak(&x);
        prop_assume!(peak > 0);
        let factor = norm_factor(&x, peak, 42_950);
        let ours = f64::from(factor.mantissa) / f64::from(factor.shift).exp2();
        let mean = x.iter().map(|v| real(*v).powi(2)).sum::<f64>() / x.len() as f64;
        let exact = f64::from(peak) / 127.0 / (mean + 42_950.0 / 65_536.0_f64.powi(2)).sqrt();
        prop_assert!((ours / exact - 1.0).abs() < 1e-4, "{ours} {exact}");
    }

    #[test]
    fn requantisation_is_near_the_real_one(
        sum in -(1_i32 << 29)..1 << 29, scale: u32, peak in 1_u32..1 << 29,
    ) {
        let scale = RowScale::from_q32(scale);
        let mut sums = [sum];
        requantise(&mut sums, &[scale], Factor::of(u128::from(peak), 127), VALUE_MAX);
        let unit = f64::from(scale.mantissa()) / f64::from(23 + scale.exponent()).exp2() * f64::from(peak) / 127.0;
        let exact = (f64::from(sum) * unit).clamp(-f64::from(VALUE_MAX), f64::from(VALUE_MAX));
        // Half a unit of the sum, half of the result.
        prop_assert!((exact - f64::from(sums[0])).abs() <= 1.1 * unit + 0.6 + exact.abs() * 1e-6);
    }

    #[test]
    fn mixing_keeps_lengths_and_turns_back(x in proptest::array::uniform32(-VALUE_MAX..=VALUE_MAX)) {
        let mut block = [0; MIX_BLOCK];
        block[..32].copy_from_slice(&x);
        let before = block;
        mix_block(&mut block);
        let length = |x: &[i32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        prop_assert!((length(&block) - length(&before)).abs() <= 8.0);
        // The transform is its own inverse, but for roundings; it takes values up to 2^26.
        if block.iter().all(|v| v.abs() <= VALUE_MAX) {
            mix_block(&mut block);
            for (after, before) in block.iter().zip(before) {
                prop_assert!((after - before).abs() <= 16, "{after} {before}");
            }
        }
    }

    #[test]
    fn nothing_overflows_within_the_range_of_values(x in -VALUE_MAX..=VALUE_MAX, y in -VALUE_MAX..=VALUE_MAX, c in -(1_i32 << 30)..=1 << 30, s in -(1_i32 << 30)..=1 << 30) {
        prop_assert!(tables().gated(x, y).abs() <= VALUE_MAX);
        let (a, b) = rotate(x, y, c, s);
        prop_assert!(a.abs() <= VALUE_MAX && b.abs() <= VALUE_MAX);
    }
}
