//! One token through the model. Each position is computed from the positions before it alone, one
//! row at a time, so the result does not depend on what else runs.

use crate::arith::{clamp, clamp_wide, div_round, rms_norm, rotate, shift_round};
use crate::matrix::Quantised;
use crate::model::{Layer, Model};

/// Keys and values of one layer so far: `[position, kv_dim]`, Q16.
#[derive(Debug, Clone, Default)]
struct LayerCache {
    keys: Vec<i32>,
    values: Vec<i32>,
}

/// A sequence under way.
#[derive(Debug, Clone)]
pub(crate) struct Sequence<'m> {
    model: &'m Model,
    caches: Vec<LayerCache>,
    position: usize,
    /// 1 / sqrt(head_dim), Q16.
    score_scale: i64,
}

impl<'m> Sequence<'m> {
    pub(crate) fn new(model: &'m Model) -> Self {
        let arch = &model.manifest().architecture;
        let head_dim = arch.head_dim() as u64;
        Self {
            model,
            caches: vec![LayerCache::default(); arch.layers],
            position: 0,
            score_scale: ((1_u64 << 32) / head_dim).isqrt().cast_signed(),
        }
    }

    pub(crate) fn exp(&self) -> &'m crate::arith::Exp {
        &self.model.exp
    }

    /// How many tokens went through.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Takes the next token; returns the final hidden state, `[dim]` in Q16, after the last norm.
    /// The caller keeps to the context and the vocabulary.
    pub(crate) fn advance(&mut self, token: u32) -> Vec<i32> {
        let tensors = &self.model.tensors;
        let mut x = tensors.embedding.row(token as usize);
        for index in 0..tensors.layers.len() {
            self.layer(index, &mut x);
        }
        self.position += 1;
        rms_norm(&x, &tensors.final_norm)
    }

    /// The logits of a final hidden state: `[vocabulary]`, Q16.
    pub(crate) fn logits(&self, hidden: &[i32]) -> Vec<i32> {
        self.model.tensors.head.apply(&Quantised::new(hidden))
    }

    fn layer(&mut self, index: usize, x: &mut [i32]) {
        let model = self.model;
        let layer = &model.tensors.layers[index];
        let attended = self.attention(index, layer, x);
        add(x, &attended);
        let normed = Quantised::new(&rms_norm(x, &layer.feed_norm));
        let gate = layer.gate.apply(&normed);
        let up = layer.up.apply(&normed);
        let hidden: Vec<i32> = gate
            .iter()
            .zip(&up)
            .map(|(g, u)| {
                clamp(shift_round(
                    i64::from(model.exp.silu(*g)) * i64::from(*u),
                    16,
                ))
            })
            .collect();
        add(x, &layer.down.apply(&Quantised::new(&hidden)));
    }

    fn attention(&mut self, index: usize, layer: &Layer, x: &[i32]) -> Vec<i32> {
        let arch = self.model.manifest().architecture;
        let (head_dim, kv_dim) = (arch.head_dim(), arch.kv_dim());
        let normed = Quantised::new(&rms_norm(x, &layer.attention_norm));
        let mut query = layer.query.apply(&normed);
        let mut key = layer.key.apply(&normed);
        self.rotate_heads(&mut query, head_dim);
        self.rotate_heads(&mut key, head_dim);
        let cache = &mut self.caches[index];
        cache.keys.extend_from_slice(&key);
        cache.values.extend(layer.value.apply(&normed));

        let mut attended = Vec::with_capacity(arch.dim);
        let group = arch.heads / arch.kv_heads;
        for (head, query) in query.chunks_exact(head_dim).enumerate() {
            let offset = head / group * head_dim;
            let at = |data: &'_ [i32], position: usize| -> std::ops::Range<usize> {
                debug_assert!(position * kv_dim < data.len());
                position * kv_dim + offset..position * kv_dim + offset + head_dim
            };
            let scores: Vec<i64> = (0..=self.position)
                .map(|p| score(query, &cache.keys[at(&cache.keys, p)], self.score_scale))
                .collect();
            let (weights, sum) = self.model.exp.softmax(&scores);
            let mut mixed = vec![0_i128; head_dim];
            for (p, weight) in weights.iter().enumerate() {
                let values = &cache.values[at(&cache.values, p)];
                for (total, value) in mixed.iter_mut().zip(values) {
                    *total += i128::from(*weight) * i128::from(*value);
                }
            }
            attended.extend(
                mixed
                    .iter()
                    .map(|total| clamp_wide(div_round(*total, i128::from(sum)))),
            );
        }
        layer.output.apply(&Quantised::new(&attended))
    }

    /// Rotates each head by its position: element `i` with element `i + head_dim / 2`.
    fn rotate_heads(&self, heads: &mut [i32], head_dim: usize) {
        let half = head_dim / 2;
        let from = self.position * half;
        let cos = &self.model.tensors.cos[from..from + half];
        let sin = &self.model.tensors.sin[from..from + half];
        for head in heads.chunks_exact_mut(head_dim) {
            for i in 0..half {
                (head[i], head[i + half]) = rotate(head[i], head[i + half], cos[i], sin[i]);
            }
        }
    }
}

/// The scaled score of a key, Q16. At most 256 products of 52 bits: 60 bits.
fn score(query: &[i32], key: &[i32], scale: i64) -> i64 {
    let sum: i64 = query
        .iter()
        .zip(key)
        .map(|(q, k)| i64::from(*q) * i64::from(*k))
        .sum();
    let scaled = div_round(i128::from(sum) * i128::from(scale), 1 << 32);
    i64::try_from(scaled).expect("a scaled score has fewer bits than its sum")
}

/// The residual addition, saturating.
fn add(x: &mut [i32], y: &[i32]) {
    for (a, b) in x.iter_mut().zip(y) {
        *a = clamp(i64::from(*a) + i64::from(*b));
    }
}
