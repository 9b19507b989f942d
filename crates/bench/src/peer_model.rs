//! A Llama of a given shape with random Q8_0 weights, written as a GGUF file that llama.cpp loads.
//!
//! It says nothing sensible; it costs what a trained one costs. The output is not tied to the
//! embedding (as in TinyLlama), the norms are ones, and there is no tokenizer, only a number of tokens.

use crate::gguf::{self, Kind, Tensor, Value};
use crate::random::Random;
use crate::shape::{BLOCK_WEIGHTS, Shape};
use std::io::{self, Write};

/// Bytes of a Q8_0 block: an f16 scale, then one byte a weight.
const BLOCK_BYTES: usize = 2 + BLOCK_WEIGHTS as usize;

/// Writes the whole file; the same bytes for the same shape and seed.
///
/// # Errors
/// The sink's.
pub fn write_model(sink: &mut impl Write, shape: &Shape, seed: u64) -> io::Result<()> {
    let tensors = tensors(shape);
    gguf::write_head(sink, &metadata(shape), &tensors)?;
    let mut random = Random::new(seed);
    for tensor in &tensors {
        match tensor.kind {
            Kind::F32 => write_ones(sink, tensor)?,
            Kind::Q8_0 => write_weights(sink, tensor, &mut random)?,
        }
        sink.write_all(gguf::padding(tensor.bytes()))?;
    }
    Ok(())
}

/// What llama.cpp's loader asks of an architecture named `llama`.
fn metadata(shape: &Shape) -> Vec<(&'static str, Value<'static>)> {
    vec![
        ("general.architecture", Value::Text("llama")),
        ("general.name", Value::Text("random")),
        // LLAMA_FTYPE_MOSTLY_Q8_0, and the blocks' layout since 2023.
        ("general.file_type", Value::U32(7)),
        ("general.quantization_version", Value::U32(2)),
        ("llama.vocab_size", Value::U32(shape.vocabulary)),
        ("llama.context_length", Value::U32(shape.context)),
        ("llama.embedding_length", Value::U32(shape.dim)),
        ("llama.block_count", Value::U32(shape.layers)),
        ("llama.feed_forward_length", Value::U32(shape.hidden)),
        ("llama.attention.head_count", Value::U32(shape.heads)),
        ("llama.attention.head_count_kv", Value::U32(shape.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.dimension_count", Value::U32(shape.head_dim())),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        // Tokens without texts: `llama.vocab_size` of them, none of them special.
        ("tokenizer.ggml.model", Value::Text("no_vocab")),
    ]
}

fn tensors(shape: &Shape) -> Vec<Tensor> {
    let Shape {
        dim,
        hidden,
        vocabulary,
        ..
    } = *shape;
    let matrix = |name: &str, rows, columns| Tensor {
        name: format!("{name}.weight"),
        columns,
        rows: Some(rows),
        kind: Kind::Q8_0,
    };
    let norm = |name: &str| Tensor {
        name: format!("{name}.weight"),
        columns: dim,
        rows: None,
        kind: Kind::F32,
    };
    let mut tensors = vec![matrix("token_embd", vocabulary, dim)];
    for layer in 0..shape.layers {
        let named = |part: &str| format!("blk.{layer}.{part}");
        tensors.extend([
            norm(&named("attn_norm")),
            matrix(&named("attn_q"), dim, dim),
            matrix(&named("attn_k"), shape.kv_dim(), dim),
            matrix(&named("attn_v"), shape.kv_dim(), dim),
            matrix(&named("attn_output"), dim, dim),
            norm(&named("ffn_norm")),
            matrix(&named("ffn_gate"), hidden, dim),
            matrix(&named("ffn_up"), hidden, dim),
            matrix(&named("ffn_down"), dim, hidden),
        ]);
    }
    tensors.extend([norm("output_norm"), matrix("output", vocabulary, dim)]);
    tensors
}

fn write_ones(sink: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    for _ in 0..tensor.len() {
        sink.write_all(&1_f32.to_le_bytes())?;
    }
    Ok(())
}

fn write_weights(sink: &mut impl Write, tensor: &Tensor, random: &mut Random) -> io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    block[..2].copy_from_slice(&scale_f16(tensor.columns).to_le_bytes());
    for _ in 0..tensor.len() / u64::from(BLOCK_WEIGHTS) {
        for eight in block[2..].chunks_exact_mut(8) {
            // A quantiser never writes -128, and kernels may count on it.
            let weights = random.next_u64().to_le_bytes();
            eight.copy_from_slice(&weights.map(|byte| if byte == 0x80 { 0x81 } else { byte }));
        }
        sink.write_all(&block)?;
    }
    Ok(())
}

/// The blocks' scale, as an f16's bits, that keeps a product with a row of `columns` weights about as
/// large as what it is multiplied with: the power of two nearest to one over the row's norm.
fn scale_f16(columns: u32) -> u16 {
    /// Of whole numbers spread evenly over -127..=127.
    const DEVIATION: f64 = 73.6;
    const EXPONENT_BIAS: u16 = 15;
    const MANTISSA_BITS: u16 = 10;
    let exponent = (DEVIATION * f64::from(columns).sqrt()).log2().round() as u16;
    // At most 14, so that it is no subnormal: rows longer than some 60,000 numbers get larger products.
    (EXPONENT_BIAS - exponent.min(EXPONENT_BIAS - 1)) << MANTISSA_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::SMALL;
    use llama_cpp_2::gguf::GgufContext;

    #[test]
    fn llama_cpp_reads_the_metadata_and_every_tensor_from_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        write_model(&mut file, &SMALL, 1).expect("room for it");
        let read = GgufContext::from_file(file.path()).expect("a GGUF file");
        let key = |name| read.val_u32(read.find_key(name));
        assert_eq!(key("llama.embedding_length"), SMALL.dim);
        assert_eq!(key("llama.attention.head_count_kv"), SMALL.kv_heads);
        assert_eq!(read.n_tensors(), 3 + 9 * i64::from(SMALL.layers));
    }

    #[test]
    fn the_file_is_as_long_as_its_table_of_tensors_says() {
        let mut head = Vec::new();
        gguf::write_head(&mut head, &metadata(&SMALL), &tensors(&SMALL)).expect("a Vec takes all");
        let mut whole = Vec::new();
        write_model(&mut whole, &SMALL, 1).expect("a Vec takes all");
        let data: u64 = tensors(&SMALL)
            .iter()
            .map(|tensor| tensor.bytes().next_multiple_of(32))
            .sum();
        assert_eq!(whole.len() as u64, head.len() as u64 + data);
    }

    #[test]
    fn scales_are_powers_of_two_near_one_over_a_rows_norm() {
        let half = |bits: u16| f64::from(bits >> 10).exp2() / 32_768.0;
        for columns in [32, 288, 2048, 5632] {
            let gain = half(scale_f16(columns)) * 73.6 * f64::from(columns).sqrt();
            assert!((0.7..1.42).contains(&gain), "{columns}: {gain}");
        }
    }
}
