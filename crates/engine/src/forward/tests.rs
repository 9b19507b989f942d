//! The forward pass against a second implementation: written from docs/engine.md with wide integers,
//! layer by layer over the whole text, without a cache, a kernel or a batch.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::arith::{LOG2_E_Q32, tables};
use crate::tiny;
use crate::{Architecture, Kernel};

const ARCHITECTURE: Architecture = Architecture {
    dim: 24,
    hidden_dim: 64,
    layers: 3,
    heads: 6,
    kv_heads: 3,
    head_dim: 6,
    vocabulary: 258,
    context_tokens: 24,
    norm_epsilon_q32: 42_950,
    tied_head: false,
    attention_bias: true,
    mixed_down: true,
    turn: 24,
};

fn model(tied_head: bool, plain: bool) -> Model {
    let arch = Architecture {
        tied_head,
        attention_bias: !plain,
        mixed_down: !plain,
        ..ARCHITECTURE
    };
    tiny::model(arch, 5).unwrap()
}

fn saturate(n: i128) -> i32 {
    saturate_to(1 << 26, n)
}

fn saturate_to(max: i128, n: i128) -> i32 {
    i32::try_from(n.clamp(-max, max)).unwrap()
}

fn largest(x: &[i32]) -> i128 {
    x.iter()
        .map(|v| i128::from(v.unsigned_abs()))
        .max()
        .unwrap()
}

/// `floor(n * 2^k / d)` and `k`, the quotient having 31 bits.
fn factor(n: i128, d: i128) -> (i128, i128) {
    if n == 0 {
        return (0, 62);
    }
    let k = (0..120).find(|k| (n << k) / d >= 1 << 30).unwrap();
    ((n << k) / d, k)
}

fn quantised(x: &[i32]) -> Vec<i128> {
    let peak = largest(x);
    if peak == 0 {
        return vec![0; x.len()];
    }
    let up = (0..31).find(|up| peak << up >= 1 << 30).unwrap();
    let reciprocal = (127 << 47) / (peak << up);
    x.iter()
        .map(|v| ((i128::from(*v) << up) * reciprocal + (1 << 46)) >> 47)
        .collect()
}

/// The root mean square times 2^7 and the peak, at the scale where the peak has 24 bits; and its bits before.
fn norm_root(x: &[i32], epsilon: i128) -> (i128, i128, i128) {
    let peak = largest(x);
    let bits = i128::from(128 - peak.leading_zeros());
    let scaled = |v: i128| {
        if bits <= 24 {
            v << (24 - bits)
        } else {
            v >> (bits - 24)
        }
    };
    let sum: i128 = x.iter().map(|v| scaled(i128::from(*v)).pow(2)).sum();
    let mean = sum / x.len() as i128;
    let epsilon = if bits <= 24 {
        epsilon << (2 * (24 - bits))
    } else {
        epsilon >> (2 * (bits - 24))
    };
    (((mean + epsilon) << 14).isqrt(), scaled(peak), bits)
}

fn normed_factor(x: &[i32], epsilon: i128) -> (i128, i128) {
    if largest(x) == 0 {
        return (0, 62);
    }
    let (root, peak, _) = norm_root(x, epsilon);
    factor(peak << 23, 127 * root)
}

/// Whether the Hadamard matrix of order 24 has a minus one there: that of order 12, with each entry a block of order 2.
fn is_minus(row: usize, column: usize) -> bool {
    let squares = [0, 1, 3, 4, 5, 9];
    let (i, j) = (row / 2, column / 2);
    let twelve = i > 0 && j > 0 && squares.contains(&((i + j - 2) % 11));
    twelve != (row % 2 == 1 && column % 2 == 1)
}

fn turned_by_24(x: &[i128]) -> Vec<i128> {
    let signed = |row: usize, column: usize| {
        if is_minus(row, column) {
            -x[column]
        } else {
            x[column]
        }
    };
    (0..24)
        .map(|row| (0..24).map(|column| signed(row, column)).sum())
        .collect()
}

fn fitted(x: Vec<i128>, bits: i128) -> (Vec<i128>, i128) {
    let peak = x.iter().map(|v| v.abs()).max().unwrap();
    let by = (i128::from(128 - peak.leading_zeros()) - bits).max(0);
    let half = (1 << by) >> 1;
    (x.into_iter().map(|v| (v + half) >> by).collect(), by)
}

