//! Model files for llama.cpp in Q8_0: of a shape with random weights, or from another GGUF file.
//!
//! Random weights say nothing sensible; they cost what trained ones cost. The norms are ones, and there is no
//! tokenizer, only a number of tokens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use dovetail_engine::Architecture;
use dovetail_models::GgufParts;
use dovetail_units::SplitMix64;

use crate::gguf::{self, BLOCK_BYTES, BLOCK_WEIGHTS, Kind, Pairs, Tensor};

/// Writes a file of random weights; the same bytes for the same shape.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn random(arch: &Architecture, path: &Path) -> anyhow::Result<()> {
    let mut sink = BufWriter::with_capacity(1 << 20, File::create(path)?);
    write_random(&mut sink, arch)?;
    Ok(sink.flush()?)
}

/// Writes another GGUF file's model in Q8_0, as llama.cpp's own quantiser does: matrices are rounded, vectors are kept.
///
/// # Errors
/// If one file cannot be read or the other be written.
pub(crate) fn requantised(from: &Path, path: &Path) -> anyhow::Result<()> {
    let mut parts = GgufParts::open(from)?;
    let (count, bytes) = parts.metadata();
    let pairs = Pairs {
        count,
        bytes: bytes.to_vec(),
    };
    let tensor = |(name, shape): (&str, &[usize])| Tensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        kind: match shape {
            [_, columns] if columns.is_multiple_of(BLOCK_WEIGHTS) => Kind::Q8_0,
            _ => Kind::F32,
        },
    };
    let tensors: Vec<Tensor> = parts.tensors().map(tensor).collect();
    let mut sink = BufWriter::with_capacity(1 << 20, File::create(path)?);
    gguf::write_head(&mut sink, &pairs, &tensors)?;
    for tensor in &tensors {
        let numbers = parts.numbers(&tensor.name)?;
        match tensor.kind {
            Kind::F32 => {
                for number in numbers {
                    sink.write_all(&number.to_le_bytes())?;
                }
            }
            Kind::Q8_0 => {
                for numbers in numbers.as_chunks().0 {
                    sink.write_all(&gguf::block(numbers))?;
                }
            }
        }
        sink.write_all(gguf::padding(tensor.bytes()))?;
    }
    Ok(sink.flush()?)
}

fn write_random(sink: &mut impl Write, arch: &Architecture) -> anyhow::Result<()> {
    let tensors = tensors(arch);
    gguf::write_head(sink, &pairs(arch)?, &tensors)?;
    let mut random = SplitMix64::new(1);
    for tensor in &tensors {
        match tensor.kind {
            Kind::F32 => {
                for _ in 0..tensor.numbers() {
                    sink.write_all(&1_f32.to_le_bytes())?;
                }
            }
            Kind::Q8_0 => write_weights(sink, tensor, &mut random)?,
        }
        sink.write_all(gguf::padding(tensor.bytes()))?;
    }
    Ok(())
}

/// What llama.cpp's loader asks of an architecture named `llama`.
fn pairs(arch: &Architecture) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs::default();
    pairs.text("general.architecture", "llama");
    pairs.text("general.name", "random");
    // LLAMA_FTYPE_MOSTLY_Q8_0, and the blocks' layout since 2023.
    pairs.whole("general.file_type", 7)?;
    pairs.whole("general.quantization_version", 2)?;
    for (key, value) in [
        ("llama.vocab_size", arch.vocabulary),
        ("llama.context_length", arch.context_tokens),
        ("llama.embedding_length", arch.dim),
        ("llama.block_count", arch.layers),
        ("llama.feed_forward_length", arch.hidden_dim),
        ("llama.attention.head_count", arch.heads),
        ("llama.attention.head_count_kv", arch.kv_heads),
        ("llama.rope.dimension_count", arch.head_dim),
    ] {
        pairs.whole(key, value)?;
    }
    pairs.number("llama.attention.layer_norm_rms_epsilon", 1e-5);
    pairs.number("llama.rope.freq_base", 10_000.0);
    // Tokens without texts: `llama.vocab_size` of them, none of them special.
    pairs.text("tokenizer.ggml.model", "no_vocab");
    Ok(pairs)
}

