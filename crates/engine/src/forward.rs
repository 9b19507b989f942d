//! Tokens through the model. Every position is computed from its own sequence alone, each row of it
//! independently, so the result does not depend on what else is computed beside it.

use crate::arith::RESIDUAL_MAX;
use crate::attention::{Job, tile_rows};
use crate::cache::Sequence;
use crate::matrix::{Activations, Matrix};
use crate::model::{LastMatrix, Layer, Model};
use crate::range::{Stored, Unwatched, Watch};
use crate::runtime::Runtime;

/// How many positions go through the layers together: enough that arithmetic, not memory, bounds
/// the speed, and few enough that their values stay in the second cache.
const ROWS_MAX: usize = 128;

/// Tokens for one sequence.
pub(crate) struct Feed<'a> {
    pub(crate) sequence: &'a mut Sequence,
    /// What it takes in next.
    pub(crate) tokens: &'a [u32],
    /// From which of these tokens on the hidden state is wanted.
    pub(crate) wanted_from: usize,
}

/// One position on its way through the layers.
#[derive(Clone, Copy)]
struct Row {
    feed: usize,
    position: usize,
    token: u32,
    wanted: bool,
}

/// Lets each sequence take its tokens in. Returns the hidden states that are wanted, feed by feed,
/// `[wanted, dim]` in Q16: the residual stream after the last layer. The caller keeps to the context
/// and the vocabulary.
pub(crate) fn advance(runtime: &Runtime, model: &Model, feeds: &mut [Feed<'_>]) -> Vec<i32> {
    advance_watched(runtime, model, feeds, &Unwatched)
}

/// The same, and `watch` sees what is stored on the way.
pub(crate) fn advance_watched<W: Watch>(
    runtime: &Runtime,
    model: &Model,
    feeds: &mut [Feed<'_>],
    watch: &W,
) -> Vec<i32> {
    let rows: Vec<Row> = (0..)
        .zip(feeds.iter())
        .flat_map(|(feed, tokens)| {
            let from = tokens.sequence.positions;
            (0..).zip(tokens.tokens).map(move |(index, token)| Row {
                feed,
                position: from + index,
                token: *token,
                wanted: index >= tokens.wanted_from,
            })
        })
        .collect();
    let arch = &model.manifest().architecture;
    for feed in feeds.iter_mut() {
        feed.sequence.reserve(arch, feed.tokens.len());
    }
    let wanted = rows.iter().filter(|row| row.wanted).count();
    let mut hidden = Vec::with_capacity(wanted * arch.dim);
    runtime.run(|| {
        for rows in rows.chunks(ROWS_MAX) {
            Pass {
                runtime,
                model,
                rows,
                watch,
            }
            .run(feeds, &mut hidden);
        }
    });
    hidden
}

/// The logits of hidden states: `[states, vocabulary]`, Q16.
pub(crate) fn logits(runtime: &Runtime, model: &Model, hidden: &[i32]) -> Vec<i32> {
    let arch = &model.manifest().architecture;
    let (dim, epsilon) = (arch.dim, arch.norm_epsilon_q32);
    runtime.run(|| match &model.tensors.head {
        LastMatrix::Apart(head) => {
            let normed = Activations::normed(runtime, hidden, dim, epsilon);
            head.apply(runtime, &normed)
        }
        LastMatrix::Tied(head) => {
            let normed = Activations::tied(runtime, hidden, dim, epsilon, head);
            model.tensors.embedding.apply(runtime, &normed)
        }
    })
}

/// Some rows on their way through all layers.
struct Pass<'a, W> {
    runtime: &'a Runtime,
    model: &'a Model,
    rows: &'a [Row],
    watch: &'a W,
}

impl<W: Watch> Pass<'_, W> {
    fn run(&self, feeds: &mut [Feed<'_>], hidden: &mut Vec<i32>) {
        let tensors = &self.model.tensors;
        let dim = self.model.manifest().architecture.dim;
        let mut x: Vec<i32> = Vec::with_capacity(self.rows.len() * dim);
        for row in self.rows {
            x.extend(tensors.embedding.row(row.token as usize));
        }
        self.watch.see(Stored::Residual, 0, &x);
        for (index, layer) in tensors.layers.iter().enumerate() {
            self.attention(index, layer, feeds, &mut x);
            self.feed_forward(index, layer, &mut x);
        }
        for (row, x) in self.rows.iter().zip(x.chunks_exact(dim)) {
            feeds[row.feed].sequence.positions = row.position + 1;
            if row.wanted {
                hidden.extend_from_slice(x);
            }
        }
    }

    fn feed_forward(&self, index: usize, layer: &Layer, x: &mut [i32]) {
        let runtime = self.runtime;
        let arch = &self.model.manifest().architecture;
        let normed = Activations::normed(runtime, x, arch.dim, arch.norm_epsilon_q32);
        let [mut gate, up] = Matrix::apply_each(runtime, &normed, [&layer.gate, &layer.up]);
        self.watch.see(Stored::Gate, index, &gate);
        self.watch.see(Stored::Up, index, &up);
        let items = gate
            .chunks_exact_mut(arch.hidden_dim)
            .zip(up.chunks_exact(arch.hidden_dim))
            .collect();
        runtime.each(self.elements(arch.hidden_dim), items, |(gate, up)| {
            runtime.kernel.gate(gate, up);
            // Before they are mixed, which has a wider bound.
            self.watch.see(Stored::GateProduct, index, gate);
            if arch.mixed_down {
                runtime.kernel.mix_blocks(gate);
            }
        });
        let gated = Activations::new(runtime, &gate, arch.hidden_dim);
        self.add(index, x, &layer.down.apply(runtime, &gated));
    }

    fn add(&self, index: usize, x: &mut [i32], more: &[i32]) {
        self.watch.see(Stored::Residual, index, more);
        self.runtime.kernel.add(x, more, RESIDUAL_MAX);
        self.watch.see(Stored::Residual, index, x);
    }

    fn attention(&self, index: usize, layer: &Layer, feeds: &mut [Feed<'_>], x: &mut [i32]) {
        let runtime = self.runtime;
        let arch = &self.model.manifest().architecture;
        let normed = Activations::normed(runtime, x, arch.dim, arch.norm_epsilon_q32);
        let matrices = [&layer.query, &layer.key, &layer.value];
        let [mut query, mut key, value] = Matrix::apply_each(runtime, &normed, matrices);
        self.watch.see(Stored::Query, index, &query);
        self.watch.see(Stored::Key, index, &key);
        self.watch.see(Stored::Value, index, &value);
        self.rotate(&mut query, arch.query_dim());
        self.rotate(&mut key, arch.kv_dim());
        self.watch.see(Stored::Query, index, &query);
        self.watch.see(Stored::Key, index, &key);
        let heads = key
            .chunks_exact(arch.kv_dim())
            .zip(value.chunks_exact(arch.kv_dim()));
        for (row, (key, value)) in self.rows.iter().zip(heads) {
            let cache = &mut feeds[row.feed].sequence.layers[index];
            cache.push(runtime.kernel, key, value, arch.head_dim);
        }
        let attended = self.attend(index, feeds, &query);
        self.watch.see(Stored::Attention, index, &attended);
        let attended = Activations::new(runtime, &attended, arch.query_dim());
        self.add(index, x, &layer.output.apply(runtime, &attended));
    }

    fn rotate(&self, heads: &mut [i32], width: usize) {
        let half = self.model.manifest().architecture.head_dim / 2;
        let tensors = &self.model.tensors;
        for (row, heads) in self.rows.iter().zip(heads.chunks_exact_mut(width)) {
            let cos = &tensors.cos[row.position * half..][..half];
            let sin = &tensors.sin[row.position * half..][..half];
            self.runtime.kernel.rotate_heads(heads, cos, sin);
        }
    }

    /// Attention of all rows: `[rows, heads * head_dim]` in Q16.
    fn attend(&self, index: usize, feeds: &[Feed<'_>], query: &[i32]) -> Vec<i32> {
        let arch = &self.model.manifest().architecture;
        let group = arch.heads / arch.kv_heads * arch.head_dim;
        let mut attended = vec![0; query.len()];
        let mut groups = query
            .chunks_exact(group)
            .zip(attended.chunks_exact_mut(group));
        let of_one_feed = self.rows.chunk_by(|a, b| a.feed == b.feed);
        let mut jobs = Vec::new();
        for rows in of_one_feed.flat_map(|rows| rows.chunks(tile_rows(arch))) {
            let job = |kv_head| Job {
                cache: &feeds[rows[0].feed].sequence.layers[index],
                kv_head,
                position: rows[0].position,
                queries: Vec::with_capacity(rows.len()),
                outs: Vec::with_capacity(rows.len()),
            };
            let mut heads: Vec<Job<'_>> = (0..arch.kv_heads).map(job).collect();
            for _ in rows {
                for (job, (query, out)) in heads.iter_mut().zip(groups.by_ref()) {
                    job.queries.push(query);
                    job.outs.push(out);
                }
            }
            jobs.extend(heads);
        }
        let positions: usize = self.rows.iter().map(|row| row.position + 1).sum();
        // Besides its products, a position of a head costs its share of the softmax.
        let products = positions * arch.heads * (2 * arch.head_dim + 32);
        // Where there are few jobs for the threads, these split the blocks of positions too.
        let parts = self.runtime.parts(products);
        let split = parts > 1 && jobs.len() < 2 * parts;
        self.runtime
            .each(products, jobs, |job| job.run(self.runtime, arch, split));
        attended
    }

    /// What work on this many elements per row costs, in products.
    fn elements(&self, per_row: usize) -> usize {
        if self.rows.len() > 1 {
            16 * per_row * self.rows.len()
        } else {
            0
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
