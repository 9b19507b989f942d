//! The forward pass against a second implementation: written from docs/engine.md with wide integers,
//! layer by layer over the whole text, without a cache, a kernel or a batch.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::arith::tables;
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
    i32::try_from(n.clamp(-(1 << 26), 1 << 26)).unwrap()
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

fn normed_factor(x: &[i32], epsilon: i128) -> (i128, i128) {
    let peak = largest(x);
    if peak == 0 {
        return (0, 62);
    }
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
    let root = ((mean + epsilon) << 14).isqrt();
    factor(scaled(peak) << 23, 127 * root)
}

fn product(matrix: &Matrix, q: &[i128], (mantissa, shift): (i128, i128)) -> Vec<i32> {
    (0..matrix.rows())
        .map(|row| {
            let (weights, scale, bias) = matrix.parts(row);
            let sum: i128 = weights.iter().zip(q).map(|(w, q)| i128::from(*w) * q).sum();
            let scaled = (sum * i128::from(scale.mantissa()) + (1 << 23)) >> 24;
            let by = (i128::from(scale.exponent()) + shift - 1).min(62);
            let value = saturate((scaled * mantissa + (1 << (by - 1))) >> by);
            saturate(i128::from(value) + i128::from(bias))
        })
        .collect()
}

fn plain(matrix: &Matrix, x: &[i32]) -> Vec<i32> {
    product(matrix, &quantised(x), factor(largest(x), 127))
}

fn normed(matrix: &Matrix, x: &[i32]) -> Vec<i32> {
    product(matrix, &quantised(x), normed_factor(x, 42_950))
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

/// One head over the keys and values that it sees.
fn attended(query: &[i32], keys: &[&[i32]], values: &[&[i32]]) -> Vec<i32> {
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
    let top = scores.iter().max().unwrap();
    let weights: Vec<i128> = scores
        .iter()
        .map(|score| i128::from(tables().power(u32::try_from(top - score).unwrap())))
        .collect();
    let wide: Vec<i128> = weights
        .iter()
        .zip(values)
        .map(|(w, v)| w * largest(v))
        .collect();
    let bits = 128 - wide.iter().max().unwrap().leading_zeros();
    let by = bits.saturating_sub(15);
    let narrow: Vec<i128> = wide
        .iter()
        .map(|w| ((w + ((1 << by) >> 1)) >> by).min(32_767))
        .collect();
    let (mantissa, shift) = factor(1 << by, 127 * weights.iter().sum::<i128>());
    let (mantissa, shift) = (mantissa >> 8, (shift - 8).clamp(1, 62));
    let values: Vec<_> = values.iter().map(|value| quantised(value)).collect();
    (0..query.len())
        .map(|i| {
            let sum: i128 = narrow.iter().zip(&values).map(|(w, v)| w * v[i]).sum();
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
        *x = saturate(i128::from(*x) + i128::from(*y));
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
            let value = |w| saturate((value(w) + (1 << (by - 1))) >> by);
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
        let head = model.tensors.head.as_ref().unwrap_or(&model.tensors.embedding);
        let states = expected.chunks_exact(24);
        let logits_expected: Vec<i32> = states.flat_map(|x| normed(head, x)).collect();
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
    -65_859, 59_424, -396_581, 167_828, -272_758, -78_380, 97_784, -74_162,
];
const GOLDEN_LOGITS: [i32; 8] = [
    -21_570, 17_705, 153_495, 324_576, 363_499, 610_634, -385_433, 175_549,
];

/// Every number of the file as large as the format lets through: nothing overflows (tests run with
/// the checks on) and kernels agree.
#[test]
fn models_of_the_largest_magnitudes_run() {
    for (sign, small_scales) in [(1_i8, false), (-1, false), (1, true)] {
        let arch = Architecture {
            hidden_dim: 128,
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
    }
}
