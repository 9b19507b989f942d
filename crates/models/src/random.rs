//! Checkpoints of random weights in the shapes of models that people run: what an import costs can be measured
//! on them where no trained checkpoint is at hand. They say nothing, but they have what makes quantising hard: a
//! few channels of the residual stream and a few units of the feed-forward layers that stand out, and massive
//! activations at the beginning of a text, as in trained models.

mod massive;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use dovetail_units::SplitMix64;
use serde_json::json;

pub use massive::{Massive, Plants};

/// How much larger than the others what stands out is.
const OUTLIERS: f32 = 20.0;
/// Weights that are made and written at a time.
const CHUNK: usize = 1 << 16;
/// The text of such a model is none: all its tokens are unknown words.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
"model":{"type":"BPE","vocab":{"<unk>":0},"merges":[],"unk_token":"<unk>"}}"#;

/// The sizes of a Llama.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layers.
    pub hidden_dim: usize,
    /// How many layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Whether the embedding serves as the head.
    pub tied_head: bool,
}

impl Sizes {
    /// SmolLM-135M.
    pub const SMOLLM_135M: Self = Self {
        dim: 576,
        hidden_dim: 1536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        vocabulary: 49_152,
        tied_head: true,
    };
    /// TinyLlama-1.1B.
    pub const TINYLLAMA_1B: Self = Self {
        dim: 2048,
        hidden_dim: 5632,
        layers: 22,
        heads: 32,
        kv_heads: 4,
        vocabulary: 32_000,
        tied_head: false,
    };

    /// The channels that stand out.
    fn outliers(&self) -> [usize; 3] {
        [3, self.dim / 2 + 1, self.dim - 5]
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "_name_or_path": "random",
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.dim,
            "intermediate_size": self.hidden_dim,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied_head,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        })
    }

    /// All tensors, in the order in which they are written.
    fn tensors(&self) -> Vec<Tensor> {
        let (dim, hidden, head_dim) = (self.dim, self.hidden_dim, self.dim / self.heads);
        // Logits of a deviation of 3, as those of trained models are after their norm.
        let head = 3.0 * root(dim);
        let embedding = if self.tied_head { head } else { 0.5 };
        let mut tensors = vec![Tensor {
            columns_stand_out: true,
            ..Tensor::matrix("model.embed_tokens", self.vocabulary, dim, embedding)
        }];
        for layer in 0..self.layers {
            let gain = |part: &str| Tensor::gain(&format!("model.layers.{layer}.{part}"), dim);
            let matrix = |part: &str, rows, columns, size: f32, rows_stand_out| Tensor {
                rows_stand_out,
                ..Tensor::matrix(
                    &format!("model.layers.{layer}.{part}_proj"),
                    rows,
                    columns,
                    size,
                )
            };
            let (kv, into, out) = (self.kv_heads * head_dim, root(dim), 0.4);
            tensors.extend([
                gain("input_layernorm"),
                matrix("self_attn.q", dim, dim, into, false),
                matrix("self_attn.k", kv, dim, into, false),
                matrix("self_attn.v", kv, dim, into, false),
                matrix("self_attn.o", dim, dim, out * root(dim), true),
                gain("post_attention_layernorm"),
                matrix("mlp.gate", hidden, dim, into, false),
                matrix("mlp.up", hidden, dim, into, true),
                matrix("mlp.down", dim, hidden, out * root(hidden), true),
            ]);
        }
        let mut last = Tensor::gain("model.norm", dim);
        if self.tied_head {
            // The head has them as well.
            last.factor /= OUTLIERS;
        }
        tensors.push(last);
        if !self.tied_head {
            tensors.push(Tensor::matrix("lm_head", self.vocabulary, dim, head));
        }
        let massive = Massive {
            embedding,
            outliers: outlier_factor(OUTLIERS, dim),
        };
        for tensor in &mut tensors {
            tensor.plants = massive.plants(&tensor.name);
        }
        tensors
    }
}

/// What three channels that are so much larger make of the root of the mean square.
pub fn outlier_factor(outliers: f32, dim: usize) -> f32 {
    (1.0 + 3.0 * (outliers * outliers - 1.0) / dim as f32).sqrt()
}

fn root(width: usize) -> f32 {
    1.0 / (width as f32).sqrt()
}

/// A tensor to be made.
#[derive(Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    /// Mean and deviation of its values.
    mean: f32,
    size: f32,
    rows_stand_out: bool,
    columns_stand_out: bool,
    /// How much larger what stands out is.
    factor: f32,
    plants: Plants,
}

impl Tensor {
    fn matrix(name: &str, rows: usize, columns: usize, size: f32) -> Self {
        Self {
            name: format!("{name}.weight"),
            shape: vec![rows, columns],
            mean: 0.0,
            size,
            rows_stand_out: false,
            columns_stand_out: false,
            factor: OUTLIERS,
            plants: Plants::default(),
        }
    }

    /// A norm's gain, which takes back what its input has.
    fn gain(name: &str, dim: usize) -> Self {
        Self {
            shape: vec![dim],
            mean: 1.0,
            columns_stand_out: true,
            factor: 1.0 / OUTLIERS,
            ..Self::matrix(name, 1, dim, 0.2)
        }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The next values, from this place on.
    fn values(&self, random: &mut SplitMix64, from: usize, outliers: &[usize]) -> Vec<u8> {
        let columns = self.shape.last().copied().unwrap_or(1);
        let until = (from + CHUNK).min(self.len());
        let mut bytes = Vec::with_capacity(2 * (until - from));
        for place in from..until {
            let (row, column) = (place / columns, place % columns);
            let stands_out = self.rows_stand_out && outliers.contains(&row)
                || self.columns_stand_out && outliers.contains(&column);
            let value = self.mean + self.size * random.normal();
            let value = if stands_out {
                self.factor * value
            } else {
                value
            };
            let value = self.plants.weight(row, column).unwrap_or(value);
            bytes.extend(to_bfloat(value).to_le_bytes());
        }
        bytes
    }
}

/// Writes a checkpoint in Hugging Face's layout, with weights in bfloat16, into a folder that is there. The same
/// sizes and seed give the same files on every machine. Takes little memory.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, sizes: &Sizes, seed: u64) -> io::Result<()> {
    std::fs::write(folder.join("config.json"), sizes.config().to_string())?;
    std::fs::write(folder.join("tokenizer.json"), TOKENIZER)?;
    let file = std::fs::File::create(folder.join("model.safetensors"))?;
    let mut file = BufWriter::new(file);
    let tensors = sizes.tensors();
    let mut header = BTreeMap::from([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut from = 0;
    for tensor in &tensors {
        let to = from + 2 * tensor.len();
        let info = json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [from, to] });
        header.insert(tensor.name.clone(), info);
        from = to;
    }
    let mut header = serde_json::to_string(&header)?;
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let (mut random, outliers) = (SplitMix64::new(seed), sizes.outliers());
    for tensor in &tensors {
        for from in (0..tensor.len()).step_by(CHUNK) {
            file.write_all(&tensor.values(&mut random, from, &outliers))?;
        }
    }
    file.flush()
}

/// To the nearest, halves to even.
fn to_bfloat(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let [.., low, high] = rounded.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest_of_16_bits() {
        for (value, bits) in [
            (1.0, 0x3f80),
            (-2.0, 0xc000),
            // Halfway between two: to the even one.
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
        ] {
            assert_eq!(to_bfloat(value), bits, "{value}");
        }
    }
}