/// The logits of a state where the embedding is the head.
fn tied(model: &Model, x: &[i32]) -> Vec<i32> {
    let LastMatrix::Tied(head) = &model.tensors.head else {
        panic!("the head is apart");
    };
    let (a, first) = fitted(turned_by_24(&wide(x)), 30);
    let gained = a.iter().zip(&head.gains).map(|(a, g)| a * i128::from(*g));
    let (v, second) = fitted(gained.collect(), 30);
    let (w, third) = fitted(turned_by_24(&v), 29);
    let w: Vec<i32> = w.into_iter().map(|w| i32::try_from(w).unwrap()).collect();
    if largest(&w) == 0 {
        return vec![0; 258];
    }
    let (root, _, bits) = norm_root(x, 42_950);
    let (mantissa, shift) = factor(largest(&w), 127 * 24 * root);
    let shift = shift - (first + second + third + 31 - bits);
    product(
        &model.tensors.embedding,
        &quantised(&w),
        (mantissa, shift),
        1 << 26,
    )
}

fn wide(x: &[i32]) -> Vec<i128> {
    x.iter().map(|v| i128::from(*v)).collect()
}

fn logits_of(model: &Model, x: &[i32]) -> Vec<i32> {
    match &model.tensors.head {
        LastMatrix::Apart(head) => normed(head, x),
        LastMatrix::Tied(_) => tied(model, x),
    }
}

fn product(matrix: &Matrix, q: &[i128], (mantissa, shift): (i128, i128), max: i128) -> Vec<i32> {
    (0..matrix.rows())
        .map(|row| {
            let (weights, scale, bias) = matrix.parts(row);
            let sum: i128 = weights.iter().zip(q).map(|(w, q)| i128::from(*w) * q).sum();
            let scaled = (sum * i128::from(scale.mantissa()) + (1 << 23)) >> 24;
            let by = (i128::from(scale.exponent()) + shift - 1).min(62);
            let value = saturate_to(max, (scaled * mantissa + (1 << (by - 1))) >> by);
            saturate_to(max, i128::from(value) + i128::from(bias))
        })
        .collect()
}

/// What a matrix writes to the stream.
fn plain(matrix: &Matrix, x: &[i32]) -> Vec<i32> {
    product(matrix, &quantised(x), factor(largest(x), 127), 1 << 29)
}

fn normed(matrix: &Matrix, x: &[i32]) -> Vec<i32> {
    product(matrix, &quantised(x), normed_factor(x, 42_950), 1 << 26)
}

fn turned(model: &Model, x: &[i32], position: usize) -> Vec<i32> {
    let width = model.manifest().architecture.head_dim;
    let half = width / 2;
    let mut turned = x.to_vec();
    for i in (0..x.len()).filter(|i| i % width < half) {
        let angle = position * half + i % width;
        let (cos, sin) = (model.tensors.cos[angle], model.tensors.sin[angle]);
        let [a, b, cos, sin] = [x[i], x[i + half], cos, sin].map(i128::from);
        turned[i] = saturate((a * cos - b * sin + (1 << 29)) >> 30);
        turned[i + half] = saturate((a * sin + b * cos + (1 << 29)) >> 30);
    }
    turned
}

/// What a block of positions comes to: exponent, sum of weights, shift of the values, weighted sums.
type BlockOf = (i128, i128, i128, Vec<i128>);

fn block_of(scores: &[i128], values: &[&[i32]]) -> BlockOf {
    let top = scores.iter().max().unwrap();
    let exponent = (top + 65_535).div_euclid(65_536);
    let weights: Vec<i128> = scores
        .iter()
        .map(|score| u32::try_from(exponent * 65_536 - score).unwrap())
        .map(|below| i128::from(tables().power(below)))
        .collect();
    let wide: Vec<i128> = weights
        .iter()
        .zip(values)
        .map(|(w, v)| w * largest(v))
        .collect();
    let bits = i128::from(128 - wide.iter().max().unwrap().leading_zeros());
    let by = (bits - 15).max(0);
    let narrow = wide
        .iter()
        .map(|w| ((w + ((1 << by) >> 1)) >> by).min(32_767));
    let mut sums = vec![0; values[0].len()];
    for (weight, value) in narrow.zip(values) {
        for (sum, v) in sums.iter_mut().zip(quantised(value)) {
            *sum += weight * v;
        }
    }
    (exponent, weights.iter().sum(), by, sums)
}

