//! A small model whose weights come from a seed: for tests and first runs. It is Llama-shaped and
//! says nothing sensible. Made with integers alone, so every machine makes the same bytes.

use crate::ENGINE_VERSION;
use crate::format;
use crate::model::{Architecture, Manifest};
use crate::tokenizer;

/// About 190 thousand parameters.
const ARCHITECTURE: Architecture = Architecture {
    dim: 64,
    hidden_dim: 160,
    layers: 3,
    heads: 4,
    kv_heads: 2,
    vocabulary: tokenizer::VOCABULARY,
    context_tokens: 1024,
    tied_head: false,
};
/// 2 pi in Q60.
const TAU_Q60: i128 = 7_244_019_458_077_122_842;

/// The bytes of the model file for `seed`.
pub fn generate(seed: u64) -> Vec<u8> {
    generate_shape(ARCHITECTURE, &format!("tiny-{seed}"), seed)
}

/// The same for other sizes, which must be ones that the engine supports.
pub(crate) fn generate_shape(arch: Architecture, name: &str, seed: u64) -> Vec<u8> {
    let mut tensors = Builder {
        random: SplitMix(seed),
        bytes: Vec::new(),
    };
    let (dim, kv_dim, hidden) = (arch.dim, arch.kv_dim(), arch.hidden_dim);
    tensors.matrix(arch.vocabulary, dim, |_| unit_scale(1));
    for _ in 0..arch.layers {
        tensors.gains(dim);
        for (rows, columns) in [(dim, dim), (kv_dim, dim), (kv_dim, dim), (dim, dim)] {
            tensors.matrix(rows, columns, |_| unit_scale(columns));
        }
        tensors.gains(dim);
        for (rows, columns) in [(hidden, dim), (hidden, dim), (dim, hidden)] {
            tensors.matrix(rows, columns, |_| unit_scale(columns));
        }
    }
    tensors.gains(dim);
    if !arch.tied_head {
        // Letters get larger logits than other bytes, so that the output can be printed.
        tensors.matrix(arch.vocabulary, dim, |token| {
            unit_scale(dim) * letter_weight(token)
        });
    }
    tensors.rotations(arch.context_tokens, arch.head_dim() / 2);
    let manifest = Manifest {
        name: name.to_owned(),
        architecture: arch,
        tensors_digest: format::tensors_digest(&tensors.bytes),
        tokenizer: "bytes".to_owned(),
        chat_template: String::new(),
        engine_version: ENGINE_VERSION,
    };
    format::write(&manifest, &tensors.bytes)
}

/// The Q32 scale at which `columns` products of unit-variance inputs with uniform weights in
/// -127..=127 (deviation 73.3) have unit variance.
fn unit_scale(columns: usize) -> u32 {
    // 2^32 / (73.3 sqrt(columns)), the root taken in Q16.
    let root = ((columns as u64) << 32).isqrt();
    u32::try_from((1_u64 << 48) * 10 / (733 * root)).expect("a scale is below 1")
}

fn letter_weight(token: usize) -> u32 {
    match u8::try_from(token) {
        Ok(byte) if byte.is_ascii_lowercase() || byte == b' ' => 8,
        Ok(byte) if byte.is_ascii_alphanumeric() || b".,-".contains(&byte) => 4,
        _ => 1,
    }
}

struct Builder {
    random: SplitMix,
    bytes: Vec<u8>,
}

impl Builder {
    fn matrix(&mut self, rows: usize, columns: usize, scale: impl Fn(usize) -> u32) {
        for _ in 0..rows * columns {
            // Uniform enough in -127..=127.
            let weight = (self.random.next() >> 32) % 255;
            let weight =
                i8::try_from(weight.cast_signed() - 127).expect("255 values from -127 fit");
            self.bytes.push(weight.cast_unsigned());
        }
        for row in 0..rows {
            self.bytes.extend_from_slice(&scale(row).to_le_bytes());
        }
    }

    fn gains(&mut self, count: usize) {
        for _ in 0..count {
            self.bytes.extend_from_slice(&(1_i32 << 16).to_le_bytes());
        }
    }

    /// Angles halve from pair to pair: position * 2^-pair.
    fn rotations(&mut self, positions: usize, pairs: usize) {
        let table = |function: fn(i128) -> i128, bytes: &mut Vec<u8>| {
            for position in 0..positions {
                for pair in 0..pairs {
                    let angle = ((position as i128) << 60) >> pair;
                    let value = function(angle % TAU_Q60) >> 30;
                    let value = i32::try_from(value.clamp(-(1 << 30), 1 << 30))
                        .expect("a cosine in Q30 fits");
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
            }
        };
        table(cos_q60, &mut self.bytes);
        table(
            |angle| cos_q60((angle + TAU_Q60 * 3 / 4) % TAU_Q60),
            &mut self.bytes,
        );
    }
}

/// The cosine of an angle in 0..2 pi, both in Q60, from its Taylor series around pi.
fn cos_q60(angle: i128) -> i128 {
    let x = angle - TAU_Q60 / 2;
    let square = (x * x) >> 60;
    let (mut term, mut sum) = (1_i128 << 60, 1_i128 << 60);
    for n in 1..20 {
        term = -((term * square) >> 60) / ((2 * n - 1) * (2 * n));
        sum += term;
    }
    -sum
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integer_cosine_is_near_the_real_one() {
        for step in 0..100 {
            #[allow(clippy::cast_precision_loss)]
            let real = (f64::from(step) / 100.0 * std::f64::consts::TAU).cos();
            #[allow(clippy::cast_precision_loss)]
            let ours = cos_q60(TAU_Q60 * i128::from(step) / 100) as f64 / (1_u64 << 60) as f64;
            assert!((real - ours).abs() < 1e-9, "{step}: {real} {ours}");
        }
    }
}
