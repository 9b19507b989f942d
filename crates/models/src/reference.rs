//! The model as its makers meant it: a plain forward pass in floating point over the checkpoint as it is.
//! What an import is measured against, so it shares nothing with the importer but the reading of files.

use std::path::Path;

use rayon::prelude::*;

use crate::adapter::Adapter;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::ImportError;
use crate::folder::Folder;
use crate::import::{EMBEDDING, FINAL_NORM, HEAD, check_tensors, has_own_head, tensor_name};

/// A checkpoint that can be run. Layers are read as they are needed, so it takes little memory.
#[derive(Debug)]
pub struct Reference {
    checkpoint: Checkpoint,
    config: Config,
}

/// The head in memory: `[vocabulary, dim]`.
#[derive(Debug)]
pub struct Head {
    weights: Vec<f32>,
    dim: usize,
}

impl Reference {
    /// Opens a checkpoint's folder.
    ///
    /// # Errors
    /// [`ImportError`] where it could not be imported for its configuration or its tensors.
    pub fn open(dir: &Path) -> Result<Self, ImportError> {
        Self::adapted(dir, None)
    }

    /// As [`Reference::open`], with a LoRA adapter merged into the weights where there is one.
    ///
    /// # Errors
    /// As [`Reference::open`], and where the adapter cannot be merged.
    pub fn adapted(dir: &Path, adapter: Option<&Path>) -> Result<Self, ImportError> {
        let folder = Folder::new(dir)?;
        let mut config = Config::read(&folder)?;
        let mut checkpoint = Checkpoint::open(&folder)?;
        check_tensors(&checkpoint, &config)?;
        if let Some(dir) = adapter {
            checkpoint.adapt(Adapter::open(dir)?)?;
        }
        // What the library that it was made for uses, whatever the configuration says.
        if config.tied_head && has_own_head(&checkpoint, &config)? {
            config.tied_head = false;
        }
        Ok(Self { checkpoint, config })
    }

    /// Tokens that the model knows.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// How many layers it has.
    pub fn layers(&self) -> usize {
        self.config.layers
    }

    /// The hidden states of each sequence after the final norm: `[len, dim]` each. Reads all layers
    /// once, for however many sequences. The tokens are of the vocabulary. `progress` hears how many layers are
    /// done.
    ///
    /// # Errors
    /// [`ImportError`] where a tensor cannot be read.
    pub fn hidden(
        &self,
        sequences: &[Vec<u32>],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>, ImportError> {
        let dim = self.config.dim;
        let embedding = self.checkpoint.tensor(EMBEDDING)?;
        let embed = |tokens: &Vec<u32>| -> Vec<f32> {
            let row = |token: &u32| &embedding[*token as usize * dim..][..dim];
            tokens.iter().flat_map(row).copied().collect()
        };
        let mut states: Vec<Vec<f32>> = sequences.iter().map(embed).collect();
        drop(embedding);
        for index in 0..self.config.layers {
            let layer = Layer::read(&self.checkpoint, &self.config, index)?;
            for x in &mut states {
                layer.run(&self.config, x);
            }
            progress(index + 1);
        }
        let gain = self.checkpoint.tensor(FINAL_NORM)?;
        let normed = states.iter();
        Ok(normed
            .map(|x| norm(x, &gain, self.config.norm_epsilon))
            .collect())
    }

    /// Reads the head.
    ///
    /// # Errors
    /// [`ImportError`] where it cannot be read.
    pub fn head(&self) -> Result<Head, ImportError> {
        let name = if self.config.tied_head {
            EMBEDDING
        } else {
            HEAD
        };
        Ok(Head {
            weights: self.checkpoint.tensor(name)?,
            dim: self.config.dim,
        })
    }
}

impl Head {
    /// The logits of hidden states: `[len, vocabulary]`.
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        linear(&self.weights, self.dim, None, hidden)
    }
}

