//! Checkpoints that the tests make: random weights in Hugging Face's layout, with the outliers that
//! trained models have.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod gguf;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dovetail_models::random::{Massive, outlier_factor};
use dovetail_units::SplitMix64;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

pub(crate) const VOCABULARY: usize = 258;

/// What to make.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) family: &'static str,
    pub(crate) dim: usize,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) tied: bool,
    pub(crate) dtype: Dtype,
    pub(crate) shards: usize,
    /// How much larger than the others the outlier channels are.
    pub(crate) outliers: f32,
    /// The size of the outliers among the biases, where the family has these.
    pub(crate) bias_outliers: f32,
    /// Whether the beginning of a text has massive activations.
    pub(crate) massive: bool,
    /// What the residual stream is multiplied by.
    pub(crate) stream: f32,
    /// What is added to `config.json`; null removes a key.
    pub(crate) config: Value,
    pub(crate) seed: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            family: "LlamaForCausalLM",
            dim: 64,
            hidden: 192,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            vocabulary: VOCABULARY,
            tied: false,
            dtype: Dtype::F32,
            shards: 1,
            outliers: 1.0,
            bias_outliers: 0.0,
            massive: false,
            stream: 1.0,
            config: json!({}),
            seed: 1,
        }
    }
}

/// A shape and its values.
pub(crate) type Tensor = (Vec<usize>, Vec<f32>);
/// Names to shapes and values.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

impl Recipe {
    /// Writes the folder's `config.json` and weights.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_config(folder);
        self.write_tensors(folder, &self.tensors());
    }

    pub(crate) fn write_config(&self, folder: &Path) {
        let mut config = json!({
            "_name_or_path": "tests/recipe",
            "architectures": [self.family],
            "hidden_size": self.dim,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "rope_theta": 10000.0,
            "torch_dtype": "float32",
        });
        for (key, value) in self.config.as_object().unwrap() {
            if value.is_null() {
                config.as_object_mut().unwrap().remove(key);
            } else {
                config[key] = value.clone();
            }
        }
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    }

    /// One file, or shards with an index.
    pub(crate) fn write_tensors(&self, folder: &Path, tensors: &Tensors) {
        if self.shards == 1 {
            return write_safetensors(&folder.join("model.safetensors"), tensors, self.dtype);
        }
        let mut weight_map = serde_json::Map::new();
        let mut shards = vec![Tensors::new(); self.shards];
        for (index, (name, tensor)) in tensors.iter().enumerate() {
            let shard = index % self.shards;
            weight_map.insert(name.clone(), shard_name(shard).into());
            shards[shard].insert(name.clone(), tensor.clone());
        }
        for (shard, tensors) in shards.iter().enumerate() {
            write_safetensors(&folder.join(shard_name(shard)), tensors, self.dtype);
        }
        write_index(folder, &weight_map.into());
    }

    pub(crate) fn tensors(&self) -> Tensors {
        let mut random = Random::new(self.seed);
        let mut tensors = Tensors::new();
        // Every tenth channel or so stands out, and the norms' gains take that back.
        let channels: Vec<usize> = vec![3, self.dim / 2 + 1, self.dim - 5];
        let gain = |random: &mut Random| {
            let mut gain: Vec<f32> = (0..self.dim).map(|_| 1.0 + 0.2 * random.normal()).collect();
            channels
                .iter()
                .for_each(|channel| gain[*channel] /= self.outliers);
            (vec![self.dim], gain)
        };
        let mut embedding = random.matrix(self.vocabulary, self.dim, 0.5);
        for row in embedding.1.chunks_exact_mut(self.dim) {
            channels
                .iter()
                .for_each(|channel| row[*channel] *= self.outliers);
        }
        tensors.insert("model.embed_tokens.weight".into(), embedding);
        for layer in 0..self.layers {
            self.layer(&mut random, &mut tensors, layer, &channels, &gain);
        }
        tensors.insert("model.norm.weight".into(), gain(&mut random));
        if !self.tied {
            let head = random.matrix(self.vocabulary, self.dim, 3.0 * root(self.dim));
            tensors.insert("lm_head.weight".into(), head);
        }
        if self.massive {
            self.plant(&mut tensors);
        }
        let writers = ["embed_tokens", "o_proj", "down_proj"];
        for (name, (_, values)) in &mut tensors {
            if writers.iter().any(|writer| name.contains(writer)) {
                values.iter_mut().for_each(|value| *value *= self.stream);
            }
        }
        tensors
    }

    fn plant(&self, tensors: &mut Tensors) {
        let massive = Massive {
            embedding: 0.5,
            outliers: outlier_factor(self.outliers, self.dim),
        };
        for (name, (shape, values)) in tensors {
            let plants = massive.plants(name);
            let columns = *shape.last().unwrap();
            for (place, value) in values.iter_mut().enumerate() {
                if let Some(planted) = plants.weight(place / columns, place % columns) {
                    *value = planted;
                }
            }
        }
    }

    fn layer(
        &self,
        random: &mut Random,
        tensors: &mut Tensors,
        layer: usize,
        channels: &[usize],
        gain: &dyn Fn(&mut Random) -> Tensor,
    ) {
        let (dim, hidden) = (self.dim, self.hidden);
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut put = |part: &str, tensor| {
            tensors.insert(format!("model.layers.{layer}.{part}"), tensor);
        };
        put("input_layernorm.weight", gain(random));
        put("post_attention_layernorm.weight", gain(random));
        for (part, rows) in [("q", query), ("k", kv), ("v", kv)] {
            let matrix = random.matrix(rows, dim, root(dim));
            put(&format!("self_attn.{part}_proj.weight"), matrix);
            if self.family == "Qwen2ForCausalLM" {
                let mut bias: Vec<f32> = (0..rows).map(|_| 0.3 * random.normal()).collect();
                if part == "k" {
                    bias[5] = self.bias_outliers;
                    bias[self.head_dim - 1] = -self.bias_outliers;
                }
                put(&format!("self_attn.{part}_proj.bias"), (vec![rows], bias));
            }
        }
        let outliers = |mut matrix: (Vec<usize>, Vec<f32>)| {
            let columns = matrix.0[1];
            for channel in channels {
                let row = &mut matrix.1[channel * columns..][..columns];
                row.iter_mut().for_each(|weight| *weight *= self.outliers);
            }
            matrix
        };
        let output = random.matrix(dim, query, 0.4 * root(query));
        put("self_attn.o_proj.weight", outliers(output));
        put(
            "mlp.gate_proj.weight",
            random.matrix(hidden, dim, root(dim)),
        );
        // Some units of the feed-forward layer stand out too.
        let up = random.matrix(hidden, dim, root(dim));
        put("mlp.up_proj.weight", outliers(up));
        let down = random.matrix(dim, hidden, 0.4 * root(hidden));
        put("mlp.down_proj.weight", outliers(down));
    }
}