/// One head over the keys and values that it sees.
pub(crate) fn attended(query: &[i32], keys: &[&[i32]], values: &[&[i32]]) -> Vec<i32> {
    let root = i128::from(((query.len() as u64) << 32).isqrt());
    let numerator = (largest(query) * i128::from(LOG2_E_Q32)) << 17;
    let (mantissa, shift) = factor(numerator, (127 * 127 * root) << 32);
    let q = quantised(query);
    let scores: Vec<i128> = keys
        .iter()
        .map(|key| {
            let sum: i128 = quantised(key).iter().zip(&q).map(|(k, q)| k * q).sum();
            let scaled = (sum * largest(key) + (1 << 16)) >> 17;
            let score = (scaled * mantissa + (1 << (shift.min(62) - 1))) >> shift.min(62);
            score.clamp(-(1 << 30), 1 << 30)
        })
        .collect();
    let blocks = scores.chunks(512).zip(values.chunks(512));
    let blocks: Vec<BlockOf> = blocks.map(|(s, v)| block_of(s, v)).collect();
    let exponent = blocks.iter().map(|block| block.0).max().unwrap();
    let below = |block: &BlockOf| exponent - block.0;
    // Beyond a hundred nothing is left, and integers here have not many more bits.
    let sums = blocks.iter().map(|block| block.1 >> below(block).min(100));
    let sum: i128 = sums.sum();
    let unit = blocks.iter().map(|block| block.2 - below(block)).max();
    let unit = unit.unwrap();
    let (mantissa, shift) = factor(1 << unit, 127 * sum);
    let (mantissa, shift) = (mantissa >> 8, (shift - 8).clamp(1, 62));
    (0..query.len())
        .map(|i| {
            let shifted = |block: &BlockOf| {
                let by = (unit - (block.2 - below(block))).min(62);
                (block.3[i] + ((1 << by) >> 1)) >> by
            };
            let sum: i128 = blocks.iter().map(shifted).sum();
            saturate((sum * mantissa + (1 << (shift - 1))) >> shift)
        })
        .collect()
}

fn mixed(x: &[i32]) -> Vec<i32> {
    let mut x: Vec<i128> = x.iter().map(|v| i128::from(*v)).collect();
    for stride in [1, 4, 16] {
        for i in (0..x.len()).filter(|i| i / stride % 4 == 0) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|n| x[i + n * stride]);
            let outs = [a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d];
            for (n, out) in outs.into_iter().enumerate() {
                x[i + n * stride] = (out + 1) >> 1;
            }
        }
    }
    x.into_iter().map(|v| i32::try_from(v).unwrap()).collect()
}

fn add_to(x: &mut [i32], y: &[i32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = saturate_to(1 << 29, i128::from(*x) + i128::from(*y));
    }
}

fn feed_forward(model: &Model, layer: &Layer, x: &mut [i32]) {
    let (gate, up) = (normed(&layer.gate, x), normed(&layer.up, x));
    let gated: Vec<i32> = gate
        .iter()
        .zip(up)
        .map(|(gate, up)| {
            let size = gate.unsigned_abs();
            let entry = |i: u32| {
                // 1 / (1 + exp(-i / 64)), as the gate of 2^26 shows it.
                i128::from(tables().sigmoid(i32::try_from(i << 10).unwrap()))
            };
            let (from, to) = (entry(size >> 10), entry((size >> 10) + 1));
            let sigmoid = from + (((to - from) * i128::from(size & 1023) + 512) >> 10);
            let sigmoid = if size >= 16 << 16 { 1 << 28 } else { sigmoid };
            let sigmoid = if *gate >= 0 {
                sigmoid
            } else {
                (1 << 28) - sigmoid
            };
            let silu = (i128::from(*gate) * sigmoid + (1 << 27)) >> 28;
            saturate((silu * i128::from(up) + (1 << 15)) >> 16)
        })
        .collect();
    let arch = &model.manifest().architecture;
    let gated = if arch.mixed_down {
        mixed(&gated)
    } else {
        gated
    };
    add_to(x, &plain(&layer.down, &gated));
}

