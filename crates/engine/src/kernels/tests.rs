//! Every kernel of this machine equals the definition, on random and on extreme values.

use proptest::prelude::*;

use super::*;
use crate::arith::{RESIDUAL_MAX, VALUE_MAX};
use crate::factor::Factor;
use crate::scale::RowScale;

/// Bytes from a seed: `extreme` ones are -127, 0 or 127.
fn bytes(seed: u64, extreme: bool, count: usize) -> Vec<i8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    (0..count)
        .map(|_| match extreme {
            true => [-127, 0, 127, 127][(next() % 4) as usize],
            false => i8::try_from(i64::try_from(next() % 255).unwrap() - 127).unwrap(),
        })
        .collect()
}

fn values(seed: u64, extreme: bool, count: usize) -> Vec<i32> {
    values_to(VALUE_MAX, seed, extreme, count)
}

fn values_to(max: i32, seed: u64, extreme: bool, count: usize) -> Vec<i32> {
    bytes(seed, extreme, count)
        .iter()
        .zip(bytes(seed ^ 1, false, count))
        .map(|(high, low)| {
            let value = i32::from(*high) * (max / 127) + i32::from(low);
            // What the division leaves over belongs to the largest.
            let value = value + value.signum() * (max % 127) * i32::from(high.abs() == 127);
            value.clamp(-max, max)
        })
        .collect()
}

fn others() -> impl Iterator<Item = Kernel> {
    Kernel::available()
        .into_iter()
        .filter(|kernel| *kernel != Kernel::SCALAR)
}

fn products(kernel: Kernel, rows: &Rows<'_>, values: &[i8]) -> Vec<i32> {
    let tokens = values.len() / rows.columns;
    let mut out = vec![i32::MIN; tokens * rows.count];
    let mut outs: Vec<&mut [i32]> = out.chunks_exact_mut(rows.count).collect();
    let packed = kernel.pack(values, rows.columns);
    let vectors = Vectors {
        columns: rows.columns,
        values,
        packed: &packed,
    };
    kernel.products(rows, &vectors, &mut outs);
    out
}

