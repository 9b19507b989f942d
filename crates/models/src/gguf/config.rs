//! A GGUF file's sizes and rules as a `config.json`. A key of the architecture that is not known here is
//! refused: it could change what the model says.

use serde_json::{Value as Json, json};

use super::{Metadata, Value};
use crate::error::ImportError;

/// Keys of an architecture that are read here, or say nothing about the result.
const KNOWN: [&str; 18] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "expert_count",
    "expert_used_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
];
/// What the positions were scaled from, and that the model was trained so: notes for people.
const NOTES: [&str; 2] = [
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
];

/// Which of the families a file is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen2,
}

/// A model's sizes and rules.
pub(super) struct Shape {
    /// What the file calls itself.
    name: Option<String>,
    family: Family,
    layers: u32,
    context: u32,
    dim: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    epsilon: f64,
    theta: f64,
    /// What all angles are divided by.
    scale: Option<f64>,
    window: Option<u32>,
}

/// The keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn count(&self, key: &str) -> Result<Option<u32>, ImportError> {
        self.metadata.count(&self.key(key))
    }

    fn size(&self, key: &str) -> Result<u32, ImportError> {
        let size = self.count(key)?;
        size.ok_or_else(|| Metadata::refusal(&self.key(key), "is missing"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ImportError> {
        self.metadata.number(&self.key(key))
    }

    fn refusal(&self, key: &str, reason: impl Into<String>) -> ImportError {
        Metadata::refusal(&self.key(key), reason)
    }

    fn refuse_what_is_unknown(&self) -> Result<(), ImportError> {
        let prefix = format!("{}.", self.architecture);
        for key in self.metadata.0.keys() {
            let Some(rest) = key.strip_prefix(&prefix) else {
                continue;
            };
            if !KNOWN.contains(&rest) && !NOTES.contains(&rest) {
                return Err(Metadata::refusal(key, "is not a key that is known here"));
            }
        }
        Ok(())
    }

    /// What all angles are divided by, as llama.cpp reads it.
    fn rope_scale(&self) -> Result<Option<f64>, ImportError> {
        let kind = self.key("rope.scaling.type");
        match self.metadata.text(&kind)? {
            Some("none") => return Ok(None),
            // Where there is no type, llama.cpp takes a factor as a linear one.
            None | Some("linear") => {}
            Some(other) => {
                let reason = format!("is {other:?}; none and linear are supported");
                return Err(Metadata::refusal(&kind, reason));
            }
        }
        let factor = self.number("rope.scaling.factor")?;
        let older = self.number("rope.scale_linear")?;
        let factor = factor.filter(|factor| *factor != 0.0).or(older);
        Ok(factor.filter(|factor| *factor != 0.0 && *factor != 1.0))
    }
}

impl Shape {
    pub(super) fn read(metadata: &Metadata) -> Result<Self, ImportError> {
        refuse_other_files(metadata)?;
        let key = "general.architecture";
        let architecture = metadata.text(key)?;
        let family = match architecture {
            Some("llama") => Family::Llama,
            Some("qwen2") => Family::Qwen2,
            Some(other) => {
                let reason = format!("is {other:?}; llama and qwen2 are supported");
                return Err(Metadata::refusal(key, reason));
            }
            None => return Err(Metadata::refusal(key, "is missing")),
        };
        let keys = Keys {
            metadata,
            architecture: architecture.unwrap_or_default(),
        };
        keys.refuse_what_is_unknown()?;
        if keys.count("expert_count")?.unwrap_or(0) > 0 {
            return Err(keys.refusal("expert_count", "is above 0: mixtures are not supported"));
        }
        let dim = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        if heads == 0 {
            return Err(keys.refusal("attention.head_count", "is 0"));
        }
        let head_dim = keys.count("attention.key_length")?;
        let head_dim = head_dim.unwrap_or(dim / heads);
        if head_dim == 0 || head_dim % 2 == 1 {
            return Err(keys.refusal("attention.key_length", "is odd or 0"));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if keys.count(key)?.is_some_and(|width| width != head_dim) {
                return Err(keys.refusal(key, "differs from the width of a head"));
            }
        }
        let epsilon = "attention.layer_norm_rms_epsilon";
        let window = keys.count("attention.sliding_window")?;
        Ok(Self {
            name: metadata.text("general.name")?.map(str::to_owned),
            family,
            layers: keys.size("block_count")?,
            context: keys.size("context_length")?,
            dim,
            hidden: keys.size("feed_forward_length")?,
            heads,
            kv_heads: keys.count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            epsilon: keys
                .number(epsilon)?
                .ok_or_else(|| keys.refusal(epsilon, "is missing"))?,
            theta: keys.number("rope.freq_base")?.unwrap_or(10_000.0),
            scale: keys.rope_scale()?,
            window: window.filter(|window| *window > 0),
        })
    }

    /// The width of a head, where its queries and keys stand in pairs: llama.cpp turns neighbours of a Llama's
    /// heads, and halves of a Qwen's as Hugging Face's library does.
    pub(super) fn paired_head_dim(&self) -> Option<usize> {
        let head_dim = usize::try_from(self.head_dim).ok();
        head_dim.filter(|_| self.family == Family::Llama)
    }

    pub(super) fn config_json(
        &self,
        vocabulary: usize,
        tied_head: bool,
        end_tokens: &[u32],
    ) -> Vec<u8> {
        let family = match (self.family, self.window) {
            (Family::Llama, None) => "LlamaForCausalLM",
            (Family::Llama, Some(_)) => "MistralForCausalLM",
            (Family::Qwen2, _) => "Qwen2ForCausalLM",
        };
        let scaling = self
            .scale
            .map(|factor| json!({ "rope_type": "linear", "factor": factor }));
        let config = json!({
            "_name_or_path": self.name,
            "architectures": [family],
            "hidden_size": self.dim,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": vocabulary,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.epsilon,
            "hidden_act": "silu",
            "tie_word_embeddings": tied_head,
            "rope_theta": self.theta,
            "rope_scaling": scaling.unwrap_or(Json::Null),
            "sliding_window": self.window,
            "use_sliding_window": self.window.is_some(),
            "eos_token_id": end_tokens,
        });
        config.to_string().into_bytes()
    }
}

/// Adapters, projectors and parts of a model have the same form.
fn refuse_other_files(metadata: &Metadata) -> Result<(), ImportError> {
    let key = "general.type";
    if let Some(kind) = metadata.text(key)?
        && kind != "model"
    {
        let reason = format!("is {kind:?}; this file is no whole model");
        return Err(Metadata::refusal(key, reason));
    }
    let key = "split.count";
    if let Some(Value::Whole(2..)) = metadata.0.get(key) {
        let reason = "is above 1: join the parts with llama.cpp's llama-gguf-split --merge";
        return Err(Metadata::refusal(key, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn metadata(changes: &[(&str, Value)]) -> Metadata {
        let sizes = [
            ("block_count", 2),
            ("context_length", 256),
            ("embedding_length", 64),
            ("feed_forward_length", 192),
            ("attention.head_count", 4),
        ];
        let mut pairs = BTreeMap::new();
        for (key, size) in sizes {
            pairs.insert(format!("llama.{key}"), Value::Whole(size));
        }
        let mut put = |key: &str, value: Value| pairs.insert(key.to_owned(), value);
        put("general.architecture", Value::Text("llama".to_owned()));
        put(
            "llama.attention.layer_norm_rms_epsilon",
            Value::Number(1e-5),
        );
        for (key, value) in changes {
            put(key, value.clone());
        }
        Metadata(pairs)
    }

    fn config(changes: &[(&str, Value)]) -> Json {
        let shape = Shape::read(&metadata(changes)).unwrap();
        serde_json::from_slice(&shape.config_json(258, true, &[2])).unwrap()
    }

    #[test]
    fn what_a_file_leaves_out_is_what_llama_cpp_takes() {
        let config = config(&[]);
        assert_eq!(config["num_key_value_heads"], 4);
        assert_eq!(config["head_dim"], 16);
        assert_eq!(config["rope_theta"], 10_000.0);
        assert_eq!(config["rope_scaling"], Json::Null);
        // As people write it, and not the nearest number of 32 bits.
        assert_eq!(config["rms_norm_eps"], 1e-5);
    }

    #[test]
    fn linear_scaling_is_a_factor_with_or_without_its_name() {
        let factor = ("llama.rope.scaling.factor", Value::Number(4.0));
        let kind = |kind: &str| ("llama.rope.scaling.type", Value::Text(kind.to_owned()));
        let expected = json!({ "rope_type": "linear", "factor": 4.0 });
        assert_eq!(
            config(std::slice::from_ref(&factor))["rope_scaling"],
            expected
        );
        let named = config(&[factor.clone(), kind("linear")]);
        assert_eq!(named["rope_scaling"], expected);
        let none = config(&[factor.clone(), kind("none")]);
        assert_eq!(none["rope_scaling"], Json::Null);
        let older = config(&[("llama.rope.scale_linear", Value::Number(4.0))]);
        assert_eq!(older["rope_scaling"], expected);
        assert!(Shape::read(&metadata(&[factor, kind("yarn")])).is_err());
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_key() {
        let text = |text: &str| Value::Text(text.to_owned());
        let refused = [
            ("general.architecture", text("gemma3")),
            ("general.type", text("adapter")),
            ("split.count", Value::Whole(3)),
            ("llama.expert_count", Value::Whole(8)),
            ("llama.logit_scale", Value::Number(8.0)),
            ("llama.rope.dimension_count", Value::Whole(8)),
            ("llama.attention.value_length", Value::Whole(8)),
            ("llama.attention.key_length", Value::Whole(15)),
            ("llama.attention.head_count", Value::Whole(0)),
            ("llama.attention.head_count_kv", Value::Wholes(vec![1, 2])),
            ("llama.block_count", Value::Whole(-1)),
            ("llama.rope.freq_base", Value::Number(f32::NAN)),
        ];
        for (key, value) in refused {
            match Shape::read(&metadata(&[(key, value)])).err() {
                Some(ImportError::Metadata { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
}
