//! Massive activations, as trained models have them at the first position of every text: a few channels of the residual
//! stream are thousands of times as large as the others there, and so are the products that write them.
//!
//! Weights that are planted in the first layer make them. A channel of the embedding is positive for half of the tokens
//! and negative for the others; one head copies it. At the first position the copy has its full size, later it is
//! the mean of ever more tokens and vanishes. Units of the feed-forward layer fire where it is large.

/// Channels of the stream: the sign of a token, its mean, one that is constant, and the two that become massive.
const SIGN: usize = 7;
const MEAN: usize = 11;
const CONSTANT: usize = 13;
const MASSIVE: [usize; 2] = [19, 23];
/// Units of the feed-forward layer: for a positive mean, for a negative one, for each channel.
const UNITS: [[usize; 2]; 2] = [[8, 9], [10, 11]];
/// The second massive channel, relative to the first.
const SECOND: f32 = 0.6;
/// What the units multiply their input by, and their output.
const GATE: f32 = 25.0;
const OUTPUT: f32 = 4.0;
/// The mean at which units fire, relative to the constant channel.
const THRESHOLD: f32 = 0.75;
/// The gain of what serves the units alone, wherever others read it.
const UNREAD: f32 = 0.05;
/// How large the outputs of layers are, as random models are made here.
const LAYER: f32 = 0.4;

/// How to make them in a model of other random weights, at least 64 wide.
#[derive(Debug, Clone, Copy)]
pub struct Massive {
    /// The root of the mean square of the embedding's weights.
    pub embedding: f32,
    /// How much larger outlier channels make a position's values.
    pub outliers: f32,
}

/// What is planted in one tensor.
#[derive(Debug, Clone, Default)]
pub struct Plants {
    /// Rows that have these weights alone.
    rows: Vec<(usize, Vec<(usize, f32)>)>,
    columns: Vec<(usize, Column)>,
}

#[derive(Debug, Clone, Copy)]
enum Column {
    /// The same in each row.
    Same(f32),
    /// By the row: positive for half of them.
    Signs(f32),
    /// Only in this row.
    Alone(usize, f32),
}

impl Plants {
    /// The weight that stands here, if one was planted.
    pub fn weight(&self, row: usize, column: usize) -> Option<f32> {
        let planted = self.rows.iter().find(|(planted, _)| *planted == row);
        if let Some((_, weights)) = planted {
            let weight = weights.iter().find(|(planted, _)| *planted == column);
            return Some(weight.map_or(0.0, |(_, weight)| *weight));
        }
        let planted = self.columns.iter().find(|(planted, _)| *planted == column);
        planted.map(|(_, kind)| match *kind {
            Column::Same(weight) => weight,
            Column::Signs(weight) if sign(row) => weight,
            Column::Signs(weight) => -weight,
            Column::Alone(at, weight) if at == row => weight,
            Column::Alone(..) => 0.0,
        })
    }
}

/// Half of all tokens.
fn sign(token: usize) -> bool {
    (token as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1
}

impl Massive {
    /// What stands in a tensor, by its name in Hugging Face's layout.
    pub fn plants(&self, tensor: &str) -> Plants {
        let size = 2.0 * self.embedding * self.outliers;
        // Twice what the values of a first position are after its attention.
        let after = self.outliers * (self.embedding.powi(2) + LAYER * LAYER).sqrt();
        let rows = |rows: Vec<(usize, Vec<(usize, f32)>)>| Plants {
            rows,
            columns: Vec::new(),
        };
        let columns = |columns: Vec<(usize, Column)>| Plants {
            rows: Vec::new(),
            columns,
        };
        let unit = |sign: f32, second: f32| vec![(MEAN, sign * GATE * second)];
        match tensor {
            "model.embed_tokens.weight" => columns(vec![
                (SIGN, Column::Signs(size)),
                (CONSTANT, Column::Same(size)),
                (MEAN, Column::Same(0.0)),
            ]),
            "model.layers.0.input_layernorm.weight" => columns(vec![
                (SIGN, Column::Same(1.0)),
                (CONSTANT, Column::Same(UNREAD)),
            ]),
            "model.layers.0.self_attn.v_proj.weight" => rows(vec![(0, vec![(SIGN, 1.0)])]),
            "model.layers.0.self_attn.o_proj.weight" => {
                rows(vec![(MEAN, vec![(0, after)]), (CONSTANT, Vec::new())])
            }
            "model.layers.0.post_attention_layernorm.weight" => columns(vec![
                (MEAN, Column::Same(1.0)),
                (CONSTANT, Column::Same(1.0)),
                (SIGN, Column::Same(UNREAD)),
            ]),
            "model.layers.0.mlp.gate_proj.weight" => rows(each_unit(|sign, _| {
                vec![(MEAN, sign * GATE), (CONSTANT, -THRESHOLD * GATE)]
            })),
            "model.layers.0.mlp.up_proj.weight" => rows(each_unit(unit)),
            "model.layers.0.mlp.down_proj.weight" => {
                let channels = UNITS.iter().flat_map(|units| units.iter().zip(MASSIVE));
                let column =
                    |(unit, channel): (&usize, usize)| (*unit, Column::Alone(channel, OUTPUT));
                columns(channels.map(column).collect())
            }
            _ if tensor.ends_with("norm.weight") => {
                let unread = [SIGN, MEAN, CONSTANT].map(|channel| (channel, Column::Same(UNREAD)));
                columns(unread.to_vec())
            }
            _ => Plants::default(),
        }
    }
}

/// The rows of all units: by the sign of the mean that they fire for, and their size.
fn each_unit(weights: impl Fn(f32, f32) -> Vec<(usize, f32)>) -> Vec<(usize, Vec<(usize, f32)>)> {
    let mut rows = Vec::new();
    for (units, sign) in UNITS.iter().zip([1.0, -1.0]) {
        for (unit, size) in units.iter().zip([1.0, SECOND]) {
            rows.push((*unit, weights(sign, size)));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_rows_have_nothing_else_and_other_weights_stay() {
        let massive = Massive {
            embedding: 0.5,
            outliers: 1.0,
        };
        let value = massive.plants("model.layers.0.self_attn.v_proj.weight");
        assert_eq!(value.weight(0, SIGN), Some(1.0));
        assert_eq!(value.weight(0, SIGN + 1), Some(0.0));
        assert_eq!(value.weight(1, SIGN), None);
        let down = massive.plants("model.layers.0.mlp.down_proj.weight");
        assert_eq!(down.weight(MASSIVE[1], UNITS[1][1]), Some(OUTPUT));
        assert_eq!(down.weight(MASSIVE[0], UNITS[1][1]), Some(0.0));
        assert_eq!(massive.plants("lm_head.weight").weight(0, SIGN), None);
        let embedding = massive.plants("model.embed_tokens.weight");
        let positive = |token: &usize| embedding.weight(*token, SIGN) == Some(1.0);
        let count = (0..1000).filter(positive).count();
        assert!((450..550).contains(&count), "{count}");
    }
}