/// One layer's weights, `[out, in]`.
struct Layer {
    attention_gain: Vec<f32>,
    query: (Vec<f32>, Option<Vec<f32>>),
    key: (Vec<f32>, Option<Vec<f32>>),
    value: (Vec<f32>, Option<Vec<f32>>),
    output: Vec<f32>,
    feed_forward_gain: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl Layer {
    fn read(checkpoint: &Checkpoint, config: &Config, layer: usize) -> Result<Self, ImportError> {
        let tensor = |part: &str| checkpoint.tensor(&tensor_name(layer, part));
        let affine = |part: &str| -> Result<_, ImportError> {
            let weights = tensor(&format!("self_attn.{part}_proj.weight"))?;
            let bias = config.attention_bias;
            let bias = bias.then(|| tensor(&format!("self_attn.{part}_proj.bias")));
            Ok((weights, bias.transpose()?))
        };
        Ok(Self {
            attention_gain: tensor("input_layernorm.weight")?,
            query: affine("q")?,
            key: affine("k")?,
            value: affine("v")?,
            output: tensor("self_attn.o_proj.weight")?,
            feed_forward_gain: tensor("post_attention_layernorm.weight")?,
            gate: tensor("mlp.gate_proj.weight")?,
            up: tensor("mlp.up_proj.weight")?,
            down: tensor("mlp.down_proj.weight")?,
        })
    }

    /// `x`: `[len, dim]`, the residual stream.
    fn run(&self, config: &Config, x: &mut [f32]) {
        let dim = config.dim;
        let normed = norm(x, &self.attention_gain, config.norm_epsilon);
        let project = |(weights, bias): &(Vec<f32>, Option<Vec<f32>>)| {
            linear(weights, dim, bias.as_deref(), &normed)
        };
        let (mut query, mut key, value) = (
            project(&self.query),
            project(&self.key),
            project(&self.value),
        );
        rotate(config, config.heads, &mut query);
        rotate(config, config.kv_heads, &mut key);
        let attended = attend(config, &query, &key, &value);
        add(
            x,
            &linear(&self.output, config.query_dim(), None, &attended),
        );

        let normed = norm(x, &self.feed_forward_gain, config.norm_epsilon);
        let gate = linear(&self.gate, dim, None, &normed);
        let up = linear(&self.up, dim, None, &normed);
        let gated: Vec<f32> = gate
            .iter()
            .zip(&up)
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect();
        add(x, &linear(&self.down, config.hidden_dim, None, &gated));
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// RMSNorm of each row.
fn norm(x: &[f32], gain: &[f32], epsilon: f64) -> Vec<f32> {
    x.chunks_exact(gain.len())
        .flat_map(|row| {
            let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let scale = 1.0 / (squares / gain.len() as f64 + epsilon).sqrt();
            row.iter()
                .zip(gain)
                .map(move |(v, gain)| v * scale as f32 * gain)
        })
        .collect()
}

/// As many rows of weights as fit the second cache beside the rows that they meet.
const ROWS_TOGETHER: usize = 16;
/// How many positions meet a row of weights while it is in registers.
const FOUR: usize = 4;

/// `weights [out, in]` times each row of `x [len, in]`: `[len, out]`.
fn linear(weights: &[f32], columns: usize, bias: Option<&[f32]>, x: &[f32]) -> Vec<f32> {
    let (rows, len) = (weights.len() / columns, x.len() / columns);
    // Each row of weights is read once and meets all of `x`, which some rows read together.
    let mut by_row = vec![0.0; rows * len];
    let blocks = weights.par_chunks(ROWS_TOGETHER * columns);
    let products = by_row.par_chunks_mut(ROWS_TOGETHER * len.max(1));
    blocks.zip(products).for_each(|(rows, products)| {
        for (index, x) in x.chunks(FOUR * columns).enumerate() {
            let positions = FOUR * index..(FOUR * index + FOUR).min(len);
            for (row, products) in rows
                .chunks_exact(columns)
                .zip(products.chunks_exact_mut(len))
            {
                dots(row, x, &mut products[positions.clone()]);
            }
        }
    });
    let mut out = vec![0.0; rows * len];
    for (row, values) in by_row.chunks_exact(len.max(1)).enumerate() {
        let bias = bias.map_or(0.0, |bias| bias[row]);
        for (position, value) in values.iter().enumerate() {
            out[position * rows + row] = value + bias;
        }
    }
    out
}

/// The products of a row with up to four others, one after the other in `x`.
fn dots(row: &[f32], x: &[f32], out: &mut [f32]) {
    const LANES: usize = 8;
    let columns = row.len();
    let (Some(out), Some((a, x))) = (out.as_mut_array::<FOUR>(), x.split_at_checked(columns))
    else {
        for (out, x) in out.iter_mut().zip(x.chunks_exact(columns)) {
            *out = dot(row, x);
        }
        return;
    };
    let ((b, x), (row, rest)) = (x.split_at(columns), row.as_chunks::<LANES>());
    let (c, d) = x.split_at(columns);
    let [a, b, c, d] = [a, b, c, d].map(|x| x.as_chunks::<LANES>());
    let mut sums = [[0.0_f32; LANES]; FOUR];
    for ((((row, a), b), c), d) in row.iter().zip(a.0).zip(b.0).zip(c.0).zip(d.0) {
        for (sums, x) in sums.iter_mut().zip([a, b, c, d]) {
            for (sum, (weight, x)) in sums.iter_mut().zip(row.iter().zip(x)) {
                *sum += weight * x;
            }
        }
    }
    for ((out, sums), x) in out.iter_mut().zip(&sums).zip([a.1, b.1, c.1, d.1]) {
        let rest: f32 = rest.iter().zip(x).map(|(a, b)| a * b).sum();
        *out = sums.iter().sum::<f32>() + rest;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sixteen sums side by side, which compilers put into registers.
    const LANES: usize = 16;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Turns the heads of each position: element `i` with element `i + head_dim / 2`.
fn rotate(config: &Config, heads: usize, x: &mut [f32]) {
    let half = config.head_dim / 2;
    let frequencies = config.rope.frequencies(config.head_dim);
    for (position, x) in x.chunks_exact_mut(heads * config.head_dim).enumerate() {
        for head in x.chunks_exact_mut(config.head_dim) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), frequency) in first.iter_mut().zip(second).zip(&frequencies) {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (sin, cos) = (sin as f32, cos as f32);
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}

/// Causal attention: `[len, heads * head_dim]`.
fn attend(config: &Config, query: &[f32], key: &[f32], value: &[f32]) -> Vec<f32> {
    let (width, kv_dim) = (config.head_dim, config.kv_dim());
    let group = config.heads / config.kv_heads;
    let scale = 1.0 / (width as f32).sqrt();
    let mut out = vec![0.0; query.len()];
    let heads = out
        .par_chunks_exact_mut(width)
        .zip(query.par_chunks_exact(width));
    heads.enumerate().for_each(|(index, (out, query))| {
        let (position, head) = (index / config.heads, index % config.heads);
        let from = head / group * width;
        let keys = key.chunks_exact(kv_dim).take(position + 1);
        let scores: Vec<f32> = keys
            .map(|key| dot(query, &key[from..from + width]) * scale)
            .collect();
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f32 = weights.iter().sum();
        for (weight, value) in weights.iter().zip(value.chunks_exact(kv_dim)) {
            for (out, value) in out.iter_mut().zip(&value[from..from + width]) {
                *out += weight / sum * value;
            }
        }
    });
    out
}
