//! Rotary positions: the angle by which each pair of a head turns per position.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::ImportError;

/// `rope_scaling`, or `rope_parameters` of newer checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct RopeFields {
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    /// Keys of types that are refused by their name, and of what nobody here knows.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// How positions become angles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    theta: f64,
    scaling: Scaling,
    /// What each pair's angle is divided by, where a file says it pair by pair; empty where by nothing.
    divisors: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scaling {
    None,
    /// Every angle divided.
    Linear {
        factor: f64,
    },
    /// Slow angles divided, fast ones left, those between blended (Llama 3.1).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

impl Rope {
    pub(crate) fn new(
        theta: Option<f64>,
        scaling: Option<&RopeFields>,
        parameters: Option<&RopeFields>,
    ) -> Result<Self, ImportError> {
        if let (Some(scaling), Some(parameters)) = (scaling, parameters)
            && scaling != parameters
        {
            let reason =
                "rope_scaling and rope_parameters say different things; remove one of them";
            return Err(ImportError::Rope(reason.into()));
        }
        let none = RopeFields::default();
        let fields = parameters.or(scaling).unwrap_or(&none);
        let theta = fields.rope_theta.or(theta).unwrap_or(10_000.0);
        if !(1.0..=1e12).contains(&theta) {
            return Err(ImportError::Rope("rope_theta is out of bounds".into()));
        }
        if fields
            .partial_rotary_factor
            .is_some_and(|factor| factor != 1.0)
        {
            return Err(ImportError::Rope("only a part of each head turns".into()));
        }
        let kind = fields.rope_type.as_ref().or(fields.kind.as_ref());
        let scaling = match kind.map_or("default", String::as_str) {
            "default" => Scaling::None,
            "linear" => Scaling::Linear {
                factor: positive("factor", fields.factor)?,
            },
            "llama3" => Scaling::Llama3 {
                factor: positive("factor", fields.factor)?,
                low: positive("low_freq_factor", fields.low_freq_factor)?,
                high: positive("high_freq_factor", fields.high_freq_factor)?,
                original: positive(
                    "original_max_position_embeddings",
                    fields.original_max_position_embeddings,
                )?,
            },
            other => return Err(ImportError::Rope(format!("the type {other:?} is unknown"))),
        };
        if let Some(key) = fields.others.keys().next() {
            let reason = format!("the key {key:?} is not one that this type has");
            return Err(ImportError::Rope(reason));
        }
        if let Scaling::Llama3 { low, high, .. } = scaling
            && high <= low
        {
            return Err(ImportError::Rope(
                "high_freq_factor is not above low_freq_factor".into(),
            ));
        }
        Ok(Self {
            theta,
            scaling,
            divisors: Vec::new(),
        })
    }

    /// Divides each pair's angle: how GGUF files say Llama 3's scaling.
    pub(crate) fn divide(&mut self, divisors: &[f64], head_dim: usize) -> Result<(), ImportError> {
        if self.scaling != Scaling::None {
            let reason = "the file scales them by a factor and by a tensor";
            return Err(ImportError::Rope(reason.into()));
        }
        if divisors.len() != head_dim / 2 {
            let (found, pairs) = (divisors.len(), head_dim / 2);
            let reason = format!("there are {found} divisors for {pairs} pairs");
            return Err(ImportError::Rope(reason));
        }
        self.divisors = divisors.to_vec();
        Ok(())
    }

    /// The angle per position of each pair, in radians: `[head_dim / 2]`. In software, so that every
    /// machine gets the same bits.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2)
            .map(|pair| {
                let exponent = to_f64(2 * pair) / to_f64(head_dim);
                let frequency = self.scaling.apply(1.0 / libm::pow(self.theta, exponent));
                frequency / self.divisors.get(pair).copied().unwrap_or(1.0)
            })
            .collect()
    }

    /// Cosines and sines in Q30: `[context, head_dim / 2]` each, little-endian, as the engine takes
    /// them.
    pub(crate) fn tables(&self, context: usize, head_dim: usize) -> (Vec<u8>, Vec<u8>) {
        let frequencies = self.frequencies(head_dim);
        let bytes = 4 * context * frequencies.len();
        let (mut cosines, mut sines) = (Vec::with_capacity(bytes), Vec::with_capacity(bytes));
        for position in 0..context {
            for frequency in &frequencies {
                let (sine, cosine) = libm::sincos(to_f64(position) * frequency);
                cosines.extend(q30(cosine).to_le_bytes());
                sines.extend(q30(sine).to_le_bytes());
            }
        }
        (cosines, sines)
    }
}

impl Scaling {
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                // How often the pair turns within the context that the model was first trained on.
                let turns = original * frequency / std::f64::consts::TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

fn positive(name: &str, value: Option<f64>) -> Result<f64, ImportError> {
    match value {
        Some(value) if (1e-6..=1e9).contains(&value) => Ok(value),
        _ => Err(ImportError::Rope(format!(
            "{name} is missing or out of bounds"
        ))),
    }
}

/// Exact: sizes and positions are far below 2^53.
fn to_f64(n: usize) -> f64 {
    n as f64
}

fn q30(value: f64) -> i32 {
    (value * 1_073_741_824.0).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: &str) -> Result<Rope, ImportError> {
        let fields: RopeFields = serde_json::from_str(scaling).unwrap();
        Rope::new(Some(500_000.0), Some(&fields), None)
    }

    #[test]
    fn llama_3_keeps_fast_pairs_and_slows_slow_ones() {
        let scaled = rope(
            r#"{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
                "original_max_position_embeddings":8192}"#,
        )
        .unwrap()
        .frequencies(128);
        let plain = rope("{}").unwrap().frequencies(128);
        assert_eq!(plain[0], 1.0);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        let ratios = scaled
            .iter()
            .zip(&plain)
            .map(|(scaled, plain)| scaled / plain);
        assert!(ratios.is_sorted_by(|a, b| a >= b));
        let between = scaled
            .iter()
            .zip(&plain)
            .filter(|(scaled, plain)| (0.13..0.99).contains(&(*scaled / *plain)));
        // From the 28th pair (wavelength 2048 and up) to the 35th (8192 and up).
        assert!((5..9).contains(&between.count()));
    }

    #[test]
    fn positions_become_cosines_and_sines_in_q30() {
        let (cos, sin) = rope(r#"{"type":"linear","factor":2.0}"#)
            .unwrap()
            .tables(3, 4);
        let word =
            |bytes: &[u8], i: usize| i32::from_le_bytes(bytes[4 * i..][..4].try_into().unwrap());
        assert_eq!((word(&cos, 0), word(&sin, 0)), (1 << 30, 0));
        // Position 2 of a pair that turns by half a radian.
        assert_eq!(
            word(&cos, 4),
            (1.0_f64.cos() * f64::from(1 << 30)).round() as i32
        );
        assert_eq!(
            word(&sin, 4),
            (1.0_f64.sin() * f64::from(1 << 30)).round() as i32
        );
    }

    #[test]
    fn unknown_and_incomplete_scalings_are_refused() {
        for scaling in [
            r#"{"rope_type":"yarn","factor":4.0}"#,
            r#"{"type":"dynamic","factor":4.0}"#,
            r#"{"type":"linear"}"#,
            r#"{"rope_type":"llama3","factor":8.0}"#,
            r#"{"rope_type":"linear","factor":-1.0}"#,
            r#"{"partial_rotary_factor":0.5}"#,
        ] {
            assert!(
                matches!(rope(scaling), Err(ImportError::Rope(_))),
                "{scaling}"
            );
        }
    }
}