fn tensors(arch: &Architecture) -> Vec<Tensor> {
    let matrix = |name: &str, rows, columns| Tensor {
        name: format!("{name}.weight"),
        shape: vec![rows, columns],
        kind: Kind::Q8_0,
    };
    let norm = |name: &str| Tensor {
        name: format!("{name}.weight"),
        shape: vec![arch.dim],
        kind: Kind::F32,
    };
    let mut tensors = vec![matrix("token_embd", arch.vocabulary, arch.dim)];
    for layer in 0..arch.layers {
        let named = |part: &str| format!("blk.{layer}.{part}");
        tensors.extend([
            norm(&named("attn_norm")),
            matrix(&named("attn_q"), arch.query_dim(), arch.dim),
            matrix(&named("attn_k"), arch.kv_dim(), arch.dim),
            matrix(&named("attn_v"), arch.kv_dim(), arch.dim),
            matrix(&named("attn_output"), arch.dim, arch.query_dim()),
            norm(&named("ffn_norm")),
            matrix(&named("ffn_gate"), arch.hidden_dim, arch.dim),
            matrix(&named("ffn_up"), arch.hidden_dim, arch.dim),
            matrix(&named("ffn_down"), arch.dim, arch.hidden_dim),
        ]);
    }
    tensors.push(norm("output_norm"));
    if !arch.tied_head {
        tensors.push(matrix("output", arch.vocabulary, arch.dim));
    }
    tensors
}

fn write_weights(
    sink: &mut impl Write,
    tensor: &Tensor,
    random: &mut SplitMix64,
) -> std::io::Result<()> {
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let mut block = [0; BLOCK_BYTES];
    block[..2].copy_from_slice(&scale_f16(columns).to_le_bytes());
    for _ in 0..tensor.numbers() / BLOCK_WEIGHTS {
        for eight in block[2..].chunks_exact_mut(8) {
            // A quantiser never writes -128, and kernels may count on it.
            let weights = random.bits().to_le_bytes();
            eight.copy_from_slice(&weights.map(|byte| if byte == 0x80 { 0x81 } else { byte }));
        }
        sink.write_all(&block)?;
    }
    Ok(())
}

/// The blocks' scale, as an f16's bits, that keeps a product with a row of `columns` weights about as
/// large as what it is multiplied with: the power of two nearest to one over the row's norm.
fn scale_f16(columns: usize) -> u16 {
    /// Of whole numbers spread evenly over -127..=127.
    const DEVIATION: f64 = 73.6;
    const EXPONENT_BIAS: u16 = 15;
    const MANTISSA_BITS: u16 = 10;
    let exponent = (DEVIATION * (columns as f64).sqrt()).log2().round() as u16;
    // At most 14, so that it is no subnormal: rows longer than some 60,000 numbers get larger products.
    (EXPONENT_BIAS - exponent.min(EXPONENT_BIAS - 1)) << MANTISSA_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As small as a Q8_0 Llama with grouped heads gets.
    fn small() -> Architecture {
        Architecture {
            dim: 64,
            hidden_dim: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            vocabulary: 50,
            context_tokens: 64,
            ..crate::shape::Shape::M15.architecture()
        }
    }

    #[test]
    fn a_random_model_reads_back_with_every_tensor_of_its_shape() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("random.gguf");
        random(&small(), &path).expect("room for it");
        let mut parts = GgufParts::open(&path).expect("a GGUF file");
        assert_eq!(parts.tensors().count(), 3 + 9 * 2);
        let shape = parts
            .tensors()
            .find(|(name, _)| *name == "blk.1.attn_k.weight");
        assert_eq!(shape.map(|(_, shape)| shape.to_vec()), Some(vec![32, 64]));
        let norm = parts.numbers("output_norm.weight").expect("it is there");
        assert_eq!(norm, vec![1.0; 64]);
    }

    #[test]
    fn a_model_in_q8_0_once_more_in_q8_0_is_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (first, second, third) = (
            folder.path().join("1.gguf"),
            folder.path().join("2.gguf"),
            folder.path().join("3.gguf"),
        );
        random(&small(), &first).expect("room for it");
        // Random blocks need not reach 127; what is rounded once does.
        requantised(&first, &second).expect("it is read");
        requantised(&second, &third).expect("it is read");
        let bytes = |path| std::fs::read(path).expect("it is there");
        assert!(bytes(&second) == bytes(&third));
        let numbers = |path| {
            let mut parts = GgufParts::open(path).expect("a GGUF file");
            parts.numbers("blk.0.ffn_up.weight").expect("it is there")
        };
        let (before, after) = (numbers(&first), numbers(&second));
        let most = before.iter().fold(0.0_f32, |most, n| most.max(n.abs()));
        let off = |(a, b): (&f32, &f32)| (a - b).abs();
        let worst = before.iter().zip(&after).map(off).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < most / 200.0, "{worst} of {most}");
    }

    #[test]
    fn scales_are_powers_of_two_near_one_over_a_rows_norm() {
        let half = |bits: u16| f64::from(bits >> 10).exp2() / 32_768.0;
        for columns in [32, 288, 2048, 5632] {
            let gain = half(scale_f16(columns)) * 73.6 * (columns as f64).sqrt();
            assert!((0.7..1.42).contains(&gain), "{columns}: {gain}");
        }
    }
}
