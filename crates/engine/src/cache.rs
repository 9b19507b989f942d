//! Keys and values of a sequence so far, in int8 with one scale per head and position.

use std::ops::Range;

use crate::arith::peak;
use crate::kernels::{Kernel, Rows};
use crate::manifest::Architecture;

/// Room is taken for this many positions at a time, so that a cache is never much larger than its
/// content.
pub(crate) const POSITIONS_STEP: usize = 64;

/// Keys, or values, of one layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads {
    /// `[positions, kv_heads * head_dim]`.
    values: Vec<i8>,
    /// `[kv_heads][positions]`, Q16: what 127 units are worth.
    peaks: Vec<Vec<u32>>,
}

impl Heads {
    /// Takes room for so many more positions.
    fn reserve(&mut self, arch: &Architecture, positions: usize) {
        let needed = self.values.len() + positions * arch.kv_dim();
        if needed <= self.values.capacity() {
            return;
        }
        let more = positions.next_multiple_of(POSITIONS_STEP);
        self.values.reserve_exact(more * arch.kv_dim());
        self.peaks.resize(arch.kv_heads, Vec::new());
        for peaks in &mut self.peaks {
            peaks.reserve_exact(more);
        }
    }

    /// Quantises and keeps the heads of one more position: `[kv_heads * head_dim]`, Q16.
    fn push(&mut self, kernel: Kernel, heads: &[i32], head_dim: usize) {
        for (head, peaks) in heads.chunks_exact(head_dim).zip(&mut self.peaks) {
            let peak = peak(head);
            let from = self.values.len();
            self.values.resize(from + head_dim, 0);
            kernel.quantise(head, peak, &mut self.values[from..]);
            peaks.push(peak);
        }
    }

    /// One head over some positions, and its peaks.
    pub(crate) fn head(
        &self,
        arch: &Architecture,
        head: usize,
        positions: Range<usize>,
    ) -> (Rows<'_>, &[u32]) {
        let rows = Rows {
            data: &self.values[positions.start * arch.kv_dim() + head * arch.head_dim..],
            stride: arch.kv_dim(),
            columns: arch.head_dim,
            count: positions.len(),
            sums: &[],
        };
        (rows, &self.peaks[head][positions])
    }

    fn first(&self, arch: &Architecture, positions: usize) -> Self {
        Self {
            values: self.values[..positions * arch.kv_dim()].to_vec(),
            peaks: self
                .peaks
                .iter()
                .map(|peaks| peaks[..positions].to_vec())
                .collect(),
        }
    }
}

/// Keys and values of one layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerCache {
    pub(crate) keys: Heads,
    pub(crate) values: Heads,
}

impl LayerCache {
    pub(crate) fn push(&mut self, kernel: Kernel, key: &[i32], value: &[i32], head_dim: usize) {
        self.keys.push(kernel, key, head_dim);
        self.values.push(kernel, value, head_dim);
    }
}

/// A sequence under way: what the model has taken in. It belongs to one model.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) positions: usize,
}

impl Sequence {
    pub(crate) fn new(arch: &Architecture) -> Self {
        Self {
            layers: vec![LayerCache::default(); arch.layers],
            positions: 0,
        }
    }

    /// Takes room for so many more positions at once.
    pub(crate) fn reserve(&mut self, arch: &Architecture, positions: usize) {
        for layer in &mut self.layers {
            layer.keys.reserve(arch, positions);
            layer.values.reserve(arch, positions);
        }
    }

    /// A sequence that begins like this one: a copy of its first positions. Exactly what taking
    /// the same tokens in again would give.
    pub(crate) fn first(&self, arch: &Architecture, positions: usize) -> Self {
        debug_assert!(positions <= self.positions);
        let layer = |layer: &LayerCache| LayerCache {
            keys: layer.keys.first(arch, positions),
            values: layer.values.first(arch, positions),
        };
        Self {
            layers: self.layers.iter().map(layer).collect(),
            positions,
        }
    }
}

impl Architecture {
    /// Bytes that one position takes in a cache.
    pub fn cache_bytes_per_position(&self) -> usize {
        2 * self.layers * (self.kv_dim() + 4 * self.kv_heads)
    }
}