/// Checkpoints of each kind that is taken.
pub(crate) fn recipes() -> Vec<(&'static str, Recipe)> {
    let llama3 = json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32 }, "rope_theta": 500000.0 });
    let linear = json!({ "rope_parameters": { "rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0 },
        "rope_theta": null });
    vec![
        (
            "llama, f32",
            Recipe {
                outliers: 20.0,
                ..Recipe::default()
            },
        ),
        (
            "llama 3 in shards, bf16",
            Recipe {
                outliers: 20.0,
                dtype: Dtype::BF16,
                shards: 3,
                config: llama3,
                ..Recipe::default()
            },
        ),
        (
            "mistral with wide heads, f16",
            Recipe {
                family: "MistralForCausalLM",
                outliers: 20.0,
                dtype: Dtype::F16,
                head_dim: 24,
                heads: 6,
                kv_heads: 1,
                config: json!({ "sliding_window": null }),
                ..Recipe::default()
            },
        ),
        (
            "qwen 2, tied, a width of 96",
            Recipe {
                family: "Qwen2ForCausalLM",
                outliers: 20.0,
                bias_outliers: 80.0,
                tied: true,
                dim: 96,
                hidden: 160,
                config: json!({ "use_sliding_window": false, "sliding_window": 16 }),
                ..Recipe::default()
            },
        ),
        (
            "linear positions",
            Recipe {
                config: linear,
                kv_heads: 4,
                ..Recipe::default()
            },
        ),
    ]
}

fn root(width: usize) -> f32 {
    1.0 / (width as f32).sqrt()
}

pub(crate) fn shard_name(shard: usize) -> String {
    format!("model-{:05}.safetensors", shard + 1)
}

pub(crate) fn write_index(folder: &Path, weight_map: &Value) {
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": weight_map });
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
}

pub(crate) fn write_safetensors(path: &Path, tensors: &Tensors, dtype: Dtype) {
    let encode = |values: &Vec<f32>| -> Vec<u8> {
        match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::BF16 => values
                .iter()
                .flat_map(|v| to_bfloat(*v).to_le_bytes())
                .collect(),
            _ => values
                .iter()
                .flat_map(|v| to_half(*v).to_le_bytes())
                .collect(),
        }
    };
    let encoded: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, encode(values)))
        .collect();
    let views = encoded.iter().map(|(name, shape, bytes)| {
        (
            name.as_str(),
            TensorView::new(dtype, (*shape).clone(), bytes).unwrap(),
        )
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

/// Cut off, which is near enough.
fn to_bfloat(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

/// Cut off; what is below the normal numbers becomes 0.
fn to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 255) as i32 - 127 + 15;
    let size = if exponent < 1 {
        0
    } else {
        (exponent as u32) << 10 | bits >> 13 & 1023
    };
    (bits >> 31 << 15 | size) as u16
}

/// Seeded, so that every machine makes the same weights.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// Mean 0, variance 1.
    fn normal(&mut self) -> f32 {
        self.0.normal()
    }

    pub(crate) fn matrix(
        &mut self,
        rows: usize,
        columns: usize,
        size: f32,
    ) -> (Vec<usize>, Vec<f32>) {
        let values = (0..rows * columns).map(|_| size * self.normal()).collect();
        (vec![rows, columns], values)
    }

    pub(crate) fn tokens(&mut self, count: usize, vocabulary: usize) -> Vec<u32> {
        (0..count)
            .map(|_| (self.0.bits() % vocabulary as u64) as u32)
            .collect()
    }
}
