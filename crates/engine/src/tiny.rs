//! Models whose weights come from a seed: for tests, first runs and benchmarks. They are
//! Llama-shaped and say nothing sensible. Made with integers alone, so every machine makes the same
//! bytes.

use std::collections::BTreeMap;

use dovetail_units::SplitMix64;

use crate::layout::{GAINS, tensor_names};
use crate::manifest::Architecture;
use crate::parts::Parts;
use crate::scale::RowScale;
use crate::tokenizer;
use crate::{EngineError, Model};

/// About 190 thousand parameters.
pub const ARCHITECTURE: Architecture = Architecture {
    dim: 64,
    hidden_dim: 192,
    layers: 3,
    heads: 4,
    kv_heads: 2,
    head_dim: 16,
    vocabulary: tokenizer::BYTES_VOCABULARY,
    context_tokens: 1024,
    norm_epsilon_q32: 42_950,
    tied_head: false,
    attention_bias: false,
    mixed_down: true,
    turn: 1,
};
/// 2 pi in Q60.
const TAU_Q60: i128 = 7_244_019_458_077_122_842;

/// The bytes of the model file for `seed`.
pub fn generate(seed: u64) -> Vec<u8> {
    let parts = parts(ARCHITECTURE, &format!("tiny-{seed}"), seed);
    let bytes = parts.and_then(|parts| parts.to_bytes());
    bytes.expect("the tiny model is one that the engine runs")
}

/// The bytes of the model file for `seed` with a context of another length.
///
/// # Errors
/// [`EngineError::Unsupported`] for a length that the engine does not run.
pub fn with_context(seed: u64, context_tokens: usize) -> Result<Vec<u8>, EngineError> {
    let arch = Architecture {
        context_tokens,
        ..ARCHITECTURE
    };
    parts(arch, &format!("tiny-{seed}-{context_tokens}"), seed)?.to_bytes()
}

/// A model of other sizes. A vocabulary other than the byte tokenizer's has no text.
///
/// # Errors
/// [`EngineError::Unsupported`] for sizes that the engine does not run.
pub fn parts(arch: Architecture, name: &str, seed: u64) -> Result<Parts, EngineError> {
    arch.check()?;
    let mut random = SplitMix64::new(seed);
    let mut tensors = BTreeMap::new();
    for (tensor, bytes) in tensor_names(&arch) {
        let content = if tensor.ends_with("weight") {
            weights(&mut random, bytes)
        } else if tensor.starts_with("rotary") {
            let quarter = if tensor.ends_with("cos") { 0 } else { 3 };
            rotations(arch.context_tokens, arch.head_dim / 2, quarter)
        } else if tensor.ends_with("bias") {
            integers(&mut random, bytes / 4, |b| b)
        } else if tensor == GAINS {
            // 0.5 to 1.5.
            integers(&mut random, bytes / 4, |b| (1 << 16) + 256 * b)
        } else {
            scales(&arch, &tensor, bytes / 4)
        };
        tensors.insert(tensor, content);
    }
    let end_token = match arch.vocabulary {
        tokenizer::BYTES_VOCABULARY => tokenizer::BYTES_END,
        _ => 0,
    };
    Ok(Parts {
        name: name.to_owned(),
        architecture: arch,
        tokenizer: (arch.vocabulary != tokenizer::BYTES_VOCABULARY).then(|| EMPTY_TOKENIZER.into()),
        end_tokens: vec![end_token],
        chat_template: String::new(),
        import: None,
        tensors,
    })
}

/// The same as a model in memory.
///
/// # Errors
/// As [`parts`].
pub fn model(arch: Architecture, seed: u64) -> Result<Model, EngineError> {
    let parts = parts(arch, "random", seed)?;
    Model::from_bytes(&parts.to_bytes()?)
}

/// A tokenizer without tokens.
const EMPTY_TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
"model":{"type":"BPE","vocab":{"<unk>":0},"merges":[],"unk_token":"<unk>"}}"#;

/// Scales at which products of unit-variance inputs have unit variance; letters get larger logits
/// than other bytes, so that the output can be printed.
fn scales(arch: &Architecture, tensor: &str, rows: usize) -> Vec<u8> {
    let columns = match tensor {
        "model.embed_tokens.scale" => 1,
        _ if tensor.ends_with("down_proj.scale") => arch.hidden_dim,
        _ if tensor.ends_with("o_proj.scale") => arch.query_dim(),
        _ => arch.dim,
    };
    let scale = |row: usize| match tensor {
        "lm_head.scale" => unit_scale(columns) * letter_weight(row),
        _ => unit_scale(columns),
    };
    (0..rows)
        .flat_map(|row| RowScale::from_q32(scale(row)).to_bits().to_le_bytes())
        .collect()
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

/// Angles halve from pair to pair: position * 2^-pair. `quarter` quarters of a turn are added.
fn rotations(positions: usize, pairs: usize, quarter: i128) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(positions * pairs * 4);
    for position in 0..positions {
        for pair in 0..pairs {
            let angle = ((position as i128) << 60) >> pair.min(60);
            let turned = (angle % TAU_Q60 + TAU_Q60 * quarter / 4) % TAU_Q60;
            let value = (cos_q60(turned) >> 30).clamp(-(1 << 30), 1 << 30);
            let value = i32::try_from(value).expect("a cosine in Q30 fits");
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
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

/// What `of` makes of numbers from -127 to 127.
fn integers(random: &mut SplitMix64, count: usize, of: impl Fn(i32) -> i32) -> Vec<u8> {
    let bytes = weights(random, count);
    let numbers = bytes.iter().map(|byte| of(i32::from(byte.cast_signed())));
    numbers.flat_map(i32::to_le_bytes).collect()
}

/// Weights from -127 to 127, uniform enough.
fn weights(random: &mut SplitMix64, count: usize) -> Vec<u8> {
    let mut weights = Vec::with_capacity(count);
    for _ in 0..count {
        let weight = ((random.bits() >> 32) % 255).to_le_bytes()[0];
        weights.push(weight.wrapping_sub(127));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integer_cosine_is_near_the_real_one() {
        for step in 0..100 {
            let real = (f64::from(step) / 100.0 * std::f64::consts::TAU).cos();
            let ours = cos_q60(TAU_Q60 * i128::from(step) / 100) as f64 / (1_u64 << 60) as f64;
            assert!((real - ours).abs() < 1e-9, "{step}: {real} {ours}");
        }
    }
}
