//! How large the values get that a model stores on its way, and how many are cut off at the bound. Measuring runs watch
//! them, all others pass a watch that sees nothing and costs nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::Serialize;

use crate::arith::{RESIDUAL_MAX, VALUE_MAX, peak};
use crate::manifest::Architecture;

/// A kind of value that saturates: the residual stream at ±8192, all others at ±1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// The residual stream, and what the layers add to it.
    Residual,
    /// Queries, before and after their rotation.
    Query,
    /// Keys, likewise.
    Key,
    /// Values of the attention.
    Value,
    /// What attention gives.
    Attention,
    /// Results of the gate projections.
    Gate,
    /// Results of the up projections.
    Up,
    /// SiLU of the gate times up.
    GateProduct,
    /// What tokens are chosen by.
    Logits,
}

impl Stored {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Residual,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Attention,
        Self::Gate,
        Self::Up,
        Self::GateProduct,
        Self::Logits,
    ];

    /// The bound, Q16.
    pub const fn max_q16(self) -> u32 {
        match self {
            Self::Residual => RESIDUAL_MAX.unsigned_abs(),
            _ => VALUE_MAX.unsigned_abs(),
        }
    }

    /// The kind in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Residual => "residual stream",
            Self::Query => "queries",
            Self::Key => "keys",
            Self::Value => "values",
            Self::Attention => "attention results",
            Self::Gate => "gates",
            Self::Up => "up projections",
            Self::GateProduct => "gate products",
            Self::Logits => "logits",
        }
    }
}

/// What was seen of a kind of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The kind.
    pub stored: Stored,
    /// The largest magnitude, Q16.
    pub peak_q16: u32,
    /// How many stand at the bound, and so were cut off.
    pub saturated: u64,
    /// Of how many.
    pub values: u64,
}

impl Range {
    fn none(stored: Stored) -> Self {
        Self {
            stored,
            peak_q16: 0,
            saturated: 0,
            values: 0,
        }
    }

    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            stored: self.stored,
            peak_q16: self.peak_q16.max(other.peak_q16),
            saturated: self.saturated + other.saturated,
            values: self.values + other.values,
        }
    }
}

/// Peaks and counts by kind and layer. They do not depend on the order in which values are seen, so threads do not
/// change them.
#[derive(Debug)]
pub struct Ranges {
    /// `[layers][kinds]`.
    cells: Vec<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    peak: AtomicU32,
    saturated: AtomicU64,
    values: AtomicU64,
}

impl Ranges {
    /// Nothing seen yet, for a model of these sizes.
    pub fn new(arch: &Architecture) -> Self {
        let cells = arch.layers.max(1) * Stored::ALL.len();
        Self {
            cells: (0..cells).map(|_| Cell::default()).collect(),
        }
    }

    /// One kind in one layer. Embeddings and logits stand in the first.
    pub fn of_layer(&self, stored: Stored, layer: usize) -> Range {
        let cell = self.cells.get(layer * Stored::ALL.len() + stored as usize);
        cell.map_or(Range::none(stored), |cell| Range {
            stored,
            peak_q16: cell.peak.load(Ordering::Relaxed),
            saturated: cell.saturated.load(Ordering::Relaxed),
            values: cell.values.load(Ordering::Relaxed),
        })
    }

    /// One kind in all layers.
    pub fn of(&self, stored: Stored) -> Range {
        let layers = 0..self.cells.len() / Stored::ALL.len();
        layers
            .map(|layer| self.of_layer(stored, layer))
            .fold(Range::none(stored), Range::and)
    }

    /// All kinds in all layers.
    pub fn all(&self) -> [Range; 9] {
        Stored::ALL.map(|stored| self.of(stored))
    }
}

/// Who sees the values that a pass stores.
pub(crate) trait Watch: Sync {
    /// Values of a kind, as they are stored.
    fn see(&self, stored: Stored, layer: usize, values: &[i32]);
}

/// Sees nothing: compiled away.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    #[inline(always)]
    fn see(&self, _: Stored, _: usize, _: &[i32]) {}
}

impl Watch for Ranges {
    fn see(&self, stored: Stored, layer: usize, values: &[i32]) {
        let place = layer * Stored::ALL.len() + stored as usize;
        let Some(cell) = self.cells.get(place) else {
            return;
        };
        let peak = peak(values);
        cell.peak.fetch_max(peak, Ordering::Relaxed);
        cell.values
            .fetch_add(values.len() as u64, Ordering::Relaxed);
        if peak >= stored.max_q16() {
            let at_bound = |value: &&i32| value.unsigned_abs() >= stored.max_q16();
            let count = values.iter().filter(at_bound).count() as u64;
            cell.saturated.fetch_add(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, Runtime, measure_ranges, teacher_forced, tiny};

    #[test]
    fn values_at_the_bound_are_counted_by_kind_and_layer() {
        let arch = Model::from_bytes(&tiny::generate(1))
            .unwrap()
            .manifest()
            .architecture;
        let ranges = Ranges::new(&arch);
        ranges.see(Stored::Key, 1, &[5, -VALUE_MAX, VALUE_MAX, 0]);
        ranges.see(Stored::Key, 2, &[-7, 6]);
        ranges.see(Stored::Key, 99, &[VALUE_MAX]);
        let of = |layer| {
            let range = ranges.of_layer(Stored::Key, layer);
            (range.peak_q16, range.saturated, range.values)
        };
        assert_eq!(of(1), (Stored::Key.max_q16(), 2, 4));
        ranges.see(Stored::Residual, 0, &[VALUE_MAX, -RESIDUAL_MAX]);
        assert_eq!(ranges.of(Stored::Residual).saturated, 1);
        assert_eq!(of(2), (7, 0, 2));
        assert_eq!(ranges.of(Stored::Key).values, 6);
        assert_eq!(ranges.of(Stored::Query), Range::none(Stored::Query));
    }

    #[test]
    fn measuring_sees_every_value_and_changes_none_on_any_number_of_threads() {
        let model = Model::from_bytes(&tiny::generate(1)).unwrap();
        let arch = model.manifest().architecture;
        let tokens: Vec<u32> = (0..200).map(|i| i * 7 % 258).collect();
        let [one, four] = [1, 4].map(|threads| {
            let runtime = Runtime::new(threads).unwrap();
            let ranges = Ranges::new(&arch);
            let mut logits = Vec::new();
            measure_ranges(&runtime, &model, &tokens, &ranges, |some| {
                logits.extend(some)
            })
            .unwrap();
            assert_eq!(logits, teacher_forced(&runtime, &model, &tokens).unwrap());
            ranges.all()
        });
        assert_eq!(one, four);
        let per_position = |range: &Range| range.values / 200;
        let (dim, layers) = (arch.dim as u64, arch.layers as u64);
        // The embedding; what attention adds and the sum, what the feed-forward layer adds and the sum.
        assert_eq!(per_position(&one[0]), dim * (1 + 4 * layers));
        assert_eq!(per_position(&one[7]), arch.hidden_dim as u64 * layers);
        assert_eq!(per_position(&one[8]), 258);
        assert!(
            one.iter()
                .all(|range| range.peak_q16 > 0 && range.saturated == 0)
        );
    }
}