proptest! {
    #[test]
    fn products_equal_the_definition(
        (count, columns, gap, tokens) in (1_usize..20, 1_usize..150, 0_usize..9, 1_usize..50),
        seed: u64, extreme: bool, summed: bool,
    ) {
        let stride = columns + gap;
        let data = bytes(seed, extreme, (count - 1) * stride + columns);
        let sums: Vec<i32> = (0..count)
            .map(|row| data[row * stride..][..columns].iter().map(|w| i32::from(*w)).sum())
            .collect();
        let sums = if summed { &sums[..] } else { &[] };
        let rows = Rows { data: &data, stride, columns, count, sums };
        let vectors = bytes(!seed, extreme, tokens * columns);
        let expected = products(Kernel::SCALAR, &rows, &vectors);
        for kernel in others() {
            prop_assert_eq!(&products(kernel, &rows, &vectors), &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn elementwise_work_equals_the_definition(
        count in 1_usize..200, seed: u64, extreme: bool,
        mantissa in 1_u32 << 30..1 << 31, shift in 4_u32..70,
        max in proptest::sample::select(vec![VALUE_MAX, RESIDUAL_MAX]),
    ) {
        let scales: Vec<RowScale> = values(seed, false, count)
            .iter()
            .map(|v| RowScale::from_q32(v.unsigned_abs()))
            .collect();
        let x = values(seed, extreme, count);
        let up = values(!seed, extreme, count);
        let factor = Factor { mantissa, shift };
        // The stream and what is added to it; mixed values are as large.
        let stream = values_to(RESIDUAL_MAX, seed, extreme, count);
        let more = values_to(max, !seed, extreme, count);
        let peak = crate::arith::peak(&stream);
        let run = |kernel: Kernel| {
            let mut sums: Vec<i32> = x.iter().map(|v| v.saturating_mul(8)).collect();
            kernel.requantise(&mut sums, &scales, factor, max);
            let mut gated = x.clone();
            kernel.gate(&mut gated, &up);
            let mut mixed = x.clone();
            kernel.mix_blocks(&mut mixed);
            let mut turned = x[..count / 2 * 2].to_vec();
            let angles: Vec<i32> = up.iter().map(|v| v * 16).collect();
            let half = turned.len() / 2;
            if half > 0 {
                kernel.rotate_heads(&mut turned, &angles[..half], &angles[half..2 * half]);
            }
            let mut added = stream.clone();
            kernel.add(&mut added, &more, max);
            let mut quantised = vec![0; count];
            kernel.quantise(&stream, peak, &mut quantised);
            (sums, gated, mixed, turned, added, quantised)
        };
        let expected = run(Kernel::SCALAR);
        for kernel in others() {
            prop_assert_eq!(&run(kernel), &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn attention_equals_the_definition(
        (positions, half, stride) in (1_usize..=512, 1_usize..40, 1_usize..3),
        seed: u64, extreme: bool,
        mantissa in 1_u32 << 30..1 << 31, shift in 17_u32..60,
    ) {
        let head_dim = 2 * half;
        let scores = bytes(seed, extreme, positions);
        let scores: Vec<i32> = scores.iter().map(|s| i32::from(*s) * 32_511).collect();
        let peaks = |seed| -> Vec<u32> {
            values(seed, extreme, positions).iter().map(|v| v.unsigned_abs()).collect()
        };
        let (key_peaks, value_peaks) = (peaks(seed), peaks(!seed));
        let data = bytes(!seed, extreme, positions * head_dim * stride);
        let rows = Rows { data: &data, stride: head_dim * stride, columns: head_dim, count: positions, sums: &[] };
        let run = |kernel: Kernel| {
            let mut softmax = Softmax {
                scores: &mut scores.clone(),
                key_peaks: &key_peaks,
                value_peaks: &value_peaks,
                query: Factor { mantissa, shift },
                weights: &mut vec![0; positions],
                share: Share::default(),
            };
            kernel.softmax(&mut softmax);
            let (weights, share) = (softmax.weights.to_vec(), softmax.share);
            let mut sums = vec![0; head_dim];
            kernel.weigh(&weights, &rows, &mut sums);
            (weights, share, sums)
        };
        let expected = run(Kernel::SCALAR);
        for kernel in others() {
            prop_assert_eq!(&run(kernel), &expected, "{}", kernel.name());
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let columns = 32_768;
    let data = vec![127; columns];
    let rows = Rows {
        data: &data,
        stride: columns,
        columns,
        count: 1,
        sums: &[],
    };
    for tokens in [1, 5, 40] {
        for (value, sum) in [(127, 528_515_072), (-127, -528_515_072)] {
            for kernel in Kernel::available() {
                let sums = products(kernel, &rows, &vec![value; tokens * columns]);
                assert_eq!(sums, vec![sum; tokens], "{}", kernel.name());
            }
        }
    }
    let positions = 1 << 17;
    let data = vec![127; 2 * positions];
    let rows = Rows {
        data: &data,
        stride: 2,
        columns: 2,
        count: positions,
        sums: &[],
    };
    for kernel in Kernel::available() {
        let mut sums = [0; 2];
        kernel.weigh(&vec![32_767; positions], &rows, &mut sums);
        assert_eq!(sums, [32_767 * 127 * (1 << 17); 2], "{}", kernel.name());
    }
}

#[test]
fn steps_of_four_rows_take_each_row_once() {
    for count in 0..50 {
        let mut taken: Vec<usize> = Vec::new();
        for step in 0..quarter(count) {
            let rows: Vec<usize> = four_apart(step, count).collect();
            assert!((1..=4).contains(&rows.len()) && rows[0] == step);
            taken.extend(rows);
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..count).collect::<Vec<_>>());
    }
}
