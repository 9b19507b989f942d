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
        let tensors = &self.model.tensors;
        let head = tensors.head.as_ref().unwrap_or(&tensors.embedding);
        head.apply(&Quantised::new(hidden))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::Architecture;
    use crate::tiny;
    use proptest::prelude::*;

    fn model(tied_head: bool) -> Model {
        let arch = Architecture {
            dim: 24,
            hidden_dim: 40,
            layers: 3,
            heads: 6,
            kv_heads: 3,
            vocabulary: crate::tokenizer::VOCABULARY,
            context_tokens: 24,
            tied_head,
        };
        Model::from_bytes(&tiny::generate_shape(arch, "small", 5)).unwrap()
    }

    /// The final hidden states of all positions, layer by layer over the whole text and without a
    /// cache: written apart from [`Sequence`], to be held against it.
    fn from_scratch(model: &Model, tokens: &[u32]) -> Vec<Vec<i32>> {
        let tensors = &model.tensors;
        let mut xs: Vec<_> = tokens
            .iter()
            .map(|token| tensors.embedding.row(*token as usize))
            .collect();
        for layer in &tensors.layers {
            let normed: Vec<_> = xs
                .iter()
                .map(|x| Quantised::new(&rms_norm(x, &layer.attention_norm)))
                .collect();
            let turned = |matrix: &crate::matrix::Matrix| -> Vec<Vec<i32>> {
                (0_usize..)
                    .zip(&normed)
                    .map(|(position, x)| turn(model, &matrix.apply(x), position))
                    .collect()
            };
            let (queries, keys) = (turned(&layer.query), turned(&layer.key));
            let values: Vec<_> = normed.iter().map(|x| layer.value.apply(x)).collect();
            for (position, x) in xs.iter_mut().enumerate() {
                let seen = 0..=position;
                let mixed = mix(
                    model,
                    &queries[position],
                    &keys[seen.clone()],
                    &values[seen],
                );
                add(x, &layer.output.apply(&Quantised::new(&mixed)));
                let h = Quantised::new(&rms_norm(x, &layer.feed_norm));
                let (gate, up) = (layer.gate.apply(&h), layer.up.apply(&h));
                let product: Vec<i32> = (0..gate.len())
                    .map(|i| {
                        let wide = i64::from(model.exp.silu(gate[i])) * i64::from(up[i]);
                        clamp((wide + (1 << 15)) >> 16)
                    })
                    .collect();
                add(x, &layer.down.apply(&Quantised::new(&product)));
            }
        }
        xs.iter()
            .map(|x| rms_norm(x, &tensors.final_norm))
            .collect()
    }

    fn turn(model: &Model, x: &[i32], position: usize) -> Vec<i32> {
        let width = model.manifest().architecture.head_dim();
        let half = width / 2;
        let mut turned = x.to_vec();
        for i in (0..x.len()).filter(|i| i % width < half) {
            let angle = position * half + i % width;
            let (cos, sin) = (model.tensors.cos[angle], model.tensors.sin[angle]);
            (turned[i], turned[i + half]) = rotate(x[i], x[i + half], cos, sin);
        }
        turned
    }

    fn mix(model: &Model, query: &[i32], keys: &[Vec<i32>], values: &[Vec<i32>]) -> Vec<i32> {
        let arch = model.manifest().architecture;
        let width = arch.head_dim();
        let scale = ((1_u64 << 32) / width as u64).isqrt().cast_signed();
        let mut mixed = Vec::new();
        for head in 0..arch.heads {
            let from = head * arch.kv_heads / arch.heads * width;
            let query = &query[head * width..(head + 1) * width];
            let scores: Vec<i64> = keys
                .iter()
                .map(|key| score(query, &key[from..from + width], scale))
                .collect();
            let (weights, sum) = model.exp.softmax(&scores);
            for i in from..from + width {
                let total: i128 = weights
                    .iter()
                    .zip(values)
                    .map(|(weight, value)| i128::from(*weight) * i128::from(value[i]))
                    .sum();
                mixed.push(clamp_wide(div_round(total, i128::from(sum))));
            }
        }
        mixed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_cache_gives_what_computing_from_scratch_gives(tokens in proptest::collection::vec(0_u32..258, 1..24), tied: bool) {
            let model = model(tied);
            let mut sequence = Sequence::new(&model);
            let cached: Vec<_> = tokens.iter().map(|token| sequence.advance(*token)).collect();
            prop_assert_eq!(cached, from_scratch(&model, &tokens));
        }
    }

    #[test]
    fn golden_states_of_the_tiny_model_never_change() {
        let model = Model::from_bytes(&tiny::generate(1)).unwrap();
        let mut sequence = Sequence::new(&model);
        let mut hidden = Vec::new();
        for token in model.encode(b"a") {
            hidden = sequence.advance(token);
        }
        assert_eq!(
            hidden[..8],
            [
                51_987, -4_992, -144_398, 24_024, -96_167, -118_830, 127_860, -46_155
            ]
        );
        assert_eq!(
            sequence.logits(&hidden)[96..104],
            [
                -31_907, -174_757, 450_069, -32_757, 189_351, -208_263, 504_824, -407_820
            ]
        );
    }

    #[test]
    fn golden_scores_never_change() {
        let (one, most) = (1 << 16, 1 << 26);
        let scale = |width: u64| ((1_u64 << 32) / width).isqrt().cast_signed();
        let (query, key) = ([one, -2 * one, 3 * one], [5 * one, one, -one / 3]);
        assert_eq!(score(&query, &key, scale(16)), 32_768);
        assert_eq!(score(&[most; 256], &[most; 256], scale(256)), 1 << 40);
        assert_eq!(scale(12), 18_918);
    }

    #[test]
    fn a_tied_head_is_the_embedding() {
        let model = model(true);
        let sequence = Sequence::new(&model);
        let hidden: Vec<i32> = (0..24).map(|i| (i - 12) << 14).collect();
        let logits = model.tensors.embedding.apply(&Quantised::new(&hidden));
        assert_eq!(sequence.logits(&hidden), logits);
    }
}