/// The hidden states of all positions.
fn from_scratch(model: &Model, tokens: &[u32]) -> Vec<i32> {
    let arch = &model.manifest().architecture;
    let width = arch.head_dim;
    let mut xs: Vec<Vec<i32>> = tokens
        .iter()
        .map(|token| {
            let (weights, scale, _) = model.tensors.embedding.parts(*token as usize);
            let by = 23 + scale.exponent();
            let value = |w: &i8| (i128::from(*w) * i128::from(scale.mantissa())) << 16;
            let value = |w| saturate_to(1 << 29, (value(w) + (1 << (by - 1))) >> by);
            weights.iter().map(value).collect()
        })
        .collect();
    for layer in &model.tensors.layers {
        let each = |matrix: &Matrix| xs.iter().map(|x| normed(matrix, x)).collect::<Vec<_>>();
        let turn = |xs: Vec<Vec<i32>>| -> Vec<Vec<i32>> {
            (0..)
                .zip(xs)
                .map(|(position, x)| turned(model, &x, position))
                .collect()
        };
        let (queries, keys) = (turn(each(&layer.query)), turn(each(&layer.key)));
        let values = each(&layer.value);
        for (position, x) in xs.iter_mut().enumerate() {
            let heads: Vec<i32> = (0..arch.heads)
                .flat_map(|head| {
                    let from = head * arch.kv_heads / arch.heads * width;
                    let seen = |all: &'_ [Vec<i32>]| -> Vec<Vec<i32>> {
                        all[..=position]
                            .iter()
                            .map(|x| x[from..from + width].to_vec())
                            .collect()
                    };
                    let (keys, values) = (seen(&keys), seen(&values));
                    attended(
                        &queries[position][head * width..][..width],
                        &keys.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                        &values.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                    )
                })
                .collect();
            add_to(x, &plain(&layer.output, &heads));
            feed_forward(model, layer, x);
        }
    }
    xs.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_gives_what_computing_from_scratch_gives(
        tokens in proptest::collection::vec(0_u32..258, 1..24),
        cut in 0_usize..24, tied: bool, simple: bool,
    ) {
        let model = model(tied, simple);
        let expected = from_scratch(&model, &tokens);
        for kernel in Kernel::available() {
            let runtime = Runtime::with_kernel(1, kernel).unwrap();
            let mut sequence = Sequence::new(&model.manifest().architecture);
            let (first, second) = tokens.split_at(cut.min(tokens.len()));
            let mut hidden = Vec::new();
            for tokens in [first, second] {
                let sequence = &mut sequence;
                let mut feed = [Feed { sequence, tokens, wanted_from: 0 }];
                hidden.extend(advance(&runtime, &model, &mut feed));
            }
            prop_assert_eq!(&hidden, &expected, "{}", kernel.name());
        }
        let runtime = Runtime::new(1).unwrap();
        let states = expected.chunks_exact(24);
        let logits_expected: Vec<i32> = states.flat_map(|x| logits_of(&model, x)).collect();
        prop_assert_eq!(logits(&runtime, &model, &expected), logits_expected);
    }
}

#[test]
fn golden_states_of_the_tiny_model_never_change() {
    let model = Arc::new(Model::from_bytes(&tiny::generate(1)).unwrap());
    let runtime = Runtime::new(1).unwrap();
    let tokens = model.encode(b"a").unwrap();
    let mut feed = [Feed {
        sequence: &mut Sequence::new(&model.manifest().architecture),
        tokens: &tokens,
        wanted_from: 1,
    }];
    let hidden = advance(&runtime, &model, &mut feed);
    assert_eq!(hidden[..8], GOLDEN_HIDDEN);
    assert_eq!(logits(&runtime, &model, &hidden)[96..104], GOLDEN_LOGITS);
}
const GOLDEN_HIDDEN: [i32; 8] = [
    -67_601, 58_396, -400_471, 167_851, -276_290, -76_156, 101_710, -72_588,
];
const GOLDEN_LOGITS: [i32; 8] = [
    -22_408, 13_871, 151_282, 334_809, 352_027, 608_209, -375_700, 172_739,
];

/// Every number of the file as large as the format lets through: nothing overflows (tests run with
/// the checks on) and kernels agree.
#[test]
fn models_of_the_largest_magnitudes_run() {
    for (sign, small_scales, tied_head) in [
        (1_i8, false, false),
        (-1, false, true),
        (1, true, true),
        (1, false, true),
    ] {
        let arch = Architecture {
            hidden_dim: 128,
            tied_head,
            ..ARCHITECTURE
        };
        let mut parts = tiny::parts(arch, "large", 1).unwrap();
        for (name, bytes) in &mut parts.tensors {
            let count = bytes.len();
            *bytes = if name.ends_with("weight") {
                (0..count)
                    .map(|i| (127 * if i % 3 == 0 { sign } else { 1 }).cast_unsigned())
                    .collect()
            } else {
                let word = match name.rsplit('.').next() {
                    Some("scale") if small_scales => 40 << 24 | 0x80_0000,
                    Some("scale") => 0xff_ffff,
                    Some("bias") => (1_u32 << 26) * u32::from(sign > 0),
                    Some("gain") => 1 << 26,
                    _ => 1 << 30,
                };
                std::iter::repeat_n(word.to_le_bytes(), count / 4)
                    .flatten()
                    .collect()
            };
        }
        let model = Model::from_bytes(&parts.to_bytes().unwrap()).unwrap();
        let tokens: Vec<u32> = (0..24).collect();
        let expected = from_scratch(&model, &tokens);
        for kernel in Kernel::available() {
            let runtime = Runtime::with_kernel(1, kernel).unwrap();
            let mut feed = [Feed {
                sequence: &mut Sequence::new(&arch),
                tokens: &tokens,
                wanted_from: 0,
            }];
            assert_eq!(advance(&runtime, &model, &mut feed), expected);
        }
        let states = expected.chunks_exact(24);
        let expected_logits: Vec<i32> = states.flat_map(|x| logits_of(&model, x)).collect();
        let runtime = Runtime::new(1).unwrap();
        assert_eq!(logits(&runtime, &model, &expected), expected_logits);
    }
}
