//! Keys that stand out. Rotary positions turn pairs of a head, so a head's queries and keys cannot be
//! turned like values; but a pair of keys can be divided by what the same pair of queries is multiplied by,
//! and all scores stay what they were. Some models (Qwen2, by its biases) have pairs of keys that are
//! a hundred times the others, which would leave int8 nothing for those.

use crate::affine::Affine;
use crate::config::Config;

/// Pairs are moved by at most this factor: beyond, the estimate is not to be trusted.
const FACTOR_MAX: f32 = 64.0;

/// Makes queries and keys of each pair about equally large, which leaves the least of the largest
/// elements on both sides.
pub(crate) fn pairs(config: &Config, query: &mut Affine, key: &mut Affine) {
    let half = config.head_dim / 2;
    let group = config.heads / config.kv_heads;
    for kv_head in 0..config.kv_heads {
        for pair in 0..half {
            let rows = |head: usize| {
                let first = head * config.head_dim + pair;
                [first, first + half]
            };
            let query_heads = kv_head * group..(kv_head + 1) * group;
            let query_rows: Vec<usize> = query_heads.flat_map(rows).collect();
            let key_rows = rows(kv_head);
            let of_query = query.mean_square(&query_rows, config.dim);
            let of_key = key.mean_square(&key_rows, config.dim);
            if of_query > 0.0 && of_key > 0.0 {
                let factor = (of_key / of_query).sqrt().sqrt();
                let factor = (factor as f32).clamp(1.0 / FACTOR_MAX, FACTOR_MAX);
                query.scale_rows(&query_rows, config.dim, factor);
                key.scale_rows(&key_rows, config.dim, 1.0 / factor);
            }
        }
    }
}
